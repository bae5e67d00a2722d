"""The exit's status as Prometheus metrics, in its text format (`ocgate metrics`).

One source: everything here comes from the status document, so the two never disagree. Imported when
somebody asks, as its library takes 80 ms.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from ocgate.exit_node.state_machine import Phase
from ocgate.exit_node.status_schema import ExitRoleStatus, TunnelStatus
from ocgate.runtime.metrics_page import blocked, page, repairs

if TYPE_CHECKING:
    from prometheus_client import Metric


def render(status: ExitRoleStatus) -> bytes:
    """The metrics page of this status."""
    return page(lambda: _families(status))


def _families(status: ExitRoleStatus) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily

    switch, probe = status["switch"], status["probe"]
    versions = {"version": status["version"], "role": status["role"]}
    yield InfoMetricFamily("ocgate_build", "Versions of what runs.", value=versions)
    healthy = "1 while the exit is healthy, as `ocgate healthcheck` says."
    yield GaugeMetricFamily("ocgate_healthy", healthy, value=float(status["healthy"]))
    intact = "1 while the kernel holds exactly what was planned."
    yield GaugeMetricFamily("ocgate_guard_intact", intact, value=float(switch["intact"]))
    yield repairs(switch["repairs"])
    yield from _tunnel(status["tunnel"])
    if probe["rtt"] is not None:
        words = "The measured round trip of probes."
        yield GaugeMetricFamily("ocgate_tunnel_probe_rtt_seconds", words, value=probe["rtt"])
    if probe["heard"] is not None:
        words = "Seconds since anything came back through the tunnel."
        yield GaugeMetricFamily("ocgate_tunnel_heard_seconds", words, value=probe["heard"])
    words = "Probes that wait for an answer longer than one should take."
    yield GaugeMetricFamily("ocgate_tunnel_probes_late", words, value=probe["late"])
    yield from blocked(status["blocked"])


def _tunnel(tunnel: TunnelStatus) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    up = GaugeMetricFamily(
        "ocgate_tunnel_up", "1 while the tunnel stands and answers.", labels=("kind",)
    )
    up.add_metric((tunnel["kind"],), float(tunnel["state"] == Phase.UP.value))
    state = GaugeMetricFamily(
        "ocgate_tunnel_state", "1 for the state that the tunnel is in.", labels=("state",)
    )
    for phase in Phase:
        state.add_metric((phase.value,), float(phase.value == tunnel["state"]))
    since = GaugeMetricFamily(
        "ocgate_tunnel_since_seconds",
        "When the tunnel came into its state, in seconds since the epoch.",
        value=datetime.fromisoformat(tunnel["since"]).timestamp(),
    )
    attempts = CounterMetricFamily(
        "ocgate_tunnel_attempts", "Tunnels that were begun.", value=tunnel["attempts"]
    )
    failures = GaugeMetricFamily(
        "ocgate_tunnel_failures",
        "Failed attempts in a row, since the tunnel was well last.",
        value=tunnel["failures"],
    )
    received = CounterMetricFamily(
        "ocgate_tunnel_receive_bytes", "Bytes that came by the tunnel.", value=tunnel["bytes_in"]
    )
    sent = CounterMetricFamily(
        "ocgate_tunnel_transmit_bytes", "Bytes that went by it.", value=tunnel["bytes_out"]
    )
    yield from (up, state, since, attempts, failures, received, sent)

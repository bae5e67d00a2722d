"""The status as Prometheus metrics, in its text format (`ocgate metrics`).

One source: everything here comes from the status document, so the two never disagree. No series of
a single user or session: their names are personal, and their number has no bound. Its library
is imported when somebody asks (`runtime.metrics_page`).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from ocgate.runtime.metrics_page import blocked, page, repairs
from ocgate.server.status.schema import (
    ExitStatus,
    FlowsStatus,
    ReachedStatus,
    Status,
)

if TYPE_CHECKING:
    from prometheus_client import Metric

_WATCHED = {"up": 1, "down": 0, "unknown": 0}


def render(status: Status) -> bytes:
    """The metrics page of this status."""
    return page(lambda: _families(status))


def _families(status: Status) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily

    server, network = status["server"], status["network"]
    versions = {"version": server["version"], "ocserv_version": server["ocserv_version"]}
    yield InfoMetricFamily("ocgate_build", "Versions of what runs.", value=versions)
    healthy = "1 while the server is healthy, as `ocgate healthcheck` says."
    yield GaugeMetricFamily("ocgate_healthy", healthy, value=float(status["healthy"]))
    yield GaugeMetricFamily("ocgate_sessions", "VPN sessions.", value=status["session_count"])
    intact = "1 while the kernel holds exactly what was planned."
    yield GaugeMetricFamily("ocgate_guard_intact", intact, value=float(network["guard"]))
    yield repairs(network["repairs"])
    yield from _exits([found for found in status["exits"] if found["state"] in _WATCHED])
    yield from _networks(status["networks"])
    yield from _flows(status["flows"])
    yield from _upkeep(status)
    yield from blocked(status["blocked"])


def _flows(flows: FlowsStatus) -> Iterator[Metric]:
    """What all sessions share."""
    from prometheus_client.core import GaugeMetricFamily

    words = "Entries of connection tracking."
    yield GaugeMetricFamily("ocgate_conntrack_entries", words, value=flows["entries"])
    words = "How many entries connection tracking may have."
    yield GaugeMetricFamily("ocgate_conntrack_entries_limit", words, value=flows["most"])
    words = "Translated ports that clients' flows towards one destination share."
    yield GaugeMetricFamily("ocgate_destination_ports", words, value=flows["ports"])
    words = "Of these, used by the destination with the most; 0 while it can't be 9 in 10."
    used = flows["ports_used"] or 0
    yield GaugeMetricFamily("ocgate_destination_ports_used", words, value=used)


def _upkeep(status: Status) -> Iterator[Metric]:
    """Certificates by their virtual host, and whether the history is whole."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    end = GaugeMetricFamily(
        "ocgate_certificate_not_after_seconds",
        "When the first of the virtual host's certificates ends, in seconds since the epoch.",
        labels=("vhost",),
    )
    ends: dict[str, float] = {}
    for found in status["certificates"]:
        if found["not_after"] is not None:
            moment = datetime.fromisoformat(found["not_after"]).timestamp()
            ends[found["vhost"]] = min(moment, ends.get(found["vhost"], moment))
    for vhost, moment in ends.items():
        end.add_metric((vhost,), moment)
    yield end
    renewal = "1 while certificate files can't be used as they are, and the former ones stay."
    trouble = float(bool(status["certificate_trouble"]))
    yield GaugeMetricFamily("ocgate_certificate_trouble", renewal, value=trouble)
    lost = "Completed sessions that could not be written down."
    yield CounterMetricFamily("ocgate_history_lost", lost, value=status["history"]["lost"])


def _exits(exits: list[ExitStatus]) -> Iterator[Metric]:
    """Of gateways; `direct` and `block` are not probed and have no health."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    labels = ("exit", "family")
    up = GaugeMetricFamily(
        "ocgate_exit_up", "1 while clients may use the gateway and it answers.", labels=labels
    )
    since = GaugeMetricFamily(
        "ocgate_exit_since_seconds",
        "When the gateway came into its state, in seconds since the epoch.",
        labels=labels,
    )
    rtt = GaugeMetricFamily(
        "ocgate_exit_probe_rtt_seconds",
        "The measured round trip of probes.",
        labels=labels,
    )
    heard = GaugeMetricFamily(
        "ocgate_exit_heard_seconds",
        "Seconds since anything came back through the gateway.",
        labels=labels,
    )
    late = GaugeMetricFamily(
        "ocgate_exit_probes_late",
        "Probes that wait for an answer longer than one should take.",
        labels=labels,
    )
    turns = CounterMetricFamily(
        "ocgate_exit_transitions", "Changes between up and down.", labels=labels
    )
    for found in exits:
        values = (found["exit"], str(found["family"]))
        up.add_metric(values, _WATCHED[found["state"]])
        turns.add_metric(values, found["transitions"])
        if found["since"] is not None:
            since.add_metric(values, datetime.fromisoformat(found["since"]).timestamp())
        if found["rtt"] is not None:
            rtt.add_metric(values, found["rtt"])
        if found["heard"] is not None:
            heard.add_metric(values, found["heard"])
        late.add_metric(values, found["late"])
    yield from (up, since, rtt, heard, late, turns)


def _networks(networks: list[ReachedStatus]) -> Iterator[Metric]:
    """Of OCGATE_NETWORKS: as many series as the operator wrote entries."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    if not networks:
        return
    labels = ("network", "device")
    up = GaugeMetricFamily(
        "ocgate_network_up", "1 while clients can reach the permitted network.", labels=labels
    )
    packets = CounterMetricFamily(
        "ocgate_network_packets", "Packets from clients to it.", labels=labels
    )
    size = CounterMetricFamily("ocgate_network_bytes", "Bytes from clients to it.", labels=labels)
    for found in networks:
        values = (found["network"], found["device"])
        up.add_metric(values, float(found["state"] == "up"))
        packets.add_metric(values, found["packets"])
        size.add_metric(values, found["bytes"])
    yield from (up, packets, size)

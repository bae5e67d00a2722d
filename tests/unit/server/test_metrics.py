"""Metrics say what the status says, and nothing of single users."""

from __future__ import annotations

import subprocess
import sys

from prometheus_client.parser import text_string_to_metric_families

from ocgate.runtime.counters import BlockedStatus
from ocgate.server.status.metrics import render
from ocgate.server.status.schema import (
    CertificateStatus,
    ExitStatus,
    HistoryStatus,
    ReachedStatus,
    SessionStatus,
    Status,
)

NETWORK = ReachedStatus(
    network="10.77.0.0/24",
    device="lan0",
    via=None,
    state="down",
    why="lan0 is down",
    packets=7,
    bytes=700,
)
EXIT = ExitStatus(
    exit="default",
    family=4,
    gateway="nl.example",
    address="172.28.0.3",
    device="eth1",
    state="up",
    since="2026-03-01T00:00:00Z",
    why="1.1.1.1:443 answered",
    rtt=0.012,
    heard=0.5,
    late=2,
    transitions=3,
)
STATUS = Status(
    schema=1,
    at="2026-03-01T12:00:00Z",
    healthy=True,
    reasons=[],
    server={
        "version": "0.1.0",
        "since": "2026-03-01T10:00:00Z",
        "ocserv_version": "1.1.6",
        "ocserv_since": None,
        "listening": [],
        "config_dir": "/etc/ocserv",
        "run_dir": "/run/ocgate",
        "url": None,
    },
    network={
        "wan_if": None,
        "vpn_if": "vpns+",
        "subnets4": [],
        "subnets6": [],
        "ipv6_mode": "off",
        "ipv6_reason": "",
        "forwarding4": True,
        "forwarding6": False,
        "guard": True,
        "repairs": 2,
        "last_repair": "table ocserv is gone",
    },
    networks=[NETWORK],
    exits=[EXIT],
    flows={
        "entries": 900,
        "most": 1000,
        "per_session": 250,
        "ports": 4535,
        "ports_used": 4100,
        "busiest": "198.51.100.53 udp 53",
    },
    session_count=7,
    sessions=[
        SessionStatus(
            worker=7,
            user="alice",
            vhost="",
            device="vpns0",
            address4="10.10.10.5",
            address6=None,
            peer="192.0.2.9",
            since="2026-03-01T11:00:00Z",
            bytes_in=1,
            bytes_out=2,
            limited=False,
        )
    ],
    blocked=[BlockedStatus(reason="spoofed_source", packets=12, bytes=700, explanation="x")],
    certificates=[
        CertificateStatus(vhost="default", file="a", names=[], not_after=end, since=None)
        for end in ("2026-03-02T00:00:00Z", "2026-03-01T00:00:00Z", None)
    ],
    certificate_trouble="",
    history=HistoryStatus(file="h", written=1, waiting=0, lost=4, trouble=""),
)


def samples(status: Status) -> dict[str, float]:
    """`name{label=value,…}` -> value, as a scraper reads the page."""
    families = text_string_to_metric_families(render(status).decode())
    return {
        s.name + "".join(f"/{k}={v}" for k, v in sorted(s.labels.items())): s.value
        for family in families
        for s in family.samples
    }


def test_every_figure_is_the_status_documents() -> None:
    default4 = "/exit=default/family=4"
    office = "/device=lan0/network=10.77.0.0/24"
    assert samples(STATUS) == {
        "ocgate_build_info/ocserv_version=1.1.6/version=0.1.0": 1,
        "ocgate_healthy": 1,
        "ocgate_sessions": 7,
        "ocgate_guard_intact": 1,
        "ocgate_conntrack_entries": 900,
        "ocgate_conntrack_entries_limit": 1000,
        "ocgate_destination_ports": 4535,
        "ocgate_destination_ports_used": 4100,
        "ocgate_repairs_total": 2,
        f"ocgate_exit_up{default4}": 1,
        f"ocgate_exit_since_seconds{default4}": 1772323200,
        f"ocgate_exit_probe_rtt_seconds{default4}": 0.012,
        f"ocgate_exit_heard_seconds{default4}": 0.5,
        f"ocgate_exit_probes_late{default4}": 2,
        f"ocgate_exit_transitions_total{default4}": 3,
        f"ocgate_network_up{office}": 0,
        f"ocgate_network_packets_total{office}": 7,
        f"ocgate_network_bytes_total{office}": 700,
        "ocgate_certificate_not_after_seconds/vhost=default": 1772323200,
        "ocgate_certificate_trouble": 0,
        "ocgate_history_lost_total": 4,
        "ocgate_blocked_packets_total/reason=spoofed_source": 12,
        "ocgate_blocked_bytes_total/reason=spoofed_source": 700,
    }


def test_an_exit_that_is_down_or_not_probed_yet_is_not_up() -> None:
    for state in ("down", "unknown"):
        found = samples(STATUS | {"exits": [EXIT | {"state": state, "since": None, "rtt": None}]})
        assert found["ocgate_exit_up/exit=default/family=4"] == 0
        assert not [name for name in found if "since" in name or "rtt" in name]


def test_exits_without_a_gateway_have_no_health() -> None:
    for state in ("direct", "block"):
        found = samples(STATUS | {"exits": [EXIT | {"state": state}]})
        assert not [name for name in found if "exit" in name]


def test_nothing_of_a_single_user_is_told() -> None:
    page = render(STATUS).decode()
    assert "alice" not in page
    assert "10.10.10.5" not in page


def test_a_restarted_control_plane_imports_neither_metrics_nor_dns() -> None:
    """Their imports would take 140 ms of the two seconds in which it is back."""
    code = (
        "import sys; import ocgate.server.daemon, ocgate.server.exits.watch, "
        "ocgate.server.status.metrics;"
        "print([m for m in ('dns', 'prometheus_client') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

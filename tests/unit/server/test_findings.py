"""What doctor makes of a status: each trouble is found, with a remedy, and health finds none."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from ocgate.server.status.findings import Verdict, of_status
from ocgate.server.status.schema import Status

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


SOUND: dict[str, Any] = {
    "at": iso(NOW),
    "healthy": True,
    "reasons": [],
    "server": {"ocserv_version": "1.3.0", "listening": ["tcp 443"], "url": "https://a.example.org"},
    "network": {"guard": True, "repairs": 0, "last_repair": "", "wan_if": "eth0",
                "forwarding4": True},
    "networks": [
        {
            "network": "10.77.0.0/24",
            "device": "lan0",
            "via": None,
            "state": "up",
            "why": "",
            "packets": 7,
            "bytes": 700,
        }
    ],
    "exits": [
        {"exit": "default", "family": 4, "gateway": "nl", "address": "172.28.0.2", "state": "up",
         "why": "1.1.1.1:443 answered", "heard": 0.4, "late": 0},
    ],
    "flows": {"entries": 899, "most": 1000, "per_session": 250, "ports": 800, "ports_used": 719,
              "busiest": "198.51.100.53 udp 53"},
    "session_count": 2,
    "sessions": [],
    "certificates": [
        {"vhost": "default", "file": "c.pem", "names": ["*.example.org"], "since": None,
         "not_after": iso(NOW + timedelta(days=60))},
    ],
    "certificate_trouble": "",
    "history": {"file": "h", "written": 1, "waiting": 0, "lost": 0, "trouble": ""},
}  # fmt: skip


def to_do(status: dict[str, Any]) -> list[tuple[Verdict, str]]:
    found = list(of_status(cast(Status, status), now=NOW))
    assert all(finding.remedy for finding in found if finding.to_do)
    return [(finding.verdict, finding.says) for finding in found if finding.to_do]


def test_a_sound_server_needs_nothing() -> None:
    assert to_do(SOUND) == []


TROUBLES: dict[str, tuple[tuple[str, ...], object, Verdict, str]] = {
    "reason": (("reasons",), ["ocserv does not run"], Verdict.ERROR, "ocserv does not run"),
    "repairs": (("network", "repairs"), 3, Verdict.WARNING, "put right 3 times"),
    "no route": (("network", "wan_if"), None, Verdict.WARNING, "no default route"),
    "conntrack": (("flows", "entries"), 900, Verdict.WARNING, "900 of 1000 entries"),
    "ports": (("flows", "ports_used"), 720, Verdict.WARNING, "towards 198.51.100.53 udp 53"),
    "forwarding": (("network", "forwarding4"), False, Verdict.ERROR, "not forwarded"),
    "certificate soon": (
        ("certificates", "0", "not_after"),
        iso(NOW + timedelta(days=13)),
        Verdict.WARNING,
        "it ends in 13 days",
    ),
    "certificate gone": (
        ("certificates", "0", "not_after"),
        iso(NOW - timedelta(days=1)),
        Verdict.ERROR,
        "it has expired",
    ),
    "certificate's name": (
        ("server", "url"),
        "https://a.b.example.org:444",
        Verdict.WARNING,
        "no certificate is for that name",
    ),
    "renewal": (("certificate_trouble",), "half", Verdict.WARNING, "half"),
    "history": (("history", "trouble"), "full", Verdict.WARNING, "full"),
    "network": (("networks", "0", "state"), "down", Verdict.WARNING, "is rejected until it comes"),
    "exit": (("exits", "0", "state"), "down", Verdict.WARNING, "nl: 1.1.1.1:443 answered"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_each_trouble_is_found(trouble: str) -> None:
    path, value, verdict, words = TROUBLES[trouble]
    status = copy.deepcopy(SOUND)
    at: Any = status
    for key in path[:-1]:
        at = at[int(key)] if isinstance(at, list) else at[key]
    at[path[-1]] = value
    ((found, says),) = to_do(status)
    assert found is verdict
    assert words in says


def test_a_gateway_without_an_address_is_a_matter_of_its_name() -> None:
    status = copy.deepcopy(SOUND)
    status["exits"][0] |= {"state": "down", "address": None, "why": "its name has not resolved"}
    (finding,) = [f for f in of_status(cast(Status, status), now=NOW) if f.to_do]
    assert finding.remedy.startswith("Correct the gateway's name")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"state": "down", "heard": None}, "nobody behind it answers: name targets in EXIT_PROBE"),
        ({"state": "up", "late": 12}, "name targets in EXIT_PROBE that answer behind"),
    ],
)
def test_of_targets_that_never_answer_the_setting_is_named(
    changed: dict[str, Any], words: str
) -> None:
    """Also while clients' traffic shows that the exit leads out."""
    status = copy.deepcopy(SOUND)
    status["exits"][0] |= changed
    remedies = [finding.remedy or "" for finding in of_status(cast(Status, status), now=NOW)]
    assert [remedy for remedy in remedies if words in remedy]


def test_whom_a_limit_of_flows_refused_is_named_and_nothing_is_to_do() -> None:
    status = copy.deepcopy(SOUND)
    status["sessions"] = [{"user": "alice", "limited": True}, {"user": "bob", "limited": False}]
    found = [f for f in of_status(cast(Status, status), now=NOW) if f.check == "limits of flows"]
    assert [(f.verdict, f.to_do) for f in found] == [(Verdict.NOTE, False)]
    assert "alice" in found[0].says
    assert "bob" not in found[0].says

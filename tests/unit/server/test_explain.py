"""Which way each destination takes, as told: one line per decision of the planner."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, ip_address

import pytest

from ocgate.errors import OcgateError
from ocgate.plan.exits import Exits, ExitState
from ocgate.server.desired.prepare import Ipv6Egress, Prepared, prepare
from ocgate.server.status.explain import answer, explain
from ocgate.sessions.session import Session
from support.sources import CONF, facts, interface, sources

FACTS = facts(
    interface(2, "eth0", "192.168.0.10/24", "2001:db8::10/64"),
    interface(3, "eth1", "172.28.0.10/24"),
    default4="eth0",
    default6="eth0",
    connected={
        "192.168.0.0/24": "eth0",
        "172.28.0.0/24": "eth1",
        "2001:db8::/64": "eth0",
    },
)
GATEWAY = ip_address("172.28.0.2")
BY_GATEWAY = {"VPN_GATEWAY": "172.28.0.2"}


def prepared(conf: str = CONF, down: str = "", **environ: str) -> Prepared:
    exits = Exits(ExitState(GATEWAY, down)) if "VPN_GATEWAY" in environ else Exits()
    return prepare(sources(conf, **environ), FACTS, Ipv6Egress(None), exits)


def told(made: Prepared, to: str) -> tuple[str, str, str]:
    found = explain(made, "alice", ip_address(to), ())
    assert found.steps
    assert found.arrives is (found.verdict not in ("rejected", "dropped"))
    return found.verdict, found.way, found.reason


@pytest.mark.parametrize(
    ("to", "verdict", "way", "reason"),
    [
        ("1.1.1.1", "gateway", "via 172.28.0.2 dev eth1", ""),
        ("10.99.0.1", "gateway", "via 172.28.0.2 dev eth1", ""),  # a private network beyond it
        ("172.28.0.2", "rejected", "", "local_destination"),
        ("172.28.0.77", "rejected", "", "local_destination"),
        ("192.168.0.1", "rejected", "", "local_destination"),
        ("169.254.169.254", "rejected", "", "link_local_destination"),
        ("192.168.0.10", "rejected", "", "input_closed"),
        ("10.10.10.1", "host", "", ""),
        ("10.10.10.9", "rejected", "", "between_clients"),
        ("224.0.0.251", "dropped", "", "link_local"),
        ("2606:4700::1111", "rejected", "", "ipv6_rejected"),
    ],
)
def test_by_a_gateway(to: str, verdict: str, way: str, reason: str) -> None:
    assert told(prepared(**BY_GATEWAY), to) == (verdict, way, reason)


def test_beside_a_gateway_of_the_other_family_networks_of_this_host_are_closed() -> None:
    """IPv6 by this host, and IPv4 by it; but not where nothing leaves by a gateway."""
    six = {"IPV6_NAT": "1"}
    beside = prepared(**BY_GATEWAY, VPN_GATEWAY6="direct", **six)
    assert told(beside, "2606:4700::1111")[0] == "direct"
    assert told(beside, "2001:db8::77") == ("rejected", "", "local_destination")
    beside = prepared(VPN_GATEWAY="direct", VPN_GATEWAY6="2001:db8::3", **six)
    assert told(beside, "1.1.1.1")[0] == "direct"
    assert told(beside, "192.168.0.1") == ("rejected", "", "local_destination")
    direct = prepared(VPN_GATEWAY="direct", VPN_GATEWAY6="direct", **six)
    assert told(direct, "2001:db8::77")[0] == told(direct, "192.168.0.1")[0] == "direct"


@pytest.mark.parametrize(
    ("to", "verdict", "way", "reason"),
    [
        ("1.1.1.1", "direct", "dev eth0", ""),
        ("192.168.0.1", "direct", "dev eth0", ""),
        ("172.28.0.77", "rejected", "", "no_exit"),
        ("169.254.169.254", "rejected", "", "link_local_destination"),
        ("10.10.10.9", "rejected", "", "between_clients"),
        ("172.28.0.10", "rejected", "", "input_closed"),
        ("2606:4700::1111", "outside", "", ""),
    ],
)
def test_without_a_gateway(to: str, verdict: str, way: str, reason: str) -> None:
    assert told(prepared(), to) == (verdict, way, reason)


def test_a_gateway_that_is_down_rejects_all_but_the_server_itself() -> None:
    made = prepared(down="no answer", **BY_GATEWAY)
    found = explain(made, "alice", ip_address("1.1.1.1"), ())
    assert (found.verdict, found.reason) == ("rejected", "exit_closed")
    assert found.why.startswith("VPN_GATEWAY can't be used now: no answer")
    assert found.why.endswith("flows that exist wait for it to answer")
    assert told(made, "10.10.10.1")[0] == "host"
    assert told(prepared(VPN_GATEWAY="block"), "1.1.1.1")[2] == "exit_closed"


def test_what_is_not_pushed_stays_outside() -> None:
    """A split tunnel, and a hole in a full one."""
    split = prepared(CONF.replace("route = default", "route = 10.0.0.0/255.0.0.0"), **BY_GATEWAY)
    assert told(split, "1.1.1.1")[0] == "outside"
    assert told(split, "10.1.1.1")[0] == "gateway"
    hole = prepared(CONF + "no-route = 1.1.1.0/24\n", **BY_GATEWAY)
    assert told(hole, "1.1.1.1")[0] == "outside"
    assert told(hole, "1.1.2.1")[0] == "gateway"


def test_the_answer_names_the_latest_session_of_that_user() -> None:
    def session(user: str, device: str, at: float) -> Session:
        address = IPv4Address("10.10.10.2")
        return Session(1, 1, device, user, "default", address, None, "192.0.2.1", at)

    live = [session("alice", "vpns0", 1.0), session("alice", "vpns1", 2.0), session("bob", "v2", 3)]
    asked = {"USERNAME": b"alice", "DESTINATION": b"1.1.1.1"}
    found = json.loads(answer(prepared(), live, asked))
    assert (found["session"], found["arrives"], found["family"]) == ("vpns1", True, 4)
    with pytest.raises(OcgateError, match="DEST"):
        answer(prepared(), live, {"USERNAME": b"a", "DESTINATION": b"nowhere"})

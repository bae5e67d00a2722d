"""One client opens as many flows as it can; real ocserv and openconnect, by an upstream."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from t3_ground import LabFactory
from t5_chain import Chain, chain, conversation

from ocgate.lab import client as vpn
from ocgate.lab.client import Client
from ocgate.lab.inject import into_tun
from ocgate.lab.packet import build_udp
from ocgate.lab.services import ECHO_PORT
from ocgate.lab.topology import SERVICE, Lab, Options
from ocgate.lab.traffic import ask_tcp, ask_udp
from ocgate.lab.upstream import Upstream
from ocgate.lab.wait import wait_until

pytestmark = pytest.mark.lab

# The kernel's own ports leave 2,260 to clients' flows, so that a flood takes them in seconds.
LOCAL_PORTS = "12500 64000"
PATIENCE = 60.0  # seconds; busy cores pass 1,000 packets a second through ocserv
BATCH = 200


def few_ports(built: Lab, _: Upstream) -> None:
    built.gw.netns.sysctl("net/ipv4/ip_local_port_range", LOCAL_PORTS)
    # A flood on busy cores must not end before it has its effect.
    built.gw.netns.sysctl("net/netfilter/nf_conntrack_udp_timeout", 300)


def flood(client: Client, until: Callable[[], bool]) -> None:
    """The first packet of one flow after the other, each from another port, to one service; then
    from the first port again, because some were lost on the way into the tunnel."""
    ports = _ports()

    def some() -> bool:
        packets = (build_udp(client.address, SERVICE, next(ports), ECHO_PORT, b"!") for _ in batch)
        into_tun(client.netns, vpn.TUN, *packets)
        return until()

    batch = range(BATCH)
    wait_until(some, PATIENCE, "the flood to have its effect")


def _ports() -> Iterator[int]:
    while True:
        yield from range(1024, 65536)


def answered(client: Client) -> tuple[int, int]:
    """Of eight new flows each by UDP and TCP to the same address and port, how many are."""
    udp = sum(bool(ask_udp(client.netns, SERVICE, timeout=1.0)) for _ in range(8))
    tcp = sum(bool(ask_tcp(client.netns, SERVICE, timeout=1.0)) for _ in range(8))
    return udp, tcp


def entries(g: Chain) -> int:
    return int(g.gateway.netns.sysctl("net/netfilter/nf_conntrack_count"))


def refused(g: Chain) -> int:
    reasons = ("flow_rate", "flow_limit", "destination_limit")
    return sum(b["packets"] for b in g.gateway.status()["blocked"] if b["reason"] in reasons)


def test_one_client_does_not_take_the_ports_of_all_others(lab: LabFactory) -> None:
    """T9. Positive control: without a limit others get no UDP flow to that service any more."""
    options, off = Options(clients=2, upstream=True), {"OCGATE_SESSION_FLOWS": "0"}
    g = chain(lab, options, toml=off, before=few_ports)
    g.wait_up()
    alice, bob = g.connect(0), g.connect(1)
    assert answered(bob) == (8, 8)
    ports = g.gateway.status()["flows"]["ports"]
    assert ports < 2500
    flood(alice, lambda: entries(g) >= ports and not ask_udp(bob.netns, SERVICE, timeout=0.3))
    assert answered(bob)[0] <= 1
    assert g.gateway.status()["flows"]["busiest"] == f"{SERVICE} udp {ECHO_PORT}"

    g.reload()
    g.gateway.netns.run(["conntrack", "-F"])
    with conversation(alice) as own, conversation(bob) as other:
        flood(alice, lambda: refused(g) > 2 * ports)
        assert answered(bob) == (8, 8)
        assert entries(g) < ports / 2
        for sock in (own, other):  # what exists goes on, the attacker's, too
            sock.settimeout(5.0)
            sock.sendall(b"still there?")
            assert sock.recv(100) == b"still there?"
    status = g.gateway.status()
    limited = {s["device"]: s["limited"] for s in status["sessions"]}
    assert limited == {"vpns0": True, "vpns1": False}
    assert status["flows"]["per_session"] == 4096
    wait_until(lambda: ask_udp(alice.netns, SERVICE), 10.0, "the attacker to be served again")

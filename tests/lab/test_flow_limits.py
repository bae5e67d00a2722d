"""One client opens as many flows as it can; real ocserv and openconnect, with and without upstream.

alice   sends from one port after the other to a service that answers, her accomplice, and then
        from the first port again
bob     asks the same service: eight new flows each by UDP and TCP
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Iterator

import pytest

from lab import client as vpn
from lab.client import Client
from lab.topology import SERVICE, Lab, Options
from lab.traffic import ask_tcp, ask_udp
from lab.upstream import Upstream
from ocgate.names import NFT_TABLE_LIMITS
from ocgate.netlab.inject import into_tun
from ocgate.netlab.packet import build_udp
from ocgate.netlab.services import ECHO_PORT
from ocgate.netlab.wait import wait_until
from ocgate.prove.conntrack_full import fill_table
from ocgate.prove.subject import Unsupported
from support.gateway_mode import chain, conversation, write_toml
from support.leak_captures import Ground, LabFactory, counters, ground
from support.lifecycle import ocgate

pytestmark = pytest.mark.lab

# The kernel's own ports leave 2,260 to clients' flows, so that a flood takes them in seconds.
LOCAL_PORTS = "12500 64000"
PATIENCE = 60.0  # seconds; busy cores pass 1,000 packets a second through ocserv
BATCH = 200
ALL_PORTS = range(1024, 65536)

# nf_conntrack_max is the whole machine's: the table is filled until only so many entries are free.
ROOM = 1000
# Twice the room, and two seconds and more until a port's turn comes again: the service has answered
# by then, and the kernel may not evict the flow any more (IPS_ASSURED, nf_conntrack_proto_udp.c).
TWICE_THE_ROOM = range(1024, 1024 + 2 * ROOM)
FEW_FLOWS = 200

OFF = {"OCGATE_SESSION_FLOWS": "0"}
MODES = ("standalone", "gateway")


def few_ports(built: Lab, _: Upstream | None = None) -> None:
    built.gw.netns.sysctl("net/ipv4/ip_local_port_range", LOCAL_PORTS)
    # A flood on busy cores must not end before it has its effect.
    built.gw.netns.sysctl("net/netfilter/nf_conntrack_udp_timeout", 300)


def serving(lab: LabFactory, mode: str) -> Ground:
    """A server with few ports, by an upstream or without one."""
    if mode == "gateway":
        return chain(lab, Options(clients=2, upstream=True), before=few_ports)

    def scarce(options: Options | None = None) -> Lab:
        built = lab(options)
        few_ports(built)
        return built

    return ground(scarce, Options(clients=2))


def configure(g: Ground, **settings: str) -> None:
    """By ocgate.toml and a reload."""
    write_toml(g.gateway, settings)
    done = ocgate(g.gateway, "reload")
    assert done.returncode == 0, done.stderr


def flood(client: Client, until: Callable[[], bool], ports: range = ALL_PORTS) -> None:
    """A packet from each of these ports to one service, over and over again."""
    source: Iterator[int] = itertools.cycle(ports)

    def some() -> bool:
        packets = (build_udp(client.address, SERVICE, next(source), ECHO_PORT, b"!") for _ in batch)
        into_tun(client.netns, vpn.TUN, *packets)
        return until()

    batch = range(BATCH)
    wait_until(some, PATIENCE, "the flood to have its effect")


def answered(client: Client, *, timeout: float = 2.0) -> tuple[int, int]:
    """Of eight new flows each by UDP and TCP to the same address and port, how many are."""
    udp = sum(bool(ask_udp(client.netns, SERVICE, timeout=timeout)) for _ in range(8))
    tcp = sum(bool(ask_tcp(client.netns, SERVICE, timeout=timeout)) for _ in range(8))
    return udp, tcp


def unanswered(client: Client) -> bool:
    return not ask_udp(client.netns, SERVICE, timeout=0.3)


def entries(g: Ground) -> int:
    return int(g.gateway.netns.sysctl("net/netfilter/nf_conntrack_count"))


def refused(g: Ground) -> dict[str, int]:
    """Packets by reason."""
    return counters(g.gateway, f"inet {NFT_TABLE_LIMITS}")


def assert_goes_on(sock: socket.socket) -> None:
    sock.settimeout(5.0)
    sock.sendall(b"still there?")
    assert sock.recv(100) == b"still there?"


def assert_only_alice_is_named(g: Ground) -> None:
    """In status, in doctor, and the reasons in the counters of status."""
    status = g.gateway.status()
    assert {s["user"]: s["limited"] for s in status["sessions"]} == {"alice": True, "bob": False}
    said = " ".join(ocgate(g.gateway, "doctor").stdout.split())
    limit = f"{status['flows']['per_session']} a session"
    assert f"alice: flows were refused by OCGATE_SESSION_FLOWS ({limit})" in said
    shown = {b["reason"]: b["packets"] for b in status["blocked"]}
    assert all(shown[reason] >= count for reason, count in refused(g).items())


@pytest.mark.parametrize("mode", MODES)
def test_one_client_does_not_take_the_ports_of_all_others(lab: LabFactory, mode: str) -> None:
    """T9. Positive control: without a limit others get no UDP flow to that service any more."""
    g = serving(lab, mode)
    alice, bob = g.connect(0), g.connect(1, "bob")
    flows = g.gateway.status()["flows"]
    ports = flows["ports"]
    assert (flows["per_session"], ports < 2500) == (4096, True)
    with conversation(alice) as own, conversation(bob) as other:
        flood(alice, lambda: refused(g)["destination_limit"] > ports)
        assert answered(bob) == (8, 8)
        assert entries(g) < ports / 2
        for sock in (own, other):  # what exists goes on, the attacker's, too
            assert_goes_on(sock)
    assert_only_alice_is_named(g)
    wait_until(lambda: ask_udp(alice.netns, SERVICE), 10.0, "the attacker to be served again")

    configure(g, **OFF)
    flood(alice, lambda: entries(g) >= ports and unanswered(bob))
    assert answered(bob, timeout=0.3)[0] <= 1
    busiest = f"{SERVICE} udp {ECHO_PORT}"  # counted beside the status: a later one shows it
    wait_until(lambda: g.gateway.status()["flows"]["busiest"] == busiest, 20.0, "the count")


@pytest.mark.parametrize("mode", MODES)
def test_one_client_does_not_fill_connection_tracking(lab: LabFactory, mode: str) -> None:
    """T10. Positive control: without a limit new flows of others fail, or are refused because the
    exit's own probes fail."""
    g = serving(lab, mode)
    alice, bob = g.connect(0), g.connect(1, "bob")
    configure(g, OCGATE_SESSION_FLOWS=str(FEW_FLOWS))
    most = leave_room(g)
    with conversation(alice) as own, conversation(bob) as other:
        flood(
            alice,
            lambda: refused(g)["flow_rate"] > 2 * ROOM and refused(g)["flow_limit"] > 0,
            TWICE_THE_ROOM,
        )
        assert answered(bob) == (8, 8)
        assert entries(g) < most - ROOM / 2
        for sock in (own, other):
            assert_goes_on(sock)
    assert_only_alice_is_named(g)

    configure(g, **OFF)
    flood(
        alice,
        lambda: entries(g) >= most - 10 and sum(answered(bob, timeout=0.3)) <= 4,
        TWICE_THE_ROOM,
    )
    assert "new flows soon fail" in ocgate(g.gateway, "doctor").stdout


def leave_room(g: Ground) -> int:
    """Fill the table but for ROOM entries; how many it may have."""
    try:
        fill_table(g.gateway.netns, room=ROOM)
    except Unsupported as why:
        pytest.skip(str(why))
    return int(g.gateway.netns.sysctl("net/netfilter/nf_conntrack_max"))

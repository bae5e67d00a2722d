"""The way out moves, goes and comes back under traffic: real ocserv and openconnect.

    client1 ==== router ======== gw (ocgate run, vpns0)          see lab.topology
                 | uplink    | docker    eth0   <- the default route at the start
                inet         | docker2   eth1   <- where it moves to

What follows is new flows; a flow that was translated for the old way is cut. Not one packet may
leave by either interface with a client's address while it all changes.
"""

from __future__ import annotations

import time

import pytest

from lab.addresses import SECOND_NET
from lab.capture import Capture, now
from lab.client import TUN, Client
from lab.streams import TcpDownload, UdpStream
from lab.topology import RESOLVER, SERVICE, SERVICE6, Options
from lab.traffic import Verdict, ask_tcp, ask_udp
from ocgate.netlab.inject import into_tun
from ocgate.netlab.packet import build_udp, match
from ocgate.netlab.wait import wait_until
from support.leak_captures import (
    CLIENT_ADDRESS,
    Ground,
    LabFactory,
    frozen,
    ground,
    take_guard_away,
)

pytestmark = pytest.mark.lab

# New flows are tried one after the other, each for so long.
TRY_SECONDS = 0.2

# No route: network unreachable (3, 0); a way that is not the exit's: admin-prohibited (3, 13).
TOLD = (Verdict.REFUSED, Verdict.REJECTED, Verdict.NO_ROUTE)
# The kernel sends a client one ICMP error a second after the first six (icmp_ratelimit), and UDP
# has taken them; a SYN is repeated after 1, 3 and 7 seconds.
TOLD_SECONDS = 8.0


def two_uplinks(lab: LabFactory, **environ: str) -> tuple[Ground, Client, Capture]:
    """A gateway with eth0 and eth1, a client that has proved the captures, and that of eth1.

    The client comes in by 203.0.113.1, which is DNATed to eth0's address; its tunnel must outlive
    the move, so what gw sends as eth0's address goes on by eth0 (what an operator with two uplinks
    has to set up, too).
    """
    g = ground(lab, Options(second_uplink=True), environ=environ)
    g.lab.gw.netns.ip(
        f"rule add pref 500 from {g.lab.gw.address} iif lo lookup 77",
        f"route add default via {g.lab.gw.next_hop} dev eth0 table 77",
    )
    second = g.lab.capture(g.lab.gw, "eth1")
    alice = g.connect(0)
    g.prove_leaks_are_seen(alice)
    prove_leaks_are_seen_by_eth1(g, alice, second)
    return g, alice, second


def prove_leaks_are_seen_by_eth1(g: Ground, client: Client, second: Capture) -> None:
    """Positive control: without the table, by a route to eth1, the client's own source goes by."""
    gw = g.gateway.netns
    with frozen(g.gateway):
        take_guard_away(g.gateway)
        gw.ip(f"route add {RESOLVER} via {SECOND_NET[1]} dev eth1")
        assert client.address
        into_tun(client.netns, TUN, build_udp(client.address, RESOLVER, 4000, 9, b"?"))
        second.prove_sees(match(src=client.address), "a client's address")
        gw.ip(f"route del {RESOLVER}")
    g.wait_guarded()


def wan_if(g: Ground) -> str | None:
    name: str | None = g.gateway.status()["network"]["wan_if"]
    return name


def flows(g: Ground, client: Client) -> bool:
    """Does a new flow get its answer, through the tunnel and not past it?"""
    answer = ask_udp(client.netns, SERVICE, timeout=TRY_SECONDS)
    return answer.seen_as == g.lab.router.address


def seconds_until_flowing(g: Ground, client: Client, started: float) -> float:
    """Until a new flow gets its answer, since `started` (monotonic)."""
    wait_until(lambda: flows(g, client), 10.0, "a new flow")
    return time.monotonic() - started


def assert_no_leak(g: Ground, second: Capture, since: float) -> None:
    g.assert_no_client_address(since)
    second.assert_none(CLIENT_ADDRESS, "a client's address", since=since)


def test_new_flows_follow_the_default_route(lab: LabFactory) -> None:
    """WAN_IF unset follows the default route to eth1: new flows of both families leave there,
    masqueraded."""
    g, alice, second = two_uplinks(lab)
    since = now()
    with (
        UdpStream(alice.netns, SERVICE, rate=500),
        UdpStream(alice.netns, SERVICE6, rate=200),
        TcpDownload(alice.netns, SERVICE, size=50_000_000, rate=1_000_000),
    ):
        started = time.monotonic()
        g.lab.move_wan()
        took = seconds_until_flowing(g, alice, started)
        wait_until(lambda: wan_if(g) == "eth1", 5.0, "status to tell")
        assert ask_tcp(alice.netns, SERVICE)
        assert g.lab.gw.second
        second.prove_sees(match(src=g.lab.gw.second, dst=SERVICE, protocol="tcp"), "a new flow")
        wait_until(
            lambda: ask_udp(alice.netns, SERVICE6, timeout=TRY_SECONDS), 10.0, "a new IPv6 flow"
        )
        second.prove_sees(match(src=g.lab.gw.second6, dst=SERVICE6), "a new IPv6 flow")
    print("FLOWS AGAIN AFTER", took)
    assert_no_leak(g, second, since)
    assert took < 5.0


def test_without_a_default_route_clients_are_told(lab: LabFactory) -> None:
    """The default route goes: clients get ICMP errors, for old flows and new ones; it comes back,
    and all is well without anybody's help."""
    g, alice, second = two_uplinks(lab)
    since = now()
    with UdpStream(alice.netns, SERVICE, rate=100) as stream:
        stream.wait_for(20)
        g.lab.gw.netns.ip("route del default")
        wait_until(lambda: stream.tally.rejected, 5.0, "an ICMP error")
    assert set(stream.tally.rejected) <= {(3, 0), (3, 13)}
    assert ask_tcp(alice.netns, SERVICE, timeout=TOLD_SECONDS).verdict in TOLD
    assert ask_udp(alice.netns, SERVICE6), "the other family goes on"
    started = time.monotonic()
    g.lab.gw.netns.ip(f"route add default via {g.lab.gw.next_hop} dev eth0")
    took = seconds_until_flowing(g, alice, started)
    print("FLOWS AGAIN AFTER", took)
    assert_no_leak(g, second, since)
    assert took < 5.0


def test_a_wan_link_that_bounces_heals(lab: LabFactory) -> None:
    """eth0 goes down and up again, and the default route, which went along, is added again as
    docker or a network manager does: the session and its traffic come back by themselves."""
    g, alice, second = two_uplinks(lab, IPV6_NAT="0")
    gw, since = g.lab.gw, now()
    with UdpStream(alice.netns, SERVICE, rate=200) as stream:
        stream.wait_for(20)
        gw.netns.ip("link set eth0 down")
        wait_until(lambda: stream.tally.sent > 100, 5.0, "packets into nowhere")
        gw.netns.ip("link set eth0 up", *uplink_routes(g))
        started = time.monotonic()
        took = seconds_until_flowing(g, alice, started)
        stream.wait_for(len(stream.tally.received) + 20)
    print("FLOWS AGAIN AFTER", took)
    assert "disconnect" not in alice.events()
    assert_no_leak(g, second, since)
    g.wait_guarded()


def uplink_routes(g: Ground) -> list[str]:
    """What went with eth0."""
    gw = g.lab.gw
    return [
        f"route replace default via {gw.next_hop} dev eth0",
        f"route replace default via {gw.next_hop} dev eth0 table 77",
        f"address replace {gw.address6}/64 dev eth0 nodad",
        f"route replace ::/0 via {gw.next_hop6} dev eth0",
    ]


def test_an_explicit_wan_if_does_not_follow(lab: LabFactory) -> None:
    """WAN_IF=eth0 stays eth0: when the default route moves to eth1 clients are rejected, and
    nothing of theirs leaves by eth1."""
    g, alice, second = two_uplinks(lab, WAN_IF="eth0")
    since = now()
    with UdpStream(alice.netns, SERVICE, rate=100) as stream:
        stream.wait_for(50)
        g.lab.move_wan()
        wait_until(lambda: stream.tally.rejected, 5.0, "an ICMP error")
    assert set(stream.tally.rejected) == {(3, 13)}
    assert ask_tcp(alice.netns, SERVICE, timeout=TOLD_SECONDS).verdict in TOLD
    assert wan_if(g) == "eth0"
    assert_no_leak(g, second, since)
    second.assert_none(match(marker=stream.marker), "the client's packets", since=since)


def test_a_new_address_of_the_wan_interface_is_used_at_once(lab: LabFactory) -> None:
    """eth0's address changes under traffic (a new DHCP lease): new flows leave from the new one,
    and not one packet with a client's."""
    g, alice, second = two_uplinks(lab)
    gw, new = g.lab.gw, "172.28.0.99"
    since = now()
    with UdpStream(alice.netns, SERVICE, rate=200) as stream:
        stream.wait_for(20)
        started = time.monotonic()
        gw.netns.ip(
            f"address add {gw.address}/32 dev lo",  # clients still come in by it
            f"address del {gw.address}/24 dev eth0",
            f"address add {new}/24 dev eth0",
            f"route replace default via {gw.next_hop} dev eth0",
            f"route replace default via {gw.next_hop} dev eth0 table 77",
        )
        took = seconds_until_flowing(g, alice, started)
        g.wan.prove_sees(match(src=new, dst=SERVICE), "the new address", since=since)
        stream.wait_for(len(stream.tally.received) + 20)
    print("FLOWS AGAIN AFTER", took, "the old flow's gap", stream.tally.longest_gap())
    assert_no_leak(g, second, since)
    assert took < 5.0

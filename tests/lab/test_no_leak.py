"""No packet of a client, and none for one, leaves by a way it must not: real ocserv and openconnect.

    client1, client2 ==== router ======== gw (ocgate run, vpns0, vpns1)    ocgate.lab.topology
                          | uplink  docker | eth0
                     inet (services)    neighbour1

Every "nothing left" is asserted on captures at gw's eth0, the router's docker side and its uplink
that have seen such a packet before, with the lock taken away.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import ip_address
from typing import Any

import pytest
from t3_ground import (
    TABLE,
    Address,
    Ground,
    LabFactory,
    counters,
    frozen,
    ground,
    packets,
)

from ocgate.lab import client as vpn
from ocgate.lab.capture import now
from ocgate.lab.client import Client
from ocgate.lab.inject import into_tun
from ocgate.lab.ocserv import VPN_NET
from ocgate.lab.packet import Predicate, any_of, match
from ocgate.lab.streams import TcpDownload, UdpDownload, new_marker
from ocgate.lab.topology import SERVICE, SERVICE6, Options
from ocgate.lab.traffic import ping
from ocgate.lab.wait import wait_until
from ocgate.names import BLACKHOLE_METRIC

pytestmark = pytest.mark.lab

GATEWAY4 = ip_address("10.10.10.1")

# --- spoofed sources ----------------------------------------------------------------------------

# What a client may put into its tun as a source; more are made from the live addresses.
FORGED4 = (
    "10.10.10.250",  # in the subnet, nobody's
    "10.10.10.1",  # the gateway's own in the tunnel
    "10.10.10.0",
    "10.10.10.255",
    "198.51.100.200",  # somebody on the internet
    "172.28.0.77",  # the docker network
    "172.28.0.10",  # gw's own
    "172.28.0.1",  # the docker host
    "203.0.113.1",
    "127.0.0.1",
    "0.0.0.0",
    "255.255.255.255",
    "224.0.0.5",
    "169.254.1.1",
)
FORGED6 = (
    "fda9:4efe:7e3b:3ea::dead",
    "2001:db8:c:1::2",  # the laptop's own, outside of the tunnel
    "2001:db8:28::77",
    "2001:db8:28::10",
    "::ffff:198.51.100.200",
    "::ffff:10.10.10.250",
)
LINK_LOCAL = ("fe80::1", "::")  # counted as chatter: the clients' own systems send it, too
UNCOUNTED = ("::1", "ff02::1")  # the kernel drops these before any hook (ipv6_rcv)

_PROBE = "inet t3_probe"


def watch_input(g: Ground) -> None:
    """Count what comes to gw's input from tunnels, in front of everybody's rules."""
    g.gateway.netns.nft(f"""
    table {_PROBE} {{
        counter from_tunnels {{ }}
        chain input {{
            type filter hook input priority -500; iifname "vpns*" counter name from_tunnels
        }}
    }}""")


def prove_forged_leave_without_the_table(g: Ground, client: Client) -> None:
    """Positive control: it is our table, and nothing else, that stops a forged source."""
    with frozen(g.gateway):
        g.gateway.netns.nft(f"delete table {TABLE}")
        since, marker = now(), new_marker()
        for source, to in (("198.51.100.200", SERVICE), ("2001:db8:28::77", SERVICE6)):
            into_tun(client.netns, vpn.TUN, *packets(ip_address(source), to, marker))
            for capture in g.captures:
                seen = match(src=source, marker=marker)
                capture.prove_sees(seen, f"a forged {source}", since=since)
    g.wait_guarded()


def forge(client: Client, sources: Iterable[str], to: Sequence[Address | None], m: bytes) -> int:
    """Put packets of each source to each destination into the client's tun; how many."""
    pairs = itertools.product(sources, to)
    made = [p for src, dst in pairs if dst for p in packets(ip_address(src), dst, m)]
    into_tun(client.netns, vpn.TUN, *made)
    return len(made)


def test_forged_sources_neither_leave_nor_reach_the_host(lab: LabFactory) -> None:
    """A client's packets with any source but its own are dropped and counted, to the internet, to
    the host and to another client alike; with its own source the same packets pass."""
    g = ground(lab, Options(clients=2))
    alice, bob = g.connect(0, "alice", dtls=False), g.connect(1, "bob", dtls=False)
    at_bob = g.lab.capture(g.lab.clients[1], vpn.TUN)
    watch_input(g)
    g.prove_leaks_are_seen(alice)
    prove_forged_leave_without_the_table(g, alice)

    own = new_marker()
    assert alice.address and alice.address6 and bob.address and bob.address6
    into_tun(alice.netns, vpn.TUN, *packets(alice.address, SERVICE, own))
    into_tun(alice.netns, vpn.TUN, *packets(alice.address6, SERVICE6, own))
    for capture in g.captures:
        for protocol in ("udp", "tcp", "icmp", "icmp6"):
            capture.prove_sees(match(marker=own, protocol=protocol), f"{protocol}, own source")
    assert ping(alice.netns, GATEWAY4)
    assert ping(bob.netns, GATEWAY4)
    at_bob.prove_sees(match(src=GATEWAY4), "what bob gets")

    heard, before, since = counters(g.gateway, _PROBE)["from_tunnels"], g.blocked(), now()
    assert heard >= 2
    forged = new_marker()
    to4 = (SERVICE, GATEWAY4, g.lab.gw.address, bob.address)
    to6 = (SERVICE6, g.lab.gw.address6, bob.address6)
    spoofed = forge(alice, (*FORGED4, str(bob.address)), to4, forged)
    spoofed += forge(alice, (*FORGED6, str(bob.address6)), to6, forged)
    link_local = forge(alice, LINK_LOCAL, to6, forged)
    forge(alice, UNCOUNTED, to6, forged)
    g.settle(alice)

    g.assert_none(match(marker=forged), "forged packets")
    g.assert_no_client_address(since)
    at_bob.assert_none(match(marker=forged), "forged packets")
    assert counters(g.gateway, _PROBE)["from_tunnels"] == heard
    after = g.blocked()
    assert after["spoofed"] - before["spoofed"] == spoofed
    assert after["link_local"] - before["link_local"] >= link_local


# --- a session that ended, with downloads in flight ---------------------------------------------

# 6,000 packets as in the measurement of the reference (4,490 of them left in clear), spread so
# that two thirds come after the end.
RATE, COUNT = 2000, 6000


def disconnects(g: Ground, client: Client) -> None:
    client.disconnect()


def worker_killed(g: Ground, client: Client) -> None:
    os.kill(session_of(g)["worker"], signal.SIGKILL)


def session_of(g: Ground) -> dict[str, Any]:
    (session,) = g.gateway.status()["sessions"]
    return dict(session)


@contextlib.contextmanager
def downloads(client: Client) -> Iterator[Predicate]:
    """A UDP and a TCP download of the client, both flowing; yields what finds their packets."""
    with (
        UdpDownload(client.netns, SERVICE, rate=RATE, count=COUNT) as udp,
        TcpDownload(client.netns, SERVICE, size=50_000_000, rate=2_000_000) as tcp,
    ):
        udp.wait_for(200)
        wait_until(lambda: tcp.bytes_received > 100_000, 5.0, "the TCP download")
        yield any_of(match(marker=udp.marker), match(marker=tcp.marker))


def still_arrives(g: Ground, flow: Predicate, since: float, count: int = 1000) -> None:
    """Wait until that many packets of the downloads have come to gw after `since`."""
    wait_until(lambda: g.docker.count(flow, since=since) > count, 5.0, "late packets of a download")


@pytest.mark.parametrize("end", [disconnects, worker_killed])
def test_nothing_for_an_ended_session_leaves(
    lab: LabFactory, end: Callable[[Ground, Client], None]
) -> None:
    """Downloads that still arrive after the end of their session go nowhere."""
    g = ground(lab)
    alice = g.connect(0)
    g.prove_leaks_are_seen(alice)
    started = now()
    with downloads(alice) as flow:
        end(g, alice)
        wait_until(lambda: not g.gateway.status()["sessions"], 5.0, "the end of the session")
        since = now()
        still_arrives(g, flow, since)
    g.assert_no_client_address(started)
    from_gw = match(src=g.lab.gw.address, dst=SERVICE, outgoing=True)
    out = g.wan.packets(from_gw, since=since)
    print("ANSWERS", end.__name__, len(out), len([p for p in out if p.protocol=='tcp' and p.flags & 4]), len([p for p in out if p.protocol=='icmp']), "quoting", len([p for p in out if flow(p)]))
    print(g.blocked())
    assert 0


def test_each_lock_alone_holds_the_downloads_of_an_ended_session(lab: LabFactory) -> None:
    """Lock 1 (table) without lock 3 (blackhole) holds them, and the reverse; without both they
    leave by the default route. Control stands still all the while, so no flow is forgotten."""
    g = ground(lab)
    no_lock_1 = f"flush chain {TABLE} forward; flush chain {TABLE} last"
    no_lock_3 = f"route del blackhole {VPN_NET} metric {BLACKHOLE_METRIC}"
    for lock_1, lock_3 in ((False, False), (True, False), (False, True)):
        alice = g.connect(0)
        started = now()
        with downloads(alice) as flow, frozen(g.gateway):
            if not lock_1:
                g.gateway.netns.nft(no_lock_1)
            if not lock_3:
                g.gateway.netns.ip(no_lock_3)
            worker_killed_pid = int(g.gateway.occtl("show", "users")[0]["ID"])
            os.kill(int(worker_killed_pid), signal.SIGKILL)
            wait_until(lambda: not g.gateway.occtl("show", "users"), 5.0, "the end")
            still_arrives(g, flow, now())
        alice.program.wait(5.0) if not alice.program.running() else alice.program.kill()
        if lock_1 or lock_3:
            g.assert_no_client_address(started)
        else:
            for capture in g.captures:
                capture.prove_sees(match(dst=alice.address or ""), "a lost download", since=started)
            print("LEAKED", g.wan.count(match(dst=alice.address), since=started))
        g.wait_guarded()
        wait_until(lambda: not g.gateway.status()["sessions"], 5.0, "the end of the session")
    assert 0

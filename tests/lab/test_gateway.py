"""Gateway mode end to end: what a client sends leaves by its upstream's tunnel, the rest as before.

client1 === inet === router -- gw (ocgate) -- upstream === OpenVPN === provider --- services
                                                 see lab.upstream, support.gateway_mode
"""

from __future__ import annotations

import contextlib
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from functools import partial
from ipaddress import IPv4Address

import pytest

from lab.addresses import EXIT_NET, EXIT_UPSTREAM, PROVIDER
from lab.capture import now
from lab.client import Client
from lab.ocserv import VPN_NET, hand_made_nat
from lab.streams import TcpDownload, UdpStream, new_marker
from lab.topology import PORT, RESOLVER, SERVICE, SERVICE6, Lab, Options
from lab.traffic import ask_udp, http_get
from lab.upstream import Upstream
from ocgate.netlab.dns import DnsServer, resolve
from ocgate.netlab.packet import RST, Predicate, match
from ocgate.netlab.wait import wait_until
from support.gateway_mode import (
    Chain,
    LabFactory,
    answers,
    chain,
    leaves_by_the_provider,
    take_everything_away,
)
from support.leak_captures import frozen

pytestmark = pytest.mark.lab


# --- the way ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtls", [True, False], ids=["dtls", "tls"])
def test_clients_leave_by_the_upstream_and_by_nothing_else(lab: LabFactory, dtls: bool) -> None:
    """UDP, TCP, HTTP, ping and DNS of a client are seen by the services as the provider's; its own
    tunnel comes and goes by the router; nothing else passes there."""
    g = chain(lab)
    table = {"www.example": (SERVICE,)}
    dns = g.lab.own(DnsServer(g.lab.inet.netns, (RESOLVER,), table))
    client = g.connect(0, dtls=dtls)
    g.prove_leaks_are_seen(client)
    since = now()
    for answer in answers(client):
        assert answer
        assert answer.seen_as in (PROVIDER, None)  # a ping has no report
    assert http_get(client.netns, SERVICE, "/whoami").startswith(f"{PROVIDER} ".encode())
    assert resolve(client.netns, RESOLVER, "www.example").addresses == (SERVICE,)
    assert [query.client for query in dns.queries] == [PROVIDER]
    with UdpStream(client.netns, SERVICE, rate=200, count=300, size=1200) as stream:
        assert stream.wait(10.0).lost == 0
    tunnel = "udp" if dtls else "tcp"
    g.docker.prove_sees(match(sport=PORT, protocol=tunnel), "the client's tunnel", since=since)
    for protocol in ("udp", "tcp", "icmp"):
        seen = match(src=PROVIDER, protocol=protocol)
        g.exit.prove_sees(seen, f"the client's {protocol} by the provider", since=since)
    g.assert_nothing_by_isp(since)


def test_what_users_type_to_verify_shows_the_steering(lab: LabFactory) -> None:
    """`ip rule`, `ip route show table 100`, `nft list table inet ocserv_gw`, as the docs say."""
    g = chain(lab)
    rules = g.gateway.netns.run(["ip", "rule"]).stdout.splitlines()
    assert "1000:\tfrom 10.10.10.0/24 lookup 100" in [r.split(" proto")[0].strip() for r in rules]
    routes = g.gateway.netns.run(["ip", "route", "show", "table", "100"]).stdout
    assert routes.startswith("default via 172.28.0.3 dev eth0")
    guard = g.gateway.netns.run(["nft", "list", "table", "inet", "ocserv_gw"]).stdout
    assert "172.28.0.3" in guard
    assert '"eth0"' in guard


def test_table_and_priority_are_the_operators(lab: LabFactory) -> None:
    numbers = {"VPN_GATEWAY_TABLE": "4711", "VPN_GATEWAY_RULE_PRIO": "500"}
    g = chain(lab, environ=numbers)
    client = g.connect(0, dtls=False)
    assert leaves_by_the_provider(client)
    netns = g.gateway.netns
    assert "500:\tfrom 10.10.10.0/24 lookup 4711" in netns.run(["ip", "rule"]).stdout
    assert netns.run(["ip", "route", "show", "table", "100"], check=False).stdout == ""


def test_a_gateway_on_an_interface_of_its_own(lab: LabFactory) -> None:
    """The upstream on `exit0`: translated to that interface's address, nothing of it on eth0."""
    environ = {"VPN_GATEWAY": str(EXIT_UPSTREAM)}
    g = chain(lab, Options(upstream=True, exit_net=True), environ=environ)
    between = g.lab.capture(g.lab.gw, "exit0")
    g.wait_up()
    client = g.connect(0)
    g.prove_leaks_are_seen(client)
    since = now()
    assert leaves_by_the_provider(client)
    between.prove_sees(match(src=EXIT_NET[10], dst=SERVICE, outgoing=True), "it", since=since)
    between.assert_none(match(src=VPN_NET, outgoing=True), "a client's address", since=since)
    g.wan.assert_none(match(dst=SERVICE), "what is for the exit's interface", since=since)
    g.assert_nothing_by_isp(since)


def reverse_path_filter(value: int) -> Callable[[Lab, Upstream], None]:
    def set_it(lab: Lab, _: Upstream) -> None:
        for scope in ("all", "default", "eth0", "exit0"):
            lab.gw.netns.sysctl(f"net/ipv4/conf/{scope}/rp_filter", value)

    return set_it


@pytest.mark.parametrize("exit_net", [False, True], ids=["same interface", "own interface"])
@pytest.mark.parametrize("value", [0, 1, 2])
def test_any_reverse_path_filter_lets_traffic_pass(
    lab: LabFactory, value: int, exit_net: bool
) -> None:
    """rp_filter off, strict and loose on every interface of gw."""
    environ = {"VPN_GATEWAY": str(EXIT_UPSTREAM)} if exit_net else {}
    options = Options(upstream=True, exit_net=True)
    g = chain(lab, options, environ=environ, before=reverse_path_filter(value))
    g.wait_up()
    client = g.connect(0)
    assert leaves_by_the_provider(client)
    assert all(answers(client))


# --- what the host itself says of clients' flows ------------------------------------------------


def server_socket(g: Chain) -> socket.socket:
    """A server's UDP socket on the internet that sends with DF set, whatever the path's MTU."""
    with g.lab.inet.netns.entered():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((str(SERVICE), 5005))
    sock.settimeout(5.0)
    sock.setsockopt(socket.IPPROTO_IP, 10, 3)  # IP_MTU_DISCOVER, IP_PMTUDISC_PROBE: <linux/in.h>
    return sock


def call(g: Chain, client: Client, server: socket.socket) -> tuple[str, int]:
    """The client sends a datagram to the server; returns who the server takes it for."""
    with client.netns.entered():
        caller = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with caller:
        caller.sendto(b"hello", (str(SERVICE), 5005))
        peer: tuple[str, int] = server.recvfrom(100)[1]
    assert IPv4Address(peer[0]) == PROVIDER
    return peer


def test_a_server_learns_the_path_mtu_by_the_exit(lab: LabFactory) -> None:
    """A datagram with DF that is too large for the client's tunnel: fragmentation needed is sent
    back through the upstream, with the tunnel's MTU, and not by the ISP."""
    g = chain(lab)
    client = g.connect(0)
    g.prove_leaks_are_seen(client)
    since, marker = now(), new_marker()
    mtu = int(client.pushed["INTERNAL_IP4_MTU"])
    with server_socket(g) as server:
        peer = call(g, client, server)
        server.sendto(marker.ljust(mtu - 28 + 4, b"\0"), peer)
        too_big = match(src=PROVIDER, dst=SERVICE, kind=(3, 4))
        told = g.exit.wait_for(too_big, "fragmentation needed", since=since)
    assert struct.unpack_from("!H", told.raw, 26)[0] == mtu
    g.assert_nothing_by_isp(since)


@contextlib.contextmanager
def forgotten_flows(g: Chain, client: Client, change: str = "") -> Iterator[float]:
    """A UDP and a TCP flow of the client, both with a server that goes on sending, of which gw
    then knows nothing more; the client stands still, or its answers would make gw learn them
    again. change: for `ip`, in gw, before that. Yields when late packets begin to come."""
    with (
        server_socket(g) as server,
        TcpDownload(client.netns, SERVICE, size=10_000_000, rate=200_000) as tcp,
    ):
        peer = call(g, client, server)
        wait_until(lambda: tcp.bytes_received, 5.0, "the TCP download")
        client.program.send(signal.SIGSTOP)
        g.gateway.netns.ip(*change.splitlines())
        g.gateway.netns.run(["conntrack", "-D", "-s", str(client.address)])
        forgotten = now()
        for number in range(20):
            server.sendto(b"late %d" % number, peer)
        late = match(src=SERVICE, dst=g.lab.gw.address, outgoing=False)
        for protocol, count in (("udp", 20), ("tcp", 1)):
            one = both(late, match(protocol=protocol))
            wait_until(partial(seen, g, one, forgotten, count), 5.0, f"late {protocol}")
        yield forgotten
        client.program.send(signal.SIGCONT)


def both(one: Predicate, other: Predicate) -> Predicate:
    return lambda packet: one(packet) and other(packet)


def seen(g: Chain, predicate: Predicate, since: float, count: int) -> bool:
    return g.wan.count(predicate, since=since) >= count


def test_late_packets_of_forgotten_flows_are_not_answered_by_the_isp(lab: LabFactory) -> None:
    """A flow of a client is no longer known to gw when its server sends: no reset and no ICMP
    error leaves by the ISP.  Control, afterwards: without our locks the kernel's own do."""
    g = chain(lab)
    client = g.connect(0)
    g.prove_leaks_are_seen(client)
    with forgotten_flows(g, client) as since:
        pass
    g.settle(client)
    g.assert_nothing_by_isp(since)
    with frozen(g.gateway):
        take_everything_away(g.gateway)
        g.gateway.netns.nft(hand_made_nat([VPN_NET]))
        g.gateway.netns.ip(f"route add {SERVICE} via {g.upstream.address}")
        with forgotten_flows(g, client, f"route del {SERVICE}") as since:
            for capture in (g.docker, g.uplink):
                for kind in (match(protocol="tcp", flags=RST), match(kind=(3, 3))):
                    stray = both(kind, match(dst=SERVICE))
                    capture.prove_sees(stray, "the host's own answer", since=since)


def test_ipv6_is_rejected_at_once_by_default(lab: LabFactory) -> None:
    """VPN_GATEWAY6 unset beside a gateway: the client's IPv6, of which its laptop has its own, is
    rejected by the first packet and leaves nowhere."""
    g = chain(lab)
    client = g.connect(0)
    g.prove_leaks_are_seen(client)
    uplink = g.lab.capture(client.host, "eth0")
    since = now()
    for answer in answers(client, SERVICE6):
        assert not answer
        assert answer.verdict.value in ("rejected", "refused"), answer
        assert answer.at_once
    assert leaves_by_the_provider(client)
    uplink.prove_sees(match(dst=g.lab.server), "the client's tunnel", since=since)
    uplink.assert_none(match(dst=SERVICE6), "IPv6 past the tunnel", since=since)
    g.assert_nothing_by_isp(since)
    assert g.exits()["6"]["state"] == "block"


def test_the_address_of_the_client_is_never_told(lab: LabFactory) -> None:
    """What the upstream gets carries gw's address alone, also inside of ICMP errors."""
    g = chain(lab)
    client = g.connect(0)
    g.prove_leaks_are_seen(client)
    since = now()
    assert ask_udp(client.netns, SERVICE, 4444).kind == (3, 3)  # nobody listens there
    g.assert_no_client_address(since)

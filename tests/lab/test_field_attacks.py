"""Attacks known from the field on a client's flows, from the internet and from another client.

    client1, client2 === inet === router -- gw (ocgate)      see lab.topology
                       SERVICE, RESOLVER, who forges both

The attacker knows addresses and ports of a flow, what a real one has to guess, and sees no packet
of it. gw is asked at its own address, so that no other NAT hides it.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from lab import client as vpn
from lab.capture import Capture, now
from lab.client import Client
from lab.streams import new_marker
from lab.topology import RESOLVER, SERVICE, Options
from lab.traffic import udp_socket
from ocgate.netlab.inject import into_tun, routed
from ocgate.netlab.packet import ACK, RST, SYN, build_icmp, build_tcp, build_udp, match
from ocgate.netlab.services import ECHO_PORT
from support.leak_captures import Ground, LabFactory, ground

pytestmark = pytest.mark.lab


@dataclass
class Flow:
    """A conversation of a client with SERVICE that goes on while it is attacked.

    port: by which SERVICE sees it, of gw's address.
    """

    g: Ground
    client: Client
    sock: socket.socket
    protocol: str
    tunnel: Capture
    said: int = 0
    heard: bytes = b""

    @property
    def own(self) -> int:
        port: int = self.sock.getsockname()[1]
        return port

    @property
    def port(self) -> int:
        words = ["conntrack", "-L", "-p", self.protocol, "-s", str(self.client.address)]
        words += ["--orig-port-src", str(self.own)]
        line = self.g.gateway.netns.run(words).stdout
        return int(re.findall(r"dport=(\d+)", line)[1])

    def goes_on(self) -> bool:
        """Says something more and hears it back."""
        self.said += 1
        word = b"word %d." % self.said
        self.sock.sendall(word)
        while word not in self.heard:
            more = self.sock.recv(1000)
            if not more:
                return False
            self.heard += more
        return True

    def forge(self, *packets: bytes) -> None:
        """Sent by the internet's host, whoever they claim to be from."""
        routed(self.g.lab.inet.netns, *packets)

    def settle(self) -> None:
        self.g.settle(self.client)


@contextmanager
def flow(g: Ground, client: Client, protocol: str, tunnel: Capture) -> Iterator[Flow]:
    if protocol == "udp":
        sock = udp_socket(client.netns, SERVICE, ECHO_PORT, None)
    else:
        with client.netns.entered():
            sock = socket.create_connection((str(SERVICE), ECHO_PORT), 5.0)
    with sock:
        sock.settimeout(5.0)
        made = Flow(g, client, sock, protocol, tunnel)
        assert made.goes_on()
        yield made


@pytest.fixture
def g(lab: LabFactory) -> Ground:
    return ground(lab, Options(clients=2, docker_nat=False))


def connected(g: Ground) -> tuple[Client, Capture]:
    client = g.connect(0)
    return client, g.lab.capture(client.host, vpn.TUN)


# Far from each other and from any window of a flow that has just begun (at most 65,535 unscaled).
GUESSES = [number << 27 for number in range(32)]


def test_off_path_tcp_ends_no_flow_and_gets_nothing_into_it(g: Ground) -> None:
    """RST, data and SYN with SERVICE's address and ports, sequence numbers guessed: conntrack takes
    the RST for no part of the flow; what it lets by, what looks like data of long ago and SYN, is
    refused by the client's own TCP."""
    client, tunnel = connected(g)
    gw = g.lab.gw.address
    with flow(g, client, "tcp", tunnel) as f:
        since, marker, port = now(), new_marker(), f.port
        seq = last_seq(tunnel, f.own)
        guesses = [guess for guess in GUESSES if abs(guess - seq) > 1 << 26]
        for guess in guesses:
            for flags, data in ((RST, b""), (RST | ACK, b""), (ACK, marker), (SYN, b"")):
                f.forge(
                    build_tcp(
                        SERVICE, gw, ECHO_PORT, port, flags=flags, seq=guess, ack=guess, data=data
                    )
                )
        f.settle()
        assert f.goes_on()
        tunnel.prove_sees(match(src=SERVICE, sport=ECHO_PORT, dport=f.own), "its own", since=since)
        tunnel.assert_none(match(src=SERVICE, flags=RST), "a forged reset", since=since)
        assert marker not in f.heard


def last_seq(tunnel: Capture, own: int) -> int:
    """The sequence number of the latest segment that came for the client."""
    seen = tunnel.packets(match(src=SERVICE, dport=own))[-1]
    return int.from_bytes(seen.raw[24:28], "big")


# Errors that end a connection, or shrink its path, where they are believed: port and host
# unreachable, prohibited, fragmentation needed (to 68 bytes), time exceeded, redirect.
ERRORS = ((3, 3), (3, 1), (3, 13), (3, 4), (11, 0), (5, 1))


def test_forged_icmp_errors_end_no_flow(g: Ground) -> None:
    """About a port that the client's flow has not they reach no tunnel; about TCP with ports that
    are known but a sequence number that is not, the client's own TCP passes them over. Control: an
    error about the right UDP flow does arrive, as path MTU discovery needs it."""
    client, tunnel = connected(g)
    gw = g.lab.gw.address
    with flow(g, client, "tcp", tunnel) as tcp, flow(g, client, "udp", tunnel) as udp:
        since, blind = now(), new_marker()
        inner = build_udp(gw, SERVICE, udp.port, ECHO_PORT, b"x" * 8)
        udp.forge(build_icmp(RESOLVER, gw, (3, 4), b"\0\0\x05\0" + inner))
        tunnel.prove_sees(match(src=RESOLVER, kind=(3, 4)), "an error that is true", since=since)
        since = now()
        for kind in ERRORS:
            for port in {udp.port ^ 1, udp.port ^ 2, tcp.port ^ 1, 443} - {udp.port, tcp.port}:
                for build in (
                    build_udp(gw, SERVICE, port, ECHO_PORT, blind),
                    build_tcp(gw, SERVICE, port, ECHO_PORT, flags=ACK, data=blind),
                ):
                    udp.forge(build_icmp(RESOLVER, gw, kind, bytes(4) + build))
            inner = build_tcp(gw, SERVICE, tcp.port, ECHO_PORT, flags=ACK, seq=0x1234, data=b"?")
            udp.forge(build_icmp(RESOLVER, gw, kind, b"\0\0\0\x44" + inner))
        udp.settle()
        tunnel.assert_none(match(marker=blind), "an error about no flow of a client", since=since)
        assert tcp.goes_on()
        assert (
            tcp.client.netns.run(["ip", "route", "get", str(SERVICE)]).stdout.count("mtu 68") == 0
        )


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_nobody_else_closes_or_uses_a_client_s_flow(g: Ground, protocol: str) -> None:
    """Another client forges its end, or opens the same ports of its own; a stranger sends to the
    port that the flow has. Control: from SERVICE itself that does arrive."""
    client, tunnel = connected(g)
    other, gw = g.connect(1, "bob"), g.lab.gw.address
    assert client.address is not None
    assert other.address is not None
    build = build_udp if protocol == "udp" else _acknowledging
    with flow(g, client, protocol, tunnel) as f:
        since, marker, true = now(), new_marker(), new_marker()
        for source in (client.address, other.address):
            for flags in (RST, RST | ACK, SYN):
                end = build_tcp(source, SERVICE, f.own, ECHO_PORT, flags=flags, seq=1)
                into_tun(
                    other.netns, vpn.TUN, end, build_udp(source, SERVICE, f.own, ECHO_PORT, b"")
                )
        g.settle(other)
        assert g.blocked()["spoofed"] >= 6
        f.forge(build(SERVICE, gw, ECHO_PORT, f.port, true))
        if protocol == "udp":
            tunnel.prove_sees(match(marker=true), "what SERVICE sends", since=since)
        for port in (ECHO_PORT, ECHO_PORT + 1):
            f.forge(build(RESOLVER, gw, port, f.port, marker))
        f.forge(build(SERVICE, gw, ECHO_PORT + 1, f.port, marker))
        f.settle()
        assert f.goes_on()
        tunnel.prove_sees(match(src=SERVICE, dport=f.own), "its own", since=since)
        tunnel.assert_none(match(marker=marker), "what strangers send", since=since)


def _acknowledging(src: object, dst: object, sport: int, dport: int, data: bytes) -> bytes:
    return build_tcp(str(src), str(dst), sport, dport, flags=ACK, ack=1, data=data)

"""Port shadow: a client must never own, in conntrack, what somebody sends to this server.

    client1 === inet === router -- gw (ocgate)          see lab.topology
               VICTIM   NAT, 443 published

The attack: the client sends a packet from each of its low ports to VICTIM:MEETING. A masquerade
that keeps or draws ports without a range gives one of these flows the server's own port 443, and
what the victim then sends from MEETING to the server is handed to the client instead.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

import pytest

from lab import client as vpn
from lab.capture import Capture, now
from lab.client import Client
from lab.ocserv import VPN_NET, VPN_NET6
from lab.streams import new_marker
from lab.topology import PORT, SERVICE, SERVICE6, Options
from ocgate.netlab.inject import into_tun, routed
from ocgate.netlab.namespace import Namespace
from ocgate.netlab.packet import SYN, build_icmp, build_other, build_tcp, build_udp, match
from ocgate.netlab.wait import wait_until
from support.leak_captures import Ground, LabFactory, frozen, ground

pytestmark = pytest.mark.lab

Address = IPv4Address | IPv6Address

MEETING = 4433  # where the accomplice listens: any port that the victim will send from
LOW_PORTS = range(1, 512)  # a masquerade without a range keeps these together (nf_nat_core.c)
OTHER_PORTS = range(1024, 1124)  # ... and these somewhere above
EXCLUSIVE, SHARED = (10240, 32767), (61000, 65534)

# Protocols whose flows nobody can tell apart by a port: tunnels that a host may have.
PORTLESS = {"ipip": 4, "6in4": 41, "gre": 47, "esp": 50}
SCTP = 132

# name -> settings, ports that clients' flows are translated to
MODES: Mapping[str, tuple[dict[str, str], tuple[int, int]]] = {
    "standalone": ({}, EXCLUSIVE),
    "standalone, NAT66 always": ({"IPV6_NAT": "1"}, EXCLUSIVE),
    "standalone, shared host": ({"OCGATE_FORWARDING": "shared"}, SHARED),
    "direct": ({"VPN_GATEWAY": "direct"}, EXCLUSIVE),
    "direct, shared host": ({"VPN_GATEWAY": "direct", "OCGATE_FORWARDING": "shared"}, SHARED),
}


@dataclass
class Attack:
    """A client that opens flows to a victim, and a capture of what its tunnel hands to it."""

    g: Ground
    client: Client
    tunnel: Capture
    victim: Address

    @property
    def own(self) -> Address:
        """The client's address of the victim's family."""
        found = self.client.address if self.victim.version == 4 else self.client.address6
        assert found is not None
        return found

    @property
    def server(self) -> Address:
        """Where the victim reaches the server."""
        server = self.g.lab.server if self.victim.version == 4 else self.g.lab.server6
        assert server is not None
        return server

    def ports(self, protocol: str) -> list[int]:
        """Those that answers to the client's flows with the victim come to, of gw's conntrack."""
        family = "ipv4" if self.victim.version == 4 else "ipv6"
        done = self.g.gateway.netns.run(
            ["conntrack", "-L", "-f", family, "-p", protocol, "-d", str(self.victim)], check=False
        )
        lines = [line for line in done.stdout.splitlines() if f"src={self.own} " in line]
        return [int(re.findall(r"dport=(\d+)", line)[1]) for line in lines]

    def open_flows(self) -> None:
        """UDP and TCP from each port, answered by nobody."""
        for port in (*LOW_PORTS, *OTHER_PORTS):
            into_tun(
                self.client.netns,
                vpn.TUN,
                build_udp(self.own, self.victim, port, MEETING, b"?"),
                build_tcp(self.own, self.victim, port, MEETING, flags=SYN),
            )
        self.g.settle(self.client)

    def victim_sends(self, *ports: int) -> bytes:
        """A datagram and a SYN of the victim's, from MEETING to those of the server."""
        marker = new_marker()
        for port in ports:
            routed(
                self.g.lab.inet.netns,
                build_udp(self.victim, self.server, MEETING, port, marker),
                build_tcp(self.victim, self.server, MEETING, port, flags=SYN, data=marker),
            )
        return marker

    def victim_is_served(self) -> bool:
        """The victim connects from MEETING, and the VPN server is who accepts."""
        family = socket.AF_INET if self.victim.version == 4 else socket.AF_INET6
        with self.g.lab.inet.netns.entered():
            sock = socket.socket(family, socket.SOCK_STREAM)
        with sock, contextlib.suppress(OSError):
            sock.settimeout(2.0)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((str(self.victim), MEETING))
            sock.connect((str(self.server), PORT))
            return True
        return False


def deaf(g: Ground) -> None:
    """The accomplice answers nothing, as one would who waits for the victim's packet."""
    g.lab.inet.netns.nft(f"""
        table inet accomplice {{
            chain input {{
                type filter hook input priority filter;
                tcp dport {MEETING} tcp flags & (syn | ack) == syn drop
                udp dport {MEETING} drop
            }}
        }}""")


def attack(g: Ground, victim: Address, client: Client) -> Attack:
    return Attack(g, client, g.lab.capture(client.host, vpn.TUN), victim)


@pytest.mark.parametrize("mode", MODES)
def test_no_client_takes_the_listener_s_port(lab: LabFactory, mode: str) -> None:
    """A client with a flow from each low port: what the victim sends to 443 reaches the server, in
    both families, IPv4 through a docker host's NAT that publishes it. Control: what it sends to a
    port that a flow of the client's has does reach the tunnel."""
    environ, (first, last) = MODES[mode]
    g = ground(lab, environ=environ)
    deaf(g)
    client = g.connect(0)
    for victim in (SERVICE, SERVICE6):
        a = attack(g, victim, client)
        a.open_flows()
        ports = {protocol: a.ports(protocol) for protocol in ("udp", "tcp")}
        assert min(map(len, ports.values())) > len(LOW_PORTS)
        since = now()
        shown = a.victim_sends(ports["udp"][0], ports["tcp"][0])
        for protocol in ("udp", "tcp"):
            to_a_flow = match(marker=shown, protocol=protocol)
            a.tunnel.prove_sees(to_a_flow, f"{protocol} for a client's flow", since=since)
        served, marker = a.victim_is_served(), a.victim_sends(PORT)
        g.settle(client)
        a.tunnel.assert_none(match(marker=marker), "what is for the server", since=since)
        assert served
        wrong = {port for of in ports.values() for port in of if not first <= port <= last}
        assert not wrong


@pytest.mark.parametrize("mode", ["standalone", "direct, shared host"])
def test_nor_by_the_masquerade_of_another_program(lab: LabFactory, mode: str) -> None:
    """An installer's masquerade of the client subnets, loaded while we run: our own ports are drawn
    all the same. Control: before ours, it draws ports among which the listener's is."""
    environ, (first, last) = MODES[mode]
    g = ground(lab, environ=environ)
    deaf(g)
    client = g.connect(0)
    g.gateway.netns.nft(masquerade(priority=100))
    for victim in (SERVICE, SERVICE6):
        a = attack(g, victim, client)
        a.open_flows()
        ports = a.ports("udp")
        assert len(ports) > len(LOW_PORTS)
        assert all(first <= port <= last for port in ports)
    g.gateway.netns.nft("delete table inet anyway")
    with translated_anyway(g):
        g.gateway.netns.run(["conntrack", "-F"])
        a.open_flows()
        assert any(port in LOW_PORTS for port in a.ports("udp"))


def masquerade(*, priority: int) -> str:
    """Of all that clients send, whatever protocol it is, by any port."""
    return f"""
        table inet anyway {{
            chain nat {{
                type nat hook postrouting priority {priority};
                oifname "eth0" ip saddr {VPN_NET} masquerade
                oifname "eth0" ip6 saddr {VPN_NET6} masquerade
            }}
        }}"""


@contextlib.contextmanager
def translated_anyway(g: Ground) -> Iterator[None]:
    """Somebody masquerades all that clients send, whatever protocol it is, and nobody puts that
    right."""
    with frozen(g.gateway):
        let_portless_through(g.gateway.netns)
        g.gateway.netns.nft(masquerade(priority=80))
        yield
        g.gateway.netns.nft("delete table inet anyway")


def let_portless_through(netns: Namespace) -> None:
    """Delete the rules that refuse it in forward."""
    chain = ("inet", "ocserv", "forward_from_client")
    listed = netns.run(["nft", "-a", "list", "chain", *chain]).stdout
    for line in listed.splitlines():
        if '"portless"' in line:
            netns.run(["nft", "delete", "rule", *chain, "handle", line.rsplit(" ", 1)[1]])


@pytest.mark.parametrize("mode", ["standalone", "direct, shared host"])
def test_no_client_takes_what_has_no_ports(lab: LabFactory, mode: str) -> None:
    """GRE, ESP, 6in4 and the like of a client to a victim go nowhere and are counted: the flow
    would own what the victim sends of that protocol to this host, as the control shows. A ping of
    the victim's is this host's, whatever id a client has pinged with."""
    g = ground(lab, Options(docker_nat=False), environ=MODES[mode][0])
    client = g.connect(0)
    for victim in (SERVICE, SERVICE6):
        a = attack(g, victim, client)
        prove_it_would_be_taken(a)
        since, before = now(), g.blocked()["portless"]
        to_victim, to_server = exchange(a)
        a.tunnel.assert_none(match(marker=to_server), "what is for this host", since=since)
        g.wan.assert_none(match(marker=to_victim), "a flow without ports", since=since)
        assert g.blocked()["portless"] - before == len(PORTLESS)
        pings(a)


def prove_it_would_be_taken(a: Attack) -> None:
    """Positive control: translated, each of these flows takes what is for this host."""
    with translated_anyway(a.g):
        since = now()
        to_victim, to_server = exchange(a)
        for number in PORTLESS.values():
            flow, shadow = (
                match(marker=marker, protocol=str(number)) for marker in (to_victim, to_server)
            )
            a.g.wan.prove_sees(flow, f"a flow of protocol {number}", since=since)
            a.tunnel.prove_sees(shadow, f"protocol {number}, taken by a client", since=since)
        a.g.gateway.netns.run(["conntrack", "-D", "-s", str(a.own)])
    a.g.wait_guarded()


def exchange(a: Attack) -> tuple[bytes, bytes]:
    """One packet of each protocol from the client to the victim, then one from there to gw; their
    markers."""
    to_victim, to_server = new_marker(), new_marker()
    for number in PORTLESS.values():
        into_tun(a.client.netns, vpn.TUN, packet(a.own, a.victim, number, to_victim))
    a.g.settle(a.client)
    for number in PORTLESS.values():
        routed(a.g.lab.inet.netns, packet(a.victim, a.server, number, to_server))
    a.g.settle(a.client)
    return to_victim, to_server


def packet(src: Address, dst: Address, number: int, marker: bytes) -> bytes:
    """One that conntrack takes for the first of a flow."""
    head = struct.pack("!HH", 0, 0x0800) if number == PORTLESS["gre"] else b""  # RFC 2784
    return build_other(src, dst, number, head + marker)


def pings(a: Attack) -> None:
    """A client has pinged the victim with each id; the victim's pings with these come to gw."""
    kind = (8, 0) if a.victim.version == 4 else (128, 0)
    marker, since = new_marker(), now()
    ids = range(1, 300)
    for number in ids:
        rest = struct.pack("!HH", number, 1)
        into_tun(a.client.netns, vpn.TUN, build_icmp(a.own, a.victim, kind, rest + b"mine"))
    a.g.settle(a.client)
    for number in ids:
        rest = struct.pack("!HH", number, 1)
        routed(a.g.lab.inet.netns, build_icmp(a.victim, a.server, kind, rest + marker))
    answer = match(src=a.server, dst=a.victim, marker=marker, outgoing=True)
    wait_until(
        lambda: a.g.wan.count(answer, since=since) == len(ids), 5.0, "this host's own answers"
    )
    a.tunnel.assert_none(match(marker=marker), "pings of this host", since=since)


def test_sctp_is_translated_to_these_ports_too(lab: LabFactory) -> None:
    g = ground(lab)
    client = g.connect(0)
    for victim in (SERVICE, SERVICE6):
        a = attack(g, victim, client)
        for port in (1, 22, 443, 2000):
            init = sctp_init(port, MEETING)
            into_tun(client.netns, vpn.TUN, build_other(a.own, a.victim, SCTP, init))
        g.settle(client)
        ports = a.ports("sctp")
        assert len(ports) == 4
        assert all(EXCLUSIVE[0] <= port <= EXCLUSIVE[1] for port in ports)


def sctp_init(sport: int, dport: int) -> bytes:
    """An SCTP packet with an INIT chunk (RFC 9260, 3.3.2): what begins an association."""
    chunk = struct.pack("!BBHIIHHI", 1, 0, 20, 7, 65535, 1, 1, 1)
    head = struct.pack("!HHI", sport, dport, 0)
    return head + struct.pack("<I", crc32c(head + bytes(4) + chunk)) + chunk


def crc32c(data: bytes) -> int:
    """RFC 9260, appendix A: bit by bit, the reflected polynomial."""
    value = 0xFFFF_FFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F6_3B78 if value & 1 else 0)
    return value ^ 0xFFFF_FFFF


def test_where_the_kernel_would_give_sockets_these_ports_they_are_reserved(lab: LabFactory) -> None:
    """A machine tuned to `ip_local_port_range = 1024 65535`: as a rule it is found so at the start;
    and it may become so later. What others have reserved stays, and all is as before at the end."""
    built = lab(Options(clients=1))
    reserved, own = "net/ipv4/ip_local_reserved_ports", "net/ipv4/ip_local_port_range"
    built.gw.netns.sysctl(reserved, 8080)
    g = ground(lambda _: built)
    assert built.gw.netns.sysctl(reserved).strip() == "8080"
    built.gw.netns.sysctl(own, "1024 65535")
    built.gw.netns.ip(
        "link add something type veth peer name other"
    )  # an event: control looks again
    wanted = "8080,10240-32767"
    wait_until(lambda: built.gw.netns.sysctl(reserved).strip() == wanted, 5.0, "the reservation")
    assert g.connect(0, dtls=False)
    g.gateway.stop()
    assert built.gw.netns.sysctl(reserved).strip() == "8080"

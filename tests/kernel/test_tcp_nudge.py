"""A nudge makes a real TCP say exactly what it has, and changes nothing of its connection.

    client's socket ── vpns0 (tun) ── the test, which plays ocserv and the far end

What is sent to the device is read from it, as ocserv would, and handed to the client's own end.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from contextlib import closing
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path

import pytest

from ocgate.kernel.apply import apply
from ocgate.kernel.conntrack import TcpFlow
from ocgate.kernel.nft import Nft
from ocgate.kernel.tcp_nudge import AT_ONCE, nudge, segment
from ocgate.kernel.tunnel_group import TunnelGroup
from ocgate.netlab.namespace import Namespace
from ocgate.netlab.packet import ACK, ETH_IPV4, ETH_IPV6, SYN, Packet, build_tcp, parse
from ocgate.plan.exits import Exit, ExitKind, Steering
from ocgate.plan.facts import Address
from ocgate.plan.intent import Intent, Wan
from ocgate.plan.ipv6 import Ipv6Path
from ocgate.plan.planner import plan
from ocgate.prove.tun import open_tun
from ocgate.sessions.elements import NO_SESSIONS

pytestmark = pytest.mark.kernel

CLIENTS = (ip_address("10.10.10.5"), ip_address("fd00:7::5"))
FAR = {4: ip_address("198.51.100.10"), 6: ip_address("2001:db8:51::10")}
FAR_SEQ = 7_000_000
_SEQUENCE = slice(4, 8)  # within a TCP header; the acknowledgement is behind it


@pytest.fixture
def tun(netns: Namespace) -> Iterator[int]:
    """The descriptor of vpns0, which has the clients' addresses and leads everywhere."""
    descriptor = open_tun(netns, "vpns0")
    netns.ip("link set vpns0 up", "address add 10.10.10.5/32 dev vpns0")
    netns.ip("route add default dev vpns0")
    netns.ip("address add fd00:7::5/128 dev vpns0 nodad", "route add default dev vpns0", v6=True)
    yield descriptor
    os.close(descriptor)


def heard(tun: int, to: Address, wait: float = 5.0) -> Packet | None:
    """The next packet for this address, or None."""
    while select.select([tun], [], [], wait)[0]:
        raw = os.read(tun, 2000)
        ethertype = ETH_IPV4 if raw[0] >> 4 == 4 else ETH_IPV6
        packet = parse(Packet(0.0, "vpns0", True, ethertype, raw))
        if packet.dst == to and packet.protocol == "tcp":
            return packet
    return None


def header(packet: Packet) -> bytes:
    return packet.raw[20 if packet.ethertype == ETH_IPV4 else 40 :]


@pytest.mark.parametrize("client", CLIENTS, ids=["4", "6"])
def test_a_connection_that_stands_answers_with_what_it_has(tun: int, client: Address) -> None:
    far = FAR[client.version]
    family = socket.AF_INET if client.version == 4 else socket.AF_INET6
    with closing(socket.socket(family, socket.SOCK_STREAM)) as sock:
        sock.setblocking(False)
        sock.bind((str(client), 0))
        sock.connect_ex((str(far), 80))
        syn = heard(tun, far)
        assert syn is not None
        assert syn.sport is not None
        began = int.from_bytes(header(syn)[_SEQUENCE], "big")
        says = {"flags": SYN | ACK, "seq": FAR_SEQ, "ack": began + 1}
        os.write(tun, build_tcp(far, client, 80, syn.sport, **says))
        assert heard(tun, far) is not None  # the connection stands
        os.write(tun, segment(TcpFlow(client, syn.sport, far, 80)))
        answer = heard(tun, far)
        assert answer is not None
        assert answer.flags == ACK
        assert header(answer)[4:12] == (began + 1).to_bytes(4, "big") + (FAR_SEQ + 1).to_bytes(
            4, "big"
        )
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        sock.send(b"on")
        goes_on = heard(tun, far)
        assert goes_on is not None
        assert goes_on.raw.endswith(b"on")


OWN = ip_address("192.0.2.2")
BY_A_GATEWAY = Intent(
    device="vpns",
    subnets4=(IPv4Network("10.10.10.0/24"),),
    subnets6=(IPv6Network("fd00:7::/64"),),
    prefix6=128,
    gateways=(ip_address("10.10.10.1"),),
    resolvers=(),
    tcp_ports=(443,),
    mss=None,
    wan4=Wan("wan0", 1500),
    wan6=Wan("wan0", 1500),
    ipv6=Ipv6Path.NAT66,
    ports=(10240, 32767),
    steering=Steering(
        exit4=Exit(4, ExitKind.GATEWAY, "wan0", ip_address("192.0.2.3"), own=(OWN,)),
        exit6=Exit(6, ExitKind.DIRECT, "wan0"),
        table=100,
        priority=1000,
        exclusive=True,
    ),
)
SESSIONS = (ip_address("10.10.10.6"), ip_address("fd00:7::6"))
NOBODY, ELSEWHERE = ip_address("10.10.10.7"), ip_address("10.10.10.8")


@pytest.fixture
def server(netns: Namespace) -> Iterator[tuple[int, int]]:
    """The descriptors of vpns1, to which the sessions' routes lead, and of lan0, with another."""
    netns.ip("route add blackhole 10.10.10.0/24 metric 4294967295")
    made = [open_tun(netns, name) for name in ("vpns1", "lan0")]
    netns.ip("link set vpns1 up", "link set lan0 up", f"route add {ELSEWHERE} dev lan0")
    netns.ip(f"route add {SESSIONS[0]} dev vpns1")
    netns.ip(f"route add {SESSIONS[1]} dev vpns1", v6=True)
    yield made[0], made[1]
    for descriptor in made:
        os.close(descriptor)


def flows_of(*clients: Address, ports: int = 1) -> list[TcpFlow]:
    return [TcpFlow(c, 1024 + n, FAR[c.version], 443) for c in clients for n in range(ports)]


def test_it_goes_to_the_session_that_has_the_address_and_to_nobody_else(
    server: tuple[int, int],
) -> None:
    """Not to an address without a session, which the blackhole has, nor by any other device."""
    tunnel, lan = server
    flows = flows_of(NOBODY, ELSEWHERE, *SESSIONS)
    assert nudge(flows, tunnels="vpns") == len(SESSIONS)
    assert all(heard(tunnel, client) for client in SESSIONS)
    assert heard(lan, ELSEWHERE, wait=0.1) is None
    assert nudge(flows_of(ELSEWHERE), tunnels="lan") == 1  # positive control
    assert heard(lan, ELSEWHERE) is not None


def test_it_finds_its_client_among_the_rules_of_gateway_mode(
    server: tuple[int, int], netns: Namespace, tmp_path: Path
) -> None:
    """These lead to tunnels of admitted sessions alone."""
    netns.ip(
        "link add wan0 type veth peer name isp0",
        "link set wan0 up",
        f"address add {OWN}/24 dev wan0",
    )
    apply(Nft(), plan(BY_A_GATEWAY), NO_SESSIONS, run_dir=tmp_path)
    assert nudge(flows_of(*SESSIONS), tunnels="vpns") == 0
    TunnelGroup().join(("vpns1",))
    assert nudge(flows_of(*SESSIONS), tunnels="vpns") == len(SESSIONS)
    assert all(heard(server[0], client) for client in SESSIONS)


def test_many_are_paced(server: tuple[int, int]) -> None:
    """A tun's queue holds 500."""
    pauses: list[float] = []
    flows = flows_of(SESSIONS[0], ports=2 * AT_ONCE)
    assert nudge(flows, tunnels="vpns", sleep=pauses.append) == len(flows)
    assert len(pauses) == 2
    assert all(heard(server[0], SESSIONS[0]) for _ in flows)


def test_a_device_that_is_another_s_by_then_gets_nothing(
    server: tuple[int, int], netns: Namespace
) -> None:
    """A session ends in the middle, and its device's name and address are the next one's."""
    _, lan = server
    left = iter(flows_of(SESSIONS[0], ports=AT_ONCE + 1))

    def end(_: float) -> None:
        netns.ip("link set vpns1 down", "link delete vpns1")
        netns.ip("link set lan0 down", "link set lan0 name vpns1", "link set vpns1 up")
        netns.ip(f"route add {SESSIONS[0]} dev vpns1")

    assert nudge(left, tunnels="vpns", sleep=end) == AT_ONCE
    assert heard(lan, SESSIONS[0], wait=0.1) is None
    assert nudge(flows_of(SESSIONS[0]), tunnels="vpns") == 1  # positive control
    assert heard(lan, SESSIONS[0]) is not None


def test_it_carries_nothing_and_is_another_each_time() -> None:
    flow = TcpFlow(CLIENTS[0], 40000, FAR[4], 443)
    packets = [parse(Packet(0.0, "", True, ETH_IPV4, segment(flow))) for _ in range(2)]
    assert {(p.src, p.sport, p.dst, p.dport, p.flags, len(p.raw)) for p in packets} == {
        (FAR[4], 443, CLIENTS[0], 40000, ACK, 40)
    }
    assert packets[0].raw != packets[1].raw

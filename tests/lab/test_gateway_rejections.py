"""What gateway mode refuses, as the client hears it: at once, by RST or ICMP, in both families.

client1 === inet === router -- gw (ocgate) -- upstream === OpenVPN === provider --- services
client2                                                       see lab.upstream, support.gateway_mode

What the gateway itself says to a client about a flow of the client's is related to that flow. It
goes into the tunnel, not to the exit, and no counter blames the client for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address

import pytest

from lab.addresses import EXIT_UPSTREAM, EXIT_UPSTREAM6, PROVIDER, UPSTREAM, UPSTREAM6
from lab.client import Client
from lab.ocserv import VPN_NET, VPN_NET6
from lab.topology import SERVICE, SERVICE6, Options
from lab.traffic import Answer, Verdict, ask_tcp, ask_udp, ping, read_error, udp_socket
from ocgate.names import NFT_TABLE_GATEWAY
from support.gateway_mode import Chain, LabFactory, chain, seen_as
from support.leak_captures import counters

pytestmark = pytest.mark.lab

Address = IPv4Address | IPv6Address

METADATA = IPv4Address("169.254.169.254")
ADMIN_PROHIBITED = {4: (3, 13), 6: (1, 1)}
TIME_EXCEEDED = {4: (11, 0), 6: (3, 0)}
TOO_BIG = {4: (3, 4), 6: (2, 0)}

# A closed port below, and one among those that clients' flows are translated to: a RST comes from
# the port that the client asked.
PORTS = (7, 20000)

SIX = {"VPN_GATEWAY6": str(UPSTREAM6)}
DIRECT6 = {"VPN_GATEWAY6": "direct"}


def blamed(g: Chain) -> dict[str, int]:
    """The guard's counters that name no destination: of what should not have been sent at all."""
    found = counters(g.gateway, f"inet {NFT_TABLE_GATEWAY}")
    return {reason: found[reason] for reason in ("wrong_exit", "stray")}


def not_refused(client: Client, to: Iterable[Address]) -> Iterator[str]:
    """By TCP a RST, by UDP and ping the ICMP error of a policy, each at once; what is otherwise."""
    for address in to:
        icmp = ADMIN_PROHIBITED[address.version]
        answers: dict[str, tuple[Answer, Verdict]] = {}
        for port in PORTS:
            tcp, udp = ask_tcp(client.netns, address, port), ask_udp(client.netns, address, port)
            answers |= {
                f"tcp {port}": (tcp, Verdict.REFUSED),
                f"udp {port}": (udp, Verdict.REJECTED),
            }
        answers["ping"] = (ping(client.netns, address), Verdict.REJECTED)
        for what, (answer, wanted) in answers.items():
            right = answer.verdict is wanted and answer.kind in (None, icmp)
            if not (right and answer.at_once):
                yield f"{what} to {address}: {answer}"


def closed_to_clients(g: Chain, other: Client) -> list[Address]:
    """Metadata, another client, gw's own address, docker host, neighbour, the upstream itself."""
    own, own6 = g.lab.gw.address, g.lab.gw.address6
    assert own6 is not None
    assert other.address is not None
    host, host6 = g.lab.router.second, g.lab.router.second6
    assert host is not None
    assert host6 is not None
    neighbour = g.lab.neighbours[0]
    assert neighbour.address6 is not None
    assert other.address6 is not None
    four = [METADATA, other.address, own, host, neighbour.address, UPSTREAM]
    return [*four, other.address6, own6, host6, neighbour.address6, UPSTREAM6]


OPTIONS = Options(clients=2, neighbours=1, upstream=True)


CLOSED = {
    "both by gateways": SIX,
    "IPv6 direct": {"VPN_GATEWAY6": "direct"},
    "IPv4 direct": {"VPN_GATEWAY": "direct", **SIX},
}


@pytest.mark.parametrize("ways", CLOSED)
def test_what_is_closed_to_clients_is_refused_at_once(lab: LabFactory, ways: str) -> None:
    """In both families as soon as one leaves by a gateway, whichever way the other does: neighbours
    have both. So is the server's address in the tunnel, but for a ping."""
    g = chain(lab, OPTIONS, environ=CLOSED[ways])
    g.wait_up(4 if ways == "IPv6 direct" else 6)
    client, other = g.connect(0), g.connect(1, "bob")
    assert seen_as(client) == {g.lab.router.address if ways == "IPv4 direct" else PROVIDER}
    before = blamed(g)
    assert list(not_refused(client, closed_to_clients(g, other))) == []
    assert gateway_itself_not_refused(client) == []
    assert blamed(g) == before
    assert counters(g.gateway, f"inet {NFT_TABLE_GATEWAY}")["local_destination"] > 0


@pytest.mark.parametrize(
    "environ", [{"VPN_GATEWAY": "direct"}, {"VPN_GATEWAY": None}], ids=["direct", "standalone"]
)
def test_networks_of_this_host_are_reached_where_nothing_leaves_by_a_gateway(
    lab: LabFactory, environ: Mapping[str, str | None]
) -> None:
    """The other side of the promise, and the control of the test above: the neighbour does answer,
    in both families."""
    g = chain(lab, OPTIONS, environ=environ)
    client, neighbour = g.connect(0), g.lab.neighbours[0]
    assert neighbour.address6 is not None
    for address in (neighbour.address, neighbour.address6):
        assert ping(client.netns, address)
        assert ask_udp(client.netns, address).kind in ((3, 3), (1, 4))  # its own: nobody listens


def gateway_itself_not_refused(client: Client) -> list[str]:
    """The server's own address in the tunnel answers a ping, and refuses all else."""
    wrong = []
    for address in (VPN_NET[1], VPN_NET6[1]):
        for port in PORTS:
            tcp, udp = ask_tcp(client.netns, address, port), ask_udp(client.netns, address, port)
            right = (tcp.verdict, udp.verdict) == (Verdict.REFUSED, Verdict.REJECTED)
            if not (right and tcp.at_once and udp.at_once):
                wrong.append(f"{address} {port}: {tcp}, {udp}")
        if not ping(client.netns, address):
            wrong.append(f"{address}: no ping")
    return wrong


@pytest.mark.parametrize("kind", ["down", "block"])
def test_all_is_refused_at_once_while_an_exit_is_closed(lab: LabFactory, kind: str) -> None:
    """An exit that is down, and `block`: each port, those of translated flows among them."""
    environ = SIX if kind == "down" else {"VPN_GATEWAY": "block", "VPN_GATEWAY6": "block"}
    g = chain(lab, environ=environ)
    if kind == "down":
        g.upstream.drop_tunnel()
        g.wait_down(4)
        g.wait_down(6)
    client = g.connect(0)
    before = blamed(g)
    assert list(not_refused(client, [SERVICE, SERVICE6])) == []
    assert blamed(g) == before


# --- errors about a flow that is allowed ---------------------------------------------------------


def hears(
    client: Client, to: Address, size: int, *, hops: int | None = None
) -> list[tuple[int, int]]:
    """The ICMP errors of three datagrams that may not be fragmented, in at most a second each."""
    heard = []
    for _ in range(3):
        with udp_socket(client.netns, to, 9, None) as sock:
            level, limit, discover = (0, 2, 10) if to.version == 4 else (41, 16, 23)
            sock.setsockopt(level, discover, 3)  # IP_PMTUDISC_PROBE: DF, whatever was heard before
            if hops is not None:
                sock.setsockopt(level, limit, hops)
            sock.send(bytes(size))
            sock.settimeout(1.0)
            try:
                sock.recv(1)
            except OSError:
                error = read_error(sock)
                heard += [error[0]] if error else []
    return heard


@pytest.mark.parametrize("environ", [SIX, DIRECT6], ids=["IPv6 by a gateway", "IPv6 direct"])
def test_a_client_learns_what_becomes_of_its_packets(
    lab: LabFactory, environ: Mapping[str, str]
) -> None:
    """Hop limit 1: time exceeded. A datagram too large for a path of MTU 1280: fragmentation
    needed, packet too big. Three of three, in both families, by this host and by the upstream."""
    own = {"VPN_GATEWAY": str(EXIT_UPSTREAM)}
    if environ is SIX:
        own["VPN_GATEWAY6"] = str(EXIT_UPSTREAM6)
    g = chain(lab, Options(upstream=True, exit_net=True), environ={**environ, **own})
    g.wait_up()
    client = g.connect(0)
    before = blamed(g)
    services = (SERVICE, SERVICE6)
    for to in services:
        assert hears(client, to, 8, hops=1) == [TIME_EXCEEDED[to.version]] * 3
    carried = services if environ is SIX else (SERVICE,)
    for netns, device in ((g.upstream.netns, "tun0"), (g.lab.gw.netns, "exit0")):
        netns.ip(f"link set {device} mtu 1280")
        for to in carried:
            assert hears(client, to, 1290) == [TOO_BIG[to.version]] * 3
    assert blamed(g) == before

"""Building the lab's network: namespaces, links, addresses, routes, the router's NAT.

`topology` draws the result. All links are created straight in their namespaces, so that nothing
ever appears in the machine's own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from lab.addresses import (
    CLIENT_NET,
    CLIENT_NET6,
    DOCKER_NET,
    DOCKER_NET6,
    EXIT_NET,
    EXIT_NET6,
    EXIT_UPSTREAM,
    EXIT_UPSTREAM6,
    PROVIDER,
    PROVIDER6,
    PROVIDER_NET,
    PROVIDER_NET6,
    RESOLVER,
    RESOLVER6,
    SECOND_NET,
    SECOND_NET6,
    SERVICE,
    SERVICE6,
    UPLINK_NET,
    UPLINK_NET6,
    UPSTREAM,
    UPSTREAM6,
    Host,
    Ipv6,
    Options,
)
from lab.wiring import CLIENT_METRIC, addresses, leaf, router_ipv6, router_nat, veth
from ocgate.netlab.namespace import Namespace
from ocgate.netlab.wait import wait_until

# DAD would keep every new address unusable for a second; router discovery would only add noise.
_QUIET_IPV6 = {"accept_dad": 0, "accept_ra": 0, "autoconf": 0, "router_solicitations": 0}


Create = Callable[[str], Namespace]


@dataclass(frozen=True)
class Network:
    """The hosts of the drawing; `chain` is (upstream, provider), or empty without them."""

    gw: Host
    router: Host
    inet: Host
    clients: tuple[Host, ...]
    neighbours: tuple[Host, ...]
    chain: tuple[Host, ...]

    def hosts(self) -> tuple[Host, ...]:
        return (self.gw, self.router, self.inet, *self.clients, *self.neighbours, *self.chain)

    def dockers(self) -> tuple[Host, ...]:
        """The containers on gw's docker network."""
        return (self.gw, *self.neighbours, *self.chain[:1])


def build_network(options: Options, create: Create) -> Network:
    """Build it; `create` makes (and owns) a namespace for a role such as "client1"."""
    network = _hosts(options, create)
    for host in network.hosts():
        set_defaults(host.netns)
    _connect(network, options)
    _configure(network, options)
    _wait_for_links(network)
    return network


def _hosts(options: Options, create: Create) -> Network:
    return Network(
        gw=_gw(options, create),
        router=_router(create),
        inet=Host("inet", create("inet"), SERVICE, SERVICE6, RESOLVER, RESOLVER6),
        clients=tuple(_client(i + 1, create) for i in range(options.clients)),
        neighbours=tuple(_neighbour(i + 1, create) for i in range(options.neighbours)),
        chain=(_upstream(options, create), _provider(create)) if options.upstream else (),
    )


def _router(create: Create) -> Host:
    own, own6 = UPLINK_NET[1], UPLINK_NET6[1]
    return Host("router", create("router"), own, own6, DOCKER_NET[1], DOCKER_NET6[1])


def _gw(options: Options, create: Create) -> Host:
    has_v6 = options.ipv6 is not Ipv6.NONE
    second = options.second_uplink
    return Host(
        "gw",
        create("gw"),
        DOCKER_NET[10],
        DOCKER_NET6[0x10] if has_v6 else None,
        SECOND_NET[10] if second else None,
        SECOND_NET6[0x10] if second and has_v6 else None,
        DOCKER_NET[1],
        DOCKER_NET6[1] if has_v6 else None,
    )


def _neighbour(number: int, create: Create) -> Host:
    return Host(
        f"neighbour{number}",
        create(f"neighbour{number}"),
        DOCKER_NET[19 + number],
        DOCKER_NET6[0x1F + number],
        next_hop=DOCKER_NET[1],
        next_hop6=DOCKER_NET6[1],
    )


def _upstream(options: Options, create: Create) -> Host:
    return Host(
        "upstream",
        create("upstream"),
        UPSTREAM,
        UPSTREAM6,
        EXIT_UPSTREAM if options.exit_net else None,
        EXIT_UPSTREAM6 if options.exit_net else None,
        DOCKER_NET[1],
        DOCKER_NET6[1],
    )


def _provider(create: Create) -> Host:
    return Host(
        "provider",
        create("provider"),
        PROVIDER,
        PROVIDER6,
        next_hop=PROVIDER_NET[1],
        next_hop6=PROVIDER_NET6[1],
    )


def _client(number: int, create: Create) -> Host:
    base, base6 = 8 * number, number << 64
    return Host(
        f"client{number}",
        create(f"client{number}"),
        CLIENT_NET[base + 2],
        CLIENT_NET6[base6 + 2],
        CLIENT_NET[base + 3],
        CLIENT_NET6[base6 + 3],
        CLIENT_NET[base + 1],
        CLIENT_NET6[base6 + 1],
    )


def _connect(network: Network, options: Options) -> None:
    """All links, created straight in their namespaces: nothing appears in the machine's own."""
    lines = ["link add docker type bridge stp_state 0 forward_delay 0 mcast_snooping 0"]
    for host in network.dockers():
        lines += [
            veth("eth0", host, host.role, network.router),
            f"link set {host.role} master docker mtu {options.mtu} up",
        ]
    if options.second_uplink:
        lines.append(veth("eth1", network.gw, "docker2", network.router))
    lines.append(veth("uplink", network.router, "router", network.inet))
    far = (*network.clients, *network.chain[1:])
    lines += [veth("eth0", host, host.role, network.inet) for host in far]
    if options.exit_net:
        lines += _exit_net(network)
    network.router.netns.ip(*lines)


def _exit_net(network: Network) -> list[str]:
    """A bridge like the docker network's, but one on which the docker host has no address."""
    lines = ["link add exits up type bridge stp_state 0 forward_delay 0 mcast_snooping 0"]
    for name, host in (("exit0", network.gw), ("eth1", network.chain[0])):
        port = f"exit-{host.role}"
        lines += [veth(name, host, port, network.router), f"link set {port} master exits up"]
    return lines


def _configure(network: Network, options: Options) -> None:
    _configure_router(network, options)
    _configure_inet(network, options)
    for host in network.dockers():
        if host.address6 is None:
            host.netns.sysctl("net/ipv6/conf/eth0/disable_ipv6", 1)
        host.netns.ip(f"link set eth0 mtu {options.mtu}", *leaf(host, 24))
    if options.second_uplink:
        network.gw.netns.ip(*addresses("eth1", network.gw.second, network.gw.second6))
    for host in network.clients:
        host.netns.ip(
            *addresses("eth0", host.second, host.second6, 29), *leaf(host, 29, metric=CLIENT_METRIC)
        )
    if network.chain:
        _configure_chain(network)


def _configure_chain(network: Network) -> None:
    """Both ends of the chain forward; what they forward is for `lab.upstream` to say."""
    gw, (upstream, provider) = network.gw, network.chain
    for host in network.chain:
        forward(host.netns)
    provider.netns.ip(*leaf(provider, PROVIDER_NET.prefixlen))
    if upstream.second is not None:
        upstream.netns.ip(*addresses("eth1", upstream.second, upstream.second6))
        own6 = EXIT_NET6[0x10] if gw.address6 is not None else None
        gw.netns.ip(*addresses("exit0", EXIT_NET[10], own6))


def _configure_router(network: Network, options: Options) -> None:
    router = network.router.netns
    forward(router)
    lines = [
        *addresses("docker", DOCKER_NET[1], DOCKER_NET6[1]),
        *addresses("uplink", network.router.address, network.router.address6),
        f"route add default via {UPLINK_NET[254]}",
        f"route add ::/0 via {UPLINK_NET6[0xFE]}",
    ]
    if options.second_uplink:
        lines += addresses("docker2", SECOND_NET[1], SECOND_NET6[1])
    router.ip(*lines)
    blocked = options.ipv6 is Ipv6.NO_EGRESS
    nat = router_nat(network.gw) if options.docker_nat else ""
    router.nft(nat + router_ipv6(blocked=blocked))


def _configure_inet(network: Network, options: Options) -> None:
    inet = network.inet.netns
    forward(inet)
    lines = [
        *(f"address add {a}/32 dev lo" for a in (SERVICE, RESOLVER)),
        *(f"address add {a}/128 dev lo nodad" for a in (SERVICE6, RESOLVER6)),
        *addresses("router", UPLINK_NET[254], UPLINK_NET6[0xFE]),
        *(f"route add {n} via {network.router.address6}" for n in (DOCKER_NET6, SECOND_NET6)),
    ]
    if not options.docker_nat:
        nets = (DOCKER_NET, SECOND_NET)
        lines += [f"route add {net} via {network.router.address}" for net in nets]
    for client in network.clients:
        lines += addresses(client.role, client.next_hop, client.next_hop6, 29)
    for host in network.chain[1:]:
        lines += addresses(host.role, host.next_hop, host.next_hop6, PROVIDER_NET.prefixlen)
    inet.ip(*lines)


def _wait_for_links(network: Network) -> None:
    """The kernel's link watcher may take its time; a lost first packet would be a flake."""
    for host in network.hosts():
        wait_until(functools.partial(links_up, host), 5.0, f"links of {host.role}")


def set_defaults(netns: Namespace) -> None:
    """A quiet host that forwards nothing and filters no reverse path."""
    for scope in ("all", "default"):
        netns.sysctl(f"net/ipv4/conf/{scope}/rp_filter", 0)
        for key, value in _QUIET_IPV6.items():
            netns.sysctl(f"net/ipv6/conf/{scope}/{key}", value)
    netns.sysctl("net/ipv4/ip_forward", 0)


def forward(netns: Namespace) -> None:
    """It routes both families."""
    netns.sysctl("net/ipv4/ip_forward", 1)
    netns.sysctl("net/ipv6/conf/all/forwarding", 1)


def links_up(host: Host) -> bool:
    """Does every link of it have a carrier?"""
    shown = host.netns.run(["ip", "-o", "link", "show", "up"]).stdout
    return "NO-CARRIER" not in shown and "LOWERLAYERDOWN" not in shown

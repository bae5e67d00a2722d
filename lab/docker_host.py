"""Docker hosts on the lab's internet, in which `podman` makes networks and containers.

    host1        a machine with a container engine: its bridges, its NAT and its published ports
      |          are made by the engine, not by us
    uplink 203.0.113.1/28, host2's .17/28, …
      |
    host1 203.0.113.14
    inet         as in `topology`, with the services, a resolver, and the public addresses that
      |    \\     ocgate's probes ask by default
      |     provider 198.51.100.200   the VPN provider's OpenVPN server (see `openvpn`)
    client1 192.0.2.10, .18, …        laptops

IPv4 alone leaves the hosts, as with a docker engine as it is installed; the laptops have IPv6 of
their own, and the services answer in both families.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, ip_address

from lab.addresses import (
    CLIENT_NET,
    CLIENT_NET6,
    PROVIDER,
    PROVIDER6,
    PROVIDER_NET,
    PROVIDER_NET6,
    RESOLVER,
    RESOLVER6,
    SERVICE,
    SERVICE6,
    UPLINK_NET,
    Host,
)
from lab.network import forward, links_up, set_defaults
from lab.openvpn import Provider
from lab.site import Site
from lab.wiring import CLIENT_METRIC, addresses, leaf, veth
from ocgate.netlab.dns import DnsServer
from ocgate.netlab.namespace import Namespace
from ocgate.netlab.services import Services
from ocgate.netlab.wait import wait_until

# What EXIT_PROBE asks by default, and the resolvers that a first start pushes to clients: examples
# run as they are printed, so the stand-in internet has them.
PUBLIC = (IPv4Address("1.1.1.1"), IPv4Address("9.9.9.9"))

MAX_HOSTS = 15  # UPLINK_NET cut in /28s
_UPLINK_PREFIX = 28


@dataclass(frozen=True)
class Machines:
    """How many of each: hosts 1..15, clients 1..31."""

    hosts: int = 1
    clients: int = 1


class DockerHosts(Site):
    """The drawing above: `hosts`, `clients`, `inet` with services and `dns`, `provider`."""

    hosts: tuple[Host, ...]
    clients: tuple[Host, ...]
    inet: Host
    provider: Host
    dns: DnsServer

    def __init__(self, machines: Machines | None = None) -> None:
        super().__init__()
        self.machines = machines or Machines()
        if not 1 <= self.machines.hosts <= MAX_HOSTS:
            raise ValueError(f"hosts: got {self.machines.hosts}; expected 1..{MAX_HOSTS}")

    @property
    def host(self) -> Host:
        """The first docker host."""
        return self.hosts[0]

    @property
    def server(self) -> IPv4Address:
        """Where the first host's published ports are."""
        return self.host.address

    def run_provider(self, users: dict[str, str] | None = None) -> Provider:
        """The OpenVPN server, serving; users: name -> password, asked for besides certificates."""
        directory = self.path("openvpn")
        directory.mkdir()
        return Provider(self, self.provider, directory, users)

    def _build(self) -> None:
        self.inet = Host("inet", self._netns("inet"), SERVICE, SERVICE6, RESOLVER, RESOLVER6)
        self.hosts = tuple(self._host(number) for number in range(self.machines.hosts))
        self.clients = tuple(self._client(number + 1) for number in range(self.machines.clients))
        self.provider = self._provider()
        leaves = (*self.hosts, *self.clients, self.provider)
        self.inet.netns.ip(*(veth(_device(host), host, host.role, self.inet) for host in leaves))
        self._configure()
        for host in (self.inet, *leaves):
            wait_until(functools.partial(links_up, host), 5.0, f"links of {host.role}")
        self.own(Services(self.inet.netns, (SERVICE, SERVICE6, *PUBLIC)))
        self.dns = self.own(DnsServer(self.inet.netns, (RESOLVER,), {}))

    def _netns(self, role: str) -> Namespace:
        made = self._create(role)
        set_defaults(made)
        return made

    def _host(self, number: int) -> Host:
        net = _uplink(number)
        role = f"host{number + 1}"
        return Host(role, self._netns(role), net[1], None, next_hop=net[14])

    def _client(self, number: int) -> Host:
        base, base6 = 8 * number, number << 64
        role = f"client{number}"
        return Host(
            role,
            self._netns(role),
            CLIENT_NET[base + 2],
            CLIENT_NET6[base6 + 2],
            next_hop=CLIENT_NET[base + 1],
            next_hop6=CLIENT_NET6[base6 + 1],
        )

    def _provider(self) -> Host:
        return Host(
            "provider",
            self._netns("provider"),
            PROVIDER,
            PROVIDER6,
            next_hop=PROVIDER_NET[1],
            next_hop6=PROVIDER_NET6[1],
        )

    def _configure(self) -> None:
        forward(self.inet.netns)
        own = (SERVICE, RESOLVER, *PUBLIC)
        lines = [f"address add {a}/32 dev lo" for a in own]
        lines += [f"address add {a}/128 dev lo nodad" for a in (SERVICE6, RESOLVER6)]
        for host, length in self._lengths():
            lines += addresses(host.role, host.next_hop, host.next_hop6, length)
        self.inet.netns.ip(*lines)
        for host in self.hosts:
            self._configure_host(host)
        for host in self.clients:
            host.netns.ip(*leaf(host, 29, metric=CLIENT_METRIC))
        forward(self.provider.netns)
        self.provider.netns.ip(*leaf(self.provider, PROVIDER_NET.prefixlen))

    def _lengths(self) -> list[tuple[Host, int]]:
        """Each leaf with its network's prefix length."""
        found = [(host, _UPLINK_PREFIX) for host in self.hosts]
        found += [(host, 29) for host in self.clients]
        return [*found, (self.provider, PROVIDER_NET.prefixlen)]

    def _configure_host(self, host: Host) -> None:
        host.netns.sysctl("net/ipv4/ip_forward", 1)  # as a docker engine sets it
        host.netns.ip(
            *addresses("uplink", host.address, None, _UPLINK_PREFIX),
            f"route add default via {host.next_hop} dev uplink",
        )


def _device(host: Host) -> str:
    return "uplink" if host.role.startswith("host") else "eth0"


def _uplink(number: int) -> IPv4Network:
    net = ip_address(int(UPLINK_NET.network_address) + 16 * number)
    return IPv4Network(f"{net}/{_UPLINK_PREFIX}")

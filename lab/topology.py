"""The network every lab test runs in, built in a fraction of a second and removed without trace.

    gw            the container under test          neighbour1..N   others on the docker network
    eth0 172.28.0.10      eth1 172.29.0.10 (opt.)   eth0 172.28.0.20..
     2001:db8:28::10       2001:db8:29::10           2001:db8:28::20..
      |                     |                          |
      +---------------------|--------------------------+
      |                     |
    docker 172.28.0.1     docker2 172.29.0.1
     2001:db8:28::1        2001:db8:29::1
    router        docker host and ISP router: publishes port 443 of gw, masquerades the docker
      |           networks (and nothing else: a packet with a client's address stays visible)
    uplink 203.0.113.1, 2001:db8:113::1
      |
    router 203.0.113.254, 2001:db8:113::fe
    inet          the internet: routes between router and clients, and is the services' host:
      |           198.51.100.10, 2001:db8:51::10 (services)   198.51.100.53, 2001:db8:51::53 (DNS)
    client1..N 192.0.2.9, .17, …   2001:db8:c:1::1, 2001:db8:c:2::1, …
      |
    eth0 192.0.2.10 (roams to .11), .18, …   2001:db8:c:1::2 (roams to ::3), …
    client1..N    laptops with addresses of their own in both families

With `Options(upstream=True)` there are an upstream VPN container on the docker network and its
provider on the internet, too; `lab.upstream` draws them.

Only documentation prefixes (RFC 5737, RFC 3849) and RFC 1918 ones. gw's IPv4 forwarding starts
at 0 and its reverse path filter is off: the hardest case for what is tested. Everything here is
plain kernel configuration; `Lab` is the context manager that owns it all.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from lab.addresses import (
    PORT,
    RESOLVER,
    RESOLVER6,
    SECOND_NET,
    SECOND_NET6,
    SERVICE,
    SERVICE6,
    Host,
    Ipv6,
    Options,
)
from lab.network import Network, build_network
from lab.site import WORK_ROOT, Site, sweep
from lab.wiring import router_ipv6

# A test needs no second import for what it reads in the drawing.
__all__ = [
    "PORT",
    "RESOLVER",
    "RESOLVER6",
    "SERVICE",
    "SERVICE6",
    "WORK_ROOT",
    "Host",
    "Ipv6",
    "Lab",
    "Options",
    "sweep",
]


class Lab(Site):
    """Context manager that builds the drawing above and owns all that is started inside."""

    network: Network

    def __init__(self, options: Options | None = None) -> None:
        super().__init__()
        self.options = options or Options()

    def _build(self) -> None:
        self.network = build_network(self.options, self._create)

    # --- who is there -------------------------------------------------------------------------

    @property
    def gw(self) -> Host:
        return self.network.gw

    @property
    def router(self) -> Host:
        return self.network.router

    @property
    def inet(self) -> Host:
        return self.network.inet

    @property
    def clients(self) -> tuple[Host, ...]:
        return self.network.clients

    @property
    def neighbours(self) -> tuple[Host, ...]:
        return self.network.neighbours

    @property
    def upstream(self) -> Host:
        """The upstream VPN container (needs Options(upstream=True), as does `provider`)."""
        return self.network.chain[0]

    @property
    def provider(self) -> Host:
        return self.network.chain[1]

    def hosts(self) -> tuple[Host, ...]:
        return self.network.hosts()

    # --- how clients reach the server ---------------------------------------------------------

    @property
    def server(self) -> IPv4Address:
        """The address that clients connect to."""
        return self.router.address if self.options.docker_nat else self.gw.address

    @property
    def server6(self) -> IPv6Address | None:
        """The same for IPv6; always gw's own (there is no NAT66 on the way in)."""
        return self.gw.address6

    # --- faults and changes -------------------------------------------------------------------

    def move_wan(self) -> None:
        """gw's default routes move from eth0 to eth1 (needs `second_uplink`)."""
        self.gw.netns.ip(f"route replace default via {SECOND_NET[1]} dev eth1")
        if self.options.ipv6 is not Ipv6.NONE:
            self.gw.netns.ip(f"route replace ::/0 via {SECOND_NET6[1]} dev eth1")

    def set_ipv6_egress(self, *, works: bool) -> None:
        """Let the router pass gw's IPv6, or drop it silently as a broken provider does."""
        self.router.netns.nft(router_ipv6(blocked=not works))

    def route_to_gw(self, prefix: IPv4Network | IPv6Network) -> None:
        """Route `prefix` from the internet to gw, as a provider does with a delegated one."""
        is_v4 = isinstance(prefix, IPv4Network)
        router = self.router.address if is_v4 else self.router.address6
        gw = self.gw.address if is_v4 else self.gw.address6
        self.inet.netns.ip(f"route replace {prefix} via {router}")
        self.router.netns.ip(f"route replace {prefix} via {gw}")

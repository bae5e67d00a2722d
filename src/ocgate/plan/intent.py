"""What is wanted of the network, free of where each wish was written.

Pure. `derive` joins the operator's settings, the view of ocserv.conf, the facts of the machine and
the IPv6 decision into one `Intent`; the planner needs nothing else, so a twin of this
configuration can be planned for scratch namespaces as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from ocgate.plan.exits import Exit, ExitKind, Marks, Steering
from ocgate.plan.facts import Family, Network
from ocgate.plan.ipv6 import Ipv6Path
from ocgate.plan.permitted import Permitted

IPAddress = IPv4Address | IPv6Address


@dataclass(frozen=True)
class Wan:
    """The interface by which the exit `direct` leaves: its name and its MTU in bytes.

    `mtu` is None while the interface is not there: its rules stand all the same, by name.
    """

    name: str
    mtu: int | None = None


@dataclass(frozen=True)
class Intent:
    """The wishes of one configuration on one machine.

    device:     name of client tunnels without number, as in ocserv's `device =`
    subnets4/6: client subnets; every session's address lies in one of them
    prefix6:    bits of the IPv6 source that a session owns (ocserv's ipv6-subnet-prefix), 1 to 128
    gateways:   the server's own addresses inside the tunnel; clients may ping them
    resolvers:  pushed resolvers that are addresses of this host; clients may ask them
    tcp_ports:  where ocserv listens; their connections get the MSS clamp
    mss:        hard cap in bytes, or None to clamp to each interface's MTU
    wan4/wan6:  way out of each family; None: there is none now, clients are rejected
    ipv6:       what happens to IPv6 packets of sessions
    ports:      first and last port that clients' flows are translated to: no socket of this host
                listens on these or sends from them
    reserved:   net.ipv4.ip_local_reserved_ports as it must be for that; '': as it is
    accept_ra_on: interfaces whose IPv6 default route comes from router advertisements
    written_on: those of them whose addresses do not, so that no prefix need be taken from there
    steering:   gateway mode; None: the standalone server, whose exit is wan4 and wan6
    pushed:     resolvers that clients are told to use
    local:      on-link networks of this host, closed to clients whose exit is a gateway
    strict_on:  interfaces of the gateway whose reverse path filter is strict
    session_flows: how many flows one session may have; 0: as many as it likes
    networks:   further networks that clients may reach, each by its own interface
    """

    device: str
    subnets4: tuple[IPv4Network, ...]
    subnets6: tuple[IPv6Network, ...]
    prefix6: int
    gateways: tuple[IPAddress, ...]
    resolvers: tuple[IPAddress, ...]
    tcp_ports: tuple[int, ...]
    mss: int | None
    wan4: Wan | None
    wan6: Wan | None
    ipv6: Ipv6Path
    ports: tuple[int, int]
    reserved: str = ""
    accept_ra_on: tuple[str, ...] = ()
    written_on: tuple[str, ...] = ()
    steering: Steering | None = None
    pushed: tuple[IPAddress, ...] = ()
    local: tuple[Network, ...] = ()
    strict_on: tuple[str, ...] = ()
    session_flows: int = 0
    networks: tuple[Permitted, ...] = ()

    def subnets(self, family: Family) -> tuple[Network, ...]:
        """Client subnets of one family."""
        return self.subnets4 if family == 4 else self.subnets6

    @property
    def all_subnets(self) -> tuple[Network, ...]:
        """Client subnets of both families."""
        return (*self.subnets4, *self.subnets6)

    @property
    def exits(self) -> tuple[Exit, Exit]:
        """How each family leaves; of the standalone server both are `direct`."""
        if self.steering is not None:
            return (self.steering.exit4, self.steering.exit6)
        closed6 = "no way out" if self.ipv6 is Ipv6Path.REJECTED else ""
        return (
            Exit(4, ExitKind.DIRECT, self.wan4.name if self.wan4 else None),
            Exit(6, ExitKind.DIRECT, self.wan6.name if self.wan6 else None, closed=closed6),
        )

    @property
    def marks(self) -> Marks:
        """What sessions' packets are marked with."""
        four, six = self.exits
        return Marks(four.mark, six.mark)


def same_family(addresses: Iterable[IPAddress], version: int) -> tuple[IPAddress, ...]:
    """Those of IP version 4 or 6, in numeric order, once each."""
    return tuple(sorted({a for a in addresses if a.version == version}, key=int))

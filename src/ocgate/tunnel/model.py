"""What the parts of the exit role tell each other, as frozen values.

Pure; any room that may import `tunnel` may import this. A kind (`tunnel.openvpn` and the like)
reads a profile, names its remotes, says how its client is started and what the client's hook
reported; `tunnel.killswitch` turns an `ExitIntent` into the kernel state around it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from ocgate.names import TUNNEL_RULE_PRIO
from ocgate.plan.facts import Address, Family, InterfaceAddress, Network, collapsed

Protocol = Literal["udp", "tcp"]


class GatewayDns(Enum):
    """GATEWAY_DNS: what becomes of port 53 from the networks that may use the tunnel."""

    AUTO = "auto"  # redirected where the tunnel offers a resolver
    REDIRECT = "redirect"  # to the tunnel's resolver, whatever resolver was asked
    OFF = "off"  # forwarded like everything else


@dataclass(frozen=True)
class Remote:
    """One server that may be tried.

    host:      a name, or an address in its textual form (IPv6 without brackets).
    port:      1 to 65535.
    protocols: what is spoken on that port; OpenConnect has both (TLS and DTLS).
    label:     how logs and the status call it; never a secret.
    listed:    a provider's list says so, and not the operator: an address is then no better than
               an answer of DNS.
    """

    host: str
    port: int
    protocols: tuple[Protocol, ...]
    label: str
    listed: bool = False


@dataclass(frozen=True)
class Endpoint:
    """One address and port of the outside; what the kill switch opens, and nothing beside it.

    port: 1 to 65535.
    """

    address: Address
    port: int
    protocols: tuple[Protocol, ...]


@dataclass(frozen=True)
class Launch:
    """How the tunnel's client is started.

    argv:  the whole vector, without secrets: every user of the machine can read it.
    files: path relative to RUN_DIR/tunnel -> content; mode 0600, owned by the client's uid.
    stdin: what the client reads from its standard input (a password), or None.
    is_wireguard_go: it has no hook and listens where wg(8) looks for it, and it ends unless it may
        set its device's MTU, which is ours.
    """

    argv: tuple[str, ...]
    files: Mapping[str, bytes] = field(repr=False)
    stdin: str | None = field(default=None, repr=False)
    is_wireguard_go: bool = False


@dataclass(frozen=True)
class Refusal:
    """Something that a tunnel's server reported and that is not taken.

    why: a clause. loses: whether clients lose a family by it, which somebody has to put right.
    """

    what: str
    why: str
    loses: bool = False

    def __str__(self) -> str:
        return f"{self.what}: {self.why}"


@dataclass(frozen=True)
class Carried:
    """What an established tunnel carries.

    addresses: ours within it, with their prefix length.
    mtu:       bytes of an IP packet, 576 to 65535 (1280 and up where an address is IPv6).
    resolvers: that the tunnel's other end offers; asked through the tunnel.
    refused:   what it reported besides and is not taken.
    """

    addresses: tuple[InterfaceAddress, ...]
    mtu: int
    resolvers: tuple[Address, ...] = ()
    refused: tuple[Refusal, ...] = ()

    def has(self, family: Family) -> bool:
        """Whether packets of this family get beyond the tunnel's other end: an IPv6 address of the
        link alone goes nowhere."""
        return any(a.version == family and not a.ip.is_link_local for a in self.addresses)

    def resolver(self, family: Family) -> Address | None:
        """The first one of a family, where the tunnel carries that family at all."""
        offered = (address for address in self.resolvers if address.version == family)
        return next(offered, None) if self.has(family) else None


@dataclass(frozen=True)
class Bootstrap:
    """What is open to this host's root, by the uplink, while the endpoint isn't known yet.

    resolvers: asked on port 53, UDP and TCP, wherever they are: docker's own (127.0.0.11) on
               loopback. It asks others in turn, from this namespace unless its resolv.conf calls
               them `host(…)`; those must be given here, too.
    services:  a provider's API.
    """

    resolvers: tuple[Address, ...] = ()
    services: tuple[Endpoint, ...] = ()


@dataclass(frozen=True)
class ExitIntent:
    """What the exit's kernel state is made from; one value for each state of the exit.

    device:       the tunnel's, `tun0` or `wg0`.
    uplinks:      devices of main's default routes, IPv4's and IPv6's; none is fine.
    advertised_on: those of them whose IPv6 default route comes from router advertisements.
    forward_from: FORWARD_FROM, networks that may use the tunnel.
    local:        networks that are attached to this host, the tunnel's not among them.
    networks:     NETWORK, local networks that this host itself reaches without the tunnel.
    own:          this host's addresses on other devices than the tunnel's.
    endpoint:     the tunnel's server, resolved; None closes.
    client_uid:   owner of the tun, and the only uid that may talk to the endpoint; None where the
                  kernel itself is the client (WireGuard), whose packets belong to nobody.
    carried:      None while the tunnel is not up: then clients are rejected.
    former:       what the tunnel carried that was up until lately, while the next one is not: with
                  its addresses the kernel keeps the flows that were translated to them.
    given_up:     it is away for so long that its flows are reset when they send.
    ipv6:         False where the kernel was started without (ipv6.disable=1): then there is nothing
                  to rule. One that merely has it turned off takes rules and routes as any other.
    rule_prio:    of the first policy rule.
    """

    device: str
    uplinks: tuple[str, ...]
    forward_from: tuple[Network, ...]
    local: tuple[Network, ...] = ()
    networks: tuple[Network, ...] = ()
    own: tuple[Address, ...] = ()
    endpoint: Endpoint | None = None
    client_uid: int | None = None
    carried: Carried | None = None
    dns: GatewayDns = GatewayDns.REDIRECT
    bootstrap: Bootstrap | None = None
    ipv6: bool = True
    rule_prio: int = TUNNEL_RULE_PRIO
    advertised_on: tuple[str, ...] = ()
    former: Carried | None = None
    given_up: bool = False

    def inside(self, family: Family) -> list[Network]:
        """Networks of one family that may use the tunnel, as nft takes them in a set."""
        return collapsed(net for net in self.forward_from if net.version == family)

    def direct(self, family: Family) -> list[Network]:
        """Networks of one family that are reached without the tunnel, likewise."""
        return collapsed(net for net in self.networks if net.version == family)

    @property
    def redirects(self) -> bool:
        """Whether port 53 goes to the tunnel's resolver, or nowhere."""
        offered = self.carried is not None and bool(self.carried.resolvers)
        return self.dns is GatewayDns.REDIRECT or (self.dns is GatewayDns.AUTO and offered)

    def carries(self, family: Family) -> bool:
        """Whether clients' packets of this family get out now."""
        known = family == 4 or self.ipv6
        return known and self.carried is not None and self.carried.has(family)

    def waits(self, family: Family) -> bool:
        """Whether flows of this family that exist may go on by the next tunnel."""
        if self.given_up or self.carried is not None or self.former is None:
            return False
        return (family == 4 or self.ipv6) and self.former.has(family)

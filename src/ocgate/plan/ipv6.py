"""What becomes of the clients' IPv6: one decision, made from wishes and proven egress.

Pure. A client that gets no IPv6 from the tunnel uses its own outside of it; a client that gets
IPv6 which goes nowhere waits. So IPv6 is forwarded where egress was seen, and rejected at once
everywhere else; it is never left to disappear.

    IPV6_FORWARD  IPV6_NAT  network in ocserv.conf   egress seen        no egress
    0             0         any                      sink or off        sink or off
    1             0         none                     sink or off        sink or off
    1             0         global unicast           routed             rejected, loudly
    1             0         unique local (RFC 4193)  rejected, loudly   rejected, loudly
    1             auto      any or IPV6_SUBNET       NAT66              sink or off
    1             1         any or IPV6_SUBNET       NAT66              rejected, loudly
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv6Network

UNIQUE_LOCAL = IPv6Network("fc00::/7")  # RFC 4193: not routable on the internet


class Ipv6Path(Enum):
    """What the kernel does with an IPv6 packet of a session."""

    REJECTED = "rejected"
    NAT66 = "nat66"
    ROUTED = "routed"


@dataclass(frozen=True)
class Ipv6Wish:
    """What the operator asked for: the settings and what ocserv.conf says.

    configured: `ipv6-network` of ocserv.conf, or None; fallback: IPV6_SUBNET.
    """

    forward: bool
    nat: str
    sink: bool
    configured: IPv6Network | None
    fallback: IPv6Network
    full_tunnel: bool

    @property
    def needs_egress(self) -> bool:
        """Whether the outcome depends on a probe."""
        if not self.forward:
            return False
        if self.nat in ("1", "auto"):
            return True
        return self.configured is not None and not self.configured.subnet_of(UNIQUE_LOCAL)


@dataclass(frozen=True)
class Ipv6Decision:
    """path: for packets of sessions; network: advertised to new clients, None: not advertised.

    `loud`: the operator asked for IPv6 and does not get it.
    """

    path: Ipv6Path
    network: IPv6Network | None
    why: str
    loud: bool = False

    @property
    def advertised(self) -> bool:
        """Whether new clients get an IPv6 address."""
        return self.network is not None

    @property
    def word(self) -> str:
        """One word for status and logs: nat66, routed, sink or off."""
        if self.path is not Ipv6Path.REJECTED:
            return str(self.path.value)
        return "sink" if self.advertised else "off"


def decide(wish: Ipv6Wish, *, egress: str | None) -> Ipv6Decision:
    """Decide; `egress` is None where a probe passed, else the reason why there is none."""
    network = wish.configured or wish.fallback
    if not wish.forward:
        return _without(wish, "IPV6_FORWARD=0")
    if wish.nat == "0":
        return _unnatted(wish, egress)
    if egress is None:
        return Ipv6Decision(Ipv6Path.NAT66, network, "egress verified")
    if wish.nat == "auto":
        return _without(wish, f"no IPv6 egress: {egress}")
    return Ipv6Decision(
        Ipv6Path.REJECTED,
        network,
        f"IPV6_NAT=1 but no IPv6 egress: {egress}; clients' IPv6 is rejected at once",
        loud=True,
    )


def _unnatted(wish: Ipv6Wish, egress: str | None) -> Ipv6Decision:
    if wish.configured is None:
        return _without(wish, "ocserv.conf has no ipv6-network and IPV6_NAT=0")
    if wish.configured.subnet_of(UNIQUE_LOCAL):
        why = (
            f"{wish.configured} is unique local (RFC 4193) and can't be routed without "
            "translation: set IPV6_NAT=auto; clients' IPv6 is rejected at once"
        )
        return Ipv6Decision(Ipv6Path.REJECTED, wish.configured, why, loud=True)
    if egress is None:
        return Ipv6Decision(Ipv6Path.ROUTED, wish.configured, "egress verified")
    why = f"no IPv6 egress: {egress}; clients' IPv6 is rejected at once"
    return Ipv6Decision(Ipv6Path.REJECTED, wish.configured, why, loud=True)


def _without(wish: Ipv6Wish, why: str) -> Ipv6Decision:
    """Sink where it was asked for and can hold, else off."""
    network = wish.configured or wish.fallback
    if not wish.sink:
        return Ipv6Decision(Ipv6Path.REJECTED, None, why)
    if not wish.full_tunnel:
        return Ipv6Decision(
            Ipv6Path.REJECTED, None, f"{why}; IPV6_SINK does nothing in a split tunnel"
        )
    return Ipv6Decision(Ipv6Path.REJECTED, network, f"{why}; IPV6_SINK=1: rejected at once")

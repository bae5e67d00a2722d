"""What is known of a WireGuard configuration that was read; `wireguard_reading` makes it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from ocgate.plan.coverage import coverage
from ocgate.plan.facts import Address, Family, InterfaceAddress, Network
from ocgate.tunnel.model import Remote


@dataclass(frozen=True)
class Peer:
    """One server. preshared: a key, or None. keepalive: seconds, or None."""

    remote: Remote
    public: str
    preshared: str | None = field(repr=False)
    allowed: tuple[Network, ...]
    keepalive: int | None

    def allows(self, family: Family) -> bool:
        """Whether it takes packets to the internet of one family: to (nearly) all public addresses,
        as also the lists say that leave private networks out."""
        return coverage(family, self._of(family), ()).full

    def left_out(self, family: Family) -> tuple[Network, ...]:
        """Public networks that it does not take."""
        return coverage(family, self._of(family), ()).left_out

    def _of(self, family: Family) -> list[Network]:
        return [net for net in self.allowed if net.version == family]


@dataclass(frozen=True)
class Profile:
    """A file's content. Its peers are alternatives: one is configured at a time.

    mtu: bytes, or None. notices: what was left out, one sentence each.
    """

    source: str
    private: str = field(repr=False)
    addresses: tuple[InterfaceAddress, ...]
    resolvers: tuple[Address, ...]
    mtu: int | None
    peers: tuple[Peer, ...]
    notices: tuple[str, ...]

"""What is known of a WireGuard configuration that was read; `wireguard_reading` makes it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from ocgate.plan.facts import Address, InterfaceAddress, Network, collapsed
from ocgate.tunnel.model import Remote


@dataclass(frozen=True)
class Peer:
    """One server. preshared: a key, or None. keepalive: seconds, or None."""

    remote: Remote
    public: str
    preshared: str | None = field(repr=False)
    allowed: tuple[Network, ...]
    keepalive: int | None

    def allows(self, version: int) -> bool:
        """Whether it takes packets to the whole internet of one family."""
        mine = collapsed(net for net in self.allowed if net.version == version)
        return any(net.prefixlen == 0 for net in mine)


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

"""The exit role's tunnel device, as a value: what `kernel.tun` makes and keeps. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ocgate.plan.facts import InterfaceAddress


@dataclass(frozen=True)
class TunnelDevice:
    """A device that is there before its client starts, and after it has died.

    owner:     the uid that may attach to a persistent tun; None is a WireGuard device of the
               kernel, which has no client.
    addresses: all that it has but link-local ones. Without a route of their prefix: what the other
               end says of its network shall never stand in main, beside the docker networks.
    mtu:       bytes of an IP packet, 576 to 65535; None leaves it alone.
    """

    name: str
    owner: int | None
    addresses: tuple[InterfaceAddress, ...] = ()
    mtu: int | None = None

    def __str__(self) -> str:
        """Commands that do the same, one a line; addresses that are there already aside."""
        if self.owner is None:
            lines = [f"ip link add {self.name} type wireguard"]
        else:
            lines = [f"ip tuntap add {self.name} mode tun user {self.owner}"]
        lines += [f"ip link set {self.name} mtu {self.mtu}"] if self.mtu is not None else []
        lines += [f"ip link set {self.name} up"]
        lines += [f"ip address add {a} dev {self.name} noprefixroute" for a in self.addresses]
        return "\n".join(lines)

"""The null device: a persistent tun that nobody reads, so that what is routed there is gone.

Gateway mode routes clients' packets without a mark into it (names.NULL_DEVICE says why it is no
blackhole). It needs no process; `kernel.tun` says why. Edges of the room `kernel` import this.
"""

from __future__ import annotations

from collections.abc import Iterable

from ocgate.kernel import netlink, tun
from ocgate.kernel.netlink import Netlink
from ocgate.names import NULL_DEVICE


def ensure(devices: Iterable[str]) -> None:
    """Make those that lack and set them up; raises KernelRefused or MissingRequirement."""
    with Netlink(netlink.ROUTE, strict=True) as door:
        for name in devices:
            if tun.look(door, name) is None:
                tun.make_tun(name)
            held = tun.look(door, name)
            if held is not None and not held.up:
                tun.set_up(door, held.index, name)


def missing(devices: Iterable[str]) -> list[str]:
    """Which are not there or not up, in words."""
    with Netlink(netlink.ROUTE, strict=True) as door:
        found = {name: tun.look(door, name) for name in devices}
    return [
        f"device {name} is {'down' if held else 'gone'}"
        for name, held in found.items()
        if held is None or not held.up
    ]


def sweep(devices: Iterable[str] = ()) -> list[str]:
    """Remove the null device unless it is among those wanted; what was removed."""
    if NULL_DEVICE in devices:
        return []
    with Netlink(netlink.ROUTE, strict=True) as door:
        held = tun.look(door, NULL_DEVICE)
        if held is None:
            return []
        tun.delete(door, NULL_DEVICE, held.index)
    return [f"device {NULL_DEVICE}"]

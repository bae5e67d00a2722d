"""The null device: a persistent tun that nobody reads, so that what is routed there is gone.

Gateway mode routes clients' packets without a mark into it (names.NULL_DEVICE says why it is no
blackhole). It needs no process: after TUNSETPERSIST the kernel keeps it, and drops what it is given
for want of a reader (drivers/net/tun.c, tun_net_xmit). Edges of the room `kernel` import this.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from ocgate.errors import KernelRefused, MissingRequirement
from ocgate.kernel import netlink, rtnetlink
from ocgate.kernel.netlink import Netlink, NetlinkError
from ocgate.names import NULL_DEVICE

_TUN = Path("/dev/net/tun")

# linux/if_tun.h
_TUNSETIFF, _TUNSETPERSIST = 0x4004_54CA, 0x4004_54CB
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_IFREQ = struct.Struct("16sH22x")


def ensure(devices: Iterable[str]) -> None:
    """Make those that lack and set them up; raises KernelRefused or MissingRequirement."""
    with Netlink(netlink.ROUTE, strict=True) as door:
        for name in devices:
            if _look(door, name) is None:
                _make(name)
            index, up = _look(door, name) or (0, False)
            if not up:
                _set_up(door, index, name)


def missing(devices: Iterable[str]) -> list[str]:
    """Which are not there or not up, in words."""
    with Netlink(netlink.ROUTE, strict=True) as door:
        found = {name: _look(door, name) for name in devices}
    return [
        f"device {name} is {'down' if held else 'gone'}"
        for name, held in found.items()
        if held is None or not held[1]
    ]


def sweep(devices: Iterable[str] = ()) -> list[str]:
    """Remove the null device unless it is among those wanted; what was removed."""
    if NULL_DEVICE in devices:
        return []
    with Netlink(netlink.ROUTE, strict=True) as door:
        held = _look(door, NULL_DEVICE)
        if held is None:
            return []
        try:
            door.request(rtnetlink.DELLINK, 0, rtnetlink.IFINFOMSG.pack(0, 0, held[0], 0, 0))
        except NetlinkError as refused:
            if refused.errno != errno.ENODEV:
                raise _refusal(f"ip link delete {NULL_DEVICE}", refused) from refused
    return [f"device {NULL_DEVICE}"]


def _look(door: Netlink, name: str) -> tuple[int, bool] | None:
    """Its index and whether it is up; None if there is none."""
    request = rtnetlink.IFINFOMSG.pack(0, 0, 0, 0, 0) + netlink.text(rtnetlink.IFLA_IFNAME, name)
    try:
        answer = door.request(rtnetlink.GETLINK, 0, request)
    except NetlinkError:
        return None
    _, _, index, flags, _ = rtnetlink.IFINFOMSG.unpack_from(answer[0].payload)
    return index, bool(flags & rtnetlink.IFF_UP)


def _make(name: str) -> None:
    try:
        descriptor = os.open(_TUN, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise MissingRequirement(
            f"{_TUN} is not there", hint="docker run --device /dev/net/tun; on a host: modprobe tun"
        ) from None
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, _IFREQ.pack(name.encode(), _IFF_TUN | _IFF_NO_PI))
        fcntl.ioctl(descriptor, _TUNSETPERSIST, 1)
    except OSError as refused:
        raise KernelRefused(
            f"making {name}", request=f"ip tuntap add {name} mode tun", reply=str(refused)
        ) from refused
    finally:
        os.close(descriptor)


def _set_up(door: Netlink, index: int, name: str) -> None:
    up = rtnetlink.IFF_UP
    try:
        door.request(rtnetlink.NEWLINK, 0, rtnetlink.IFINFOMSG.pack(0, 0, index, up, up))
    except NetlinkError as refused:
        raise _refusal(f"ip link set {name} up", refused) from refused


def _refusal(command: str, refused: NetlinkError) -> KernelRefused:
    return KernelRefused(f"refused: {command}", request=command, reply=refused.strerror or "")

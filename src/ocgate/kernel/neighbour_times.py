"""How long the kernel believes what ARP and neighbour discovery told it, by device.

Any container on a network can tell an exit that the router's address, or a user's, is at another
MAC: no answer of Linux' own to that is on by default, and none but a pinned entry holds against
somebody who goes on. But what one burst of such frames spoils need not last: by default the kernel
asks again after 15 to 45 s, waits 5 s more, then 3 s, and all that time users are silent while the
tunnel stands (`base_reachable_time_ms` and the like, Documentation/networking/ip-sysctl; 14 to 43 s
were measured). With these times it is 3.5 to 5.5 s, at the price of one question and answer in some
three seconds for each neighbour that is being talked to.

rtnetlink sets them (neightbl_set in net/core/neighbour.c), so also where /proc/sys is read-only.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

from ocgate.kernel import netlink, rtnetlink, sysctl
from ocgate.kernel.netlink import Netlink, NetlinkError, attribute, nested, number
from ocgate.kernel.tun import refusal

_SETNEIGHTBL = 67  # linux/rtnetlink.h

# linux/neighbour.h: NDTA_NAME, NDTA_PARMS; NDTPA_IFINDEX and the times, which are milliseconds.
_NAME, _PARAMETERS, _IFINDEX = 1, 6, 1
_TIMES = {
    "base_reachable_time_ms": (4, 2000),  # half of it to one and a half times as long
    "retrans_time_ms": (5, 500),  # three questions to the MAC that is known, then to everybody
    "delay_first_probe_time": (7, 1000),  # the sysctl's own unit is seconds
}
_TABLES = {4: b"arp_cache\0", 6: b"ndisc_cache\0"}


def ensure(devices: list[str]) -> None:
    """Have these devices so; one that goes meanwhile is no error. Raises KernelRefused or
    MissingRequirement."""
    lacking = [(family, device) for family in _TABLES for device in _lacking(family, devices)]
    if lacking:
        with Netlink(netlink.ROUTE) as door:
            for family, device in lacking:
                _set(door, family, device)


def differing(devices: list[str]) -> list[str]:
    """Which are not, in words. Of IPv4: what of IPv6 a router's advertisement has set (RFC 4861
    section 4.2) is nobody's fault, and put back with the next plan."""
    return [
        f"device {device} believes its neighbours for another time"
        for device in _lacking(4, devices)
    ]


def _lacking(family: int, devices: list[str]) -> Iterator[str]:
    for device in devices:
        at = f"net.ipv{family}.neigh.{device.replace('.', '/')}"
        found = {name: sysctl.read(f"{at}.{name}") for name in _TIMES}
        if any(value not in (None, _shown(name)) for name, value in found.items()):
            yield device


def _shown(name: str) -> str:
    """As the sysctl reads."""
    milliseconds = _TIMES[name][1]
    return str(milliseconds if name.endswith("_ms") else milliseconds // 1000)


def _set(door: Netlink, family: int, device: str) -> None:
    try:
        index = socket.if_nametoindex(device)
    except OSError:
        return
    times = b"".join(attribute(kind, struct.pack("=Q", ms)) for kind, ms in _TIMES.values())
    request = struct.pack("=Bxxx", rtnetlink.af(4 if family == 4 else 6))
    request += attribute(_NAME, _TABLES[family])
    request += nested(_PARAMETERS, number(_IFINDEX, index) + times)
    try:
        door.request(_SETNEIGHTBL, 0, request)
    except NetlinkError as refused:
        command = f"ip ntable change name {_TABLES[family][:-1].decode()} dev {device}"
        raise refusal(command, refused) from refused

"""A device's Ethernet address, made anew. Edges of the room `kernel` and the wiring import this.

docker makes a container's MAC of its IP address (until version 27), so a container that was started
anew is reached by its neighbours' old entries before any program of it runs. One that changes its
MAC once its kill switch stands is known by that one alone: what the neighbours send to it while the
next container is not that far reaches nobody.
"""

from __future__ import annotations

import secrets

from ocgate.errors import KernelRefused
from ocgate.kernel import device_conf, netlink, rtnetlink
from ocgate.kernel.netlink import Netlink, NetlinkError
from ocgate.kernel.tun import look, refusal

_IFLA_ADDRESS = 1  # linux/if_link.h
_LOCAL_UNICAST = 0x02  # IEEE 802: locally administered, not a group


def renew(name: str) -> str:
    """Give the device a MAC at random and have the kernel announce it (gratuitous ARP, RFC 5227);
    the MAC. Its addresses and routes stay. Raises KernelRefused or MissingRequirement."""
    octets = bytes([_LOCAL_UNICAST]) + secrets.token_bytes(5)
    written = octets.hex(":")
    with Netlink(netlink.ROUTE, strict=True) as door:
        device_conf.configure(door, name, device_conf.ARP_NOTIFY)
        link = look(door, name)
        if link is None:
            raise KernelRefused(f"{name} is gone", request=f"ip link set {name}", reply="no device")
        request = rtnetlink.IFINFOMSG.pack(0, 0, link.index, 0, 0)
        try:
            door.request(rtnetlink.NEWLINK, 0, request + netlink.attribute(_IFLA_ADDRESS, octets))
        except NetlinkError as refused:
            raise refusal(f"ip link set {name} address {written}", refused) from refused
    return written

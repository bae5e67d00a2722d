"""Asks the kernel which route it would take for a packet of this host's own (RTM_GETROUTE).

An edge. What a client's packet meets is policy routing with its mark; this tells where the machine
itself has a network, which is what an operator means by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network

from ocgate.kernel import netlink, rtnetlink
from ocgate.kernel.netlink import Netlink, NetlinkError, attribute, attributes
from ocgate.plan.facts import Address, Network

_FIB_MATCH = 0x2000  # RTM_F_FIB_MATCH: the route with its prefix, not only the next hop (4.13)


@dataclass(frozen=True)
class Found:
    """One route: its prefix, its device's ifindex, and the router, None where it is on-link."""

    network: Network
    index: int
    gateway: Address | None


def look_up(addresses: list[Address]) -> dict[Address, Found]:
    """Of each address the unicast route to it; those that have none are left out, as this host's
    own addresses are."""
    found: dict[Address, Found] = {}
    with Netlink(netlink.ROUTE, strict=True) as door:
        for address in addresses:
            route = _asked(door, address)
            if route is not None:
                found[address] = route
    return found


def _asked(door: Netlink, address: Address) -> Found | None:
    family, bits = rtnetlink.af(address.version), address.max_prefixlen
    header = rtnetlink.RTMSG.pack(family, bits, 0, 0, 0, 0, 0, 0, _FIB_MATCH)
    try:
        answer = door.request(
            rtnetlink.GETROUTE, 0, header + attribute(rtnetlink.RTA_DST, address.packed)
        )
    except NetlinkError:  # unreachable, or no route
        return None
    _, length, _, _, _, _, _, kind, _ = rtnetlink.RTMSG.unpack_from(answer[0].payload)
    held = attributes(answer[0].payload, rtnetlink.RTMSG.size)
    hops = rtnetlink.next_hops(held)
    if kind != rtnetlink.RTN_UNICAST or not hops:
        return None
    index, hop = hops[0]
    via = hop.get(rtnetlink.RTA_GATEWAY)
    packed = bytes(held[rtnetlink.RTA_DST]) if rtnetlink.RTA_DST in held else bytes(bits // 8)
    network = ip_network((packed, length), strict=False)
    return Found(network, index, rtnetlink.address(via) if via is not None else None)

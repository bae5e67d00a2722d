"""Routes of main into a client subnet by anything but a tunnel, and addresses given out with them.

A router advertisement, a DHCP server, or somebody on this host may put a part of the client subnet
on another link. It is more specific than the blackhole of the subnet, or as long and asked first:
what is for a client without a tunnel would be sent to a neighbour there. Such a route is nobody's
but a mistake's or an attacker's, so it is taken out, whoever made it. Likewise an IPv6 address
inside the subnet that was lent to another device (by autoconfiguration): clients would be
translated to it.

Looked for device by device, the kernel filtering: 10,000 sessions' own routes are not read. Edges
of the room `kernel` and the wiring may import this.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_interface, ip_network

from ocgate.errors import KernelRefused
from ocgate.kernel import netlink, rtnetlink, sysctl
from ocgate.kernel.netlink import Message, Netlink, as_number, attributes
from ocgate.names import ROUTE_PROTOCOL
from ocgate.plan.facts import Family, lies_within
from ocgate.plan.model import ClientNetworks
from ocgate.plan.routing import TABLE_MAIN

_FAMILIES: tuple[Family, ...] = (4, 6)
_GONE = frozenset({errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL})


@dataclass(frozen=True)
class _Intruder:
    """said: in words. kind, payload: the request that takes it out."""

    said: str
    kind: int
    payload: bytes


def differing(clients: ClientNetworks) -> list[str]:
    """What is there, in words."""
    return [intruder.said for intruder in _found(clients)]


def remove(clients: ClientNetworks) -> list[str]:
    """Take out what is there; in words. Raises KernelRefused."""
    found = _found(clients)
    if not found:
        return []
    with Netlink(netlink.ROUTE, strict=True) as door:
        results = door.batch((one.kind, 0, one.payload) for one in found)
    for one, code in zip(found, results, strict=True):
        if code and code not in _GONE:
            raise KernelRefused(
                f"can't be removed: {one.said}", request=one.said, reply=os.strerror(code)
            )
    return [one.said for one in found]


def _found(clients: ClientNetworks) -> list[_Intruder]:
    others = list(_others(clients.device))
    with Netlink(netlink.ROUTE, strict=True) as door:
        return [
            intruder
            for index, name in others
            for look in (_addresses, _routes)
            for intruder in look(door, clients, index, name)
        ]


def _others(device: str) -> Iterator[tuple[int, str]]:
    """Index and name of every other device. By /proc/sys, which shows the network namespace of
    whoever reads: a list of links tells all of each, 40 us a session."""
    names = [path.name for path in (sysctl.ROOT / "net/ipv4/conf").iterdir()]
    for name in names:
        if not name.startswith(device) and name not in ("all", "default"):
            with contextlib.suppress(OSError):  # it has just gone
                yield socket.if_nametoindex(name), name


def _routes(door: Netlink, clients: ClientNetworks, index: int, name: str) -> Iterator[_Intruder]:
    for family in _FAMILIES:
        header = rtnetlink.RTMSG.pack(rtnetlink.af(family), 0, 0, 0, TABLE_MAIN, 0, 0, 0, 0)
        asked = header + netlink.number(rtnetlink.RTA_OIF, index)
        for message in _dumped(door, rtnetlink.GETROUTE, family, asked):
            if _intrudes(message, clients, index):
                yield _Intruder(
                    f"route {_text(message, name)} lies in a client subnet and is no tunnel's",
                    rtnetlink.DELROUTE,
                    rtnetlink.deletion_of(message),
                )


def _dumped(door: Netlink, kind: int, family: Family, header: bytes) -> list[Message]:
    """Empty, too, for a device that has just gone."""
    try:
        return rtnetlink.dump_family(door, kind, family, header)
    except netlink.NetlinkError as refused:
        if refused.errno in _GONE:
            return []
        raise


def _intrudes(message: Message, clients: ClientNetworks, index: int) -> bool:
    fields = rtnetlink.RTMSG.unpack_from(message.payload)
    length, table, protocol, kind, flags = (fields[at] for at in (1, 4, 5, 7, 8))
    found = attributes(message.payload, rtnetlink.RTMSG.size)
    elsewhere = table != TABLE_MAIN or kind != rtnetlink.RTN_UNICAST
    if elsewhere or protocol == ROUTE_PROTOCOL or flags & rtnetlink.RTM_F_CLONED:
        return False
    if rtnetlink.RTA_DST not in found or not length:
        return False
    hops = [hop for hop, _ in rtnetlink.next_hops(found)]  # of a kernel that does not filter, too
    network = ip_network((bytes(found[rtnetlink.RTA_DST]), length))
    return index in hops and lies_within(network, clients.subnets)


def _text(message: Message, device: str) -> str:
    found = attributes(message.payload, rtnetlink.RTMSG.size)
    _, length, _, _, _, protocol, _, _, _ = rtnetlink.RTMSG.unpack_from(message.payload)
    words = [str(ip_network((bytes(found[rtnetlink.RTA_DST]), length)))]
    if rtnetlink.RTA_GATEWAY in found:
        words += ["via", str(rtnetlink.address(found[rtnetlink.RTA_GATEWAY]))]
    return " ".join([*words, "dev", device, "proto", _PROTOCOLS.get(protocol, str(protocol))])


# Who made a route, as iproute2 names it (linux/rtnetlink.h, RTPROT_*).
_PROTOCOLS = {2: "kernel", 3: "boot", 4: "static", rtnetlink.RTPROT_RA: "ra", 16: "dhcp"}


def _addresses(
    door: Netlink, clients: ClientNetworks, index: int, name: str
) -> Iterator[_Intruder]:
    """IPv6 only: of IPv4, masquerading takes the address of the gateway's own network."""
    header = rtnetlink.IFADDRMSG.pack(rtnetlink.af(6), 0, 0, 0, index)
    for message in _dumped(door, rtnetlink.GETADDR, 6, header):
        _, length, _, _, at = rtnetlink.IFADDRMSG.unpack_from(message.payload)
        held = attributes(message.payload, rtnetlink.IFADDRMSG.size)
        own = held.get(rtnetlink.IFA_LOCAL, held.get(rtnetlink.IFA_ADDRESS))
        flags = as_number(held[rtnetlink.IFA_FLAGS]) if rtnetlink.IFA_FLAGS in held else 0
        if at != index or own is None or flags & rtnetlink.IFA_F_PERMANENT:
            continue
        address = ip_interface((bytes(own), length))
        if lies_within(ip_network(address.ip), clients.subnets):
            payload = rtnetlink.IFADDRMSG.pack(rtnetlink.af(6), length, 0, 0, index)
            payload += netlink.attribute(rtnetlink.IFA_LOCAL, bytes(own))
            said = f"address {address} on {name} lies in a client subnet (advertised by a router)"
            yield _Intruder(said, rtnetlink.DELADDR, payload)

"""Tunnel devices: a persistent tun that an unprivileged client may attach to, its addresses, MTU.

The exit role makes its device before the client starts, so that the client needs no privilege, and
routes and rules have something to hold on to; the kernel keeps it when the client dies
(TUNSETPERSIST), and drops what it is given then for want of a reader (drivers/net/tun.c,
tun_net_xmit). The null device of gateway mode is one that never has a reader. Edges of the room
`kernel` and the wiring may import this.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from dataclasses import dataclass
from ipaddress import ip_interface
from pathlib import Path
from typing import Final

from ocgate.errors import KernelRefused, MissingRequirement
from ocgate.kernel import netlink, rtnetlink, sysctl
from ocgate.kernel.netlink import CREATE, EXCL, REPLACE, Netlink, NetlinkError
from ocgate.names import TUNNEL_DEVICE, TUNNEL_UID, WIREGUARD_DEVICE
from ocgate.plan.facts import InterfaceAddress
from ocgate.plan.sysctls import Sysctl
from ocgate.plan.tunnel_device import TunnelDevice

_TUN = Path("/dev/net/tun")

# linux/if_tun.h
_TUNSETIFF, _TUNSETPERSIST, _TUNSETOWNER = 0x4004_54CA, 0x4004_54CB, 0x4004_54CC
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_IFREQ = struct.Struct("16sH22x")

# linux/if_link.h
_IFLA_LINKINFO, _INFO_KIND, _INFO_DATA = 18, 1, 2
_TUN_OWNER, _TUN_TYPE, _TUN_PERSIST = 1, 3, 6

# linux/if_addr.h. Without duplicate address detection, which nobody on a tun would answer.
_IFA_F_NODAD, _IFA_F_NOPREFIXROUTE = 0x02, 0x200
_GONE: Final = frozenset({errno.ENODEV, errno.EADDRNOTAVAIL})


@dataclass(frozen=True)
class Link:
    """A device as the kernel holds it.

    kind:       rtnetlink's word (`tun`, `wireguard`), "" for one without.
    owner:      uid that may attach to a tun; None where root alone may, and for any other kind.
    persistent: a tun that outlives its reader, and no tap.
    """

    index: int
    up: bool
    mtu: int
    kind: str
    owner: int | None
    persistent: bool


# --- the exit role's device -------------------------------------------------------------------


def ensure(device: TunnelDevice) -> None:
    """Make the kernel's device equal to this one; total and repeatable.

    One of its name and another nature is deleted: the network namespace is ours. Raises
    KernelRefused, or MissingRequirement without /dev/net/tun, CAP_NET_ADMIN or WireGuard.
    """
    with Netlink(netlink.ROUTE, strict=True) as door:
        link = look(door, device.name)
        if link is not None and not _is_of(link, device):
            delete(door, device.name, link.index)
            link = None
        if link is None:
            link = _made(door, device)
        if device.mtu is not None and link.mtu != device.mtu:
            _set_mtu(door, link.index, device)
        held = _addresses(door, link.index)
        for address in sorted(held - set(device.addresses), key=str):
            _change(door, rtnetlink.DELADDR, 0, link.index, address, device.name)
        if any(address.version == 6 for address in device.addresses):
            allow_ipv6(device.name)
        for address in device.addresses:
            if address not in _addresses(door, link.index):
                flags = CREATE | REPLACE
                _change(door, rtnetlink.NEWADDR, flags, link.index, address, device.name)
        if not link.up:
            set_up(door, link.index, device.name)


def missing(device: TunnelDevice) -> list[str]:
    """What of it is not there, in words; empty when all is as given."""
    with Netlink(netlink.ROUTE, strict=True) as door:
        link = look(door, device.name)
        if link is None:
            return [f"device {device.name} is gone"]
        held = _addresses(door, link.index)
    found = [] if _is_of(link, device) else [f"device {device.name} is another"]
    found += [] if link.up else [f"device {device.name} is down"]
    if device.mtu not in (None, link.mtu):
        found.append(f"device {device.name} has mtu {link.mtu}; expected {device.mtu}")
    wanted = set(device.addresses)
    found += [f"device {device.name} lacks {a}" for a in sorted(wanted - held, key=str)]
    return found + [f"device {device.name} has {a}" for a in sorted(held - wanted, key=str)]


def sweep(device: TunnelDevice) -> list[str]:
    """Remove what an exit with another kind of tunnel left; what was removed. Only a tun of our
    client's uid: one that somebody else made is none of our business."""
    removed = []
    with Netlink(netlink.ROUTE, strict=True) as door:
        for name in {TUNNEL_DEVICE, WIREGUARD_DEVICE} - {device.name}:
            link = look(door, name)
            if link is not None and link.persistent and link.owner == TUNNEL_UID:
                delete(door, name, link.index)
                removed.append(f"device {name}")
    return removed


def allow_ipv6(name: str) -> bool:
    """Turn IPv6 on for a device that has it off (docker's default on a network without IPv6);
    whether it is on now. False where /proc/sys may not be written, or the kernel has no IPv6."""
    key = f"net.ipv6.conf.{name.replace('.', '/')}.disable_ipv6"
    try:
        sysctl.require(Sysctl(key, "0", "the tunnel carries IPv6"))
    except MissingRequirement:
        return False
    return True


def _is_of(link: Link, device: TunnelDevice) -> bool:
    if device.owner is None:
        return link.kind == "wireguard"
    return link.persistent and link.owner == device.owner


def _made(door: Netlink, device: TunnelDevice) -> Link:
    if device.owner is None:
        _make_wireguard(door, device.name)
    else:
        make_tun(device.name, owner=device.owner)
    link = look(door, device.name)
    if link is None:
        raise KernelRefused(
            f"device {device.name} was made and is gone at once", request=str(device), reply=""
        )
    return link


def _make_wireguard(door: Netlink, name: str) -> None:
    info = netlink.nested(_IFLA_LINKINFO, netlink.text(_INFO_KIND, "wireguard"))
    request = rtnetlink.IFINFOMSG.pack(0, 0, 0, 0, 0) + netlink.text(rtnetlink.IFLA_IFNAME, name)
    try:
        door.request(rtnetlink.NEWLINK, CREATE | EXCL, request + info)
    except NetlinkError as refused:
        if refused.errno == errno.EOPNOTSUPP:
            raise MissingRequirement(
                "this kernel has no WireGuard",
                hint="on the host: modprobe wireguard (Linux 5.6 and newer), or use OVPN_CONFIG",
            ) from refused
        raise refusal(f"ip link add {name} type wireguard", refused) from refused


def _set_mtu(door: Netlink, index: int, device: TunnelDevice) -> None:
    request = rtnetlink.IFINFOMSG.pack(0, 0, index, 0, 0)
    try:
        mtu = netlink.number(rtnetlink.IFLA_MTU, device.mtu or 0)
        door.request(rtnetlink.NEWLINK, 0, request + mtu)
    except NetlinkError as refused:
        raise refusal(f"ip link set {device.name} mtu {device.mtu}", refused) from refused


def _addresses(door: Netlink, index: int) -> set[InterfaceAddress]:
    """All of the device but link-local ones, which the kernel makes by itself."""
    found: set[InterfaceAddress] = set()
    for message in door.dump(rtnetlink.GETADDR, rtnetlink.IFADDRMSG.pack(0, 0, 0, 0, 0)):
        _, length, _, _, at = rtnetlink.IFADDRMSG.unpack_from(message.payload)
        if at != index or rtnetlink.family_of(message) is None:
            continue
        held = netlink.attributes(message.payload, rtnetlink.IFADDRMSG.size)
        own = held.get(rtnetlink.IFA_LOCAL, held.get(rtnetlink.IFA_ADDRESS))
        if own is not None:
            address = ip_interface((bytes(own), length))
            if not address.ip.is_link_local:
                found.add(address)
    return found


def _change(
    door: Netlink, kind: int, flags: int, index: int, address: InterfaceAddress, name: str
) -> None:
    """Add or delete one; deleting what is gone already has what it wanted."""
    family = rtnetlink.af(address.version)
    payload = rtnetlink.IFADDRMSG.pack(family, address.network.prefixlen, 0, 0, index)
    payload += netlink.attribute(rtnetlink.IFA_LOCAL, address.ip.packed)
    payload += netlink.attribute(rtnetlink.IFA_ADDRESS, address.ip.packed)
    payload += netlink.number(rtnetlink.IFA_FLAGS, _IFA_F_NODAD | _IFA_F_NOPREFIXROUTE)
    try:
        door.request(kind, flags, payload)
    except NetlinkError as refused:
        if kind == rtnetlink.DELADDR and refused.errno in _GONE:
            return
        verb = "delete" if kind == rtnetlink.DELADDR else "add"
        raise refusal(f"ip address {verb} {address} dev {name}", refused) from refused


# --- what the null device has in common with it -----------------------------------------------


def look(door: Netlink, name: str) -> Link | None:
    """The device as it is now; None if there is none."""
    request = rtnetlink.IFINFOMSG.pack(0, 0, 0, 0, 0) + netlink.text(rtnetlink.IFLA_IFNAME, name)
    try:
        answer = door.request(rtnetlink.GETLINK, 0, request)
    except NetlinkError:
        return None
    payload = answer[0].payload
    _, _, index, flags, _ = rtnetlink.IFINFOMSG.unpack_from(payload)
    held = netlink.attributes(payload, rtnetlink.IFINFOMSG.size)
    info = netlink.attributes(held[_IFLA_LINKINFO]) if _IFLA_LINKINFO in held else {}
    kind = netlink.as_text(info[_INFO_KIND]) if _INFO_KIND in info else ""
    data = netlink.attributes(info[_INFO_DATA]) if kind == "tun" and _INFO_DATA in info else {}

    def value(attribute: int) -> int | None:
        return netlink.as_number(data[attribute]) if attribute in data else None

    return Link(
        index=index,
        up=bool(flags & rtnetlink.IFF_UP),
        mtu=netlink.as_number(held[rtnetlink.IFLA_MTU]),
        kind=kind,
        owner=value(_TUN_OWNER),
        persistent=value(_TUN_TYPE) == _IFF_TUN and value(_TUN_PERSIST) == 1,
    )


def make_tun(name: str, *, owner: int | None = None) -> None:
    """Make a persistent tun that `owner` (a uid) may attach to, or root alone."""
    try:
        descriptor = os.open(_TUN, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise MissingRequirement(
            f"{_TUN} is not there", hint="docker run --device /dev/net/tun; on a host: modprobe tun"
        ) from None
    command = f"ip tuntap add {name} mode tun" + ("" if owner is None else f" user {owner}")
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, _IFREQ.pack(name.encode(), _IFF_TUN | _IFF_NO_PI))
        if owner is not None:
            fcntl.ioctl(descriptor, _TUNSETOWNER, owner)
        fcntl.ioctl(descriptor, _TUNSETPERSIST, 1)
    except OSError as refused:
        raise KernelRefused(f"making {name}", request=command, reply=str(refused)) from refused
    finally:
        os.close(descriptor)


def set_up(door: Netlink, index: int, name: str) -> None:
    """`ip link set NAME up`."""
    up = rtnetlink.IFF_UP
    try:
        door.request(rtnetlink.NEWLINK, 0, rtnetlink.IFINFOMSG.pack(0, 0, index, up, up))
    except NetlinkError as refused:
        raise refusal(f"ip link set {name} up", refused) from refused


def delete(door: Netlink, name: str, index: int) -> None:
    """`ip link delete NAME`; one that is gone already is no error."""
    try:
        door.request(rtnetlink.DELLINK, 0, rtnetlink.IFINFOMSG.pack(0, 0, index, 0, 0))
    except NetlinkError as refused:
        if refused.errno != errno.ENODEV:
            raise refusal(f"ip link delete {name}", refused) from refused


def refusal(command: str, refused: NetlinkError) -> KernelRefused | MissingRequirement:
    """What to raise for a command, in iproute2's words, that the kernel refused."""
    if refused.errno == errno.EPERM:
        return MissingRequirement(
            f"{command}: {refused.strerror}",
            hint="add the capability: docker run --cap-add NET_ADMIN",
        )
    return KernelRefused(f"refused: {command}", request=command, reply=refused.strerror or "")

"""IPv4 settings by device, through rtnetlink: also where /proc/sys is read-only.

A container that docker starts with `net.ipv4.ip_forward=1` forwards from its first moment, before
any program of it runs. An exit must not: what its neighbours still send would leave in clear until
the kill switch stands. So it may be started with 0, and is let forward here, when the switch does.
The kernel asks the interface that a packet comes by and nothing else (IN_DEV_FORWARD,
ip_route_input_slow in net/ipv4/route.c), and CAP_NET_ADMIN of the namespace may set that
(inet_set_link_af in net/ipv4/devinet.c).

Behind ip_forward=0 stands a coupling: writing 0 there makes `all.accept_redirects` 1
(inet_forward_change), and a neighbour's forged redirect would then turn the tunnel's endpoint to
him. On a device that forwards both `all` and its own must be 1, so its own 0 refuses. Likewise ARP:
left to itself the kernel answers on any device for any address that it has on another, the
tunnel's among them (Documentation/networking/ip-sysctl, arp_ignore). IPv6 has no such
setting here: a device that forwards takes no redirects (of one that does not, the packet filter
alone drops them), and solicitations are answered for a device's own addresses alone.
Edges of the room `kernel` and the wiring import this.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass

from ocgate.kernel import netlink, rtnetlink, sysctl
from ocgate.kernel.netlink import Netlink, NetlinkError
from ocgate.kernel.tun import look, refusal

# linux/if_link.h
_AF_SPEC, _INET_CONF = 26, 1

_NOT_DEVICES = frozenset({"all", "default", "lo"})


@dataclass(frozen=True)
class Conf:
    """One setting. name: the sysctl's. number: linux/ip.h's (IPV4_DEVCONF_*), whose order is not
    the sysctls'."""

    name: str
    number: int
    value: int


FORWARDING = Conf("forwarding", 1, 1)
ARP_NOTIFY = Conf("arp_notify", 22, 1)

# What a device of an exit is to have, in the order in which it is set: forwarding last.
WANTED = (
    Conf("accept_redirects", 4, 0),
    Conf("arp_ignore", 19, 1),
    Conf("arp_announce", 18, 2),
    FORWARDING,
)


def ensure() -> list[str]:
    """Let every device but lo be as an exit's; which were not before. Raises KernelRefused or
    MissingRequirement. A device that goes meanwhile is no error."""
    lacking = list(_lacking())
    if lacking:
        with Netlink(netlink.ROUTE, strict=True) as door:
            for device, conf in lacking:
                configure(door, device, conf)
    return list(dict.fromkeys(device for device, _ in lacking))


def differing() -> list[str]:
    """What is not so, in words."""
    return [
        f"device {device} does not forward IPv4"
        if conf is FORWARDING
        else f"device {device} has another {conf.name} than {conf.value}"
        for device, conf in _lacking()
    ]


def forwards() -> bool:
    """Whether every device does."""
    return all(conf is not FORWARDING for _, conf in _lacking())


def configure(door: Netlink, name: str, conf: Conf) -> None:
    """One setting of a device, as `sysctl net.ipv4.conf.NAME.CONF` would."""
    link = look(door, name)
    if link is None:
        return
    inet = netlink.nested(_INET_CONF, netlink.number(conf.number, conf.value))
    request = rtnetlink.IFINFOMSG.pack(0, 0, link.index, 0, 0)
    request += netlink.nested(_AF_SPEC, netlink.nested(socket.AF_INET, inet))
    try:
        door.request(rtnetlink.NEWLINK, 0, request)
    except NetlinkError as refused:
        command = f"sysctl -w net.ipv4.conf.{name}.{conf.name}={conf.value}"
        raise refusal(command, refused) from refused


def _lacking() -> Iterator[tuple[str, Conf]]:
    """By /proc/sys, which shows the network namespace of whoever reads."""
    devices = (sysctl.ROOT / "net/ipv4/conf").iterdir()
    for device in sorted(path.name for path in devices if path.name not in _NOT_DEVICES):
        at = f"net.ipv4.conf.{device.replace('.', '/')}"
        for conf in WANTED:
            value = sysctl.read(f"{at}.{conf.name}")
            if value not in (None, str(conf.value)):
                yield device, conf

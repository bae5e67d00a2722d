"""Settings by device: IPv4's through rtnetlink, so also where /proc/sys is read-only.

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
tunnel's among them (Documentation/networking/ip-sysctl, arp_ignore).

IPv6's settings rtnetlink can't write. There solicitations are answered for a device's own addresses
alone, and a redirect is believed by a device that does not forward, if it comes from the link-local
address of the very router in use (ndisc_redirect_rcv in net/ipv6/ndisc.c, rt6_do_redirect in
net/ipv6/route.c). `accept_redirects=0` closes that where /proc/sys can be written; where it can't,
docker's routers have global addresses, and where a router is advertised the packet filter is alone.
Edges of the room `kernel` and the wiring import this.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass

from ocgate.kernel import neighbour_times, netlink, rtnetlink, sysctl
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

_REDIRECTS6 = "net.ipv6.conf.{}.accept_redirects"

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
    for device in _redirectable6():
        sysctl.attempt(_redirects6(device), "0")
    neighbour_times.ensure(_devices("net/ipv4/conf"))
    return list(dict.fromkeys(device for device, _ in lacking))


def differing() -> list[str]:
    """What is not so, in words."""
    return (
        [
            f"device {device} does not forward IPv4"
            if conf is FORWARDING
            else f"device {device} has another {conf.name} than {conf.value}"
            for device, conf in _lacking()
        ]
        + [
            f"device {device} accepts IPv6 redirects"
            for device in _redirectable6()
            if sysctl.is_writable(_redirects6(device))
        ]
        + neighbour_times.differing(_devices("net/ipv4/conf"))
    )


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
    for device in _devices("net/ipv4/conf"):
        at = f"net.ipv4.conf.{device.replace('.', '/')}"
        for conf in WANTED:
            value = sysctl.read(f"{at}.{conf.name}")
            if value not in (None, str(conf.value)):
                yield device, conf


def _redirectable6() -> Iterator[str]:
    """Devices that would take an IPv6 redirect if they did not forward."""
    for device in _devices("net/ipv6/conf"):
        if sysctl.read(_redirects6(device)) not in (None, "0"):
            yield device


def _redirects6(device: str) -> str:
    return _REDIRECTS6.format(device.replace(".", "/"))


def _devices(directory: str) -> list[str]:
    """None where the kernel has not this family."""
    try:
        found = [path.name for path in (sysctl.ROOT / directory).iterdir()]
    except FileNotFoundError:
        return []
    return sorted(name for name in found if name not in _NOT_DEVICES)

"""IPv4 forwarding by device, through rtnetlink: also where /proc/sys is read-only.

A container that docker starts with `net.ipv4.ip_forward=1` forwards from its first moment, before
any program of it runs. An exit must not: what its neighbours still send would leave in clear until
the kill switch stands. So it may be started with 0, and is let forward here, when the switch does.
The kernel asks the interface that a packet comes by and nothing else (IN_DEV_FORWARD,
ip_route_input_slow in net/ipv4/route.c), and CAP_NET_ADMIN of the namespace may set that
(inet_set_link_af in net/ipv4/devinet.c). Edges of the room `kernel` and the wiring import this.
"""

from __future__ import annotations

import socket

from ocgate.kernel import netlink, rtnetlink, sysctl
from ocgate.kernel.netlink import Netlink, NetlinkError
from ocgate.kernel.tun import look, refusal

# linux/if_link.h; linux/ip.h (IPV4_DEVCONF_*), whose numbers are not the sysctls' order.
_AF_SPEC, _INET_CONF = 26, 1
FORWARDING, ARP_NOTIFY = 1, 22

_NOT_DEVICES = frozenset({"all", "default", "lo"})


def ensure() -> list[str]:
    """Let every device but lo forward what comes by it; which did not before. Raises KernelRefused
    or MissingRequirement. A device that goes meanwhile is no error."""
    silent = _not_forwarding()
    if silent:
        with Netlink(netlink.ROUTE, strict=True) as door:
            for name in silent:
                configure(door, name, FORWARDING, 1)
    return silent


def differing() -> list[str]:
    """Devices that do not forward, in words."""
    return [f"device {name} does not forward IPv4" for name in _not_forwarding()]


def configure(door: Netlink, name: str, what: int, value: int) -> None:
    """One number of a device's IPv4 configuration, as `sysctl net.ipv4.conf.NAME.WHAT` would."""
    link = look(door, name)
    if link is None:
        return
    conf = netlink.nested(_INET_CONF, netlink.number(what, value))
    request = rtnetlink.IFINFOMSG.pack(0, 0, link.index, 0, 0)
    request += netlink.nested(_AF_SPEC, netlink.nested(socket.AF_INET, conf))
    try:
        door.request(rtnetlink.NEWLINK, 0, request)
    except NetlinkError as refused:
        raise refusal(f"sysctl -w net.ipv4.conf.{name} {what}={value}", refused) from refused


def _not_forwarding() -> list[str]:
    """By /proc/sys, which shows the network namespace of whoever reads."""
    devices = (sysctl.ROOT / "net/ipv4/conf").iterdir()
    names = sorted(path.name for path in devices if path.name not in _NOT_DEVICES)
    keys = {name: f"net.ipv4.conf.{name.replace('.', '/')}.forwarding" for name in names}
    return [name for name in names if sysctl.read(keys[name]) == "0"]

"""Puts the tunnels of admitted sessions into their interface group.

A policy rule of gateway mode (`plan.steering`, P-4) delivers to that group and to no other device.
A tunnel that is not in it gets nothing: whatever goes wrong here keeps packets back. Edges of the
room `kernel` and the wiring import this.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from ocgate.errors import KernelRefused
from ocgate.kernel import netlink, rtnetlink
from ocgate.kernel.netlink import Netlink
from ocgate.names import TUNNEL_GROUP


class TunnelGroup:
    """The group in the network namespace of the thread that first uses it; for one thread."""

    def __init__(self) -> None:
        self._door: Netlink | None = None

    def join(self, devices: Sequence[str]) -> None:
        """Put these tunnels into the group, 50 us each; one that is gone is no error. Raises
        KernelRefused."""
        if self._door is None:
            self._door = Netlink(netlink.ROUTE)  # kept: opening it takes longer than a request
        requests = ((rtnetlink.SETLINK, 0, _request(name)) for name in devices)
        for name, code in zip(devices, self._door.batch(requests), strict=True):
            if code not in (0, errno.ENODEV):
                command = f"ip link set {name} group {TUNNEL_GROUP}"
                reply = os.strerror(code)
                raise KernelRefused(f"refused: {command}", request=command, reply=reply)


def _request(device: str) -> bytes:
    header = rtnetlink.IFINFOMSG.pack(0, 0, 0, 0, 0)
    name = netlink.text(rtnetlink.IFLA_IFNAME, device)
    return header + name + netlink.number(rtnetlink.IFLA_GROUP, TUNNEL_GROUP)

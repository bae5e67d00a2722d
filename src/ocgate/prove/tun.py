"""Tun devices that the harness holds: what is written into one is what a peer has sent."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

from ocgate.errors import MissingRequirement
from ocgate.netlab.namespace import Namespace

TUN = Path("/dev/net/tun")

# <linux/if_tun.h>
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x4004_54CA, 0x0001, 0x1000

# The default of 500 is a quarter of a second of a busy session: too little for a reader thread that
# shares two cores with everything else.
QUEUE_PACKETS = 5000


def open_tun(netns: Namespace, name: str) -> int:
    """A new device `name` in `netns`; it is gone when the descriptor is closed."""
    try:
        with netns.entered():
            descriptor = os.open(TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise MissingRequirement(
            f"{TUN}: {error.strerror}",
            hint="docker run --device /dev/net/tun; on a host: modprobe tun",
        ) from error
    try:
        request = struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI)
        fcntl.ioctl(descriptor, _TUNSETIFF, request)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor

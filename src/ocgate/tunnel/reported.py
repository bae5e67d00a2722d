"""What the kinds' `carried` share: numbers and errors of what a client's hook reports. Pure."""

from __future__ import annotations

import re

from ocgate.errors import OcgateError

# An IPv4 host takes 576 bytes (RFC 1122 section 3.3.3); the kernel's tun takes up to 65535.
LEAST_MTU, LARGEST_MTU = 576, 65535

_NUMBER = re.compile(r"[0-9]{1,5}")


class Unusable(OcgateError):
    """The tunnel's other end reported nothing that a device can be configured with."""


def mtu_of(text: str) -> int:
    """The MTU in bytes; raises Unusable."""
    if not _NUMBER.fullmatch(text) or not LEAST_MTU <= int(text) <= LARGEST_MTU:
        raise Unusable(f"the tunnel's MTU must be from {LEAST_MTU} to {LARGEST_MTU} bytes")
    return int(text)

"""What the kinds' `carried` share: numbers, addresses and errors of what a hook reports. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface

from ocgate.errors import OcgateError
from ocgate.plan.facts import Address

# An IPv4 host takes 576 bytes (RFC 1122 section 3.3.3), an IPv6 link 1280 (RFC 8200 section 5:
# below it the kernel has no IPv6 on a device); the kernel's tun takes up to 65535.
LEAST_MTU, LEAST_MTU6, LARGEST_MTU = 576, 1280, 65535

_NUMBER = re.compile(r"[0-9]{1,5}")


class Unusable(OcgateError):
    """The tunnel's other end reported nothing that a device can be configured with."""


def mtu_of(text: str) -> int:
    """The MTU in bytes; raises Unusable."""
    if not _NUMBER.fullmatch(text) or not LEAST_MTU <= int(text) <= LARGEST_MTU:
        raise Unusable(f"the tunnel's MTU must be from {LEAST_MTU} to {LARGEST_MTU} bytes")
    return int(text)


def alone(text: str, version: int) -> IPv4Interface | IPv6Interface:
    """A tunnel's own address without its network; raises Unusable.

    The tunnel's table leads everything into the device, so the network needs no route of its own;
    with one, a server could draw the docker networks' traffic to itself by giving an address among
    theirs.
    """
    try:
        address = ip_address(text)
    except ValueError:
        raise Unusable("the server gave an address that is none") from None
    unusable = address.is_unspecified or address.is_loopback or address.is_multicast
    if address.version != version or unusable or "%" in text:
        raise Unusable(f"the server gave an address that no host can have: {address}")
    return ip_interface(address)


def resolvers(texts: Iterable[str]) -> tuple[Address, ...]:
    """Those of the texts that are addresses of a host beyond the link, each once, in their order.

    What is none is no resolver. A zone (`fe80::1%x`) is whatever the server wrote, and the packet
    filter's text would hold it.
    """
    found: dict[Address, None] = {}
    for text in texts:
        try:
            address = ip_address(text)
        except ValueError:
            continue
        here = address.is_unspecified or address.is_loopback or address.is_link_local
        if not (here or address.is_multicast or "%" in text):
            found[address] = None
    return tuple(found)

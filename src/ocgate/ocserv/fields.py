"""How ocserv turns the text of one or two keys into a number, a network or a file name.

Pure. Each function gives back what ocserv works with, and a `Problem` where the operator can't have
meant that: ocserv reads `24x` as 24, `x` as 0, and takes `banana/24` without a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from ocgate.errors import Problem
from ocgate.ocserv.ini_parser import Entry
from ocgate.ocserv.view import PasswdFile, Place, Placed

IPAddress = IPv4Address | IPv6Address

# ocserv takes IPv4 prefixes 1 to 32, but a pool needs network, server and broadcast beside a
# client; the IPv6 one must be shorter than ipv6-subnet-prefix (128 by default).
LONGEST_POOL4 = 30
LONGEST_POOL6 = 127

_NUMBER = re.compile(r"[ \t]*([+-]?\d+)", re.ASCII)
_PLAIN = re.compile(r"plain\[(.*)\]\Z", re.IGNORECASE | re.DOTALL)


def integer(text: str) -> int:
    """atoi: the digits in front, 0 where there are none."""
    found = _NUMBER.match(text)
    return int(found[1]) if found else 0


def placed(entry: Entry, source: str) -> Placed[str]:
    """The text of an entry with its place."""
    return Placed(entry.value, Place(source, entry.line, entry.key), entry.value)


def problem(
    found: Placed[object], expected: str, remedy: str, *, got: str | None = None
) -> Problem:
    """A problem at a value's place; `got` where more than the value is wrong."""
    place = found.place
    return Problem(place.source, place.line, place.key, got or found.raw, expected, remedy)


def plain_auth(found: Placed[str]) -> Placed[PasswdFile] | None:
    """The files of `plain[passwd=…,otp=…]`, old form `plain[…]`; None for other methods."""
    inside = _PLAIN.match(found.value)
    if inside is None:
        return None
    if "=" not in inside[1]:
        return Placed(PasswdFile(inside[1].strip(), None), found.place, found.raw)
    parts = (part.partition("=") for part in inside[1].split(","))
    options = {name.strip().lower(): value.strip() for name, _, value in parts}
    file = PasswdFile(options.get("passwd", ""), options.get("otp"))
    return Placed(file, found.place, found.raw)


def address(found: Placed[str]) -> Placed[IPAddress] | Problem:
    """A resolver or explicit address of either family."""
    for form in (IPv4Address, IPv6Address):
        try:
            return Placed(form(found.value), found.place, found.raw)
        except ValueError:
            continue
    return problem(
        found,
        "an IPv4 or IPv6 address",
        "Write one address a line; ocserv would push the text to clients as it is",
    )


def network4(entries: Iterable[Placed[str]]) -> tuple[Placed[IPv4Network] | None, list[Problem]]:
    """The pool that `ipv4-network` and `ipv4-netmask` of one scope make, in file order.

    ocserv keeps address and mask apart: a prefix sets the mask, a later netmask replaces it, and a
    later network without prefix keeps it.
    """
    network = mask = None
    for found in entries:
        if found.key == "ipv4-netmask":
            mask = found
            continue
        network = found
        text = found.value.partition("/")[2]
        if "/" in found.value and integer(text) != 0:
            mask = found
    if network is None:
        return None, []
    if mask is None:
        return None, [_no_mask(network)]
    return _typed4(network, mask)


def _no_mask(network: Placed[str]) -> Problem:
    return problem(
        network,
        "a network with its length, like 10.10.10.0/24",
        "Append /24, say, or add a line `ipv4-netmask = 255.255.255.0`",
    )


def _typed4(
    network: Placed[str], mask: Placed[str]
) -> tuple[Placed[IPv4Network] | None, list[Problem]]:
    address_text = network.value.partition("/")[0]
    mask_text = mask.value.partition("/")[2] if mask.key == "ipv4-network" else mask.value
    dotted = mask.key == "ipv4-netmask"
    bits = _netmask_bits(mask_text) if dotted else _digits(mask_text)
    if bits is None or not 1 <= bits <= LONGEST_POOL4:
        form = "a netmask like 255.255.255.0" if dotted else "a network like 10.10.10.0/24"
        return None, [problem(mask, f"{form}, of 1 to {LONGEST_POOL4} bits", "Correct the length")]
    try:
        start = IPv4Address(address_text)
    except ValueError:
        return None, [problem(network, "an IPv4 network like 10.10.10.0/24", "Correct the address")]
    typed = IPv4Network((int(start) >> (32 - bits) << (32 - bits), bits))
    pool = Placed(typed, network.place, f"{address_text}/{bits}")
    return pool, _host_bits(network, start, typed)


def network6(
    entries: Iterable[Placed[str]], subnet_prefix: int
) -> tuple[Placed[IPv6Network] | None, list[Problem]]:
    """The pool that `ipv6-network` and `ipv6-prefix` of one scope make, in file order."""
    network = length = None
    for found in entries:
        if found.key == "ipv6-prefix":
            length = found
            continue
        network = found
        if integer(found.value.partition("/")[2]) != 0:
            length = found
    if network is None:
        return None, []
    if length is None:
        return None, [_bad_prefix6(network, subnet_prefix)]
    return _typed6(network, length, subnet_prefix)


def _typed6(
    network: Placed[str], length: Placed[str], subnet_prefix: int
) -> tuple[Placed[IPv6Network] | None, list[Problem]]:
    address_text = network.value.partition("/")[0]
    bits = _digits(length.value.rpartition("/")[2])
    if bits is None or not 1 <= bits < min(subnet_prefix, LONGEST_POOL6 + 1):
        return None, [_bad_prefix6(length, subnet_prefix)]
    try:
        start = IPv6Address(address_text)
    except ValueError:
        expected = "an IPv6 network like fd00:1:2:3::/64"
        return None, [problem(network, expected, "Correct the address")]
    typed = IPv6Network((int(start) >> (128 - bits) << (128 - bits), bits))
    pool = Placed(typed, network.place, f"{address_text}/{bits}")
    return pool, _host_bits(network, start, typed)


def _bad_prefix6(found: Placed[str], subnet_prefix: int) -> Problem:
    return problem(
        found,
        f"an IPv6 network shorter than ipv6-subnet-prefix ({subnet_prefix} bits)",
        "Write the length, like fd00:1:2:3::/64",
    )


def _host_bits(
    found: Placed[str], start: IPAddress, network: IPv4Network | IPv6Network
) -> list[Problem]:
    if start == network.network_address:
        return []
    return [problem(found, "a network without host bits", f"Write {network}, if you mean that one")]


def _digits(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def _netmask_bits(text: str) -> int | None:
    """255.255.255.0 -> 24; None for anything else, wildcard masks and gaps included."""
    try:
        inverse = ~int(IPv4Address(text)) & 0xFFFF_FFFF
    except ValueError:
        return None
    return 32 - inverse.bit_length() if inverse & (inverse + 1) == 0 else None

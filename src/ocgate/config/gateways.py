"""Forms of a gateway and of the numbers of its table and rules. Pure; `Upstream` is for all rooms.

Whatever is no gateway is refused here rather than guessed at: the reference image took an IPv6
literal in VPN_GATEWAY for a name, and ran without its guard.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from ocgate.config.networks import UNUSABLE_IPV4
from ocgate.config.values import Form, Rejected, reject

VARIABLES = {4: "VPN_GATEWAY", 6: "VPN_GATEWAY6"}
ACCEPTS = {4: "an IPv4 address, a DNS name, direct or block",
           6: "an IPv6 address, a DNS name, direct or block"}  # fmt: skip
_SUCH_AS = {4: "172.28.0.2", 6: "fd00:28::2"}

# RFC 1123 section 2.1 and RFC 1035 section 2.3.4 (less the length bytes), with the underscore that
# names of docker services may have.
LONGEST_NAME = 253
LONGEST_LABEL = 63
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?")

_PLAUSIBLE = re.compile(r"[A-Za-z0-9_.:-]+")

# What inet_aton(3) would take for an address: 172.28.2, 010.0.0.1, 0x7f000001.
_NUMBER = re.compile(r"(?:0[xX][0-9A-Fa-f]*|[0-9]+)(?:\.(?:0[xX][0-9A-Fa-f]*|[0-9]*))*")

# Words that a resolver must never be asked for, and what was meant.
_RESERVED = {
    "drop": "write block",
    "reject": "write block",
    **dict.fromkeys(
        ("off", "no", "none", "false"),
        "write direct if clients may go out by this host, or block if they may not",
    ),
}

_UNUSABLE: dict[int, tuple[tuple[IPv4Network | IPv6Network, str], ...]] = {
    4: (
        (IPv4Network("255.255.255.255/32"), "broadcast"),
        (IPv4Network("0.0.0.0/32"), "unspecified"),
        *UNUSABLE_IPV4,
    ),
    6: (
        (IPv6Network("::/128"), "unspecified"),
        (IPv6Network("::1/128"), "loopback"),
        (IPv6Network("::/96"), "IPv4-compatible (deprecated, RFC 4291)"),
        (IPv6Network("ff00::/8"), "multicast"),
    ),
}
_MAPPED = IPv6Network("::ffff:0:0/96")
_LINK_LOCAL6 = IPv6Network("fe80::/10")

# Tables are 32-bit numbers, of which `ip` takes the positive ones of an int. 0 is "unspecified"
# and 253 to 255 are the kernel's (linux/rtnetlink.h, rt_class_t).
KERNEL_TABLES = range(253, 256)
LARGEST_TABLE = 2**31 - 1
TABLE_ACCEPTS = f"a routing table's number from 1 to 252 or from 256 to {LARGEST_TABLE}"

# The rules stand from 4 before VPN_GATEWAY_RULE_PRIO to 101 behind it; all must be looked at after
# `local` (0) and before `main` (32766). The rest of the room is for releases that need more rules.
MAIN_RULE = 32766
LOWEST_PRIO = 10
HIGHEST_PRIO = 32000
PRIO_ACCEPTS = f"a rule's priority from {LOWEST_PRIO} to {HIGHEST_PRIO}"


class UpstreamKind(StrEnum):
    """By what the clients' packets of one family leave."""

    DIRECT = "direct"
    """By this host, like its own."""
    BLOCK = "block"
    """By nothing: rejected at once."""
    GATEWAY = "gateway"
    """By an upstream on an attached network."""


@dataclass(frozen=True)
class Upstream:
    """The exit of one family as written; a gateway has either an address or a name."""

    kind: UpstreamKind
    address: IPv4Address | IPv6Address | None = None
    name: str | None = None

    def __str__(self) -> str:
        return self.name or str(self.address or self.kind.value)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """JSON holds the text, which the setting's form reads again."""
        return core_schema.is_instance_schema(
            cls, serialization=core_schema.to_string_ser_schema(when_used="json")
        )


DIRECT = Upstream(UpstreamKind.DIRECT)
BLOCK = Upstream(UpstreamKind.BLOCK)


def upstream4(text: str) -> Upstream:
    """VPN_GATEWAY: an IPv4 address, a DNS name, `direct` or `block`; raises `Rejected`."""
    return _upstream(text, 4)


def upstream6(text: str) -> Upstream:
    """VPN_GATEWAY6: an IPv6 address, a DNS name, `direct` or `block`; raises `Rejected`."""
    return _upstream(text, 6)


def _upstream(text: str, version: int) -> Upstream:
    word = text.lower()
    if word in (UpstreamKind.DIRECT, UpstreamKind.BLOCK):
        return Upstream(UpstreamKind(word))
    if word in _RESERVED:
        raise reject(text, ACCEPTS[version], _RESERVED[word])
    if wrong := _embellished(text, version):
        raise wrong
    try:
        address = ip_address(text)
    except ValueError:
        return Upstream(UpstreamKind.GATEWAY, name=_name(text, version))
    return Upstream(UpstreamKind.GATEWAY, address=_gateway(address, text, version))


def _embellished(text: str, version: int) -> Rejected | None:
    """What is more than an address or a name, with the part that was meant where there is one."""
    accepts = ACCEPTS[version]
    if "://" in text or "@" in text:  # what stands before @ may be a password
        return reject(None, accepts, "write the upstream's address or name alone, not an URL")
    if re.search(r"[\s,;]", text):
        several = "write one gateway; a list of them (VPN_GATEWAYS) is not in this version"
        return reject(text, accepts, several)
    if "=" in text:
        named = f"write {_meant(text.rpartition('=')[2], version)} (a gateway has no name here)"
        return reject(text, accepts, named)
    if "/" in text:
        remedy = f"leave the prefix length out: write {_before(text, '/', version)}"
        return reject(text, accepts, remedy)
    if bracketed := re.fullmatch(r"\[([^\]]*)\](?::.*)?", text):
        remedy = f"leave brackets and port out: write {_meant(bracketed[1], version)}"
        return reject(text, accepts, remedy)
    if "%" in text:
        remedy = "leave the zone (what follows %) out, and name a global or unique local address"
        return reject(text, accepts, remedy)
    if text.count(":") == 1:
        remedy = "a gateway forwards every port, so leave it out: write "
        return reject(text, accepts, remedy + _before(text, ":", version))
    return None


def _before(text: str, mark: str, version: int) -> str:
    return _meant(text.partition(mark)[0], version)


def _meant(part: str, version: int) -> str:
    """A part of what was written, for a remedy, if it could be an address or a name at all: any
    other bytes are not for a terminal."""
    return part if _PLAUSIBLE.fullmatch(part) else _SUCH_AS[version]


def _gateway(
    address: IPv4Address | IPv6Address, text: str, version: int
) -> IPv4Address | IPv6Address:
    """The address itself, when a neighbour can have it."""
    if address in _MAPPED:
        inner = IPv4Address(int(address) & 0xFFFF_FFFF)
        expected = "an address that is not IPv4-mapped"
        raise reject(text, expected, f"write {inner}, as VPN_GATEWAY")
    if address.version != version:
        family = f"IPv{address.version}"
        remedy = f"an {family} gateway belongs into {VARIABLES[address.version]}"
        raise reject(text, ACCEPTS[version], f"{remedy}; here write {_SUCH_AS[version]}, say")
    if address in _LINK_LOCAL6:
        expected = "a global or unique local address"
        remedy = f"give the upstream one, such as {_SUCH_AS[6]} (fe80::/10 is link-local)"
        raise reject(text, expected, remedy)
    for unusable, what in _UNUSABLE[version]:
        if address in unusable:
            where = "it" if unusable.num_addresses == 1 else f"{unusable}"
            remedy = f"write the upstream's own address ({where} is {what})"
            raise reject(text, "a unicast address", remedy)
    return address


def _name(text: str, version: int) -> str:
    """A DNS name, as written; a final dot says that it is whole (RFC 1034 section 3.1)."""
    accepts = ACCEPTS[version]
    bare = text.removesuffix(".")
    if not bare:
        raise reject(
            text, accepts, f"write the upstream's address or name, {_SUCH_AS[version]} say"
        )
    if _NUMBER.fullmatch(text):
        remedy = "write all four numbers of an IPv4 address, without leading zeros"
        raise reject(text, accepts, remedy if version == 4 else f"write {_SUCH_AS[6]}, say")
    if ":" in text:
        raise reject(text, accepts, f"correct the IPv6 address; it looks like {_SUCH_AS[6]}")
    if bare.lower().endswith(".localhost") or bare.lower() == "localhost":
        raise reject(text, accepts, "name the upstream (localhost is this host, RFC 6761)")
    if not text.isascii():
        raise reject(text, accepts, "write the name in ASCII, as DNS holds it (xn--…)")
    if len(bare) > LONGEST_NAME:
        raise reject(text, accepts, f"write a name of at most {LONGEST_NAME} characters")
    for label in bare.split("."):
        if len(label) > LONGEST_LABEL:
            remedy = f"write at most {LONGEST_LABEL} characters between two dots"
            raise reject(text, accepts, remedy)
        if not _LABEL.fullmatch(label):
            remedy = "write a name of letters, digits, '-' and '_' in labels separated by one dot"
            raise reject(text, accepts, remedy)
    return text


def table(text: str) -> int:
    """VPN_GATEWAY_TABLE: the number of a routing table that is ours alone; raises `Rejected`."""
    number = _number(text)
    if number in KERNEL_TABLES:
        remedy = "write 100, say (253 to 255 are the kernel's own tables default, main and local)"
        raise reject(text, TABLE_ACCEPTS, remedy)
    if number is None or not 1 <= number <= LARGEST_TABLE:
        raise reject(text, TABLE_ACCEPTS, "write 100, say")
    return number


def rule_prio(text: str) -> int:
    """VPN_GATEWAY_RULE_PRIO: where the rules stand; raises `Rejected`."""
    number = _number(text)
    if number is None:
        raise reject(text, PRIO_ACCEPTS, "write 1000, say")
    if number >= MAIN_RULE:
        remedy = f"write 1000, say (from {MAIN_RULE} on it is behind `main`, and would not steer)"
        raise reject(text, PRIO_ACCEPTS, remedy)
    if number < LOWEST_PRIO:
        remedy = "write 1000, say (there is no room for the rules that stand before it)"
        raise reject(text, PRIO_ACCEPTS, remedy)
    if number > HIGHEST_PRIO:
        remedy = f"write 1000, say (the rules that stand behind it must end before {MAIN_RULE})"
        raise reject(text, PRIO_ACCEPTS, remedy)
    return number


def _number(text: str) -> int | None:
    """Up to ten digits hold every 32-bit number; int() refuses over 4,300 in its own words."""
    return int(text) if re.fullmatch(r"[0-9]{1,10}", text) else None


UPSTREAM4 = Form("gateway", ACCEPTS[4], upstream4)
UPSTREAM6 = Form("gateway", ACCEPTS[6], upstream6)
TABLE = Form("integer", TABLE_ACCEPTS, table, natives=(int,))
RULE_PRIO = Form("integer", PRIO_ACCEPTS, rule_prio, natives=(int,))

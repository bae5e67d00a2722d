"""Host names and addresses that come as text from outside: the one validator of them. Pure.

A configuration, DNS, a provider's API and a tunnel's server all name hosts. Each of these texts
ends in a packet filter's statement, in a client's configuration or in a log line, so what is no
plain name and no plain address becomes no value: no zone, no blank, no control character, no
leading dash. Whether such an address may be spoken to is another question, and `not_public` the
part of its answer that holds on every host. Any room may import this.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# `[0-9A-Za-z_]` first: what begins with a dash is an option to a program.
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
LONGEST_NAME = 253  # RFC 1035 section 2.3.4, without the length bytes

# What inet_aton(3) takes for an IPv4 address, and so a program that is given it as a name: 127.1,
# 010.0.0.1, 0x7f000001.
_NUMBER = re.compile(r"(?:0[xX][0-9A-Fa-f]*|[0-9]+)(?:\.(?:0[xX][0-9A-Fa-f]*|[0-9]*))*")

# The longest text of an address: eight groups, the last two as IPv4.
_LONGEST_ADDRESS = 45
_ADDRESS = re.compile(r"[0-9A-Fa-f.:]+")

# What nobody beyond this host has, whatever networks are around it (RFC 6890).
NOBODYS: dict[int, tuple[tuple[Network, str], ...]] = {
    4: (
        (ip_network("0.0.0.0/8"), "it means this network, and no host"),
        (ip_network("127.0.0.0/8"), "it is a loopback address"),
        (ip_network("169.254.0.0/16"), "it is an address of the link alone"),
        (ip_network("224.0.0.0/4"), "it is a multicast address"),
        (ip_network("240.0.0.0/4"), "it is reserved, and no host's"),
    ),
    6: (
        (ip_network("::/128"), "it means no address"),
        (ip_network("::1/128"), "it is a loopback address"),
        (ip_network("::ffff:0:0/96"), "it is an IPv4 address in IPv6's writing"),
        (ip_network("fe80::/10"), "it is an address of the link alone"),
        (ip_network("ff00::/8"), "it is a multicast address"),
    ),
}

# What many networks have, each for itself: RFC 1918, 6598 (carriers, overlay VPNs), 2544, 6890.
_PRIVATE4 = tuple(
    ip_network(text)
    for text in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),
        *("100.64.0.0/10", "192.0.0.0/24", "198.18.0.0/15"),
    )
)
# Site-local addresses (RFC 3879) are still used here and there.
_PRIVATE6 = (ip_network("fc00::/7"), ip_network("fec0::/10"))

# Of IPv6 only this is given out (RFC 4291 section 2.4, IANA's registry); and the well-known prefix
# of a translator (RFC 6052), by which a host without IPv4 gets to one.
_UNICAST6, _TRANSLATED6 = ip_network("2000::/3"), ip_network("64:ff9b::/96")
_TUNNELLED6 = ip_network("2002::/16")  # 6to4, RFC 3056: the IPv4 address follows


def is_host(text: str) -> bool:
    """Whether this is a DNS name or an IP address, an IPv6 one without brackets."""
    if ":" in text or _NUMBER.fullmatch(text):
        return address(text) is not None
    return len(text) <= LONGEST_NAME and _NAME.fullmatch(text) is not None


def address(text: object) -> Address | None:
    """The address that a text is; None for any other text, or what is no text at all. A zone
    (`fe80::1%x`) means something on its own host only, and can be any characters."""
    if not isinstance(text, str) or len(text) > _LONGEST_ADDRESS or not _ADDRESS.fullmatch(text):
        return None
    try:
        return ip_address(text)
    except ValueError:
        return None


def nobodys(where: Address) -> str:
    """Why no other host can have this address, a clause; '' if one can."""
    found = (why for network, why in NOBODYS[where.version] if where in network)
    return next(found, "")


def not_public(where: Address) -> str:
    """Why nobody on the internet has this address, a clause; '' if somebody may.

    Networks for documentation count as public: they are nobody's, so that what is sent there dies
    at the first router; and labs are made of them.
    """
    if why := nobodys(where):
        return why
    if isinstance(where, IPv4Address):
        return "it is a private address" if any(where in net for net in _PRIVATE4) else ""
    if any(where in net for net in _PRIVATE6):
        return "it is a private address"
    if (inner := _inner(where)) is not None:
        why = not_public(inner)
        return f"it stands for {inner}, and {why}" if why else ""
    return "" if where in _UNICAST6 else "it is no address of the internet"


def _inner(where: IPv6Address) -> IPv4Address | None:
    """The IPv4 address to which a translator or a relay hands on what is sent to this one."""
    if where in _TRANSLATED6:
        return IPv4Address(int(where) & 0xFFFF_FFFF)
    if where in _TUNNELLED6:
        return IPv4Address(int(where) >> 80 & 0xFFFF_FFFF)
    return None

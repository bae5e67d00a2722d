"""Forms of networks. Pure; only config uses it.

Host bits, missing masks and overlaps are refused, never repaired: the reference image took such a
subnet silently, masqueraded another one than ocserv handed out, and clients' packets left in clear.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import combinations

from ocgate.config.values import Fault, Form, Rejected, items, reject

# Larger than any private range (10.0.0.0/8, RFC 1918) would take public addresses along; smaller
# than /30 leaves no client: network, server (network | 1, ocserv), client, broadcast.
SHORTEST_IPV4 = 8
LONGEST_IPV4 = 30

# A site's ULA prefix is /48 (RFC 4193 section 3.1). From /127 on, the network (the routers'
# anycast, RFC 4291 section 2.6.1) and the server's address (network | 1, ocserv) leave no client.
SHORTEST_IPV6 = 48
LONGEST_IPV6 = 126

IPV4_ACCEPTS = (
    f"IPv4 networks with /{SHORTEST_IPV4} to /{LONGEST_IPV4} or a netmask, separated by commas"
)
IPV6_ACCEPTS = f"one IPv6 network from /{SHORTEST_IPV6} to /{LONGEST_IPV6}"

_ALL_ONES = 0xFFFF_FFFF
_PREFIX = re.compile(r"[0-9]{1,3}")

UNUSABLE_IPV4 = (
    (IPv4Network("0.0.0.0/8"), "this host's own network (RFC 1122)"),
    (IPv4Network("127.0.0.0/8"), "loopback"),
    (IPv4Network("169.254.0.0/16"), "link-local"),
    (IPv4Network("224.0.0.0/4"), "multicast"),
    (IPv4Network("240.0.0.0/4"), "reserved (RFC 1112)"),
)
UNUSABLE_IPV6 = (
    (IPv6Network("::/64"), "unspecified, loopback or IPv4-mapped"),
    (IPv6Network("fe80::/10"), "link-local"),
    (IPv6Network("ff00::/8"), "multicast"),
)


def ipv4_networks(text: str) -> tuple[IPv4Network, ...]:
    """The client subnets in the order written, free of overlaps; raises `Rejected`."""
    networks: list[IPv4Network] = []
    faults: list[Fault] = []
    for item in _joined_masks(items(text)):
        try:
            networks.append(ipv4_network(item))
        except Rejected as rejected:
            faults += rejected.faults
    faults += _overlaps(networks)
    if not networks and not faults:
        faults.append(Fault(text, IPV4_ACCEPTS, "write a network such as 10.10.10.0/24"))
    if faults:
        raise Rejected(*faults)
    return tuple(networks)


def ipv4_network(item: str) -> IPv4Network:
    """One network as `10.10.10.0/24` or `10.10.10.0/255.255.255.0`; raises `Rejected`."""
    address_text, separator, mask = item.partition(" " if " " in item else "/")
    address = _ipv4_address(address_text, item)
    if not separator:
        raise reject(item, IPV4_ACCEPTS, f"add the mask: write {_network(address, 24)}")
    prefix = _ipv4_prefix(mask, item, address)
    if separator == " ":
        raise reject(item, IPV4_ACCEPTS, f"write {_network(address, prefix)}")
    network = _network(address, prefix)
    if network.network_address != address:
        raise reject(item, "a network without host bits", f"write {network}")
    for unusable, what in UNUSABLE_IPV4:
        if network.overlaps(unusable):
            raise reject(item, "a unicast network", f"take another one: {unusable} is {what}")
    return network


def ipv6_subnet(text: str) -> IPv6Network:
    """One network such as `fd00:1:2:3::/64`; raises `Rejected`."""
    address_text, slash, mask = text.partition("/")
    address = ipv6_address(
        address_text, text, IPV6_ACCEPTS, "an IPv4 network belongs into VPN_SUBNET"
    )
    if not slash:
        raise reject(text, IPV6_ACCEPTS, f"add the prefix: write {_subnet(address, 64)}")
    prefix = int(mask) if _PREFIX.fullmatch(mask) else -1
    if not SHORTEST_IPV6 <= prefix <= LONGEST_IPV6:
        raise reject(text, IPV6_ACCEPTS, f"write {_subnet(address, 64)}")
    network = _subnet(address, prefix)
    if network.network_address != address:
        raise reject(text, "a network without host bits", f"write {network}")
    require_unicast6(network, text)
    return network


def _joined_masks(parts: list[str]) -> list[str]:
    """`10.10.10.0 255.255.255.0`, ocserv's own notation, is one mistake and not two networks."""
    joined: list[str] = []
    for part in parts:
        mask = _mask_bits(part)
        bare = bool(joined) and "/" not in joined[-1] and " " not in joined[-1]
        if bare and mask is not None and mask >= SHORTEST_IPV4:
            joined[-1] += f" {part}"
        else:
            joined.append(part)
    return joined


def _overlaps(networks: list[IPv4Network]) -> list[Fault]:
    faults = []
    for first, second in combinations(networks, 2):
        if first == second:
            faults.append(Fault(str(second), "each network once", f"remove the second {second}"))
        elif first.overlaps(second):
            wide, narrow = sorted((first, second), key=lambda network: network.prefixlen)
            remedy = f"remove {narrow}, which lies in {wide}"
            faults.append(Fault(str(narrow), "networks that don't overlap", remedy))
    return faults


def _ipv4_address(text: str, item: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except ValueError:
        if ":" in text:
            remedy = "an IPv6 network belongs into IPV6_SUBNET"
        else:
            remedy = "write a network such as 10.10.10.0/24, without names or leading zeros"
        raise reject(item, IPV4_ACCEPTS, remedy) from None


def _ipv4_prefix(mask: str, item: str, address: IPv4Address) -> int:
    """The prefix length that `24` or `255.255.255.0` means, within the limits."""
    if "." in mask:
        prefix = _mask_bits(mask)
        if prefix is None:
            raise reject(item, "a netmask of ones, then zeros", _without_netmask(mask, address))
    else:
        prefix = int(mask) if _PREFIX.fullmatch(mask) else -1
    if not SHORTEST_IPV4 <= prefix <= LONGEST_IPV4:
        remedy = f"name the clients' own subnet, such as {_network(address, 24)}"
        raise reject(item, IPV4_ACCEPTS, remedy)
    return prefix


def _without_netmask(mask: str, address: IPv4Address) -> str:
    """A wildcard mask (0.0.0.255) has an obvious meaning; anything else does not."""
    try:
        inverted = _mask_bits(str(IPv4Address(int(IPv4Address(mask)) ^ _ALL_ONES)))
    except ValueError:
        inverted = None
    if inverted is None or not SHORTEST_IPV4 <= inverted <= LONGEST_IPV4:
        return f"write a prefix length, such as {_network(address, 24)}"
    return f"write {_network(address, inverted)}"


def _mask_bits(text: str) -> int | None:
    """32 for 255.255.255.255, None for what is no contiguous netmask."""
    try:
        mask = int(IPv4Address(text))
    except ValueError:
        return None
    zeros = mask ^ _ALL_ONES
    return None if zeros & (zeros + 1) else mask.bit_count()


def ipv6_address(
    text: str, item: str, accepts: str, if_ipv4: str, such_as: str = "fd00:1:2:3::"
) -> IPv6Address:
    """`text`, a part of `item`, as an address; raises `Rejected`, with `if_ipv4` for the other
    family."""
    if "%" in text:
        raise reject(item, accepts, "leave the zone (what follows %) out")
    try:
        return IPv6Address(text)
    except ValueError:
        is_ipv4 = re.match(r"[0-9]+\.[0-9.]+", text) is not None
        remedy = if_ipv4 if is_ipv4 else f"write the address itself, such as {such_as}"
        raise reject(item, accepts, remedy) from None


def require_unicast6(network: IPv6Network, item: str) -> None:
    """Raises `Rejected` where `network`, which `item` means, holds no host's addresses."""
    for unusable, what in UNUSABLE_IPV6:
        if network.overlaps(unusable):
            raise reject(item, "a unicast address", f"take another one: {unusable} is {what}")


def _network(address: IPv4Address, prefix: int) -> IPv4Network:
    return IPv4Network((address, prefix), strict=False)


def _subnet(address: IPv6Address, prefix: int) -> IPv6Network:
    return IPv6Network((address, prefix), strict=False)


SUBNETS4 = Form("list of IPv4 networks", IPV4_ACCEPTS, ipv4_networks, natives=(list,))
SUBNET6 = Form("IPv6 network", IPV6_ACCEPTS, ipv6_subnet)

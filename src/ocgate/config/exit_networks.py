"""Form of the exit role's networks, of both families in one list. Pure; only config uses it.

Separated by commas, semicolons (the companion image's way) or spaces. Host bits and missing masks
are refused, as in `networks`.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from ocgate.config.networks import UNUSABLE_IPV4, UNUSABLE_IPV6
from ocgate.config.values import Fault, Form, Rejected, reject

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

# A whole private range (10.0.0.0/8, RFC 1918; fc00::/7, RFC 4193) is the most that is a network of
# one's own; anything wider would take public addresses along.
SHORTEST = {4: 8, 6: 7}

NETWORKS_ACCEPTS = (
    f"IPv4 networks from /{SHORTEST[4]} and IPv6 networks from /{SHORTEST[6]}, separated by commas"
)
_SEPARATORS = re.compile(r"[\s,;]+")
_LENGTH = re.compile(r"[0-9]{1,3}")


def networks(text: str) -> tuple[Network, ...]:
    """The networks in the order written; raises `Rejected` with every fault."""
    found: list[Network] = []
    faults: list[Fault] = []
    for item in filter(None, _SEPARATORS.split(text)):
        try:
            found.append(network(item))
        except Rejected as rejected:
            faults += rejected.faults
    if not found and not faults:
        faults.append(Fault(text, NETWORKS_ACCEPTS, "write a network such as 172.28.0.0/24"))
    if faults:
        raise Rejected(*faults)
    return tuple(dict.fromkeys(found))


def network(item: str) -> Network:
    """One network, `172.28.0.0/24` or `fd00:28::/64`; raises `Rejected`."""
    address_text, slash, length_text = item.partition("/")
    address = _address(address_text, item)
    if not slash:
        whole = ip_network(address)
        raise reject(item, NETWORKS_ACCEPTS, f"add the mask: write {whole} for this address alone")
    length = int(length_text) if _LENGTH.fullmatch(length_text) else -1
    if not SHORTEST[address.version] <= length <= address.max_prefixlen:
        such_as = "172.28.0.0/24" if address.version == 4 else "fd00:28::/64"
        raise reject(item, NETWORKS_ACCEPTS, f"name your own network, such as {such_as}")
    made = ip_network((address, length), strict=False)
    if made.network_address != address:
        raise reject(item, "a network without host bits", f"write {made}")
    _require_unicast(made, item)
    return made


def _address(text: str, item: str) -> Address:
    try:
        address = ip_address(text)
    except ValueError:
        remedy = "write a network such as 172.28.0.0/24, without names or leading zeros"
        raise reject(item, NETWORKS_ACCEPTS, remedy) from None
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise reject(item, NETWORKS_ACCEPTS, "leave the zone (what follows %) out")
    return address


def _require_unicast(made: Network, item: str) -> None:
    for unusable, what in (*UNUSABLE_IPV4, *UNUSABLE_IPV6):
        if made.version == unusable.version and made.overlaps(unusable):
            raise reject(item, "a unicast network", f"take another one: {unusable} is {what}")


NETWORKS = Form("list of networks", NETWORKS_ACCEPTS, networks)

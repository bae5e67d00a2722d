"""The form of further networks that clients may reach, by interface and prefix. Pure.

An entry reads as `ip route` would say it: `10.77.0.0/24 dev lan0`, or behind a router of that
network `10.78.0.0/16 via 10.77.0.1 dev lan0`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_interface,
)
from itertools import combinations
from typing import Any, TypeVar

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from ocgate.config import devices
from ocgate.config.networks import UNUSABLE_IPV4, UNUSABLE_IPV6
from ocgate.config.values import NOTHING, Fault, Form, Rejected, reject

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
T = TypeVar("T")

# The largest private networks (10.0.0.0/8, RFC 1918; fc00::/7, RFC 4193). What is larger is a part
# of the internet, and an exit of its own rather than a network beside the exit.
SHORTEST = {4: 8, 6: 7}

ENTRY = "NETWORK dev INTERFACE, or NETWORK via ROUTER dev INTERFACE"
ACCEPTS = f"entries separated by commas, each {ENTRY}"
SUCH_AS = "10.77.0.0/24 dev lan0"


@dataclass(frozen=True)
class Reached:
    """One entry. via: the router on the interface's network; None: the network is the
    interface's."""

    network: Network
    device: str
    via: Address | None = None

    def __str__(self) -> str:
        via = f"via {self.via} " if self.via else ""
        return f"{self.network} {via}dev {self.device}"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """JSON holds the text of each."""
        return core_schema.no_info_plain_validator_function(
            lambda value: value if isinstance(value, cls) else entry(str(value)),
            serialization=core_schema.to_string_ser_schema(when_used="json"),
        )


def entries(text: str) -> tuple[Reached, ...]:
    """All entries in the order written, free of overlaps; raises `Rejected` with every fault."""
    if text.lower() == NOTHING:
        return ()
    found: list[Reached] = []
    faults: list[Fault] = []
    for part in (part for part in re.split(r"[,;\n]", text) if part.strip()):
        try:
            found.append(entry(part))
        except Rejected as rejected:
            faults += rejected.faults
    if not found and not faults:
        faults.append(Fault(text, ACCEPTS, f"write {SUCH_AS}, say, or {NOTHING}"))
    faults += _overlaps(found)
    if faults:
        raise Rejected(*faults)
    return tuple(found)


def entry(text: str) -> Reached:
    """One entry; raises `Rejected` with every fault of it."""
    words = text.split()
    given = dict(zip(words[1::2], words[2::2], strict=False))
    if len(words) % 2 == 0 or given.keys() - {"via", "dev"} or len(given) != len(words) // 2:
        raise reject(text.strip(), ENTRY, f"write it like {SUCH_AS}")
    if "dev" not in given:
        known = _kept([], lambda: _network(words[0])) or SUCH_AS.split()[0]
        remedy = f"add the interface: write {known} dev lan0, with its own name"
        raise reject(text.strip(), ENTRY, remedy)
    faults: list[Fault] = []
    network = _kept(faults, lambda: _network(words[0]))
    device = _kept(faults, lambda: devices.interface(given["dev"]))
    via = _kept(faults, lambda: _router(given["via"], network)) if "via" in given else None
    if faults or network is None or device is None:
        raise Rejected(*faults)
    return Reached(network, device, via)


def _kept(faults: list[Fault], read: Callable[[], T]) -> T | None:
    """What `read` makes of its part, or None and its faults in the list."""
    try:
        return read()
    except Rejected as rejected:
        faults += rejected.faults
        return None


def _network(text: str) -> Network:
    try:
        interface = ip_interface(_without_zone(text))
    except ValueError:
        remedy = "write an address and its length, such as 10.77.0.0/24 or fd00:77::/64"
        raise reject(text, "an IPv4 or IPv6 network", remedy) from None
    network, shortest = interface.network, SHORTEST[interface.version]
    if "/" not in text:
        remedy = f"add the length: write {text}/{24 if interface.version == 4 else 64}, say"
        raise reject(text, "a network with its length", remedy)
    if interface.ip != network.network_address:
        raise reject(text, "a network without host bits", f"write {network}")
    if network.prefixlen < shortest:
        remedy = "name the networks behind the interface; for an exit of all there is VPN_GATEWAY"
        raise reject(text, f"a network of /{shortest} or longer", remedy)
    for unusable, what in (*UNUSABLE_IPV4, *UNUSABLE_IPV6):
        if network.version == unusable.version and network.overlaps(unusable):
            raise reject(text, "a unicast network", f"take another one: {unusable} is {what}")
    return network


def _without_zone(text: str) -> str:
    """The interface of an entry says which link is meant."""
    if "%" in text:
        raise ValueError(text)
    return text


def _router(text: str, network: Network | None) -> Address:
    try:
        address = ip_address(_without_zone(text))
    except ValueError:
        remedy = "write it without length and zone"
        raise reject(text, "the router's address", remedy) from None
    if network is not None and address.version != network.version:
        remedy = f"write the router's IPv{network.version} address"
        raise reject(text, f"an IPv{network.version} address for {network}", remedy)
    if address.is_unspecified or address.is_loopback or address.is_multicast:
        raise reject(text, "a unicast address", "write the router's own address")
    return address


def _overlaps(found: list[Reached]) -> list[Fault]:
    """Two ways to one address: which of them is permitted would depend on the order."""
    return [
        Fault(
            str(second),
            f"a network that no other entry holds ({first})",
            "take one of the two out, or write the parts that do not overlap",
        )
        for first, second in combinations(found, 2)
        if first.network.version == second.network.version
        and first.network.overlaps(second.network)
    ]


NETWORKS = Form("list of networks", ACCEPTS, entries, natives=(list,))

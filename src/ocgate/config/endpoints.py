"""Forms of what a probe connects to: lists of addresses with a port. Pure; only config uses it.

Addresses alone, no names: a probe must find the exit broken, not the resolver.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import NamedTuple

from ocgate.config.networks import UNUSABLE_IPV4, ipv6_address, require_unicast6
from ocgate.config.values import NOTHING, Fault, Form, Rejected, items, reject
from ocgate.names import PROBE_DNS, PROBE_ICMP, PROBE_TCP

# A resolver that answers DNS over HTTPS on its address; egress filters let this port through.
DEFAULT_PROBE_PORT = 443
DNS_PORT = 53

PROBE6_ACCEPTS = "IPv6 addresses as [address]:port or address, separated by commas"
PROBE_ACCEPTS = (
    "addresses as 1.1.1.1:443 or [2620:fe::fe]:443, with or without port, dns:9.9.9.9 to ask by "
    "DNS, icmp:1.1.1.1 to ping, or off"
)


class Endpoint(NamedTuple):
    """Whom a probe asks, and how. kind: one of `names`, PROBE_…. port: 0 for a ping."""

    address: IPv4Address | IPv6Address
    port: int
    kind: str = PROBE_TCP

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        if self.kind == PROBE_ICMP:
            return f"icmp:{host}"
        if self.kind == PROBE_DNS:
            return f"dns:{host}" + (f":{self.port}" if self.port != DNS_PORT else "")
        return f"{host}:{self.port}"


# Two operators, so that one of them being down or blocked does not take IPv6 from the clients.
EGRESS6_TARGETS = (
    Endpoint(IPv6Address("2606:4700:4700::1111"), DEFAULT_PROBE_PORT),
    Endpoint(IPv6Address("2001:4860:4860::8888"), DEFAULT_PROBE_PORT),
)

# The same for exits, which have either family or both: of four operators, by three kinds, since a
# network that blocks one of either is not dead.
EXIT_TARGETS = (
    Endpoint(IPv4Address("1.1.1.1"), DEFAULT_PROBE_PORT),
    Endpoint(IPv4Address("9.9.9.9"), DEFAULT_PROBE_PORT),
    Endpoint(IPv4Address("8.8.8.8"), DNS_PORT, PROBE_DNS),
    Endpoint(IPv4Address("208.67.222.222"), 0, PROBE_ICMP),
    Endpoint(IPv6Address("2606:4700:4700::1111"), DEFAULT_PROBE_PORT),
    Endpoint(IPv6Address("2620:fe::fe"), DEFAULT_PROBE_PORT),
    Endpoint(IPv6Address("2001:4860:4860::8888"), DNS_PORT, PROBE_DNS),
    Endpoint(IPv6Address("2620:119:35::35"), 0, PROBE_ICMP),
)


def ipv6_endpoints(text: str) -> tuple[Endpoint, ...]:
    """IPv6 probe targets in the order written; raises `Rejected`."""
    return _each(text, ipv6_endpoint, PROBE6_ACCEPTS, "write an address such as [2001:db8::1]:443")


def ipv6_endpoint(item: str) -> Endpoint:
    """`[address]:port`, `[address]` or `address`; the port is 443 unless written."""
    address, port = _endpoint6(
        item,
        item,
        PROBE6_ACCEPTS,
        "only IPv6 egress is probed: name an IPv6 address",
        "fd00:1:2:3::",
    )
    return Endpoint(address, DEFAULT_PROBE_PORT if port is None else port)


def endpoints(text: str) -> tuple[Endpoint, ...]:
    """Probe targets of either family in the order written, none for `off`; raises `Rejected`."""
    words = items(text)
    if [word.lower() for word in words] == [NOTHING]:
        return ()
    return _each(text, endpoint, PROBE_ACCEPTS, "write an address such as 1.1.1.1:443, or off")


_KINDS = {PROBE_TCP: DEFAULT_PROBE_PORT, PROBE_DNS: DNS_PORT, PROBE_ICMP: 0}


def endpoint(item: str) -> Endpoint:
    """`1.1.1.1:443`, `1.1.1.1` or the same of IPv6 with brackets where there is a port; with
    `dns:` or `icmp:` before it, asked by that."""
    if item.lower() == NOTHING:
        raise reject(item, PROBE_ACCEPTS, "write off alone, or leave it out of the list")
    prefix, _, rest = item.partition(":")
    kind, written = (prefix.lower(), rest) if prefix.lower() in _KINDS else (PROBE_TCP, item)
    address, port = _written(written, item)
    if kind == PROBE_ICMP and port is not None:
        raise reject(item, PROBE_ACCEPTS, f"leave the port out: a ping has none, icmp:{address}")
    return Endpoint(address, _KINDS[kind] if port is None else port, kind)


def _written(text: str, item: str) -> tuple[IPv4Address | IPv6Address, int | None]:
    """Address and port of what follows the kind, with the port that is written."""
    host, colon, port_text = text.partition(":")
    if not re.fullmatch(r"[0-9.]*\.[0-9.]*", host):  # 2620: is the start of an IPv6 address
        remedy = "write the address itself, such as 1.1.1.1:443"
        return _endpoint6(text, item, PROBE_ACCEPTS, remedy, "2620:fe::fe")
    try:
        address = IPv4Address(host)
    except ValueError:
        remedy = "write the address itself, such as 1.1.1.1:443, without leading zeros"
        raise reject(item, PROBE_ACCEPTS, remedy) from None
    for unusable, what in UNUSABLE_IPV4:
        if address in unusable:
            raise reject(item, "a unicast address", f"take another one: {unusable} is {what}")
    return address, _port(port_text, item) if colon else None


def _endpoint6(
    text: str, item: str, accepts: str, if_ipv4: str, such_as: str
) -> tuple[IPv6Address, int | None]:
    bracketed = re.fullmatch(r"\[([^\]]*)\](?::(.*))?", text)
    address_text, port_text = bracketed.groups() if bracketed else (text, None)
    address = ipv6_address(address_text, item, accepts, if_ipv4, such_as)
    require_unicast6(IPv6Network(address), item)
    port = None if port_text is None else _port(port_text, item)
    return address, port


def _port(text: str, item: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        usual = _KINDS.get(item.partition(":")[0], DEFAULT_PROBE_PORT)
        remedy = f"write {item.rpartition(':')[0]}:{usual}"
        raise reject(item, "a port from 1 to 65535", remedy)
    return int(text)


def _each(
    text: str, parse: Callable[[str], Endpoint], accepts: str, if_empty: str
) -> tuple[Endpoint, ...]:
    """Every item parsed, or every fault at once."""
    targets: list[Endpoint] = []
    faults: list[Fault] = []
    for item in items(text):
        try:
            targets.append(parse(item))
        except Rejected as rejected:
            faults += rejected.faults
    if not targets and not faults:
        faults.append(Fault(text, accepts, if_empty))
    if faults:
        raise Rejected(*faults)
    return tuple(targets)


ENDPOINTS6 = Form("list of IPv6 targets", PROBE6_ACCEPTS, ipv6_endpoints, natives=(list,))
ENDPOINTS = Form("list of targets, or off", PROBE_ACCEPTS, endpoints, natives=(list,))

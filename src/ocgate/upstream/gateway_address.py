"""Which addresses can't be a gateway for clients, and why. Pure.

An answer of DNS decides where clients leave: what it must never be is this host itself, the ISP's
router, a client, or something that only a router (so: the ISP's) reaches.
"""

from __future__ import annotations

from collections.abc import Iterable

from ocgate.plan.facts import Address, Facts, Network


def refusal(address: Address, facts: Facts, subnets: Iterable[Network]) -> str:
    """Why `address` can't be the next hop of clients, one clause; '' if it can.

    subnets: the clients'. Routers of every default route in table main count as the ISP's.
    """
    if address.is_multicast or address.is_unspecified:
        return f"{address} is no host's address"
    if address.is_link_local:  # of IPv4 some systems have a route everywhere, and clouds a service
        return f"{address} is link-local, and may be another host on every network"
    if facts.is_local(address):
        return f"{address} is this host itself"
    for net in subnets:
        if address.version == net.version and address in net:
            return f"{address} lies in the client subnet {net}"
    for route in (*facts.routes4, *facts.routes6):
        if route.gateway == address:
            return f"{address} is the router of this host's default route on {route.device}"
    link = facts.connected_network_of(address)
    if link is None:
        return f"{address} is on none of the attached networks"
    return _no_host(address, link.network)


def _no_host(address: Address, network: Network) -> str:
    """Of IPv4 networks that have both: the kernel takes the network address for a host since 5.14,
    but as a gateway it is a typing error."""
    if network.version == 4 and network.prefixlen < 31:
        if address == network.broadcast_address:
            return f"{address} is the broadcast address of {network}"
        if address == network.network_address:
            return f"{address} is the address of the network {network} itself"
    return ""

"""Where a tunnel's client, and a question to a provider, may be sent: one gate for all kinds. Pure.

A server's name is looked up by DNS, which whoever is on the way can forge, and a provider's list
names addresses. The switch is opened for what they say, so a forged answer would have the client
send to a neighbour, to the docker host, to a cloud's metadata service or to a LAN. Therefore:

    the operator wrote the address (configuration, /etc/hosts)    taken, whatever it is
    a name without a dot, an address on an attached network       taken: docker's own names
    everything else                                               the internet's addresses alone

A name with a dot for a private server is refused: docker's resolver asks the internet's for every
such name, and its answer can't be told from a forged one. Who means it writes the address down.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ocgate import outside
from ocgate.errors import OcgateError
from ocgate.plan.facts import Address, Network
from ocgate.tunnel.model import ExitIntent, Refusal

# A forged answer may hold thousands; of a provider's name each may be tried in turn.
MOST_ADDRESSES = 16
_SHOWN = 3  # refusals in one sentence


class NotThere(OcgateError):
    """No address that was named may be spoken to."""


@dataclass(frozen=True)
class Judged:
    """addresses: that may be spoken to, in the order given. refused: the others."""

    addresses: tuple[Address, ...]
    refused: tuple[Refusal, ...]


def judged(name: str, addresses: Iterable[Address], intent: ExitIntent) -> Judged:
    """What of the addresses that somebody else gave for `name` may be spoken to from this host,
    `intent` having the networks around it. name: '' where they were listed without one."""
    taken: list[Address] = []
    refused: list[Refusal] = []
    for address in dict.fromkeys(addresses):
        why = refusal(name, address, intent)
        if not why and len(taken) == MOST_ADDRESSES:
            why = f"{MOST_ADDRESSES} are enough"
        if why:
            refused.append(Refusal(str(address), why))
        else:
            taken.append(address)
    return Judged(tuple(taken), tuple(refused))


def required(name: str, addresses: Iterable[Address], intent: ExitIntent) -> Judged:
    """The same; raises NotThere, with the reason and the remedy, where none is left."""
    found = judged(name, addresses, intent)
    if not found.addresses:
        whose = f"{name} resolves to" if name else "the provider's list has"
        raise NotThere(f"{whose} {said(found.refused)}; {_REMEDY if name else 'not spoken to'}")
    return found


def said(refused: Iterable[Refusal]) -> str:
    """Refusals in one clause: `224.0.0.1 (it is a multicast address)`."""
    all_of_them = [f"{each.what} ({each.why})" for each in refused]
    more = len(all_of_them) - _SHOWN
    return ", ".join(all_of_them[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


_REMEDY = (
    "DNS can be forged, so this is not spoken to. If it is your server, write its address in place "
    "of the name, or give the name its address: docker run --add-host NAME:ADDRESS, extra_hosts"
)


def refusal(name: str, address: Address, intent: ExitIntent) -> str:
    """Why this address must not be spoken to, a clause; '' if it may be."""
    if why := outside.nobodys(address):
        return why
    if address in intent.own:
        return "it is this host's own"
    if (attached := _network_of(address, intent.local)) is not None:
        if not _is_dockers(name):
            return f"it lies in {attached}, a network that this host is attached to"
        return _no_host(address, attached)
    for networks, whose in ((intent.networks, "NETWORK"), (intent.forward_from, "FORWARD_FROM")):
        if (network := _network_of(address, networks)) is not None:
            return f"it lies in {network} of {whose}"
    return outside.not_public(address)


def _is_dockers(name: str) -> bool:
    """Whether a name is one of containers and services: those of the internet have a dot."""
    return bool(name) and "." not in name


def _network_of(address: Address, networks: Iterable[Network]) -> Network | None:
    return next((n for n in networks if n.version == address.version and address in n), None)


def _no_host(address: Address, network: Network) -> str:
    if network.version == 4 and network.prefixlen < 31:
        if address == network.broadcast_address:
            return f"it is the broadcast address of {network}"
        if address == network.network_address:
            return f"it is the address of {network} itself"
    return ""

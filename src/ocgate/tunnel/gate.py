"""What is taken of what a tunnel's server reports: one gate for all kinds of tunnel. Pure.

The server belongs to a company that the user pays and does not know. What it reports is configured
on this host, which has neighbours: an address of theirs on our device would make the kernel answer
for it on their network (ARP, and neighbour discovery), and a resolver among them would be asked by
the uplink. So whatever is reported is a text here, and becomes a value only where it can do nothing
beyond the tunnel. All else is refused, one by one, with the reason for the operator; the routes and
names that servers push, too, are never used.

    a kind's hook, a file ──Reported──> read ──Taken──> machine, record
                                                          │  (networks come and go meanwhile)
                                       reconciler  <──Taken── fitting, at each look
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_interface

from ocgate import outside
from ocgate.errors import OcgateError
from ocgate.plan.facts import Address, InterfaceAddress
from ocgate.tunnel.model import Carried, ExitIntent, Refusal

# An IPv4 host takes 576 bytes (RFC 1122 section 3.3.3), an IPv6 link 1280 (RFC 8200 section 5:
# below it the kernel has no IPv6 on a device); the kernel's tun takes up to 65535.
LEAST_MTU, LEAST_MTU6, LARGEST_MTU = 576, 1280, 65535

# resolv.conf(5) asks three (MAXNS), and a hook's environment may hold thousands.
MOST_RESOLVERS = 3
MOST_REFUSALS = 20
_LONGEST_TEXT = 60  # of what is quoted of a server

_NUMBER = re.compile(r"[0-9]{1,5}")
_ZONED = "an address with a zone means something on its own host only"


class Unusable(OcgateError):
    """The tunnel's other end reported nothing that a device can be configured with."""


@dataclass(frozen=True)
class Reported:
    """What a server says of a tunnel, word for word, and nothing of it believed.

    address4, address6: ours within it, without a prefix length; '' for none.
    mtu:       bytes of an IP packet.
    resolvers: in the server's order.
    routes:    networks that it asks to lead into the tunnel.
    names:     domains, and what else has no use here.
    """

    mtu: str
    address4: str = ""
    address6: str = ""
    resolvers: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Taken:
    """carried: None where nothing is left that a packet could leave with. refused: the rest."""

    carried: Carried | None
    refused: tuple[Refusal, ...] = ()

    @property
    def said(self) -> str:
        """Why nothing is carried."""
        reasons = "; ".join(str(each) for each in self.refused)
        return f"nothing of what the tunnel's server gave can be used: {reasons}"


def read(reported: Reported, intent: ExitIntent) -> Taken:
    """What is taken of a report on this host, `intent` having the networks around it."""
    judge = _Judge(intent)
    mtu = judge.mtu(reported.mtu)
    addresses = [*judge.address(reported.address4, 4), *judge.address(reported.address6, 6)]
    resolvers = tuple(judge.resolvers(reported.resolvers))
    judge.unused("routes", reported.routes, "clients' traffic goes by the tunnel anyway")
    judge.unused("options", reported.names, "they have no use here")
    if mtu is None:
        return Taken(None, judge.refused)
    return judge.fitting(Carried(tuple(addresses), mtu, resolvers))


def fitting(carried: Carried, intent: ExitIntent) -> Taken:
    """The same of what a file says, or of what was taken before: a network may have come since that
    holds it."""
    return _Judge(intent).fitting(carried)


def quoted(text: str) -> str:
    """A server's text as log and status may show it: one line, printable, short."""
    plain = text[: _LONGEST_TEXT + 1].encode("ascii", "backslashreplace").decode()
    plain = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in plain)
    return plain if len(plain) <= _LONGEST_TEXT else f"{plain[:_LONGEST_TEXT]}..."


class _Judge:
    """One pass over a report; what is refused is noted on the way."""

    def __init__(self, intent: ExitIntent) -> None:
        self._intent = intent
        self._refused: list[Refusal] = []
        self._more = 0  # a server may report thousands

    @property
    def refused(self) -> tuple[Refusal, ...]:
        more = Refusal(f"{self._more} more", "for reasons like these")
        return (*self._refused, more) if self._more else tuple(self._refused)

    def _refuse(self, what: str, why: str, *, loses: bool = False) -> None:
        if len(self._refused) < MOST_REFUSALS:
            self._refused.append(Refusal(what, why, loses))
        else:
            self._more += 1

    # --- values -------------------------------------------------------------------------------

    def fitting(self, given: Carried) -> Taken:
        addresses = tuple(a for a in given.addresses if self._is_ours(a, given.mtu))
        own = {address.ip for address in addresses}
        resolvers = tuple(r for r in given.resolvers if self._is_beyond(r, own))
        if not given.addresses:
            self._refuse("no address", "the server gave none")
        told = tuple(dict.fromkeys((*given.refused, *self.refused)))
        if not addresses:
            return Taken(None, told)
        return Taken(Carried(addresses, given.mtu, resolvers, told), told)

    def _is_ours(self, address: InterfaceAddress, mtu: int) -> bool:
        small = address.version == 6 and mtu < LEAST_MTU6
        why = f"IPv6 needs an MTU of {LEAST_MTU6}, and the tunnel has {mtu}" if small else ""
        why = why or self._whose(address.ip)
        if why:
            self._refuse(f"address {address.ip}", why, loses=not small)
        return not why

    def _is_beyond(self, resolver: Address, own: Collection[Address]) -> bool:
        why = "it is our own end of the tunnel" if resolver in own else self._whose(resolver)
        if why:
            self._refuse(f"resolver {resolver}", why)
        return not why

    def _whose(self, address: Address) -> str:
        """Who has this address already, '' for nobody that is known here."""
        intent = self._intent
        if isinstance(address, IPv6Address) and address.scope_id is not None:
            return _ZONED
        if why := outside.nobodys(address):
            return why
        if intent.endpoint is not None and address == intent.endpoint.address:
            return "it is the tunnel's server, which is reached without the tunnel"
        if address in intent.own:
            return "this host has it on another device"
        for networks, words in (
            (intent.local, "a network that this host is attached to"),
            (intent.networks, "of NETWORK, which is reached without the tunnel"),
            (intent.forward_from, "of FORWARD_FROM: only your clients' networks belong there"),
        ):
            for network in networks:
                if address.version == network.version and address in network:
                    return f"it lies in {network}, {words}"
        return ""

    # --- from texts to values -----------------------------------------------------------------

    def mtu(self, text: str) -> int | None:
        if _NUMBER.fullmatch(text) and LEAST_MTU <= int(text) <= LARGEST_MTU:
            return int(text)
        self._refuse(
            f"MTU {quoted(text) or '(none)'}", f"it must be {LEAST_MTU} to {LARGEST_MTU} bytes"
        )
        return None

    def address(self, text: str, version: int) -> Iterator[InterfaceAddress]:
        """Ours within the tunnel, without its network: the tunnel's table leads everything into the
        device, so the network needs no route of its own; it would be the server's choice."""
        if not text:
            return
        found, why = _host(text)
        if found is not None and found.version == version:
            yield ip_interface(found)
        else:
            why = why or f"it is no IPv{version} address"
            self._refuse(f"address {quoted(text)}", why, loses=True)

    def resolvers(self, texts: Iterable[str]) -> Iterator[Address]:
        """Each once, in the server's order, the first few."""
        seen: set[Address] = set()
        for text in texts:
            found, why = _host(text)
            if found in seen:
                continue
            if found is not None and len(seen) == MOST_RESOLVERS:
                found, why = None, f"{MOST_RESOLVERS} are enough"
            if found is None:
                self._refuse(f"resolver {quoted(text)}", why)
            else:
                seen.add(found)
                yield found

    def unused(self, kind: str, texts: Sequence[str], why: str) -> None:
        """One refusal for all of them, which quotes the first."""
        if texts:
            more = f" and {len(texts) - 1} more" if len(texts) > 1 else ""
            self._refuse(f"{kind} ({quoted(texts[0])}{more})", why)


def _host(text: str) -> tuple[Address | None, str]:
    """The address and '', or None and why it is none."""
    address = outside.address(text)
    if address is not None:
        return address, ""
    if "%" in text:
        return None, _ZONED
    return None, "it is no address"

"""Whether a gateway itself answers on its link, asked while nothing comes back through it.

Asked by ARP or NDP of our own: the kernel takes 3 s from its own doubt to FAILED, and asks nobody
about a neighbour that is pinned.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from ocgate.kernel import link_question, neighbours
from ocgate.kernel.neighbours import Neighbour
from ocgate.plan.facts import Address
from ocgate.runtime.probing import Hop

# Who has an address on a link says so within a millisecond; a busy machine takes some more.
LINK_TIMEOUT = 0.3  # seconds

# Questions in a row that nobody answers, and seconds that this has to last, before it counts as
# gone: a frame may be lost, and a busy host is late to answer or to hear it.
SILENT, LASTS = 3, 1.0

Holders = Callable[..., Awaitable[frozenset[str] | None]]


class NextHop:
    """One gateway on one link."""

    def __init__(
        self,
        address: Address,
        device: str,
        pin: str,
        *,
        probed: bool,
        wait: float = LINK_TIMEOUT,
        neighbour: Callable[[Address, str], Neighbour] = neighbours.neighbour,
        solicit: Callable[[Address, str], object] = neighbours.solicit,
        suspect: Callable[[Address, str], object] = neighbours.suspect,
        holders: Holders = link_question.holders,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """pin: the MAC address that it is held to, '' for none. probed: something beyond it is
        asked, too; else the kernel's entry is all that is known of one that is not pinned. wait:
        seconds for answers on the link, at the most LINK_TIMEOUT."""
        self._address = address
        self._device = device
        self._pin = pin
        self._probed = probed
        self._wait = min(wait, LINK_TIMEOUT)
        self._neighbour = neighbour
        self._solicit = solicit
        self._suspect = suspect
        self._holders = holders
        self._clock = clock
        self._silent = 0
        self._since = 0.0  # when the first of these was asked

    async def ask(self) -> Hop | None:
        """None: nothing can be said now."""
        if self._pin:
            return await self._by_link()
        found = self._neighbour(self._address, self._device)
        if not self._probed:
            return self._by_entry(found)
        if found is Neighbour.FAILED:
            return Hop(answers=False, why=self._silence(), gone=True)
        if found is Neighbour.ANSWERED:  # it may have come back with another MAC address
            self._suspect(self._address, self._device)
        asked = await self._by_link()
        if asked is None and found is Neighbour.ASKED:
            return Hop(answers=False, why=self._silence())
        return asked

    def _by_entry(self, found: Neighbour) -> Hop | None:
        # Nothing may be sent there while it is down, and a fresh entry ages only when it is used.
        self._solicit(self._address, self._device)
        match found:
            case Neighbour.ANSWERED:
                return Hop(answers=True, why=self._answer())
            case Neighbour.FAILED:
                return Hop(answers=False, why=self._silence(), gone=True)
            case _:
                return None

    async def _by_link(self) -> Hop | None:
        asked = self._clock()
        found = await self._holders(self._address, self._device, wait=self._wait)
        if found is None:
            return None
        if self._pin in found or (found and not self._pin):
            self._silent = 0
            return Hop(answers=True, why=self._answer())
        self._since = self._since if self._silent else asked
        self._silent += 1
        why = self._another(found) if found else self._silence()
        gone = self._silent >= SILENT and self._clock() - self._since >= LASTS
        return Hop(answers=False, why=why, gone=gone)

    def _answer(self) -> str:
        return f"{self._address} answers on {self._device}"

    def _silence(self) -> str:
        protocol = "ARP" if self._address.version == 4 else "NDP"
        return f"no answer to {protocol} from {self._address} on {self._device}"

    def _another(self, found: frozenset[str]) -> str:
        return (
            f"{self._address} answers with another MAC address on {self._device}, "
            f"{', '.join(sorted(found))}, than the {self._pin} that it is held to: a neighbour has "
            "taken its address, or it was made anew (then: ocgate reload --learn-mac, or set "
            "VPN_GATEWAY_MAC)"
        )

"""Clients' bytes through an exit, as evidence: what our tables count (`plan.carried`), read by
netlink, without what proves nothing.

A gateway that is closed answers TCP with resets, which belong to the client's flow as any answer
does. They carry nothing: of each packet that came back, as many bytes as such a reset has are left
out. So are acknowledgements without options, and probes have to do where nothing else comes back.
"""

from __future__ import annotations

from collections.abc import Mapping

from ocgate.kernel import nft_counters
from ocgate.kernel.netlink import NETFILTER, Netlink
from ocgate.kernel.nft_counters import Counted
from ocgate.plan.facts import Family
from ocgate.upstream.line import Counters

# Headers of IP and TCP without options: a reset as nft's `reject` sends it (nf_reject_ipv4.c).
_RESET: dict[Family, int] = {4: 40, 6: 60}
_NOTHING = Counted(0, 0)


class Carried:
    """One exit's counters. Keeps a socket open."""

    def __init__(self, table: str, *, sent: str, came_back: Mapping[Family, str]) -> None:
        """table: that has counters of these names."""
        self._table = table
        self._sent = sent
        self._came_back = dict(came_back)
        self._door = Netlink(NETFILTER)
        self._before: dict[Family, Counted] = {}
        self._back = 0

    def look(self) -> Counters | None:
        """What was carried since; None where nothing is counted now."""
        found = nft_counters.read(self._door, self._table)
        if self._sent not in found:
            return None
        for family, name in self._came_back.items():
            self._take(family, found.get(name, _NOTHING))
        return Counters(sent=found[self._sent].bytes, back=self._back)

    def _take(self, family: Family, now: Counted) -> None:
        before = self._before.get(family, now)
        if now.packets < before.packets:  # the table was made anew
            before = _NOTHING
        grown, packets = now.bytes - before.bytes, now.packets - before.packets
        self._back += max(grown - packets * _RESET[family], 0)
        self._before[family] = now

"""Bytes of users through the tunnel, as the kill switch's table counts them."""

from __future__ import annotations

from collections.abc import Callable

from ocgate.exits.line import Counters
from ocgate.kernel import nft_counters
from ocgate.kernel.netlink import NETFILTER, Netlink
from ocgate.names import NFT_TABLE_EXIT
from ocgate.tunnel.reasons import CAME_BACK, SENT


def carried_bytes() -> Callable[[], Counters | None]:
    """A function that reads them; None where the table is gone. It keeps a socket open."""
    door = Netlink(NETFILTER)

    def read() -> Counters | None:
        found = nft_counters.read(door, NFT_TABLE_EXIT)
        if SENT not in found or CAME_BACK not in found:
            return None
        return Counters(sent=found[SENT], back=found[CAME_BACK])

    return read

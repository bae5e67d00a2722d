"""Wait for late packets at a stop, while the guard still stands; see `plan.closing`.

Edge of the room `kernel`; the wiring imports it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from ocgate.errors import KernelRefused
from ocgate.kernel import sysctl
from ocgate.kernel.nft import Nft
from ocgate.names import NFT_FAMILY, NFT_TABLE_CLOSING, NFT_TABLE_GATEWAY
from ocgate.plan.closing import REFLECT, Closing, text

POLL = 0.05  # seconds; a look costs 0.2 ms


def wait(
    nft: Nft,
    wanted: Closing,
    *,
    run_dir: Path,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Until nothing comes any more, as `wanted.wait` says; how many packets came. Returns at once
    without the guard's table (it was removed before): there is nothing to hold anything.

    The kernel's answers carry the mark of what they answer meanwhile; where that may not be set,
    they have none, and the guard and the rules keep them here.
    """
    guard = f"{NFT_FAMILY} {NFT_TABLE_GATEWAY}"
    if not (nft.exists("table", guard) and nft.exists("chain", f"{guard} input")):
        return 0
    with sysctl.lent(REFLECT, run_dir=run_dir):
        nft.run(text(wanted))
        return _watched(nft, wanted, clock, sleep)


def _watched(
    nft: Nft, wanted: Closing, clock: Callable[[], float], sleep: Callable[[float], None]
) -> int:
    wait, seen = wanted.wait, 0
    began = last = now = clock()
    while now - began < wait.most and (now - began < wait.least or now - last < wait.quiet):
        sleep(POLL)
        now, came = clock(), _late(nft)
        if came != seen:
            seen, last = came, now
    return seen


def _late(nft: Nft) -> int:
    try:
        listed = nft.list_json(f"list table {NFT_FAMILY} {NFT_TABLE_CLOSING}")
    except KernelRefused:  # somebody flushed the ruleset: there is nothing to count with
        return 0
    return sum(item["counter"]["packets"] for item in listed["nftables"] if "counter" in item)

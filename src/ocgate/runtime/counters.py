"""What the status of either role is made of: counters by reason, bytes of a device, moments."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict

from ocgate.kernel import apply
from ocgate.kernel.nft import Nft

_STATISTICS = Path("/sys/class/net")


class BlockedStatus(TypedDict):
    """One counter. reason: its name, the kernel's object is called the same. explanation: a
    sentence for people, may be ''.
    """

    reason: str
    packets: int
    bytes: int
    explanation: str


def counted(device: str, which: str) -> int:
    """The device's own count (`rx_bytes`, …); 0 once it is gone."""
    try:
        return int((_STATISTICS / device / "statistics" / which).read_text())
    except (OSError, ValueError):
        return 0


def blocked(nft: Nft, reasons: Mapping[str, str]) -> list[BlockedStatus]:
    """Of these counters (name -> explanation) those that the kernel has."""
    found = apply.counters(nft)
    return [
        BlockedStatus(reason=name, packets=found[name][0], bytes=found[name][1], explanation=why)
        for name, why in reasons.items()
        if name in found
    ]


def iso(seconds: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

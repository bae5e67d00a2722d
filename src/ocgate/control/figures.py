"""What the status of either role is made of: counters by reason, bytes of a device, moments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from ocgate.control.status_schema import BlockedStatus, ReachedStatus
from ocgate.kernel import apply
from ocgate.kernel.nft import Nft
from ocgate.plan.permitted import Permitted

_STATISTICS = Path("/sys/class/net")


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


def reached(nft: Nft, networks: Iterable[Permitted]) -> list[ReachedStatus]:
    """The permitted networks, each with its counter."""
    given = tuple(networks)
    found = apply.counters(nft) if given else {}
    return [
        ReachedStatus(
            network=str(net.network),
            device=net.device,
            via=None if net.via is None else str(net.via),
            state="up" if net.usable else "down",
            why=net.missing,
            packets=found.get(net.counter, (0, 0))[0],
            bytes=found.get(net.counter, (0, 0))[1],
        )
        for net in given
    ]


def iso(seconds: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

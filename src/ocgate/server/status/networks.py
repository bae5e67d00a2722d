"""The permitted networks as `ocgate status` displays them, each with its counter."""

from __future__ import annotations

from collections.abc import Iterable

from ocgate.kernel import apply
from ocgate.kernel.nft import Nft
from ocgate.plan.permitted import Permitted
from ocgate.server.status.schema import ReachedStatus


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

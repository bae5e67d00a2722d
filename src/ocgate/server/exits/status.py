"""How the exits are, as `ocgate status` is told. The shape is in `status_schema`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from ocgate.config.gateways import Upstream, UpstreamKind
from ocgate.config.model import Settings
from ocgate.plan.facts import Address, Family
from ocgate.server.exits.track import Track
from ocgate.server.status.schema import ExitStatus

# Of the default exits; named ones come with their names.
DEFAULT = "default"

_WHY = {
    UpstreamKind.DIRECT: "by this host",
    UpstreamKind.BLOCK: "rejected, as configured",
}


def statuses(
    settings: Settings,
    tracks: Mapping[Family, Track],
    device_of: Callable[[Address], str | None],
    clock: float,
) -> list[ExitStatus]:
    """One for each family in gateway mode, else none; a family that goes as without that mode is
    left out. clock: this moment, as the tracks' are given."""
    if not settings.gateway_mode:
        return []
    exits: tuple[tuple[Family, Upstream | None], ...] = ((4, settings.exit4), (6, settings.exit6))
    return [
        _of_track(tracks[family], device_of, clock)
        if family in tracks
        else _unwatched(family, upstream)
        for family, upstream in exits
        if upstream is not None
    ]


def _unwatched(family: Family, upstream: Upstream) -> ExitStatus:
    return ExitStatus(
        exit=DEFAULT,
        family=family,
        gateway=str(upstream),
        address=None,
        device=None,
        state=upstream.kind.value,
        since=None,
        why=_WHY.get(upstream.kind, ""),
        rtt=None,
        heard=None,
        late=0,
        transitions=0,
    )


def _of_track(track: Track, device_of: Callable[[Address], str | None], clock: float) -> ExitStatus:
    seen, address = track.seen(clock), track.address
    unresolved = f"its name has not resolved: {track.trouble or 'not asked yet'}"
    return ExitStatus(
        exit=DEFAULT,
        family=track.family,
        gateway=str(track.upstream),
        address=None if address is None else str(address),
        device=None if address is None else device_of(address),
        state=seen.state if address is not None else "down",
        since=None if seen.since is None else _iso(seen.since),
        why=seen.why if address is not None else unresolved,
        rtt=seen.rtt,
        heard=seen.heard,
        late=seen.late,
        transitions=track.transitions,
    )


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

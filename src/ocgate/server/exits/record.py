"""What is known of the gateways, kept in the run dir for a control plane that is restarted.

It must be back in two seconds with the same exits in force, also while DNS or a gateway is down:
asked anew, a name may take longer than that, and a dead gateway would count as usable again. A
record of another gateway than the settings name (a reload that was cut short) counts for nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from ocgate.config.gateways import Upstream, UpstreamKind
from ocgate.config.model import Settings
from ocgate.own_files import write
from ocgate.plan.exits import Exits, ExitState
from ocgate.plan.facts import Address, Family
from ocgate.runtime.probing import UNSEEN, Seen, word
from ocgate.upstream.line import State

EXITS = "exits.json"
FAMILIES: tuple[Family, Family] = (4, 6)

_STATES = {word(state): word(state) for state in State}


@dataclass(frozen=True)
class Known:
    """One gateway: as written in the settings, where it is, how it is, and the MAC address that it
    was learned to have, '' for none."""

    written: str
    address: Address | None
    seen: Seen = UNSEEN
    mac: str = ""

    @property
    def exit_state(self) -> ExitState:
        """As planning wants it."""
        if self.address is None:
            return ExitState(None, f"{self.written} has not resolved")
        why = "" if self.seen.usable else self.seen.why
        return ExitState(self.address, why, self.mac)


def gateways(settings: Settings) -> dict[Family, Upstream]:
    """The families whose exit is a gateway."""
    exits: tuple[tuple[Family, Upstream | None], ...] = ((4, settings.exit4), (6, settings.exit6))
    return {
        family: upstream
        for family, upstream in exits
        if settings.gateway_mode and upstream and upstream.kind is UpstreamKind.GATEWAY
    }


def exits_of(known: Mapping[Family, Known]) -> Exits:
    """As planning wants them."""
    four, six = (known[f].exit_state if f in known else None for f in FAMILIES)
    return Exits(four, six)


def write_exits(run_dir: Path, settings: Settings, exits: Exits) -> None:
    """Keep where the gateways of `settings` are, as a start or a reload has found them."""
    write_known(run_dir, dict(_located(settings, exits)))


def read_exits(run_dir: Path, settings: Settings) -> Exits:
    """What was known last of the gateways that `settings` name; an unknown name has no address."""
    known = read_known(run_dir)
    return exits_of(
        {
            family: held
            if (held := known.get(family)) and held.written == str(upstream)
            else Known(str(upstream), upstream.address)
            for family, upstream in gateways(settings).items()
        }
    )


def write_known(run_dir: Path, known: Mapping[Family, Known]) -> None:
    """Keep it as it is; a file that holds no secret."""
    kept = {
        str(family): {
            "gateway": held.written,
            "address": held.address and str(held.address),
            "state": held.seen.state,
            "since": held.seen.since,
            "why": held.seen.why,
            "mac": held.mac,
        }
        for family, held in known.items()
    }
    write(run_dir / EXITS, json.dumps(kept).encode(), mode=0o644)


def read_known(run_dir: Path) -> dict[Family, Known]:
    """What `write_known` kept; nothing where nothing usable is there."""
    try:
        kept: dict[str, Any] = json.loads((run_dir / EXITS).read_bytes())
        return {family: _known(kept[str(family)]) for family in FAMILIES if str(family) in kept}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _known(kept: Mapping[str, Any]) -> Known:
    address = None if kept["address"] is None else ip_address(kept["address"])
    seen = Seen(_STATES[kept["state"]], _moment(kept["since"]), str(kept["why"]))
    return Known(str(kept["gateway"]), address, seen, str(kept.get("mac", "")))


def _moment(since: float | None) -> float | None:
    return float(since) if since else None


def _located(settings: Settings, exits: Exits) -> Iterator[tuple[Family, Known]]:
    for family, upstream in gateways(settings).items():
        state = exits.of(family)
        yield family, Known(str(upstream), state.address if state else upstream.address)

"""The whole of `ocgate prove`, from the environment to a `Proof`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ocgate.prove import configuration
from ocgate.prove.engine import PACKETS
from ocgate.prove.fault import Fault
from ocgate.prove.faults import chosen, matrix, possible
from ocgate.prove.outcome import Outcome, Proof

FULL_FACTOR = 4  # times the packets of a default run


@dataclass(frozen=True)
class Audience:
    """Who is told: of the list, of a fault that begins, of what came of it."""

    planned: Callable[[Sequence[Fault]], None] = lambda _faults: None
    begun: Callable[[Fault], None] = lambda _fault: None
    told: Callable[[Outcome], None] = lambda _outcome: None


def prove(
    environ: Mapping[str, str],
    *,
    only: Sequence[str] = (),
    full: bool = False,
    pcap: Path | None = None,
    audience: Audience | None = None,
) -> Proof:
    """Prove the configuration of `environ` on this machine; leaves nothing behind.

    only: patterns of names or groups of faults; none of them matching is a ValueError.
    Raises ConfigurationError, MissingRequirement, and engine.Broken where the proof means nothing.
    """
    heard = audience or Audience()
    wanted = chosen(matrix(full=full), only)
    if not wanted:
        raise ValueError(f"no fault is called {', '.join(only)}")
    configuration.require_machine()
    packets = PACKETS * (FULL_FACTOR if full else 1)
    with configuration.config_dir(environ) as given:
        asked = configuration.asks(given)
        facts = configuration.observed(asked.sources)
        with configuration.staged(asked, facts, packets=packets, pcap=pcap) as engine:
            met = configuration.has(engine.stage)
            faults = list(possible(wanted, lambda need: need in met))
            heard.planned(faults)
            engine.begun, engine.tell = heard.begun, heard.told
            return engine.prove(faults)

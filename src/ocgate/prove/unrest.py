"""`ocgate prove --chaos`, from the environment to a `Proof` of rounds; see `chaos`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ocgate.plan.facts import Facts
from ocgate.prove import configuration
from ocgate.prove.chaos import rounds, vocabulary
from ocgate.prove.chaos_end import Ending
from ocgate.prove.configuration import Asks
from ocgate.prove.engine import Engine
from ocgate.prove.fault import Fault
from ocgate.prove.faults import possible
from ocgate.prove.outcome import Outcome, Proof
from ocgate.prove.world import Furnish

# Client packets after a round's last step, before everything is mended.
PACKETS = 300


@dataclass(frozen=True)
class Unrest:
    """What is asked for. seed: decides each round; seconds: of rounds, without start and end."""

    seed: int
    seconds: float
    pcap: Path | None = None


def prove(environ: Mapping[str, str], wanted: Unrest, *, tell: Callable[[Outcome], None]) -> Proof:
    """Chaos for the configuration of `environ` on this machine; leaves nothing behind.

    Raises ConfigurationError, MissingRequirement, and engine.Broken where it means nothing.
    """
    configuration.require_machine()
    with configuration.config_dir(environ) as given:
        asked = configuration.asks(given)
        return run(asked, configuration.observed(asked.sources), wanted, tell=tell)


def run(
    asked: Asks,
    facts: Facts,
    wanted: Unrest,
    *,
    tell: Callable[[Outcome], None] = lambda _outcome: None,
    furnish: Furnish | None = None,
    also: Callable[[], Iterable[Fault]] = tuple,
) -> Proof:
    """The same for a configuration and a network as they are given. furnish: what the upstreams
    are, see `World`. also: what else may happen in a round, asked for when the world stands."""
    with configuration.staged(
        asked, facts, packets=PACKETS, pcap=wanted.pcap, furnish=furnish
    ) as engine:
        engine.tell = tell
        return engine.prove(_all(engine, wanted, also()))


def _all(engine: Engine, wanted: Unrest, also: Iterable[Fault]) -> Iterator[Fault]:
    """The rounds, then the end. The first is asked for when the subject serves already, and so
    `Ending` is made here, before."""
    met = configuration.has(engine.stage)
    words = list(possible([*vocabulary(), *also], lambda need: need in met))
    ending = Ending(engine.stage)

    def listed() -> Iterator[Fault]:
        yield from rounds(engine.stage, words, wanted.seed, wanted.seconds)
        yield ending.fault()

    return listed()

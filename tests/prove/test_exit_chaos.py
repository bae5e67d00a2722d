"""Chaos with the exit in the chain, between a hostile provider and a hostile neighbour.

server -> our exit -> provider: faults of both roles at random, several at a time, while the
provider pushes what is others', sends to neighbours and users all the time, and a neighbour forges.
Of clients nothing leaks, and of the provider's marked packets none reaches anybody.

`CHAOS_SECONDS=3600 ./test tests/prove/test_exit_chaos.py` is as long as you like; CHAOS_SEED=random
looks for new rounds and prints the seed, CHAOS_SEED=N replays them.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocgate.cli.chaos import HIGHEST_SEED, closing, line
from ocgate.prove import configuration
from ocgate.prove.chaos import rounds, vocabulary
from ocgate.prove.chaos_end import Ending
from ocgate.prove.engine import Engine
from ocgate.prove.fault import Fault
from ocgate.prove.faults import possible
from ocgate.prove.marker import Kind
from ocgate.prove.unrest import PACKETS
from support.prove_adversary import Adversary
from support.prove_configs import ON_WAN, facts
from support.prove_hostile import HostileExit
from support.prove_rows import Rows

SECONDS = float(os.environ.get("CHAOS_SECONDS", "45"))  # a minute and a quarter with start and end
USUAL_SEED = "587250"
OFTEN = 4  # times that each of the exit's faults stands among the others

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(SECONDS + 300)]


def test_nothing_leaks_in_chaos_beside_a_hostile_provider(config_dir: Path) -> None:
    """The first row is the control: with the exit's ruleset gone his packets are seen."""
    given = os.environ.get("CHAOS_SEED", USUAL_SEED)
    seed = random.SystemRandom().randint(1, HIGHEST_SEED) if given == "random" else int(given)
    print(f"CHAOS_SEED={seed}")
    kept = os.environ.get("OCGATE_PCAP_DIR")
    pcap = Path(kept) / "prove" / "exit_chaos" if kept else None
    asked = configuration.asks({"OCGATE_CONFIG_DIR": str(config_dir), "VPN_GATEWAY": ON_WAN})
    hostile = HostileExit()
    rows = Rows(hostile)
    adversary = Adversary(rows, seed)
    with configuration.staged(
        asked, facts(), packets=PACKETS, pcap=pcap, furnish=hostile.furnish
    ) as engine:
        engine.tell = lambda outcome: print(line(outcome), flush=True)
        proof = engine.prove(_listed(engine, rows, adversary, seed))
    control, *outcomes = proof.outcomes
    print("\n".join(closing(proof, seed)))
    print(f"{adversary.attacks} attacks, {adversary.pushed} hostile sets")
    print(f"the control: {rows.measured}")
    wrong = [line(outcome) for outcome in outcomes if outcome.leaked or outcome.failed]
    assert not wrong, "\n".join([f"CHAOS_SEED={seed}", *wrong])
    assert any(leak.kind is Kind.PROVIDER for leak in control.leaks), "the capture is blind"
    assert not control.failed, control.failed
    assert outcomes[-1].fault.name.startswith("the end")
    assert adversary.attacks > SECONDS / 4


def _listed(engine: Engine, rows: Rows, adversary: Adversary, seed: int) -> Iterator[Fault]:
    """The control, the rounds under attack, the end."""
    met = configuration.has(engine.stage)
    words = [*vocabulary(), *adversary.faults() * OFTEN]
    words = list(possible(words, lambda need: need in met))
    ending = Ending(engine.stage)
    control, *_ = rows.controls()

    def listed() -> Iterator[Fault]:
        yield control
        with adversary:
            yield from rounds(engine.stage, words, seed, SECONDS)
        rows.exit.write_pushes()
        yield ending.fault()

    return listed()

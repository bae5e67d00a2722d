"""Faults of all kinds at random, several at a time: nothing leaks, all comes back, nothing is left.

The seed decides which faults each round has. A change is judged by the same rounds as the one
before it; `CHAOS_SEED=random ./test tests/prove/test_chaos.py` looks for new ones and prints the
seed, CHAOS_SEED=N replays it, and CHAOS_SECONDS makes it shorter or longer.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from ocgate.cli.chaos import HIGHEST_SEED, closing, line
from ocgate.prove import configuration
from ocgate.prove.unrest import Unrest, run
from support.prove_configs import ON_WAN, ON_WAN6, facts

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(400)]

SECONDS = float(os.environ.get("CHAOS_SECONDS", "150"))  # 3 minutes with start and end
USUAL_SEED = "587250"
GATEWAYS = {"VPN_GATEWAY": ON_WAN, "VPN_GATEWAY6": ON_WAN6, "IPV6_NAT": "auto"}


def test_nothing_leaks_in_chaos_and_nothing_is_left(config_dir: Path) -> None:
    """Both families by gateways on the network of the default route, where a slip is a leak."""
    given = os.environ.get("CHAOS_SEED", USUAL_SEED)
    seed = random.SystemRandom().randint(1, HIGHEST_SEED) if given == "random" else int(given)
    print(f"CHAOS_SEED={seed}")
    kept = os.environ.get("OCGATE_PCAP_DIR")
    pcap = Path(kept) / "prove" / "chaos" if kept else None
    asked = configuration.asks({"OCGATE_CONFIG_DIR": str(config_dir), **GATEWAYS})
    proof = run(
        asked, facts(), Unrest(seed, SECONDS, pcap), tell=lambda o: print(line(o), flush=True)
    )
    print("\n".join(closing(proof, seed)))
    wrong = [line(outcome) for outcome in proof.outcomes if outcome.leaked or outcome.failed]
    assert not wrong, "\n".join([f"CHAOS_SEED={seed}", *wrong])
    assert proof.outcomes[-1].fault.name.startswith("the end")

"""An exit whose provider and whose neighbour are adversaries, as rows of the proof.

The server in front has clients that send; the exit's tunnel is real. See support.prove_hostile.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from ocgate.cli.chaos import line
from ocgate.prove import configuration, report
from ocgate.prove.marker import Kind
from support.prove_configs import ON_WAN, facts
from support.prove_hostile import HostileExit
from support.prove_poison import poisoned_dns
from support.prove_rows import Rows

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(400)]


def test_a_hostile_provider_and_a_hostile_neighbour_get_nothing(config_dir: Path) -> None:
    """At last what is not held, counted, which shows that the rest would be seen: with the ruleset
    gone the provider reaches the docker network, without policy rules he is forwarded by the
    uplink, and a neighbour that takes a user's address gets his answers."""
    kept = os.environ.get("OCGATE_PCAP_DIR")
    pcap = Path(kept) / "prove" / "exit_hostile" if kept else None
    hostile = HostileExit()
    rows = Rows(hostile)
    asked = configuration.asks({"OCGATE_CONFIG_DIR": str(config_dir), "VPN_GATEWAY": ON_WAN})
    with configuration.staged(asked, facts(), pcap=pcap, furnish=hostile.furnish) as engine:
        engine.tell = lambda outcome: print(line(outcome), flush=True)
        poisoned = rows.row("name of the provider leads near", partial(poisoned_dns, hostile))
        proof = engine.prove([*rows.all(), poisoned, *rows.controls()])
    print(f"hostile provider and neighbour: {report.summary(proof)}")
    for name, counted in rows.measured.items():
        print(f"{name}: {counted}")
    *outcomes, gone, nothing, taken = proof.outcomes
    wrong = [
        f"{outcome.fault.name}: {line}"
        for outcome in outcomes
        if outcome.leaked or outcome.failed
        for line in report.details(outcome)
    ]
    wrong += [f"{o.fault.name}: {o.failed}" for o in (gone, nothing, taken) if o.failed]
    assert not wrong, "\n".join(wrong)
    # Of clients nothing leaks in the first; and the hosts' own words to the provider are his.
    assert {leak.kind for leak in gone.leaks} <= {Kind.PROVIDER, Kind.HOST}, gone.leaks
    for control in (gone, nothing, taken):
        assert control.leaked, f"{control.fault.name}: the capture is blind"

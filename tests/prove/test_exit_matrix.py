"""Both roles at once: the matrix with `ocgate exit` and a real tunnel as the server's upstream."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ocgate.prove import report
from support.prove_configs import ON_WAN, prove
from support.prove_exit import ExitRole

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(600)]


def test_nothing_leaks_whatever_breaks_in_either_role(config_dir: Path) -> None:
    """Every fault of the default matrix, and every fault of the exit, with client packets looked
    for on the ISP's side of both. At last the exit without any lock, where they are seen."""
    kept = os.environ.get("OCGATE_PCAP_DIR")
    pcap = Path(kept) / "prove" / "exit_role" if kept else None
    exit_role = ExitRole()
    proof = prove(
        config_dir,
        {"VPN_GATEWAY": ON_WAN},
        pcap=pcap,
        furnish=exit_role.furnish,
        also=lambda: (*exit_role.faults(), exit_role.no_locks()),
    )
    print(f"exit role: {report.summary(proof)}")
    *outcomes, control = proof.outcomes
    wrong = [
        f"{outcome.fault.name}: {line}"
        for outcome in outcomes
        if outcome.leaked or outcome.failed
        for line in report.details(outcome)
    ]
    assert not wrong, "\n".join(wrong)
    assert control.leaked > 0, "the positive control of the exit shows no leak"
    assert not control.failed
    assert not [o for o in outcomes if o.skipped and o.fault.group != "conntrack"]

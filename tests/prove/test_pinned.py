"""The gateway's address taken by a neighbour: what the matrix shows with the pin, and without."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocgate.prove import report
from ocgate.prove.fault import Fault
from ocgate.prove.upstream_faults import released, take_addresses
from support.prove_configs import ON_WAN, ON_WAN6, prove

pytestmark = pytest.mark.lab

BOTH = {"VPN_GATEWAY": ON_WAN, "VPN_GATEWAY6": ON_WAN6, "IPV6_NAT": "auto"}
# Any address: the twin's upstreams have their own, and are learned.
PINS = {"VPN_GATEWAY_MAC": "02:42:ac:1c:00:03", "VPN_GATEWAY6_MAC": "learn"}
TAKEN = "neighbour takes the gateway's address"


def test_a_pinned_gateway_keeps_its_traffic(config_dir: Path) -> None:
    """Nothing of either family reaches the neighbour; other faults of the upstream are as ever."""
    only = (TAKEN, "upstream host gone", "upstream rebooted")
    proof = prove(config_dir, {**BOTH, **PINS}, only=only)
    print(report.summary(proof))
    found = {outcome.fault.name: outcome for outcome in proof.outcomes}
    assert TAKEN in found
    assert "upstream rebooted" not in found  # with another MAC address it is another host
    wrong = [
        f"{name}: {line}" for name, outcome in found.items() for line in report.details(outcome)
    ]
    assert not wrong, "\n".join(wrong)
    assert proof.holds


def test_without_the_pin_the_matrix_shows_what_the_neighbour_took(config_dir: Path) -> None:
    """The positive control."""
    fault = Fault(
        "taken without a pin", "upstream", lambda stage: take_addresses(stage, (4, 6)), released
    )
    proof = prove(config_dir, BOTH, only=("no such",), also=lambda: (fault,))
    (outcome,) = proof.outcomes
    assert {leak.where for leak in outcome.leaks} == {"neighbour"}
    assert {leak.family for leak in outcome.leaks} == {4, 6}

"""What `check` says of EXIT_PROBE where it can't tell whether a gateway leads out."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from ocgate.plan.exits import Exits, ExitState
from ocgate.server.desired.prepare import Ipv6Egress, prepare
from ocgate.server.exits.questions import warnings
from support.sources import facts, interface, sources

GATEWAY = "172.28.0.3"
FACTS = facts(
    interface(2, "eth0", "172.28.0.10/24"),
    default4="eth0",
    connected={"172.28.0.0/24": "eth0"},
)


@pytest.mark.parametrize(
    ("settings", "codes"),
    [
        ({}, []),
        ({"EXIT_PROBE": "off"}, []),
        ({"EXIT_PROBE": "1.1.1.1:443, [2620:fe::fe]:443"}, []),
        ({"EXIT_PROBE": "[2620:fe::fe]:443"}, ["no-probe-of-this-family"]),
        ({"EXIT_PROBE": f"{GATEWAY}:53, 1.1.1.1"}, ["probe-of-own-network"]),
        ({"EXIT_PROBE": "1.1.1.1", "VPN_GATEWAY6": "fd00::3"}, ["no-probe-of-this-family"]),
        ({"EXIT_PROBE": GATEWAY, "VPN_GATEWAY": "direct"}, []),
    ],
)
def test_targets_that_prove_nothing_are_named(settings: dict[str, str], codes: list[str]) -> None:
    given = {"VPN_GATEWAY": GATEWAY} | settings
    exits = Exits(ExitState(ip_address(GATEWAY)))
    made = prepare(sources(**given), FACTS, Ipv6Egress("none"), exits)
    assert [warning.code for warning in warnings(made)] == codes

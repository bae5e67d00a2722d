"""The whole leak matrix, for every way that clients may be sent: nothing leaks, all comes back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from p_prove import ON_ITS_OWN, ON_WAN, ON_WAN6, prove

from ocgate.prove import report

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(400)]

NETWORKS = "172.29.0.0/24 dev eth1, 2001:db8:29::/64 dev eth1"

# A gateway on the network of the default route is `test_exit_matrix`'s, with the exit role in it.
CONFIGURATIONS = {
    "gateway on its own interface": {"VPN_GATEWAY": ON_ITS_OWN},
    "IPv6 gateway": {"VPN_GATEWAY": ON_WAN, "VPN_GATEWAY6": ON_WAN6, "IPV6_NAT": "auto"},
    "gateway with a name": {"VPN_GATEWAY": "upstream.example"},
    "block": {"VPN_GATEWAY": "block"},
    "direct": {"VPN_GATEWAY": "direct", "IPV6_NAT": "auto"},
    "IPv6 direct": {"VPN_GATEWAY": ON_WAN, "VPN_GATEWAY6": "direct", "IPV6_NAT": "auto"},
    "networks beside a gateway": {"VPN_GATEWAY": ON_WAN, "OCGATE_NETWORKS": NETWORKS},
}


# A gateway with a name differs in how it is found and followed, not in what holds clients back.
# Beside a gateway IPv6 by this host differs in what is closed to clients.
# Networks beside it add rows of their own, and have to hold where interfaces and tables break.
ONLY = {
    "gateway with a name": ("upstream", "processes", "sessions", "clients"),
    "IPv6 direct": ("clients", "sessions", "our tables deleted*"),
    "networks beside a gateway": ("interfaces", "client to*", "our tables deleted, frozen"),
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_nothing_leaks_whatever_breaks(name: str, config_dir: Path) -> None:
    """Every fault of the default matrix, under traffic of three sessions."""
    kept = os.environ.get("OCGATE_PCAP_DIR")
    pcap = Path(kept) / "prove" / name.replace(" ", "_") if kept else None
    proof = prove(config_dir, CONFIGURATIONS[name], only=ONLY.get(name, ()), pcap=pcap)
    print(f"{name}: {report.summary(proof)}")
    wrong = [
        f"{outcome.fault.name}: {line}"
        for outcome in proof.outcomes
        for line in report.details(outcome)
    ]
    assert not wrong, "\n".join(wrong)
    assert proof.holds
    assert proof.packets > 30_000
    assert not [o for o in proof.outcomes if o.skipped and o.fault.group != "conntrack"]


def test_the_standalone_server_leaks_only_where_its_rules_are_gone(config_dir: Path) -> None:
    """Without gateway mode there is one lock for what clients send: with it taken away the report
    shows the leaks (docs/known-issues.md), with it standing there are none."""
    environ = {"IPV6_NAT": "auto"}
    only = (
        "clients",
        "sessions",
        "interfaces",
        "processes",
        "conntrack",
        "our tables deleted, frozen",
    )
    proof = prove(config_dir, environ, only=only)
    leaking = {outcome.fault.name for outcome in proof.outcomes if outcome.leaked}
    assert leaking == {"our tables deleted, frozen"}
    assert not proof.failed
    assert not proof.holds

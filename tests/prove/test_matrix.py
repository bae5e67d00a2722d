"""The whole leak matrix, for every way that clients may be sent: nothing leaks, all comes back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ocgate.prove import report
from ocgate.prove.outcome import Proof
from ocgate.prove.verdict import Limit
from support.prove_configs import ON_ITS_OWN, ON_WAN, ON_WAN6, Ipv6, facts, first_start, prove

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(400)]

NETWORKS = "172.29.0.0/24 dev eth1, 2001:db8:29::/64 dev eth1"

# A gateway on the network of the default route is `test_exit_matrix`'s, with the exit role in it.
# The exit `direct` is what a first start writes, below.
CONFIGURATIONS = {
    "gateway on its own interface": {"VPN_GATEWAY": ON_ITS_OWN},
    "IPv6 gateway": {"VPN_GATEWAY": ON_WAN, "VPN_GATEWAY6": ON_WAN6, "IPV6_NAT": "auto"},
    "gateway with a name": {"VPN_GATEWAY": "upstream.example"},
    "block": {"VPN_GATEWAY": "block"},
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

# Where what a first start has written is proven: the machine, and which faults. In a container the
# whole of it; a host differs in what is left alone of others (`shared`), so where layers are gone
# and the network moves; without IPv6 also in what clients get.
FIRST_STARTS = {
    "container with IPv6": (facts(), ()),
    "host with IPv6": (facts(container=False), ("kernel", "frozen", "pairs", "layers")),
    "host without IPv6": (
        facts(Ipv6.NO_ROUTE, container=False),
        ("clients", "sessions", "kernel", "frozen", "layers", "interfaces"),
    ),
    "container without IPv6": (facts(Ipv6.OFF), ("clients", "kernel", "layers")),
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_nothing_leaks_whatever_breaks(name: str, config_dir: Path) -> None:
    """Every fault of the default matrix, under traffic of three sessions."""
    proof = prove(config_dir, CONFIGURATIONS[name], only=ONLY.get(name, ()), pcap=kept(name))
    insist(name, proof)
    assert proof.packets > 30_000


@pytest.mark.parametrize("name", FIRST_STARTS)
def test_nothing_leaks_of_what_a_first_start_has_written(name: str, empty_dir: Path) -> None:
    """The same for the configuration of README's two commands, on machines with and without IPv6.
    What is not promised on a shared host is seen, so that the report of it is true: IPv6 with a
    forged source while the ruleset is gone (docs/known-issues.md), and nothing else."""
    machine, only = FIRST_STARTS[name]
    first_start(empty_dir, machine)
    proof = prove(empty_dir, {}, only=only, pcap=kept(name), on=machine)
    insist(name, proof)
    assert proof.guarded.policy_routing
    assert proof.guarded.shared is not machine.own_namespace
    forged = sum(o.limited.get(Limit.FORGED_ON_SHARED_HOST, 0) for o in proof.outcomes)
    assert (forged > 0) is (name == "host with IPv6")


def test_the_standalone_server_leaks_only_where_its_rules_are_gone(config_dir: Path) -> None:
    """Without gateway mode there is one layer for what clients send: with it taken away the report
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


# Each once, in the mode in which the others' combinations are seldom.
WITHOUT_IPV6 = [
    (Ipv6.NO_ROUTE, {"IPV6_NAT": "auto", "IPV6_SINK": "1"}),
    (Ipv6.NO_ROUTE, {"IPV6_NAT": "0", "IPV6_SINK": "1"}),
    (Ipv6.NO_ROUTE, {"IPV6_NAT": "1", "VPN_GATEWAY": "direct"}),
    (Ipv6.NO_ROUTE, {"IPV6_NAT": "auto", "VPN_GATEWAY": ON_ITS_OWN}),
    (Ipv6.OFF, {"IPV6_NAT": "auto"}),
    (Ipv6.OFF, {"IPV6_NAT": "1", "VPN_GATEWAY": "direct"}),
]


@pytest.mark.parametrize(("ipv6", "environ"), WITHOUT_IPV6)
def test_a_host_without_ipv6_can_be_proven(
    ipv6: Ipv6, environ: dict[str, str], config_dir: Path
) -> None:
    """Whatever is asked of IPv6: it is rejected or not given, and that is no fault of the replica.
    A default route that comes later leads out what may leave by it, and nothing else."""
    only = ("nothing is broken", "second default route", "default route moved")
    proof = prove(config_dir, environ, only=only, on=facts(ipv6))
    insist(str(environ), proof)
    answered = {c.family for o in proof.outcomes[:1] for c in o.cells if c.right}
    assert answered == {4}


def kept(name: str) -> Path | None:
    """Where captures stay, if they shall."""
    directory = os.environ.get("OCGATE_PCAP_DIR")
    return Path(directory) / "prove" / name.replace(" ", "_") if directory else None


def insist(name: str, proof: Proof) -> None:
    """That it holds, with what leaked in the failure's words."""
    print(f"{name}: {report.summary(proof)}")
    wrong = [
        f"{outcome.fault.name}: {line}"
        for outcome in proof.outcomes
        if outcome.leaked or outcome.failed
        for line in report.details(outcome)
    ]
    assert not wrong, "\n".join(wrong)
    assert proof.holds
    assert not [o for o in proof.outcomes if o.skipped and o.fault.group != "conntrack"]

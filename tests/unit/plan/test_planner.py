"""The planner's text, reviewed as a diff: `OCGATE_GOLDEN=write` renews the files."""

from __future__ import annotations

import os
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path

import pytest

from ocgate.plan import nft
from ocgate.plan.intent import Intent, Wan
from ocgate.plan.ipv6 import Ipv6Path
from ocgate.plan.planner import plan
from ocgate.plan.reasons import COUNTERS
from ocgate.plan.routing import render

GOLDEN = Path(__file__).parent / "golden"

STANDALONE = Intent(
    device="vpns",
    subnets4=(IPv4Network("10.10.10.0/24"),),
    subnets6=(IPv6Network("fda9:4efe:7e3b:3ea::/64"),),
    prefix6=128,
    gateways=(ip_address("10.10.10.1"), ip_address("fda9:4efe:7e3b:3ea::1")),
    resolvers=(),
    tcp_ports=(443,),
    mss=None,
    wan4=Wan("eth0", 1500),
    wan6=Wan("eth0", 1500),
    ipv6=Ipv6Path.REJECTED,
)
CASES = {
    "standalone": STANDALONE,
    "nat66_mss_resolver": replace(
        STANDALONE,
        ipv6=Ipv6Path.NAT66,
        mss=1360,
        resolvers=(ip_address("10.10.10.1"),),
        accept_ra_on=("eth0",),
    ),
    "routed_prefix64": replace(
        STANDALONE, ipv6=Ipv6Path.ROUTED, prefix6=64, subnets6=(IPv6Network("2001:db8:7::/56"),)
    ),
    "no_default_route": replace(STANDALONE, wan4=None, wan6=None),
    "two_subnets": replace(
        STANDALONE, subnets4=(IPv4Network("10.10.10.0/24"), IPv4Network("10.20.0.0/16"))
    ),
}


def shown(intent: Intent) -> str:
    made = plan(intent)
    parts = [nft.listing(table) for table in made.tables]
    parts += [render((*made.routes, *made.rules)), "".join(f"{s}\n" for s in made.sysctls)]
    return "\n".join(parts)


@pytest.mark.parametrize("name", CASES)
def test_text_is_the_golden_one(name: str) -> None:
    path = GOLDEN / f"{name}.txt"
    text = shown(CASES[name])
    if os.environ.get("OCGATE_GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("name", CASES)
def test_every_drop_and_reject_is_counted_by_a_known_reason(name: str) -> None:
    for chain in plan(CASES[name]).tables[0].chains:
        for rule in chain.rules:
            if rule.match.endswith(" drop") or " reject " in rule.match:
                reason = rule.match.split('counter name "')[1].split('"')[0]
                assert reason in COUNTERS


@pytest.mark.parametrize("name", CASES)
def test_chains_of_clients_end_in_a_block(name: str) -> None:
    """Default deny: nothing falls off the end of a chain that a client's packet goes to."""
    chains = {chain.name: chain for chain in plan(CASES[name]).tables[0].chains}
    for client in ("from_client", "input_from_client", "forward_from_client", "forward_to_client"):
        last = chains[client].rules[-1].match
        assert last.endswith(" drop") or " reject " in last


def test_comments_fit_into_a_rule() -> None:
    """The kernel takes 128 bytes of user data (NFT_USERDATA_MAXLEN 256, a comment 128)."""
    for intent in CASES.values():
        for chain in plan(intent).tables[0].chains:
            assert all(len(rule.why.encode()) < 128 and '"' not in rule.why for rule in chain.rules)


def test_a_plan_has_no_rule_for_a_way_that_is_not_there() -> None:
    text = nft.listing(plan(CASES["no_default_route"]).tables[0])
    assert "masquerade" not in text
    assert "exit direct" not in text

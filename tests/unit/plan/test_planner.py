"""The planner's text, reviewed as a diff: `OCGATE_GOLDEN=write` renews the files."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path

import pytest

from ocgate.config.gateways import HIGHEST_PRIO, LOWEST_PRIO, MAIN_RULE
from ocgate.plan import nft, steering
from ocgate.plan.exits import Exit, ExitKind, FormerAddress, Steering
from ocgate.plan.guard import next_hop
from ocgate.plan.intent import Intent, Wan
from ocgate.plan.ipv6 import Ipv6Path
from ocgate.plan.permitted import Permitted
from ocgate.plan.planner import plan
from ocgate.plan.reasons import ALL_COUNTERS
from ocgate.plan.routing import TABLE_MAIN, RuleAction, render

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
    ports=(10240, 32767),
)
EXIT4 = Exit(
    4, ExitKind.GATEWAY, "eth0", ip_address("172.28.0.3"), own=(ip_address("172.28.0.10"),)
)
EXIT6 = Exit(
    6, ExitKind.GATEWAY, "eth0", ip_address("2001:db8:28::3"), own=(ip_address("2001:db8:28::10"),)
)
STRAYS = (
    FormerAddress("eth0", ip_address("172.28.0.10")),
    FormerAddress("eth0", ip_address("2001:db8:28::10")),
)
STEERING = Steering(
    exit4=EXIT4,
    exit6=Exit(6, ExitKind.BLOCK, closed="VPN_GATEWAY6 is unset"),
    table=100,
    priority=1000,
    exclusive=True,
    strays=STRAYS,
)
GATEWAY = replace(
    STANDALONE,
    steering=STEERING,
    pushed=(ip_address("198.51.100.53"),),
    local=(IPv4Network("172.28.0.0/24"), IPv6Network("2001:db8:28::/64")),
)
NETWORKS = (
    Permitted(IPv4Network("10.77.0.0/24"), "lan0"),
    Permitted(IPv4Network("10.78.0.0/16"), "lan0", ip_address("10.77.0.1")),
    Permitted(IPv4Network("10.99.0.1/32"), "lan1", missing="there is no interface lan1"),
    Permitted(IPv6Network("fd00:77::/64"), "lan0"),
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
    "gateway": GATEWAY,
    "direct_beside_a_gateway": replace(
        GATEWAY,
        ipv6=Ipv6Path.NAT66,
        steering=replace(STEERING, exit6=Exit(6, ExitKind.DIRECT, "eth0")),
    ),
    "gateway_down": replace(
        GATEWAY, steering=replace(STEERING, exit4=replace(EXIT4, closed="1.1.1.1:443: timed out"))
    ),
    "gateway_waits": replace(
        GATEWAY,
        steering=replace(STEERING, exit4=replace(EXIT4, closed="timed out", waits=True)),
    ),
    "both_gateways_wait": replace(
        GATEWAY,
        ipv6=Ipv6Path.REJECTED,
        steering=replace(
            STEERING,
            exit4=replace(EXIT4, closed="timed out", waits=True, holds=True),
            exit6=replace(EXIT6, closed="timed out", waits=True),
        ),
    ),
    "gateway_on_its_own_interface": replace(
        GATEWAY,
        steering=replace(STEERING, exit4=replace(EXIT4, device="eth1"), exclusive=False),
        pushed=(ip_address("172.28.0.3"),),
        strict_on=("eth1",),
    ),
    "both_families_by_gateways": replace(
        GATEWAY, ipv6=Ipv6Path.NAT66, steering=replace(STEERING, exit6=EXIT6)
    ),
    "gateway_s_interface_down": replace(
        GATEWAY, steering=replace(STEERING, exit4=replace(EXIT4, gateway=None, closed="down"))
    ),
    "limits": replace(STANDALONE, session_flows=4096),
    "limits_by_a_gateway_on_a_shared_host": replace(
        GATEWAY,
        ports=(61000, 65534),
        steering=replace(STEERING, exclusive=False),
        session_flows=4096,
    ),
    "block": replace(
        GATEWAY, steering=replace(STEERING, exit4=Exit(4, ExitKind.BLOCK, closed="block"))
    ),
    "direct": replace(
        GATEWAY,
        steering=replace(
            STEERING,
            exit4=Exit(4, ExitKind.DIRECT, "eth0"),
            exit6=Exit(6, ExitKind.DIRECT, "eth0"),
        ),
        ipv6=Ipv6Path.NAT66,
    ),
    "networks": replace(STANDALONE, networks=NETWORKS),
    "networks_gateway": replace(GATEWAY, networks=NETWORKS, strict_on=("lan0",)),
    "networks_gateway_down": replace(
        GATEWAY, networks=NETWORKS, steering=replace(STEERING, exit4=replace(EXIT4, closed="down"))
    ),
    "networks_gateway_waits": replace(
        GATEWAY,
        networks=NETWORKS,
        steering=replace(STEERING, exit4=replace(EXIT4, closed="down", waits=True)),
    ),
    "networks_direct": replace(
        GATEWAY,
        networks=NETWORKS,
        steering=replace(
            STEERING,
            exit4=Exit(4, ExitKind.DIRECT, "eth0"),
            exit6=Exit(6, ExitKind.DIRECT, "eth0"),
        ),
        ipv6=Ipv6Path.ROUTED,
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
    for table in plan(CASES[name]).tables:
        for rule in (rule for chain in table.chains for rule in chain.rules):
            if rule.match.endswith(" drop") or " reject " in rule.match:
                reason = rule.match.split('counter name "')[1].split('"')[0]
                assert reason in table.counters
                assert reason in ALL_COUNTERS


@pytest.mark.parametrize("name", CASES)
def test_chains_of_clients_end_in_a_block(name: str) -> None:
    """Default deny: nothing falls off the end of a chain that a client's packet goes to."""
    tables = plan(CASES[name]).tables
    chains = {chain.name: chain for table in tables for chain in table.chains}
    guarded = [
        *(["networks"] if "networks" in chains else []),
        "from_client",
        "input_from_client",
        "forward_from_client",
        "forward_to_client",
    ]
    for client in [*guarded, *(["guard"] if "guard" in chains else [])]:
        last = chains[client].rules[-1].match
        assert last.endswith(" drop") or " reject " in last


def test_comments_fit_into_a_rule() -> None:
    """The kernel takes 128 bytes of user data (NFT_USERDATA_MAXLEN 256, a comment 128)."""
    for intent in CASES.values():
        for chain in (chain for table in plan(intent).tables for chain in table.chains):
            assert all(len(rule.why.encode()) < 128 and '"' not in rule.why for rule in chain.rules)


def test_a_plan_has_no_rule_for_a_way_that_is_not_there() -> None:
    text = nft.listing(plan(CASES["no_default_route"]).tables[0])
    assert "masquerade" not in text
    assert "exit direct" not in text


GATEWAYS = [name for name, intent in CASES.items() if intent.steering is not None]


def test_without_a_gateway_there_is_nothing_of_gateway_mode() -> None:
    made = plan(STANDALONE)
    assert (made.rules, made.devices, made.routing_tables) == ((), (), ())
    assert [table.name for table in made.tables] == ["ocserv"]


@pytest.mark.parametrize("name", GATEWAYS)
def test_rules_stand_in_the_order_that_the_drawing_tells(name: str) -> None:
    """Between local (0) and main (32766), within what VPN_GATEWAY_RULE_PRIO's range allows."""
    rules = plan(CASES[name]).rules
    assert list(rules) == sorted(rules, key=lambda rule: (rule.family, rule.priority))
    assert all(1000 + steering.FIRST <= rule.priority <= 1000 + steering.LAST for rule in rules)
    assert LOWEST_PRIO + steering.FIRST > 0
    assert HIGHEST_PRIO + steering.LAST < MAIN_RULE


@pytest.mark.parametrize("name", GATEWAYS)
def test_no_rule_of_a_client_reaches_main_s_default_route_unmarked(name: str) -> None:
    """Lock 2: what looks into main either hides its default route, or comes behind the rules that
    take what has no mark."""
    for rule in plan(CASES[name]).rules:
        if rule.table == TABLE_MAIN and rule.suppress_prefixlength is None:
            assert rule.source is not None
            held = [r for r in plan(CASES[name]).rules if r.priority < rule.priority]
            assert any(r.source == rule.source and r.fwmark == 0 for r in held)


@pytest.mark.parametrize("name", GATEWAYS)
def test_every_look_up_of_a_client_is_followed_by_a_blackhole(name: str) -> None:
    """A table that somebody empties falls through to the next rule, which must not be main's."""
    rules = plan(CASES[name]).rules
    for rule in rules:
        if rule.action is not RuleAction.LOOKUP:
            continue
        after = (r for r in rules if r.family == rule.family and r.priority > rule.priority)
        assert any(
            r.action is RuleAction.BLACKHOLE
            and (r.source, r.destination, r.iif, r.ipproto, r.sport, r.inverted)
            == (rule.source, rule.destination, rule.iif, rule.ipproto, rule.sport, rule.inverted)
            for r in after
        ), rule.text


@pytest.mark.parametrize("name", ["gateway", "gateway_on_its_own_interface"])
def test_all_of_a_plan_has_the_same_ports_of_clients_flows(name: str) -> None:
    """They are said once: what is translated, what is dropped as late, what may not be answered."""
    made = plan(replace(CASES[name], ports=(20001, 20999)))
    assert {rule.sport for rule in made.rules if rule.sport} == {(20001, 20999)}
    ranges = re.findall(r"\b\d{5}-\d{5}\b", "\n".join(map(nft.recreation, made.tables)))
    assert set(ranges) == {"20001-20999"}


@pytest.mark.parametrize("name", CASES)
def test_only_a_flow_that_exists_is_asked_less(name: str) -> None:
    """What stands before the questions to a first packet accepts by state `established` and by the
    exit's whole condition: what is related, invalid or untracked is asked everything, and of an
    exit that waits nothing else passes."""
    waiting = {next_hop(way) for way in CASES[name].exits if way.waits}
    chains = {chain.name: chain for table in plan(CASES[name]).tables for chain in table.chains}
    for chain in ("guard", "forward_from_client"):
        rules = [rule.match for rule in chains[chain].rules] if chain in chains else []
        for match in (m for m in rules if "established" in m and " reject " not in m):
            state, _, rest = match.partition("ct state established ")
            assert state == ""
            assert (rest in rules[rules.index(match) + 1 :]) != (rest in waiting)


@pytest.mark.parametrize("name", [name for name in CASES if name.endswith("waits")])
def test_by_an_exit_that_waits_nothing_begins(name: str) -> None:
    """Rejected by the first of its packets, before routing; and accepted by no later rule."""
    tables = {table.name: table for table in plan(CASES[name]).tables}
    chains = {c.name: [r.match for r in c.rules] for t in tables.values() for c in t.chains}
    refused = [match for match in chains["begins"] if " reject " in match]
    assert all('counter name "exit_closed"' in match for match in refused)
    assert len(refused) == 2
    assert not [match for match in chains["nat"] if '"eth0"' in match]
    for chain in ("guard", "forward_from_client"):
        accepts = [m for m in chains[chain] if "0x02000000" in m and "accept" in m]
        assert all(match.startswith("ct state established ") for match in accepts)

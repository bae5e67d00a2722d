"""The kill switch's text, reviewed as a diff (`OCGATE_GOLDEN=write` renews the files), and what
holds in each state of the exit."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest

from ocgate.names import BLACKHOLE_METRIC, TUNNEL_RULE_PRIO, TUNNEL_TABLE, TUNNEL_UID
from ocgate.plan import nft
from ocgate.plan.carried import CAME_BACK
from ocgate.plan.facts import ForeignRule, Network
from ocgate.plan.model import Plan
from ocgate.plan.routing import TABLE_MAIN, RouteKind, Rule, RuleAction, render
from ocgate.tunnel import routing
from ocgate.tunnel.killswitch import IPV6_FORWARDING, plan
from ocgate.tunnel.model import Bootstrap, Carried, Endpoint, ExitIntent, GatewayDns
from ocgate.tunnel.reasons import REASONS, SENT

GOLDEN = Path(__file__).parent / "golden_killswitch"

DOCKER, DOCKER6 = ip_network("172.28.0.0/24"), ip_network("2001:db8:28::/64")
SERVER = Endpoint(ip_address("198.51.100.200"), 1194, ("udp",))
RESOLVER = ip_address("10.8.0.1")
CLOSED = ExitIntent(
    device="tun0",
    uplinks=("eth0",),
    forward_from=(DOCKER,),
    local=(DOCKER,),
    client_uid=TUNNEL_UID,
)
CONNECTING = replace(CLOSED, endpoint=SERVER)
CARRIED = Carried((ip_interface("10.8.0.2/24"),), 1500, (RESOLVER,))
UP = replace(CONNECTING, carried=CARRIED)
CARRIED6 = Carried(
    (*CARRIED.addresses, ip_interface("fd9c:41d7:58a2:8::1000/64")),
    1400,
    (RESOLVER, ip_address("fd9c:41d7:58a2:8::1")),
)
BOTH = replace(UP, forward_from=(DOCKER, DOCKER6), local=(DOCKER, DOCKER6))
CASES = {
    "closed": CLOSED,
    "bootstrapping": replace(
        CLOSED,
        bootstrap=Bootstrap(
            (ip_address("127.0.0.11"), ip_address("192.0.2.53"), ip_address("2001:db8::53")),
            (Endpoint(ip_address("203.0.113.80"), 443, ("tcp",)),),
        ),
    ),
    "connecting": CONNECTING,
    "between_two_tunnels": replace(
        CONNECTING,
        forward_from=(DOCKER, DOCKER6),
        local=(DOCKER, DOCKER6),
        former=replace(CARRIED6, resolvers=()),
    ),
    "given_up": replace(CLOSED, former=CARRIED, given_up=True),
    "up": UP,
    "up_without_resolver": replace(UP, carried=replace(CARRIED, resolvers=())),
    "up_dns_off": replace(UP, dns=GatewayDns.OFF),
    "up_ipv4_in_ipv6_networks": BOTH,
    "up_both_families": replace(BOTH, carried=CARRIED6),
    "by_the_kernel_s_wireguard": replace(
        UP,
        device="wg0",
        client_uid=None,
        endpoint=Endpoint(ip_address("2001:db8:c8::8"), 51820, ("udp",)),
    ),
    "several_networks_two_protocols": replace(
        UP,
        uplinks=("eth1",),
        forward_from=(ip_network("172.28.0.0/24"), ip_network("172.29.0.0/24")),
        networks=(ip_network("192.168.1.0/24"), ip_network("10.99.0.7/32")),
        endpoint=Endpoint(ip_address("198.51.100.200"), 443, ("tcp", "udp")),
    ),
    "nobody_allowed": replace(UP, forward_from=()),
}
each_case = pytest.mark.parametrize("name", CASES)


def shown(made: Plan) -> str:
    parts = [nft.listing(table) for table in made.tables]
    parts += [f"{made.tunnel}\n", render((*made.routes, *made.rules))]
    return "\n".join([*parts, "".join(f"{s}\n" for s in made.sysctls)])


@each_case
def test_text_is_the_golden_one(name: str) -> None:
    path = GOLDEN / f"{name}.txt"
    text = shown(plan(CASES[name]))
    if os.environ.get("OCGATE_GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()


def test_every_golden_file_has_its_case() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(CASES)


# --- lock 1 -----------------------------------------------------------------------------------


def rules_of(made: Plan, chain: str) -> list[str]:
    (table,) = made.tables
    return [rule.match for c in table.chains if c.name == chain for rule in c.rules]


@each_case
def test_what_decides_drops_by_policy(name: str) -> None:
    (table,) = plan(CASES[name]).tables
    policies = {c.name: c.hook.policy for c in table.chains if c.hook}
    assert {c for c, policy in policies.items() if policy == "drop"} == {
        "input",
        "forward",
        "output",
    }


@each_case
def test_the_chains_are_the_same_in_every_state(name: str) -> None:
    """So a change of state replaces rules in place, and no packet meets a table in the making."""
    (table,), (closed,) = plan(CASES[name]).tables, plan(CLOSED).tables
    assert [(c.name, c.hook) for c in table.chains] == [(c.name, c.hook) for c in closed.chains]


@each_case
def test_nothing_leaves_this_host_but_by_the_tunnel_or_to_an_address_that_is_named(
    name: str,
) -> None:
    """Every accept in output names loopback, the tunnel, a destination, or IPv6's neighbours."""
    device = CASES[name].device
    named = re.compile(
        rf'oifname "(lo|{device})" accept'
        rf"|(oifname != \"{device}\" )?ip6? daddr \S.* accept"
        r"|icmpv6 type \{[^}]*\} ip6 (hoplimit 255|daddr ff02::/16) accept"
    )
    accepts = [rule for rule in rules_of(plan(CASES[name]), "output") if rule.endswith(" accept")]
    assert [rule for rule in accepts if not named.fullmatch(rule)] == []


@each_case
def test_only_an_established_tunnel_lets_packets_through(name: str) -> None:
    """`into_tunnel` holds the only accept of forwarded packets, and is entered when one is up."""
    intent, made = CASES[name], plan(CASES[name])
    assert not [rule for rule in rules_of(made, "forward") if rule.endswith("accept")]
    entered = [rule for rule in rules_of(made, "forward") if rule.endswith("goto into_tunnel")]
    carries = [family for family in (4, 6) if intent.carries(family) and intent.inside(family)]
    assert len(entered) == len(carries)


@each_case
def test_each_counter_that_a_rule_names_is_declared_and_explained(name: str) -> None:
    (table,) = plan(CASES[name]).tables
    used = set(re.findall(r'counter name "(\w+)"', nft.listing(table)))
    assert used <= set(table.counters) == {*REASONS, SENT, *CAME_BACK.values()}


def test_a_family_that_the_tunnel_does_not_carry_says_so() -> None:
    """IPv6 beside an IPv4 tunnel is told another reason than a tunnel that is down."""
    assert 'counter name "ipv6_not_carried"' in " ".join(rules_of(plan(BOTH), "prerouting"))
    down = " ".join(rules_of(plan(replace(BOTH, carried=None)), "prerouting"))
    assert "ipv6_not_carried" not in down
    assert down.count('counter name "tunnel_down"') == 4  # TCP and the rest, both families


@pytest.mark.parametrize("address", ["fe80::1/64", "169.254.7.7/16"])
def test_an_address_of_the_link_alone_carries_nothing(address: str) -> None:
    carried = Carried((ip_interface(address),), 1500)
    assert not carried.has(4) and not carried.has(6)


# --- lock 2 -----------------------------------------------------------------------------------


def test_an_address_of_the_link_alone_is_not_the_device_s() -> None:
    """`kernel.tun` doesn't look at them: one that were wanted would be missing for ever."""
    wanted = (*CARRIED.addresses, ip_interface("fe80::2/64"), ip_interface("169.254.7.7/16"))
    made = plan(replace(UP, carried=replace(CARRIED, addresses=wanted))).tunnel
    assert made is not None
    assert made.addresses == CARRIED.addresses


def asked(rules: tuple[Rule, ...], destination: str, *, iif: str) -> list[str]:
    """What a packet meets, in order, up to the first rule that can't fail."""
    address = ip_address(destination)
    found = []
    for rule in rules:
        by_device = rule.iif is None or (rule.iif == iif) != rule.inverted
        to = rule.destination is None or address in rule.destination
        if rule.family == address.version and by_device and to:
            shown = "main" if rule.table == TABLE_MAIN else str(rule.table or rule.action.value)
            found.append(shown + ("" if rule.suppress_prefixlength is None else ", no default"))
            if rule.action is not RuleAction.LOOKUP:
                break
    return found


TABLE = str(TUNNEL_TABLE)
DOWN = ["main, no default", "unreachable"]
OWN = ["main, no default", TABLE, "unreachable"]
WAYS = {
    "a client's packet": ("eth0", "8.8.8.8", [TABLE, "blackhole"]),
    "a client's packet to the endpoint": ("eth0", "198.51.100.200", [TABLE, "blackhole"]),
    "a client's IPv6": ("eth0", "2001:db8::8", [TABLE, "blackhole"]),
    "an answer": ("tun0", "172.28.0.3", ["main, no default", "blackhole"]),
    "this host's own": ("lo", "8.8.8.8", OWN),
    "this host's own IPv6": ("lo", "2001:db8::8", DOWN),  # not carried
    "the tunnel itself": ("lo", "198.51.100.200", ["main", "unreachable"]),
    "a local network": ("lo", "192.168.1.9", ["main", "unreachable"]),
    "answers to a local network": (
        "tun0",
        "192.168.1.9",
        ["main", "main, no default", "blackhole"],
    ),
}


@pytest.mark.parametrize("what", WAYS)
def test_only_the_endpoint_and_local_networks_ask_for_main_s_default_route(what: str) -> None:
    iif, destination, expected = WAYS[what]
    made = plan(replace(UP, networks=(ip_network("192.168.1.0/24"),)))
    assert asked(made.rules, destination, iif=iif) == expected


def test_bootstrap_opens_the_ways_to_its_addresses_and_closes_them_again() -> None:
    made = plan(CASES["bootstrapping"])
    for address in ("192.0.2.53", "2001:db8::53", "203.0.113.80"):
        assert asked(made.rules, address, iif="lo") == ["main", "unreachable"]
        assert asked(plan(CONNECTING).rules, address, iif="lo") == DOWN
    assert asked(made.rules, "127.0.0.11", iif="lo") == DOWN  # table `local` has answered before


@each_case
def test_every_lookup_is_held_by_a_rule_that_can_t_fail(name: str) -> None:
    """Whoever is asked and has no answer, the next word is no: main's 32766 is out of reach."""
    made = plan(CASES[name])
    for address in ("8.8.8.8", "2001:db8::8", "198.51.100.200", "192.168.1.9", "172.28.0.3"):
        for iif in ("lo", "eth0", CASES[name].device):
            assert asked(made.rules, address, iif=iif)[-1] in ("blackhole", "unreachable")


@each_case
def test_the_tunnel_s_table_has_a_default_by_the_tunnel_or_a_blackhole(name: str) -> None:
    intent, made = CASES[name], plan(CASES[name])
    for family in (4, 6):
        mine = [r for r in made.routes if r.family == family]
        assert mine[-1].kind is RouteKind.BLACKHOLE and mine[-1].metric == BLACKHOLE_METRIC
        by_tunnel = [r.device for r in mine[:-1]]
        assert by_tunnel == ([intent.device] if intent.carries(family) else [])
    assert {route.table for route in made.routes} == {TUNNEL_TABLE} == set(made.routing_tables)


def test_rules_stand_where_they_are_documented() -> None:
    priorities = [rule.priority for rule in plan(UP).rules if rule.family == 4]
    assert priorities == sorted(priorities)
    assert priorities[0] > TUNNEL_RULE_PRIO + routing.ANSWERS_BEYOND
    assert priorities[-1] == TUNNEL_RULE_PRIO + routing.LAST


@pytest.mark.parametrize(("foreign", "first"), [(1010, 1000), (1009, 999), (900, 890), (11, 1)])
def test_rules_stand_before_those_of_other_programs(foreign: int, first: int) -> None:
    """A rule that is asked before the last of ours would steer what the exit holds."""
    there = [ForeignRule(4, foreign, "from 172.28.0.10/32 lookup 77", 77)]
    assert routing.first_priority(there) == first
    moved = [r.priority for r in plan(replace(UP, rule_prio=first)).rules]
    assert (min(moved) >= first, max(moved) < foreign) == (True, True)


def test_without_room_before_another_program_s_rule_it_is_named() -> None:
    there = [ForeignRule(4, 10, "from all lookup 77", 77)]
    assert routing.first_priority(there) is None
    assert "`10: from all lookup 77`" in routing.said_of(there)
    local = [ForeignRule(4, 0, "from all lookup local", 255)]
    assert routing.said_of(local) == ""


# --- the device and what else it needs -----------------------------------------------------------


def test_the_tunnel_s_device_is_the_client_s_and_has_addresses_only_while_it_is_up() -> None:
    up, closed = plan(UP).tunnel, plan(CLOSED).tunnel
    assert up is not None and closed is not None
    assert (up.owner, up.addresses, up.mtu) == (TUNNEL_UID, CARRIED.addresses, 1500)
    assert (closed.name, closed.owner, closed.addresses, closed.mtu) == (
        "tun0",
        TUNNEL_UID,
        (),
        None,
    )


@pytest.mark.parametrize(
    ("forward_from", "expected"), [((DOCKER,), False), ((DOCKER, DOCKER6), True)]
)
def test_ipv6_is_forwarded_where_it_is_carried_and_somebody_may_use_it(
    forward_from: tuple[Network, ...], expected: bool
) -> None:
    made = plan(replace(UP, forward_from=forward_from, carried=CARRIED6))
    assert (IPV6_FORWARDING in made.sysctls) is expected
    keys = [sysctl.key for sysctl in made.sysctls]
    assert "net.ipv6.conf.eth0.accept_ra" not in keys  # its default route was written
    made = plan(replace(UP, forward_from=forward_from, carried=CARRIED6, advertised_on=("eth0",)))
    keys = [sysctl.key for sysctl in made.sysctls]
    assert ("net.ipv6.conf.eth0.accept_ra" in keys) is expected


def test_a_kernel_without_ipv6_is_given_none_of_it() -> None:
    """Neither rules nor routes nor addresses, which it would refuse."""
    made = plan(replace(BOTH, carried=CARRIED6, ipv6=False))
    assert {item.family for item in (*made.rules, *made.routes)} == {4}
    assert made.tunnel is not None
    assert {address.version for address in made.tunnel.addresses} == {4}
    assert IPV6_FORWARDING not in made.sysctls


def test_dns_by_itself_is_redirected_where_the_tunnel_offers_a_resolver() -> None:
    """GATEWAY_DNS=auto is `redirect` or `off`, and no third thing."""
    offered, none = UP, replace(UP, carried=replace(CARRIED, resolvers=()))
    for intent, same in ((offered, GatewayDns.REDIRECT), (none, GatewayDns.OFF)):
        assert plan(replace(intent, dns=GatewayDns.AUTO)) == plan(replace(intent, dns=same))

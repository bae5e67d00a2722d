"""How clients leave in gateway mode: from settings, facts and what is known of the gateways.

gw: eth0 172.28.0.10 (default route via .1), eth1 172.30.0.10; the upstream is 172.28.0.3
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from ocgate.plan.exits import Exit, ExitKind, Exits, ExitState, FormerAddress
from ocgate.plan.facts import DefaultRoute, Facts, ForeignRule
from ocgate.plan.ipv6 import Ipv6Path
from ocgate.server.desired import rule_placement
from ocgate.server.desired.prepare import (
    Ipv6Egress,
    Prepared,
    depends_on_egress,
    prepare,
    problems,
    standing,
)
from ocgate.server.desired.steering import exposes_ipv6
from ocgate.server.reconcile.former_addresses import STRAYS, read_strays, write_strays
from support.sources import CONF, IPV6_ON, facts, interface, sources

ETH0 = interface(2, "eth0", "172.28.0.10/24", "2001:db8:28::10/64")
ETH1 = interface(3, "eth1", "172.30.0.10/24")
NETS = {"172.28.0.0/24": "eth0", "2001:db8:28::/64": "eth0", "172.30.0.0/24": "eth1"}
BASE = facts(ETH0, ETH1, default4="eth0", default6="eth0", connected=NETS)
FACTS = replace(
    BASE,
    routes4=(DefaultRoute(4, 0, 2, "eth0", ip_address("172.28.0.1")),),
    routes6=(DefaultRoute(6, 1024, 2, "eth0", ip_address("2001:db8:28::1")),),
    own_namespace=True,
)
GATEWAY, GATEWAY6 = "172.28.0.3", "2001:db8:28::3"


def known(four: str | None = GATEWAY, six: str | None = None, down: str = "") -> Exits:
    return Exits(
        ExitState(ip_address(four), down) if four else None,
        ExitState(ip_address(six), down) if six else None,
    )


def prepared(
    exits: Exits | None = None,
    found: Facts = FACTS,
    conf: str = CONF,
    egress: Ipv6Egress = Ipv6Egress(None),  # noqa: B008
    **environ: str,
) -> Prepared:
    wish = {"VPN_GATEWAY": GATEWAY, **environ}
    chosen = {name: value for name, value in wish.items() if value}
    return prepare(sources(conf, **chosen), found, egress, exits or known())


def exit4(made: Prepared) -> Exit:
    assert made.intent.steering is not None
    return made.intent.steering.exit4


def exit6(made: Prepared) -> Exit:
    assert made.intent.steering is not None
    return made.intent.steering.exit6


def test_unset_there_is_no_steering() -> None:
    assert prepared(VPN_GATEWAY="").intent.steering is None


def test_a_gateway_leaves_by_the_interface_of_its_own_network() -> None:
    """... which need not be the WAN."""
    way = exit4(prepared())
    assert (way.device, way.gateway, way.usable) == ("eth0", ip_address(GATEWAY), True)
    assert way.own == (ip_address("172.28.0.10"),)
    way = exit4(prepared(known("172.30.0.3"), VPN_GATEWAY="172.30.0.3"))
    assert (way.device, way.usable) == ("eth1", True)


def test_ipv6_of_an_ipv4_gateway_is_a_sink() -> None:
    """Unset, VPN_GATEWAY6 means block; the client's own IPv6 shall not go around the tunnel."""
    made = prepared()
    assert exit6(made).kind is ExitKind.BLOCK
    assert exit6(made).closed
    assert made.decision.word == "sink"
    assert made.sources.wants_ipv6
    assert made.intent.subnets6
    assert not depends_on_egress(made.sources)


def test_a_sink_that_is_not_wanted_is_not_made() -> None:
    made = prepared(IPV6_SINK="0")
    assert made.decision.word == "off"
    assert exit6(made).closed


def test_where_ipv6_is_off_in_the_kernel_no_sink_is_pretended() -> None:
    off = {**IPV6_ON, "net.ipv6.conf.all.disable_ipv6": "1"}
    made = prepared(found=facts(ETH0, default4="eth0", connected=NETS, sysctls=off))
    assert (made.decision.advertised, made.decision.loud) == (False, True)


@pytest.mark.parametrize(
    ("environ", "kind", "path"),
    [
        ({"VPN_GATEWAY6": "block"}, ExitKind.BLOCK, Ipv6Path.REJECTED),
        ({"VPN_GATEWAY6": "direct", "IPV6_NAT": "auto"}, ExitKind.DIRECT, Ipv6Path.NAT66),
        ({"VPN_GATEWAY6": "direct"}, ExitKind.DIRECT, Ipv6Path.REJECTED),
        ({"VPN_GATEWAY6": GATEWAY6}, ExitKind.GATEWAY, Ipv6Path.NAT66),
        (
            {"VPN_GATEWAY": "direct", "IPV6_NAT": "auto"},
            ExitKind.DIRECT,
            Ipv6Path.NAT66,
        ),
    ],
)
def test_ipv6_goes_as_it_is_asked(environ: dict[str, str], kind: ExitKind, path: Ipv6Path) -> None:
    made = prepared(known(six=GATEWAY6), **environ)
    assert exit6(made).kind is kind
    assert made.decision.path is path
    assert exit6(made).usable is (path is not Ipv6Path.REJECTED)


def test_ipv6_by_this_host_beside_a_gateway_is_named() -> None:
    assert exposes_ipv6(prepared(VPN_GATEWAY6="direct").sources)
    assert not exposes_ipv6(prepared(VPN_GATEWAY6=GATEWAY6).sources)
    assert not exposes_ipv6(prepared(VPN_GATEWAY="direct", VPN_GATEWAY6="direct").sources)


@pytest.mark.parametrize(
    ("exits", "found", "why"),
    [
        (known(down="1.1.1.1:443: timed out"), FACTS, "timed out"),
        (Exits(ExitState(None, "x")), FACTS, "not resolved"),
        (known("172.31.0.3"), FACTS, "none of the attached networks"),
        (known("172.28.0.10"), FACTS, "this host itself"),
        (known("172.28.0.1"), FACTS, "router of this host's default route"),
        (known("10.10.10.3"), FACTS, "client subnet"),
    ],
)
def test_what_cannot_be_used_is_closed_with_the_reason(
    exits: Exits, found: Facts, why: str
) -> None:
    """While the server runs: nobody is disconnected, clients are rejected."""
    way = exit4(prepared(exits, found))
    assert why in way.closed
    assert not way.usable


def test_a_gateway_that_is_down_keeps_its_route_for_the_probes() -> None:
    way = exit4(prepared(known(down="timed out")))
    assert (way.device, way.gateway) == ("eth0", ip_address(GATEWAY))


@pytest.mark.parametrize("address", ["172.28.0.10", "172.28.0.1", "172.31.0.3", "10.10.10.3"])
def test_at_a_start_it_is_refused_and_the_variable_named(address: str) -> None:
    made = prepared(known(address), VPN_GATEWAY=address)
    found = [problem for problem in problems(made) if problem.key == "VPN_GATEWAY"]
    assert [problem.got for problem in found] == [address]
    assert "172.28.0.0/24 (eth0)" in found[0].remedy


def test_a_pinned_gateway_has_a_permanent_neighbour_entry() -> None:
    """As written, or as it was learned; of one that was learned nothing before that."""
    mac = "02:42:ac:1c:00:03"
    entry = f"172.28.0.3 dev eth0 lladdr {mac} nud permanent"
    assert [n.text for n in prepared(VPN_GATEWAY_MAC=mac).plan.neighbours] == [entry]
    assert prepared(VPN_GATEWAY_MAC="learn").plan.neighbours == ()
    learned = Exits(ExitState(ip_address(GATEWAY), "", mac))
    assert [n.text for n in prepared(learned, VPN_GATEWAY_MAC="learn").plan.neighbours] == [entry]
    assert prepared(learned).plan.neighbours == ()


def near(*, lent: bool = False, up: bool = True) -> Facts:
    """eth0 has the gateway's network; eth1 got a route into it from somebody (DHCP, RFC 3442)."""
    eth0 = replace(ETH0, lent=ETH0.addresses if lent else ())
    nets = {**NETS, "172.28.0.3/32": "eth1"} if up else {"172.28.0.3/32": "eth1"}
    return facts(eth0, ETH1, default4="eth0", connected=nets)


@pytest.mark.parametrize("lent", [False, True])
def test_a_more_specific_route_does_not_say_where_the_gateway_is(*, lent: bool) -> None:
    """TunnelVision against ourselves: clients would leave by the network that made it up."""
    assert exit4(prepared(found=near(lent=lent))).device == "eth0"
    down = exit4(prepared(found=near(lent=lent, up=False)))
    assert (down.usable, down.gateway) == (False, None)


def test_an_address_that_was_lent_does_not_say_so_beside_a_written_one() -> None:
    rogue = interface(3, "eth1", "172.28.0.77/25")
    rogue = replace(rogue, lent=rogue.addresses)
    found = facts(ETH0, rogue, default4="eth0", connected={**NETS, "172.28.0.0/25": "eth1"})
    assert exit4(prepared(found=found)).device == "eth0"


def foreign(priority: int, text: str = "from 172.28.0.10 lookup 77", table: int = 77) -> Facts:
    """FACTS with a policy rule of another program, and one far behind ours."""
    late = ForeignRule(4, 5000, "from 10.0.0.0/8 lookup 9", 9)
    return replace(FACTS, rules=(ForeignRule(4, priority, text, table), late))


@pytest.mark.parametrize("priority", [500, 996, 1000, 1001, 1002, 1005, 1101])
def test_a_rule_of_another_program_before_or_among_ours_is_refused(priority: int) -> None:
    """The whole block must be free and before it: with the value that is advised it is."""
    (problem,) = problems(prepared(found=foreign(priority)))
    assert (problem.key, problem.got) == ("VPN_GATEWAY_RULE_PRIO", "1000")
    assert f"`{priority}: from 172.28.0.10 lookup 77`" in problem.expected
    advised = priority - 102
    assert problem.remedy.startswith(f"set it to {advised} or less")
    better = prepared(found=foreign(priority), VPN_GATEWAY_RULE_PRIO=str(advised))
    assert not problems(better)
    assert max(rule.priority for rule in better.plan.rules) == priority - 1
    assert problems(prepared(found=foreign(priority), VPN_GATEWAY_RULE_PRIO=str(advised + 1)))


@pytest.mark.parametrize("priority", [0, 5, 111])
def test_a_rule_without_room_before_it_is_named_to_be_moved(priority: int) -> None:
    (problem,) = problems(prepared(found=foreign(priority), VPN_GATEWAY_RULE_PRIO="10"))
    assert f"move the policy rule `{priority}: from 172.28.0.10 lookup 77`" in problem.remedy
    assert "set it to" not in problem.remedy


def test_the_least_advice_is_taken() -> None:
    (problem,) = problems(prepared(found=foreign(112)))
    assert problem.remedy.startswith("set it to 10 or less (10 is the least)")
    assert not problems(prepared(found=foreign(112), VPN_GATEWAY_RULE_PRIO="10"))


@pytest.mark.parametrize("priority", [1102, 5210, 32765])
def test_a_rule_behind_ours_is_nobody_s_business(priority: int) -> None:
    assert not problems(prepared(found=foreign(priority)))


def test_a_look_up_of_local_is_no_obstacle_before_ours_and_one_among_them() -> None:
    """Programs that move the kernel's own rule make it anew; it leads to this host alone."""
    for priority in (0, 100, 995):
        assert not problems(prepared(found=foreign(priority, "from all lookup local", 255)))
    assert problems(prepared(found=foreign(998, "from all lookup local", 255)))


def test_while_it_runs_the_block_moves_before_a_rule_of_another_program() -> None:
    made = prepared(found=foreign(1003))
    assert {rule.priority for rule in made.plan.rules if rule.family == 4} <= set(range(897, 1003))
    assert exit4(made).usable
    said = rule_placement.said_of(made.sources, made.facts)
    assert "`1003: from 172.28.0.10 lookup 77`" in said
    assert "set VPN_GATEWAY_RULE_PRIO to 901 or less" in said


def test_without_room_the_family_of_that_rule_is_closed_with_the_reason() -> None:
    both = {"VPN_GATEWAY6": GATEWAY6, "exits": known(six=GATEWAY6)}
    made = prepared(found=foreign(5), **both)  # type: ignore[arg-type]
    assert "`5: from 172.28.0.10 lookup 77`" in exit4(made).closed
    assert exit6(made).usable
    assert "no room" in rule_placement.said_of(made.sources, made.facts)


def test_a_host_whose_own_routes_are_asked_by_no_rule_is_told() -> None:
    assert rule_placement.main_lost(FACTS) == ""
    said = rule_placement.main_lost(replace(FACTS, without_main=(6,)))
    assert "nobody can connect: ip -6 rule add pref 32766 lookup main" in said


def test_a_table_that_another_program_s_rule_looks_up_is_refused() -> None:
    (problem,) = problems(prepared(found=foreign(5000, table=100)))
    assert (problem.key, problem.got) == ("VPN_GATEWAY_TABLE", "100")
    assert "`5000: from 172.28.0.10 lookup 77`" in problem.expected


def test_the_null_table_is_refused() -> None:
    (problem,) = problems(prepared(VPN_GATEWAY_TABLE="143"))
    assert problem.key == "VPN_GATEWAY_TABLE"


@pytest.mark.parametrize(
    ("setting", "own", "exclusive"),
    [
        ("auto", True, True),
        ("auto", False, False),
        ("shared", True, False),
        ("exclusive", False, True),
    ],
)
def test_forwarding_is_exclusive_in_a_container(
    setting: str, *, own: bool, exclusive: bool
) -> None:
    made = prepared(found=replace(FACTS, own_namespace=own), OCGATE_FORWARDING=setting)
    assert made.intent.steering is not None
    assert made.intent.steering.exclusive is exclusive


@pytest.mark.parametrize(
    ("everywhere", "device", "strict"),
    [("0", "0", ()), ("0", "1", ("eth0",)), ("1", "0", ("eth0",)), ("1", "2", ()), ("2", "1", ())],
)
def test_a_strict_reverse_path_filter_is_made_loose(
    everywhere: str, device: str, strict: tuple[str, ...]
) -> None:
    """The larger of both values counts."""
    values = {
        "net.ipv4.conf.all.rp_filter": everywhere,
        "net.ipv4.conf.eth0.rp_filter": device,
    }
    made = prepared(found=replace(FACTS, sysctls={**IPV6_ON, **values}))
    assert made.intent.strict_on == strict


def test_late_packets_find_their_address_while_its_interface_is_down_and_after_a_move() -> None:
    """A bounced interface loses its routes, not its addresses; and a gateway that moved leaves
    flows behind, whose late packets this host must not answer by the ISP."""
    gone = tuple(net for net in FACTS.connected if net.device != "eth1")
    made = prepared(known("172.30.0.3"), replace(FACTS, connected=gone), VPN_GATEWAY="172.30.0.3")
    assert made.intent.steering is not None
    assert made.intent.steering.strays == (FormerAddress("eth1", ip_address("172.30.0.10")),)
    moved = prepare(made.sources, FACTS, made.egress, known(), strays=made.intent.steering.strays)
    assert moved.intent.steering is not None
    assert [stray.device for stray in moved.intent.steering.strays] == ["eth1", "eth0"]


def test_addresses_outlive_a_restart_of_control(tmp_path: Path) -> None:
    strays = (
        FormerAddress("eth0", ip_address("172.28.0.10")),
        FormerAddress("eth1", ip_address("2001:db8::1")),
    )
    assert read_strays(tmp_path) == ()
    write_strays(tmp_path, strays)
    assert read_strays(tmp_path) == strays
    (tmp_path / STRAYS).write_text("[[1]]")
    assert read_strays(tmp_path) == ()


def test_who_was_in_gateway_mode_before_a_reload_keeps_its_guard() -> None:
    """For the rest of the run: late packets of the gateway's flows are answered by nobody."""
    strays = (FormerAddress("eth0", ip_address("172.28.0.10")),)
    made = prepare(sources(CONF), FACTS, Ipv6Egress(None), strays=strays)
    assert made.intent.steering is not None
    assert made.intent.steering.strays == strays
    assert exit4(made).kind is ExitKind.DIRECT
    assert exit4(made).usable
    assert [table.name for table in made.plan.tables][:2] == ["ocserv_gw", "ocserv"]


# --- a reload while something can't work -------------------------------------------------------

AWAY = replace(FACTS, connected=tuple(c for c in FACTS.connected if c.device != "eth1"))
ON_ETH1, BESIDE = "172.30.0.3", "172.30.0.4"


@pytest.mark.parametrize(
    ("before", "after", "refused"),
    [
        ({"VPN_GATEWAY": ON_ETH1}, {"OCGATE_SESSION_FLOWS": "100"}, False),
        ({"VPN_GATEWAY": ON_ETH1}, {"VPN_GATEWAY": BESIDE}, True),
        ({"VPN_GATEWAY": GATEWAY}, {"VPN_GATEWAY": ON_ETH1}, True),
        ({"VPN_GATEWAY": ""}, {"VPN_GATEWAY": ON_ETH1}, True),
        ({"VPN_GATEWAY": "direct", "WAN_IF": "eth7"}, {"OCGATE_SESSION_FLOWS": "100"}, False),
        ({"VPN_GATEWAY": "direct", "WAN_IF": "eth7"}, {"WAN_IF": "eth8"}, True),
    ],
)
def test_a_reload_is_refused_for_what_it_brings_and_not_for_what_it_leaves(
    before: dict[str, str], after: dict[str, str], refused: bool
) -> None:
    """A gateway on an interface that is down stays closed; a WAN_IF that is gone."""

    def made(environ: dict[str, str]) -> tuple[Prepared, Exits]:
        literal = environ["VPN_GATEWAY"]
        exits = known(literal if literal[:1].isdigit() else None)
        return prepared(exits, AWAY, **environ), exits

    (former, exits), (new, _) = made(before), made({**before, **after})
    kept = standing(former, new, former.egress, exits)
    assert [p for p in problems(new) if p not in kept] == (list(problems(new)) if refused else [])
    assert problems(new)
    if exit4(new).kind is ExitKind.GATEWAY:
        assert exit4(new).closed

"""Routes and rules of ours: the same as iproute2 makes of the text, and only ours are removed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network

import pytest

from ocgate.errors import KernelRefused
from ocgate.kernel import routes
from ocgate.kernel.routes import Routing
from ocgate.plan.routing import Route, RouteKind, Rule, RuleAction, render

pytestmark = pytest.mark.kernel
Shell = Callable[[str], str]

METRIC = 4294967295
ROUTES = [
    Route(ip_network("10.9.0.0/24"), RouteKind.BLACKHOLE, metric=METRIC),
    Route(ip_network("fda9::/64"), RouteKind.BLACKHOLE, metric=METRIC),
    Route(ip_network("0.0.0.0/0"), RouteKind.UNREACHABLE, table=100, metric=METRIC),
    Route(ip_network("::/0"), RouteKind.UNREACHABLE, table=100, metric=METRIC),
    Route(ip_network("10.8.0.0/16"), RouteKind.PROHIBIT, table=4_000_000_000),
    Route(ip_network("0.0.0.0/0"), table=100, device="wan0", gateway=ip_address("192.0.2.1")),
    Route(ip_network("::/0"), table=100, device="wan0", gateway=ip_address("2001:db8::1")),
    Route(ip_network("10.7.0.0/24"), device="wan0", metric=5),
    Route(ip_network("2001:db8:7::/64"), device="wan0", metric=5),
    Route(
        ip_network("0.0.0.0/0"),
        table=101,
        device="wan0",
        gateway=ip_address("198.51.100.1"),
        onlink=True,
    ),
    Route(
        ip_network("::/0"),
        table=101,
        device="wan0",
        gateway=ip_address("2001:db8:ffff::1"),
        onlink=True,
    ),
]
RULES = [
    Rule(4, 1000, table=100, source=ip_network("10.9.0.0/24")),
    Rule(6, 1000, table=100, source=ip_network("fda9::/64")),
    Rule(4, 1100, table=254, inverted=True, iif="lo", suppress_prefixlength=0),
    Rule(6, 1100, table=254, inverted=True, iif="lo", suppress_prefixlength=0),
    Rule(4, 1101, RuleAction.BLACKHOLE, inverted=True, iif="lo"),
    Rule(6, 1101, RuleAction.BLACKHOLE, inverted=True, iif="lo"),
    Rule(4, 800, table=4_000_000_000, fwmark=0x1000000, mask=0x3F000000),
    Rule(4, 801, RuleAction.UNREACHABLE, destination=ip_network("203.0.113.0/24"), oif="wan0"),
    Rule(6, 802, RuleAction.PROHIBIT, fwmark=0, mask=0xFF),
    Rule(4, 700, table=254, iif="lo", ipproto=6, sport=(443, 443)),
    Rule(6, 700, table=254, iif="lo", ipproto=17, sport=(1024, 32767)),
]


@pytest.fixture
def routing(uplink: str) -> Iterator[Routing]:
    with Routing() as door:
        yield door


def listing(sh: Shell) -> list[object]:
    """All that iproute2 shows of protocol 143, comparable."""
    found: list[object] = []
    for family in ("-4", "-6"):
        found += json.loads(sh(f"ip -j {family} route show table all proto 143"))
        found += [r for r in json.loads(sh(f"ip -j {family} rule")) if r.get("protocol") == "143"]
    return sorted(found, key=lambda item: json.dumps(item, sort_keys=True))


def test_netlink_and_the_printed_commands_make_the_same(routing: Routing, sh: Shell) -> None:
    routing.ensure(ROUTES, RULES)
    ours = listing(sh)
    assert len(ours) == len(ROUTES) + len(RULES)
    routing.sweep()
    assert listing(sh) == []
    sh(render([*ROUTES, *RULES]))
    assert listing(sh) == ours


def test_what_was_added_reads_back_equal(routing: Routing) -> None:
    routing.ensure(ROUTES, RULES)
    assert set(routing.routes()) == set(ROUTES)
    assert len(routing.routes()) == len(ROUTES)
    assert set(routing.rules()) == set(RULES)
    assert routes.differing(ROUTES, RULES) == []


def test_ensure_twice_adds_nothing(routing: Routing) -> None:
    assert routing.ensure(ROUTES, RULES) == [*ROUTES, *RULES]
    assert routing.ensure(ROUTES, RULES) == []


def test_ensure_puts_back_what_went_missing_and_differing_names_it(
    routing: Routing, sh: Shell
) -> None:
    routing.ensure(ROUTES, RULES)
    sh("ip rule del pref 1100; ip route flush table 101")
    assert routes.differing(ROUTES, RULES) == [
        "route default via 198.51.100.1 dev wan0 table 101 onlink is gone",
        "rule 1100: not from all iif lo lookup main suppress_prefixlength 0 is gone",
    ]
    assert routes.ensure(ROUTES, RULES) == [ROUTES[9], RULES[2]]
    assert routes.differing(ROUTES, RULES) == []


@pytest.mark.parametrize("family", [4, 6])
def test_a_route_of_the_same_identity_is_replaced(routing: Routing, family: int) -> None:
    prefix = ip_network("0.0.0.0/0" if family == 4 else "::/0")
    near, far = ("192.0.2.1", "192.0.2.9") if family == 4 else ("2001:db8::1", "2001:db8::9")
    first = Route(prefix, table=100, device="wan0", gateway=ip_address(near))
    second = Route(prefix, table=100, device="wan0", gateway=ip_address(far))
    closed = Route(prefix, RouteKind.BLACKHOLE, table=100)
    for route in (first, second, closed, first):
        routing.ensure([route])
        assert routing.routes() == (route,)


def test_sweep_removes_ours_everywhere_but_what_is_wanted(routing: Routing, sh: Shell) -> None:
    routing.ensure(ROUTES, RULES)
    removed = routing.sweep(ROUTES[:2], RULES[:2])
    assert len(removed) == len(ROUTES) + len(RULES) - 4
    assert set(routing.routes()) == set(ROUTES[:2])
    assert set(routing.rules()) == set(RULES[:2])


def test_sweep_leaves_what_others_made(routing: Routing, sh: Shell) -> None:
    sh(
        "ip route add blackhole 10.9.0.0/24 metric 7; ip route add 10.6.0.0/24 dev wan0;"
        "ip route add default via 192.0.2.1 table 100 metric 9;"
        "ip -6 route add blackhole fda9::/64 metric 7; ip rule add pref 5 from 10.9.0.0/24"
        " lookup 100; ip -6 rule add pref 5 from fda9::/64 lookup 100;"
        "ip rule add not from all iif lo blackhole pref 1101"
    )
    show = "ip route show table all; ip -6 route show table all; ip rule; ip -6 rule"
    before = sh(show)
    routing.ensure(ROUTES, RULES)
    assert sh(show) != before
    routing.sweep()
    assert sh(show) == before


def test_sweep_removes_shapes_that_we_never_make(routing: Routing, sh: Shell) -> None:
    sh(
        "ip route add 10.5.0.0/24 proto 143 table 77 nexthop via 192.0.2.1 dev wan0"
        " nexthop via 192.0.2.3 dev wan0;"
        "ip -6 route add 2001:db8:5::/64 proto 143 nexthop via 2001:db8::1 dev wan0"
        " nexthop via 2001:db8::3 dev wan0;"
        "ip route add throw 10.4.0.0/24 proto 143; ip route add 10.3.0.0/24 dev wan0 tos 8"
        " proto 143; ip route add local 10.2.0.0/24 dev lo table 55 proto 143;"
        "ip rule add from 10.1.0.0/16 dport 53 tos 8 lookup 9 pref 3 proto 143;"
        "ip rule add goto 32766 pref 4 proto 143;"
        "ip rule add from 10.1.0.0/16 lookup 9 pref 40000 proto 143"
    )
    assert listing(sh)
    routing.sweep()
    assert listing(sh) == []


def test_sweep_removes_thousands_and_doubles(routing: Routing, sh: Shell) -> None:
    """`ip rule flush` leaves some of thousands; and equal rules can stand beside each other."""
    sources = [ip_network(f"10.0.{i >> 8}.{i & 255}") for i in range(3000)]
    many = [Rule(4, 900, table=100, source=source) for source in sources]
    for rule in [*many, *many[:200], RULES[0], RULES[0]]:
        routing.add(rule)
    assert len(routing.sweep([], RULES[:1])) == 3201
    assert routing.rules() == tuple(RULES[:1])


def test_delete_takes_one_and_says_whether_it_was_there(routing: Routing) -> None:
    routing.ensure(ROUTES, RULES)
    assert routing.delete(ROUTES[0])
    assert not routing.delete(ROUTES[0])
    assert routing.delete(RULES[0])
    assert not routing.delete(RULES[0])
    assert set(routing.routes()) == set(ROUTES[1:])
    assert set(routing.rules()) == set(RULES[1:])


def test_a_refusal_shows_the_command_and_the_kernels_words(routing: Routing) -> None:
    off_link = Route(
        ip_network("0.0.0.0/0"), table=100, device="wan0", gateway=ip_address("203.0.113.1")
    )
    with pytest.raises(KernelRefused) as caught:
        routing.ensure([off_link])
    assert "ip route replace default via 203.0.113.1 dev wan0 table 100" in str(caught.value)
    assert "Nexthop has invalid gateway" in caught.value.reply


def test_an_absent_device_is_named(routing: Routing) -> None:
    with pytest.raises(KernelRefused, match=r"dev eth7 .*No such device"):
        routing.ensure([Route(ip_network("10.0.0.0/8"), device="eth7")])


def test_ipv6_default_needs_onlink_where_rules_hide_main(routing: Routing) -> None:
    """With forwarding-only rules in place the gateway isn't found in main: onlink is the way."""
    routing.ensure([], [r for r in RULES if r.priority >= 1100])
    reachable = Route(
        ip_network("::/0"),
        table=100,
        device="wan0",
        gateway=ip_address("2001:db8::1"),
        onlink=True,
    )
    routing.ensure([reachable])
    assert routing.routes() == (reachable,)

"""What an exit makes of the machine around it: other programs' rules, advertised routes."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network
from types import MappingProxyType

import pytest

from ocgate.exit_node.reconciler import Open, intent_now
from ocgate.plan.facts import DefaultRoute, Facts, ForeignRule
from ocgate.tunnel import killswitch
from ocgate.tunnel.model import Carried, Endpoint, ExitIntent

DOCKER = ip_network("172.28.0.0/24")
BASE = ExitIntent(device="tun0", uplinks=(), forward_from=(DOCKER,))
SERVER = Endpoint(ip_address("198.51.100.200"), 1194, ("udp",))
UP = Open(SERVER, Carried((ip_interface("10.8.0.2/24"),), 1500))


def machine(*rules: ForeignRule, advertised: bool = False, accept_ra: str = "1") -> Facts:
    return Facts(
        routes4=(DefaultRoute(4, 0, 2, "eth0", ip_address("172.28.0.1")),),
        routes6=(DefaultRoute(6, 1024, 2, "eth0", ip_address("fe80::1"), advertised),),
        sysctls=MappingProxyType(
            {
                "net.ipv6.conf.all.disable_ipv6": "0",
                "net.ipv6.conf.eth0.accept_ra": accept_ra,
            }
        ),
        rules=rules,
    )


def test_rules_move_before_those_of_another_program_and_nothing_else_changes() -> None:
    rule = ForeignRule(4, 1004, "from 172.28.0.3/32 lookup 77", 77)
    usual, moved = (intent_now(BASE, UP, machine(*rules)) for rules in ((), (rule,)))
    assert (usual.rule_prio, moved.rule_prio) == (1000, 994)
    assert moved.carried == usual.carried
    priorities = [rule.priority for rule in killswitch.plan(moved).rules]
    assert (min(priorities) >= 994, max(priorities) < 1004) == (True, True)


def test_without_room_before_another_program_s_rule_the_switch_closes() -> None:
    """That rule is asked first whatever we do: nothing is let out that it could steer."""
    closed = intent_now(BASE, UP, machine(ForeignRule(6, 3, "from all lookup 77", 77)))
    assert (closed.endpoint, closed.carried, closed.bootstrap) == (None, None, None)


@pytest.mark.parametrize(
    ("advertised", "accept_ra", "devices"),
    [(True, "1", ("eth0",)), (True, "2", ("eth0",)), (True, "0", ()), (False, "1", ())],
)
def test_advertisements_are_heeded_where_the_default_route_came_by_one(
    advertised: bool,
    accept_ra: str,
    devices: tuple[str, ...],
) -> None:
    found = machine(advertised=advertised, accept_ra=accept_ra)
    assert intent_now(BASE, UP, found).advertised_on == devices

"""Gateway mode's plans in a kernel: taken, verified, told when altered, put back, taken out.

wan0 192.0.2.2, 2001:db8::2  <->  isp0 (the same namespace); the gateway would be 192.0.2.3
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path

import pytest

from ocgate.kernel import null_device, routes
from ocgate.kernel.apply import Applied, apply, drift, read_table, remove
from ocgate.kernel.nft import Nft
from ocgate.names import NULL_DEVICE
from ocgate.netlab.kernel_state import observe
from ocgate.netlab.namespace import Namespace
from ocgate.plan.exits import Exit, ExitKind, FormerAddress, Steering
from ocgate.plan.intent import Intent, Wan
from ocgate.plan.ipv6 import Ipv6Path
from ocgate.plan.planner import plan
from ocgate.server.check_and_plan import difference
from ocgate.sessions.elements import NO_SESSIONS

pytestmark = pytest.mark.kernel
Shell = Callable[[str], str]

EXIT4 = Exit(4, ExitKind.GATEWAY, "wan0", ip_address("192.0.2.3"), own=(ip_address("192.0.2.2"),))
EXIT6 = Exit(
    6, ExitKind.GATEWAY, "wan0", ip_address("2001:db8::3"), own=(ip_address("2001:db8::2"),)
)
STRAYS = (
    FormerAddress("wan0", ip_address("192.0.2.2")),
    FormerAddress("wan0", ip_address("2001:db8::2")),
)
STEERING = Steering(
    exit4=EXIT4,
    exit6=EXIT6,
    table=100,
    priority=1000,
    exclusive=True,
    strays=STRAYS,
)
INTENT = Intent(
    device="vpns",
    subnets4=(IPv4Network("10.10.10.0/24"), IPv4Network("10.20.0.0/16")),
    subnets6=(IPv6Network("fda9:4efe:7e3b:3ea::/64"),),
    prefix6=128,
    gateways=(ip_address("10.10.10.1"),),
    resolvers=(),
    tcp_ports=(443,),
    mss=None,
    wan4=Wan("wan0", 1500),
    wan6=Wan("wan0", 1500),
    ipv6=Ipv6Path.NAT66,
    ports=(10240, 32767),
    steering=STEERING,
    pushed=(ip_address("192.0.2.3"),),
    local=(IPv4Network("192.0.2.0/24"), IPv6Network("2001:db8::/64")),
)
DIRECT4 = Exit(4, ExitKind.DIRECT, "wan0")
BLOCK4, BLOCK6 = (Exit(family, ExitKind.BLOCK, closed="block") for family in (4, 6))
CASES = {
    "both families by a gateway": STEERING,
    "ipv6 blocked": replace(STEERING, exit6=BLOCK6),
    "blocked": replace(STEERING, exit4=BLOCK4, exit6=BLOCK6),
    "direct beside an ipv6 gateway": replace(STEERING, exit4=DIRECT4),
    "down": replace(STEERING, exit4=replace(EXIT4, closed="timed out")),
    "interface down": replace(STEERING, exit4=replace(EXIT4, gateway=None, closed="down")),
    "on no attached network": replace(STEERING, exit4=Exit(4, ExitKind.GATEWAY, closed="nowhere")),
    "a shared host, another table": replace(
        STEERING, exclusive=False, table=4_000_000, priority=32000
    ),
}


@pytest.fixture
def nft(uplink: str) -> Iterator[Nft]:
    door = Nft()
    yield door
    door.close()


def applied(nft: Nft, tmp_path: Path, steering: Steering = STEERING) -> Applied:
    ports = INTENT.ports if steering.exclusive else (61000, 65534)
    wanted = replace(INTENT, steering=steering, ports=ports)
    return apply(nft, plan(wanted), NO_SESSIONS, run_dir=tmp_path)


@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_exit_is_taken_and_verified(nft: Nft, tmp_path: Path, name: str) -> None:
    """... reads back as planned, also by `ocgate plan --diff`, and a second apply is a no-op."""
    made = applied(nft, tmp_path, CASES[name])
    assert drift(nft, made, NO_SESSIONS) == ()
    assert difference(made.plan) == ""
    assert applied(nft, tmp_path, CASES[name]) == made


def test_each_exit_follows_each_other_one(nft: Nft, tmp_path: Path) -> None:
    """A move leaves nothing of the exit before."""
    for steering in (*CASES.values(), *reversed(CASES.values())):
        made = applied(nft, tmp_path, steering)
        assert drift(nft, made, NO_SESSIONS) == ()
        assert routes.sweep(made.plan.routes, made.plan.rules) == []


def test_what_users_type_shows_it(nft: Nft, sh: Shell, tmp_path: Path) -> None:
    """The commands of the field: `ip rule`, `ip route show table 100`, `nft list table …`."""
    applied(nft, tmp_path)
    assert "1000:\tfrom 10.10.10.0/24 lookup 100" in sh("ip rule")
    assert sh("ip route show table 100").startswith("default via 192.0.2.3 dev wan0")
    assert "192.0.2.3 : accept" in sh("nft list table inet ocserv_gw")


def test_back_to_the_standalone_server_leaves_nothing_of_it(
    nft: Nft, tmp_path: Path, netns: Namespace
) -> None:
    """VPN_GATEWAY unset again: the kernel holds exactly what it held without."""
    standalone = plan(replace(INTENT, steering=None, pushed=(), local=()))
    apply(nft, standalone, NO_SESSIONS, run_dir=tmp_path)
    before = observe(netns)
    applied(nft, tmp_path)
    apply(nft, standalone, NO_SESSIONS, run_dir=tmp_path)
    assert before.differences(observe(netns)) == []
    assert read_table(nft, "ocserv_gw") is None


def test_remove_leaves_nothing(nft: Nft, tmp_path: Path, netns: Namespace) -> None:
    before = observe(netns)
    applied(nft, tmp_path)
    remove(nft, run_dir=tmp_path, subnets=())
    assert before.differences(observe(netns)) == []


DAMAGE = {
    "the guard flushed": ("nft flush table inet ocserv_gw", "table ocserv_gw"),
    "the guard deleted": ("nft delete table inet ocserv_gw", "table ocserv_gw is gone"),
    "all rules flushed": ("ip rule flush; ip rule add pref 32766 lookup main", "rule 1000"),
    "one rule deleted": ("ip rule del pref 998", "rule 998"),
    "an IPv6 rule deleted": ("ip -6 rule del pref 1001", "rule 1001"),
    "the gateway's route deleted": ("ip route del default table 100", "192.0.2.3 dev wan0"),
    "... replaced": ("ip route replace default via 192.0.2.1 table 100", "is not ours"),
    "a better one beside it": ("ip route add 0.0.0.0/1 via 192.0.2.1 table 100", "is not ours"),
    "one put before it": ("ip route prepend default via 192.0.2.1 table 100", "is not ours"),
    "an IPv6 one beside it": (
        "ip -6 route add ::/1 via 2001:db8::1 dev wan0 onlink table 100",
        "is not ours",
    ),
    "a multipath one": (
        "ip route add 0.0.0.0/1 table 100 nexthop via 192.0.2.1 nexthop via 192.0.2.4",
        "is not ours",
    ),
    "the table flushed": ("ip route flush table 100", "table 100"),
    "the null device deleted": (f"ip link del {NULL_DEVICE}", f"device {NULL_DEVICE} is gone"),
    "the null device down": (f"ip link set {NULL_DEVICE} down", f"device {NULL_DEVICE} is down"),
    "a way out of the null table": ("ip route add 0.0.0.0/1 via 192.0.2.1 table 143", "not ours"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_told_and_undone(nft: Nft, sh: Shell, tmp_path: Path, kind: str) -> None:
    """drift names what another process did, and one apply puts all of it right."""
    made = applied(nft, tmp_path)
    command, words = DAMAGE[kind]
    sh(command)
    assert words in "; ".join(drift(nft, made, NO_SESSIONS))
    assert drift(nft, applied(nft, tmp_path), NO_SESSIONS) == ()


def test_a_null_device_swallows_and_needs_nobody(uplink: str, sh: Shell) -> None:
    """What is routed there is gone; it stands without a process, is made once and removed once."""
    null_device.ensure([NULL_DEVICE])
    null_device.ensure([NULL_DEVICE])
    assert null_device.missing([NULL_DEVICE]) == []
    (link,) = json.loads(sh(f"ip -j -d link show {NULL_DEVICE}"))
    assert link["linkinfo"]["info_data"]["persist"] is True
    sh(f"ip route add 198.51.100.0/24 dev {NULL_DEVICE}")
    sh("ping -c1 -W0.2 198.51.100.1 || true")
    assert null_device.sweep([NULL_DEVICE]) == []
    assert null_device.sweep() == [f"device {NULL_DEVICE}"]
    assert null_device.sweep() == []

"""Limits of a session's flows, by packets through a kernel that holds the plan.

    alice  vpns0 10.10.10.2, fd00:7::2 ─┐
                                        ├─ this namespace ── wan0 (a tun as well)
    bob    vpns1 10.10.10.3, fd00:7::3 ─┘

Each flow's first packet is written into a tun; what comes out by wan0 has passed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path

import pytest

from ocgate.kernel import conntrack
from ocgate.kernel.apply import apply, counters, drift
from ocgate.kernel.nft import Nft
from ocgate.names import NFT_TABLE_LIMITS
from ocgate.netlab.namespace import Namespace
from ocgate.netlab.packet import build_tcp, build_udp
from ocgate.netlab.wait import wait_until
from ocgate.plan import limits
from ocgate.plan.exits import Exit, ExitKind, Steering
from ocgate.plan.intent import Intent, Wan
from ocgate.plan.ipv6 import Ipv6Path
from ocgate.plan.planner import plan
from ocgate.prove.tun import open_tun
from ocgate.server import check_and_plan
from ocgate.sessions import elements
from ocgate.sessions.session import Session

pytestmark = pytest.mark.kernel

SERVICE, OTHER, SERVICE6 = "198.51.100.10", "198.51.100.11", "2001:db8:1::10"
INTENT = Intent(
    device="vpns",
    subnets4=(IPv4Network("10.10.10.0/24"),),
    subnets6=(IPv6Network("fd00:7::/64"),),
    prefix6=128,
    gateways=(ip_address("10.10.10.1"),),
    resolvers=(),
    tcp_ports=(443,),
    mss=None,
    wan4=Wan("wan0", 1500),
    wan6=Wan("wan0", 1500),
    ipv6=Ipv6Path.ROUTED,
    ports=(10240, 32767),
    session_flows=100,
)
STEERING = Steering(
    exit4=Exit(4, ExitKind.GATEWAY, "wan0", ip_address("192.0.2.3")),
    exit6=Exit(6, ExitKind.BLOCK, closed="block"),
    table=100,
    priority=1000,
    exclusive=True,
)
# All that a share is made of: at once 64, open ones 128.
FEW_PORTS = (10240, 10751)
TUNS = ("vpns0", "vpns1", "wan0")
SYN = 0x02


@dataclass
class Gate:
    """The namespace with its three tuns, and sessions alice and bob."""

    nft: Nft
    tuns: dict[str, int]
    run_dir: Path

    def hold(self, intent: Intent) -> None:
        """Apply the plan, as often as wanted."""
        sessions = [
            Session(1, 1, "vpns0", "alice", "", *_addresses(2), "", 0.0),
            Session(2, 1, "vpns1", "bob", "", *_addresses(3), "", 0.0),
        ]
        wanted = elements.wanted(sessions, intent.marks)
        made = apply(self.nft, plan(intent), wanted, run_dir=self.run_dir)
        assert drift(self.nft, made, wanted) == ()

    def passed(self, packets: Iterable[bytes], *, by: str = "vpns0") -> int:
        """How many of them came out by wan0."""
        self.read("wan0")
        count = 0
        for number, packet in enumerate(packets):
            os.write(self.tuns[by], packet)
            if number % 100 == 99:  # before the device's queue is full
                count += len(self.read("wan0"))
        return count + len(self.read("wan0"))

    def read(self, device: str) -> list[bytes]:
        """What has come out of it; what the kernel itself sends there (neighbours, MLD) is not."""
        found: list[bytes] = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(os.read(self.tuns[device], 2000))
        return [packet for packet in found if packet[24:26] != b"\xff\x02"]

    def counted(self, reason: str) -> int:
        return counters(self.nft)[reason][0]


def _addresses(number: int) -> tuple[object, object]:
    return ip_address(f"10.10.10.{number}"), IPv6Network(f"fd00:7::{number}/128")


@pytest.fixture
def gate(netns: Namespace, tmp_path: Path) -> Iterator[Gate]:
    for key in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
        netns.sysctl(key, 1)
    for scope in ("all", "default"):
        netns.sysctl(f"net/ipv4/conf/{scope}/rp_filter", 0)
    with contextlib.ExitStack() as stack:
        tuns = {name: open_tun(netns, name) for name in TUNS}
        for descriptor in tuns.values():
            stack.callback(os.close, descriptor)
        netns.ip(
            *(f"link set {name} txqueuelen 500 up" for name in TUNS),
            "address add 192.0.2.2/24 dev wan0",
            "route add default dev wan0",
            "route add 10.10.10.2 dev vpns0",
            "route add 10.10.10.3 dev vpns1",
        )
        netns.ip(
            "route add default dev wan0",
            "route add fd00:7::2 dev vpns0",
            "route add fd00:7::3 dev vpns1",
            v6=True,
        )
        nft = Nft()
        stack.callback(nft.close)
        yield Gate(nft, tuns, tmp_path)


def udp(count: int, *, first: int = 0, to: str = SERVICE, source: int = 2) -> Iterator[bytes]:
    """The first packets of so many flows, each from another port."""
    own = f"fd00:7::{source}" if ":" in to else f"10.10.10.{source}"
    for number in range(first, first + count):
        yield build_udp(own, to, 1024 + number, 53, b"?")


def spread(count: int) -> Iterator[bytes]:
    """The same, each towards another address."""
    for number in range(count):
        to = f"198.51.{number >> 8}.{number & 255}"
        yield build_udp("10.10.10.2", to, 40_000, 6881, b"?")


def test_a_session_s_flows_end_at_its_limit_and_others_notice_nothing(gate: Gate) -> None:
    """Positive control: without a limit all pass."""
    gate.hold(replace(INTENT, session_flows=0))
    assert gate.passed(udp(300, first=1000)) == 300
    gate.hold(INTENT)
    assert 100 <= gate.passed(udp(300)) <= 103  # three a second are free again
    assert gate.counted("flow_rate") >= 197
    assert gate.passed(udp(50, source=3), by="vpns1") == 50


def test_the_limit_holds_also_for_who_begins_flows_slowly(gate: Gate) -> None:
    gate.hold(INTENT)
    gate.passed(udp(100))
    first = iter(range(200, 60_000))
    wait_until(
        lambda: gate.passed(udp(1, first=next(first))) == 0 and gate.counted("flow_limit") > 3,
        5.0,
        "the limit of flows, when new ones may begin by the rate",
    )


def test_both_families_are_one_session(gate: Gate) -> None:
    gate.hold(INTENT)
    assert gate.passed(udp(60)) == 60
    assert 40 <= gate.passed(udp(60, to=SERVICE6)) <= 43


def test_a_flow_s_later_packets_are_not_counted_answered_or_not(gate: Gate) -> None:
    gate.hold(replace(INTENT, session_flows=10))
    assert gate.passed(list(udp(1)) * 500) == 500


def test_a_client_hears_at_once_that_it_is_refused(gate: Gate) -> None:
    """TCP by RST, all else by ICMP, "administratively prohibited"; nothing of it is remembered."""
    gate.hold(replace(INTENT, session_flows=10))
    gate.passed(udp(20))
    gate.read("vpns0")
    gate.passed([build_tcp("10.10.10.2", SERVICE, 5000, 80, flags=SYN)])
    (reset,) = gate.read("vpns0")
    assert reset[9] == 6
    assert reset[33] & 0x04
    gate.passed(udp(1, first=5000))
    (error,) = gate.read("vpns0")
    assert (error[9], error[20], error[21]) == (1, 3, 13)
    gate.passed(udp(1, first=5000, to=SERVICE6))
    (error6,) = gate.read("vpns0")
    assert (error6[6], error6[40], error6[41]) == (58, 1, 1)


def test_what_ended_makes_room(gate: Gate, netns: Namespace) -> None:
    gate.hold(INTENT)
    gate.passed(udp(200))
    netns.run(["conntrack", "-D", "-s", "10.10.10.2"])
    first = iter(range(1000, 60_000))
    wait_until(
        lambda: gate.passed(udp(1, first=next(first))) == 1, 5.0, "a new flow of the session"
    )


def test_a_reload_forgets_no_flow(gate: Gate, netns: Namespace) -> None:
    """The rules are replaced, what they have counted stays; what is refused has no entry."""
    gate.hold(INTENT)
    gate.passed(udp(100))
    gate.hold(INTENT)
    assert gate.passed(udp(100, first=1000)) <= 3
    assert int(netns.sysctl("net/netfilter/nf_conntrack_count")) <= 105


def test_a_reload_with_another_limit_counts_by_that_one(gate: Gate) -> None:
    """... in both directions, also for a session that met the former one."""
    gate.hold(INTENT)
    gate.passed(udp(200))
    gate.hold(replace(INTENT, session_flows=300))
    assert gate.passed(udp(250, first=1000)) == 250
    gate.hold(replace(INTENT, session_flows=10))
    assert gate.passed(udp(100, first=5000)) <= 11
    text = gate.nft.list_text(f"list table inet {NFT_TABLE_LIMITS}")
    assert "flows_10 " in text
    assert "flows_300" not in text
    gate.hold(replace(INTENT, session_flows=0))
    assert gate.passed(udp(400, first=6000)) == 400


def test_the_default_lets_as_many_begin_and_bounds_them(gate: Gate, netns: Namespace) -> None:
    """4,096 at once, spread over lists by chance, and no more than the lists hold (T10)."""
    gate.hold(replace(INTENT, session_flows=4096))
    assert gate.passed(spread(4096)) == 4096
    gate.passed(spread(12_000))
    assert int(netns.sysctl("net/netfilter/nf_conntrack_count")) <= limits.at_most(4096)
    assert gate.passed(udp(20, source=3), by="vpns1") == 20


def test_nobody_takes_all_ports_towards_one_destination(gate: Gate) -> None:
    """T9. Positive control: without a limit others get none."""
    scarce = replace(INTENT, ports=FEW_PORTS, steering=STEERING, session_flows=0)
    gate.hold(scarce)
    assert gate.passed(udp(600)) == 512
    assert gate.passed(udp(8, source=3), by="vpns1") == 0
    gate.hold(replace(scarce, session_flows=4096))
    assert 64 <= gate.passed(udp(600, to=OTHER)) <= 66
    assert gate.counted("destination_limit") >= 534
    assert gate.passed(udp(8, to=OTHER, source=3), by="vpns1") == 8
    assert gate.passed(udp(64, to="198.51.100.12")) == 64  # one session, another destination


def test_the_busiest_destination_is_named(gate: Gate) -> None:
    gate.hold(INTENT)
    gate.passed([*udp(20, to=OTHER), *udp(30, to=SERVICE6)])
    nets = (*INTENT.subnets4, *INTENT.subnets6)
    assert conntrack.busiest(nets) == (f"{SERVICE6} udp 53", 30)
    assert conntrack.busiest(INTENT.subnets4) == (f"{OTHER} udp 53", 20)
    assert conntrack.busiest((IPv4Network("10.99.0.0/16"),)) == ("", 0)
    assert conntrack.usage()[0] == 50


def test_flows_towards_what_was_closed_are_cut_and_no_others(gate: Gate) -> None:
    gate.hold(INTENT)
    gate.passed([*udp(5), *udp(6, to=OTHER), *udp(7, to=SERVICE6)])
    nets = (*INTENT.subnets4, *INTENT.subnets6)
    closed = (IPv4Network(f"{SERVICE}/32"), IPv6Network("2001:db8:1::/64"))
    assert conntrack.delete_towards((IPv4Network("10.99.0.0/16"),), closed) == 0
    assert conntrack.delete_towards(nets, closed) == 12
    assert conntrack.busiest(nets) == (f"{OTHER} udp 53", 6)


@pytest.mark.parametrize("session_flows", [0, 100, 4096])
def test_plan_diff_of_what_was_applied_is_empty(gate: Gate, session_flows: int) -> None:
    """Rules are written as nft lists them, also where a share of open flows is counted."""
    scarce = replace(INTENT, ports=FEW_PORTS, steering=STEERING)
    for intent in (INTENT, scarce):
        held = replace(intent, session_flows=session_flows)
        gate.hold(held)
        assert check_and_plan.difference(plan(held)) == ""

"""What a stop of gateway mode puts before the guard, and for how long it waits behind it."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from ipaddress import IPv4Network, ip_address
from pathlib import Path
from typing import Any, cast

import pytest

from ocgate.errors import KernelRefused
from ocgate.kernel import closing as waiting
from ocgate.kernel.nft import Nft
from ocgate.plan.closing import Closing, Wait, closing, text
from ocgate.plan.exits import Exit, ExitKind, FormerAddress, Steering
from ocgate.plan.intent import Intent
from ocgate.plan.ipv6 import Ipv6Path

DIRECT4, DIRECT6 = Exit(4, ExitKind.DIRECT, "eth0"), Exit(6, ExitKind.DIRECT, "eth0")
WAIT = Wait(least=0.5, quiet=1.0, most=3.0)


def served(*strays: FormerAddress) -> Intent:
    return Intent(
        device="vpns",
        subnets4=(IPv4Network("10.10.10.0/24"),),
        subnets6=(),
        prefix6=128,
        gateways=(),
        resolvers=(),
        tcp_ports=(443,),
        mss=None,
        wan4=None,
        wan6=None,
        ipv6=Ipv6Path.REJECTED,
        ports=(10240, 32767),
        steering=Steering(DIRECT4, DIRECT6, 100, 1000, True, strays),
    )


def test_a_server_that_never_had_a_gateway_waits_for_nothing() -> None:
    assert closing(served(), WAIT) is None
    assert closing(replace(served(), steering=None), WAIT) is None


def test_late_packets_of_each_device_get_the_exits_mark() -> None:
    """... of each family that leaves by it, once, whatever the number of addresses."""
    strays = [
        ("eth1", "172.30.0.10"),
        ("eth0", "172.28.0.10"),
        ("eth0", "172.28.0.11"),
        ("eth0", "2001:db8:28::10"),
    ]
    made = closing(served(*(FormerAddress(d, ip_address(a)) for d, a in strays)), WAIT)
    assert made is not None
    marks = [line for line in text(made).splitlines() if "meta mark set 0x02000000" in line]
    assert [line.split()[5:11] for line in marks] == [
        ["meta", "nfproto", family, "iifname", f'"{device}"', proto]
        for family, device in (("ipv4", "eth0"), ("ipv4", "eth1"), ("ipv6", "eth0"))
        for proto in ("tcp", "udp")
    ]
    assert text(made).splitlines()[-1] == "flush chain inet ocserv_gw input"


class Clock:
    """Time that passes in sleep alone."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Kernel:
    """An nft whose counter has counted the packets that came until now."""

    def __init__(self, clock: Clock, *came: float, flushed: bool = False) -> None:
        self.clock, self.came, self.flushed = clock, came, flushed
        self.ran: list[str] = []

    def exists(self, _kind: str, _name: str) -> bool:
        return True

    def run(self, text: str) -> None:
        self.ran.append(text)

    def list_json(self, _command: str) -> dict[str, Any]:
        if self.flushed:
            raise KernelRefused("gone", request="list", reply="no such file")
        count = sum(at <= self.clock.now for at in self.came)
        return {"nftables": [{"metainfo": {}}, {"counter": {"packets": count}}]}


@pytest.fixture(autouse=True)
def _no_sysctl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting.sysctl, "lent", lambda *_, **__: contextlib.nullcontext())


@pytest.mark.parametrize(
    ("wait", "came", "seconds"),
    [
        (WAIT, (), 1.0),  # quiet from the first moment
        (WAIT, (0.6,), 1.6),
        (WAIT, (0.6, 1.2), 2.2),
        (WAIT, tuple(n / 10 for n in range(100)), 3.0),  # who does not stop is not waited for
        (Wait(2.0, 1.0, 3.0), (), 2.0),
    ],
)
def test_it_waits_until_nothing_comes(wait: Wait, came: tuple[float, ...], seconds: float) -> None:
    clock = Clock()
    kernel = Kernel(clock, *came)
    wanted = Closing(((4, "eth0"),), (10240, 32767), wait)
    seen = waiting.wait(cast(Nft, kernel), wanted, run_dir=Path(), clock=clock, sleep=clock.sleep)
    assert clock.now == pytest.approx(seconds, abs=0.11)
    assert seen == sum(at <= clock.now for at in came)
    assert kernel.ran == [text(wanted)]


def test_a_ruleset_that_is_flushed_meanwhile_ends_no_wait_with_an_error() -> None:
    clock = Clock()
    kernel = Kernel(clock, flushed=True)
    wanted = Closing(((4, "eth0"),), (10240, 32767), WAIT)
    assert (
        waiting.wait(cast(Nft, kernel), wanted, run_dir=Path(), clock=clock, sleep=clock.sleep) == 0
    )

"""What the switch holds between two tunnels: the addresses of the former, with which the kernel
keeps the flows of who uses it, and what they are told."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ocgate.exit_node import reconciler as keepers
from ocgate.exit_node.reconciler import CLOSED, Open, Reconciler
from ocgate.plan.facts import Connected, Facts
from ocgate.plan.first_packets import WAIT
from ocgate.tunnel.model import Carried, Endpoint, ExitIntent

DOCKER = ip_network("172.28.0.0/24")
SERVER = Endpoint(ip_address("198.51.100.200"), 1194, ("udp",))
CARRIED = Carried((ip_interface("10.8.0.2/32"),), 1500)
SIX = ip_interface("fd9c:41d7:58a2:8::1000/128")
OTHER = Carried((ip_interface("10.8.0.50/32"),), 1500)
BASE = ExitIntent(device="tun0", uplinks=(), forward_from=(DOCKER,))


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Machine:
    """connected: networks that it is attached to."""

    def __init__(self) -> None:
        self.connected: tuple[Connected, ...] = ()

    def observe(self) -> Facts:
        return Facts(connected=self.connected)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(keepers, "observe", made.observe)
    monkeypatch.setattr(keepers, "apply", lambda *_, **__: None)
    monkeypatch.setattr(keepers, "drift", lambda *_: ())
    return made


def held(reconciler: Reconciler) -> tuple[list[str], bool]:
    """The device's addresses, and whether flows that exist wait."""
    plan = reconciler._plan
    assert plan is not None
    assert plan.tunnel is not None
    return [str(address) for address in plan.tunnel.addresses], reconciler.intent.waits(4)


def test_the_former_tunnel_s_addresses_stay_until_the_next_one(
    machine: Machine, tmp_path: Path
) -> None:
    async def run() -> None:
        nft: Any = SimpleNamespace()
        reconciler = Reconciler(nft, tmp_path, BASE, clock=(clock := Clock()))
        await reconciler.hold(CLOSED)
        assert held(reconciler) == ([], False)  # there was none yet
        await reconciler.hold(Open(SERVER, CARRIED))
        assert held(reconciler) == (["10.8.0.2/32"], False)
        for wanted in (Open(SERVER), CLOSED, Open(SERVER)):
            await reconciler.hold(wanted)
            assert held(reconciler) == (["10.8.0.2/32"], True)
        clock.now += WAIT - 1
        assert not reconciler.is_due
        clock.now += 1
        assert reconciler.is_due
        await reconciler.look()
        assert held(reconciler) == (
            ["10.8.0.2/32"],
            False,
        )  # reset, but the next one may be the same
        assert not reconciler.is_due
        await reconciler.hold(Open(SERVER, OTHER))
        assert held(reconciler) == (["10.8.0.50/32"], False)
        await reconciler.hold(CLOSED)
        assert held(reconciler) == (["10.8.0.50/32"], True)

    asyncio.run(run())


def test_what_could_not_be_carried_is_not_kept_either(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An IPv6 address would be refused where IPv6 is off, and the switch could not be closed."""

    def off(intent: ExitIntent, **_: object) -> str:
        return "IPv6 is off here" if intent.carried else ""

    monkeypatch.setattr(keepers.ipv6, "obstacle", off)

    async def run() -> None:
        nft: Any = SimpleNamespace()
        reconciler = Reconciler(nft, tmp_path, BASE)
        await reconciler.hold(Open(SERVER, Carried((*CARRIED.addresses, SIX), 1500)))
        await reconciler.hold(CLOSED)
        assert held(reconciler) == (["10.8.0.2/32"], True)

    asyncio.run(run())


def test_an_address_that_a_new_network_holds_goes(machine: Machine, tmp_path: Path) -> None:
    """The kernel would answer for a neighbour's."""

    async def run() -> None:
        nft: Any = SimpleNamespace()
        reconciler = Reconciler(nft, tmp_path, BASE)
        await reconciler.hold(Open(SERVER, CARRIED))
        await reconciler.hold(CLOSED)
        machine.connected = (Connected(ip_network("10.8.0.0/24"), "eth1"),)
        await reconciler.look()
        assert held(reconciler) == ([], False)

    asyncio.run(run())

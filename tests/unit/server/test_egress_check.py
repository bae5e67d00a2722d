"""What HEALTH_CHECK_EGRESS makes of each state: only a way that is listed fails the container."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import pytest

from ocgate.kernel.probe import ProbeResult
from ocgate.kernel.way import Way
from ocgate.names import MARK_GATEWAY
from ocgate.plan.exits import Exits, ExitState
from ocgate.plan.facts import Address
from ocgate.server.desired.prepare import Ipv6Egress as Seen
from ocgate.server.desired.prepare import prepare
from ocgate.server.status import egress_check
from ocgate.server.status.egress_check import EgressCheck, look_up
from ocgate.server.status.schema import ExitStatus
from support.sources import facts, interface, sources

GATEWAY = "172.28.0.2"
FACTS = facts(
    interface(2, "eth0", "172.28.0.10/24"),
    default4="eth0",
    connected={"172.28.0.0/24": "eth0"},
)
NAMES = {"both": ("192.0.2.1", "2001:db8::1"), "four": ("192.0.2.2",), "six": ("2001:db8::2",)}


@dataclass
class World:
    """What answers: URLs by mark (None for this host's own way), and probes."""

    works: set[tuple[str, int | None]] = field(default_factory=set)
    probes_work: bool = True
    asked: list[tuple[str, str, int | None]] = field(default_factory=list)

    async def fetch(self, url: str, address: Address, *, timeout: float, way: Way) -> ProbeResult:
        self.asked.append((url, str(address), way.mark))
        assert (way.ports is not None) == (way.mark is not None)
        return ProbeResult((url, way.mark) in self.works, None, f"{url} is dead", 0.0)

    async def probe(self, targets: Sequence[Any], *, timeout: float) -> ProbeResult:
        self.asked += [(str(target[0]), "", None) for target in targets]
        return ProbeResult(self.probes_work, None, "no answer", 0.0)

    async def look_up(self, host: str) -> tuple[Address, ...]:
        return tuple(ip_address(text) for text in NAMES.get(host, ()))

    def failures(self, egress: str, *exits: ExitStatus, **environ: str) -> list[str]:
        settings = {"HEALTH_CHECK_ENABLED": "1", "HEALTH_CHECK_EGRESS": egress, **environ}
        given = Exits(ExitState(ip_address(GATEWAY))) if "VPN_GATEWAY" in environ else Exits()
        made = prepare(sources(**settings), FACTS, Seen(None), given)
        asked = EgressCheck(made, exits, self.fetch, self.probe, self.look_up)
        return asyncio.run(asked.failures())


def exit_status(state: str, family: int = 4, why: str = "") -> ExitStatus:
    return ExitStatus(
        exit="default", family=family, gateway=GATEWAY, address=GATEWAY, device="eth0",
        state=state, since=None, why=why, rtt=None, heard=None, late=0,
        transitions=0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("egress", "state", "count"),
    [
        ("off", "down", 0),
        ("direct", "down", 0),
        ("default", "down", 1),
        ("all", "down", 1),
        ("direct+default", "down", 1),
        ("default", "up", 0),
        ("default", "unknown", 0),
    ],
)
def test_a_dead_gateway_counts_only_where_it_is_listed(egress: str, state: str, count: int) -> None:
    world = World()
    found = world.failures(egress, exit_status(state, why="no answer"), VPN_GATEWAY=GATEWAY)
    assert len(found) == count
    if count:
        assert found == [f"egress by gateway {GATEWAY} (IPv4) does not work: no answer"]


def test_a_gateway_that_can_not_be_asked_any_more_is_not_well() -> None:
    """This host lacks what a probe takes; before the first answer nothing is known, and no harm."""
    status = exit_status("unknown", why="this host could not ask for 31.0 s: too many open files")
    status["heard"] = 31.0
    (found,) = World().failures("default", status, VPN_GATEWAY=GATEWAY)
    assert "too many open files" in found


@pytest.mark.parametrize("egress", ["direct", "all", "default"])
def test_this_hosts_own_way_is_asked_for_the_probes_targets(egress: str) -> None:
    """Also for `default` of a server without gateway: clients leave by this host."""
    world = World(probes_work=False)
    assert world.failures(egress, EXIT_PROBE="1.1.1.1") == [
        "direct egress does not work: no answer"
    ]
    assert world.asked == [("1.1.1.1", "", None)]
    world.probes_work = True
    assert world.failures(egress, EXIT_PROBE="1.1.1.1") == []


def test_an_url_is_fetched_by_each_way_and_one_that_answers_is_enough() -> None:
    urls = "https://both/x;http://four"
    world = World(works={("http://four", None), ("https://both/x", MARK_GATEWAY)})
    status = exit_status("up")
    more = {"VPN_GATEWAY": GATEWAY, "HEALTH_CHECK_URL": urls}
    assert world.failures("all", status, **more) == []
    assert sorted(world.asked, key=str) == sorted(
        [
            ("https://both/x", "192.0.2.1", None),
            ("http://four", "192.0.2.2", None),
            ("https://both/x", "192.0.2.1", MARK_GATEWAY),
            ("http://four", "192.0.2.2", MARK_GATEWAY),
        ],
        key=str,
    )
    world.works.clear()
    assert world.failures("all", status, **more) == [
        "direct egress does not work: https://both/x is dead; http://four is dead",
        f"egress by gateway {GATEWAY} (IPv4) does not work: https://both/x is dead; "
        "http://four is dead",
    ]


def test_a_family_without_an_address_to_fetch_goes_by_its_probes() -> None:
    """HEALTH_CHECK_URL of the other family alone says nothing of this one."""
    world = World()
    more = {"VPN_GATEWAY": GATEWAY, "HEALTH_CHECK_URL": "https://six"}
    assert world.failures("default", exit_status("up"), **more) == []
    assert world.asked == []
    (why,) = world.failures("default", exit_status("down", why="no answer"), **more)
    assert why.endswith("no answer")


def test_a_name_that_does_not_resolve_is_told() -> None:
    (why,) = World().failures("direct", HEALTH_CHECK_URL="https://gone")
    assert why == "direct egress does not work: https://gone: gone does not resolve"


def test_a_dead_resolver_leaves_the_loops_threads_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """They bring the kernel to the plan; a look-up that hangs goes on after it was given up."""
    end = threading.Event()
    monkeypatch.setattr(egress_check, "TIMEOUT", 0.05)

    def resolved(_host: str) -> list[str]:
        end.wait(60)
        return []

    monkeypatch.setattr(egress_check, "_resolved", resolved)

    async def scenario() -> None:
        more_than_the_loop_has = min(32, (os.cpu_count() or 1) + 4) + 1
        found = await asyncio.gather(*(look_up("x.example") for _ in range(more_than_the_loop_has)))
        assert not any(found)
        async with asyncio.timeout(10):
            assert await asyncio.to_thread(lambda: "works")

    try:
        asyncio.run(scenario())
    finally:
        end.set()

"""The exit watch on a real network: a gateway that dies, comes back, and moves.

[this namespace] near 172.28.0.2 ─── far 172.28.0.3, 172.28.0.4 [upstream]
 127.0.0.53 the nameserver           lo  203.0.113.1 (the probe's target)

The reconciler is replaced by one that puts nothing but the gateway's route into table 100.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address, ip_network
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from ocgate.config.load import load
from ocgate.kernel.facts import observe
from ocgate.netlab import namespace
from ocgate.netlab.dns import DnsServer
from ocgate.netlab.namespace import Namespace
from ocgate.plan.exits import Exits, ExitState
from ocgate.plan.facts import Address, Family
from ocgate.server.exits.watch import ExitWatch
from ocgate.upstream import address_book
from ocgate.upstream.resolver import Answer, Lookup, resolve

pytestmark = pytest.mark.kernel
Shell = Callable[[str], str]

A, B = ip_address("172.28.0.3"), ip_address("172.28.0.4")


@dataclass
class Reconciler:
    """Puts the gateway's route into table 100, and remembers since when what was in force."""

    sh: Shell
    environ: dict[str, str]
    exits: Exits = field(default_factory=Exits)
    prepared: Any = None
    told: list[tuple[float, ExitState]] = field(default_factory=list)

    def begin(self, address: Address) -> None:
        sources = SimpleNamespace(settings=load(self.environ).settings)
        subnets = (ip_network("10.10.10.0/24"),)
        intent = SimpleNamespace(ports=(10240, 32767))
        self.prepared = SimpleNamespace(
            sources=sources, facts=observe(), subnets=subnets, intent=intent
        )
        self.sh("ip rule add fwmark 0x02000000/0x3f000000 lookup 100")
        asyncio.run(self.look(exits=Exits(ExitState(address))))

    async def look(self, *, exits: Exits) -> None:
        self.exits = exits
        assert exits.exit4 is not None
        if exits.exit4.address is not None:
            self.sh(f"ip route replace default via {exits.exit4.address} dev near table 100")
        self.told.append((time.monotonic(), exits.exit4))


@pytest.fixture(autouse=True)
def plain_logs() -> None:
    """Another test's levels and closed stderr are not this one's."""
    structlog.reset_defaults()


@pytest.fixture
def upstream(sh: Shell) -> Iterator[Namespace]:
    """The other end of `near`, which answers for the target as well."""
    far = namespace.create(f"{namespace.next_prefix()}upstream")
    sh(
        f"ip link add near type veth peer name far netns {far.name}; ip link set near up;"
        "ip addr add 172.28.0.2/24 dev near"
    )
    far.ip(
        "link set far up",
        "addr add 172.28.0.3/24 dev far",
        "addr add 172.28.0.4/24 dev far",
        "addr add 203.0.113.1/32 dev lo",
    )
    yield far
    far.close()


def reconciler(sh: Shell, **environ: str) -> Reconciler:
    settings = {
        "OCGATE_CONFIG_DIR": "/nonexistent",
        "VPN_GATEWAY": "172.28.0.3",
        "EXIT_PROBE": "203.0.113.1:443",
        "EXIT_PROBE_INTERVAL": "0.1",
    }
    made = Reconciler(sh, settings | environ)
    made.begin(A)
    return made


@contextlib.asynccontextmanager
async def running(watch: ExitWatch) -> AsyncIterator[None]:
    task = asyncio.create_task(watch.run())
    try:
        async with asyncio.timeout(60):
            yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def state(watch: ExitWatch) -> str:
    return watch.statuses()[0]["state"]


def test_a_gateway_that_dies_is_down_and_comes_back(
    upstream: Namespace, sh: Shell, tmp_path: Path
) -> None:
    """Its host is gone: nothing answers, and then not even ARP."""
    kept = reconciler(sh)
    watch = ExitWatch(kept, tmp_path)

    async def run() -> None:
        async with running(watch):
            await until(lambda: state(watch) == "up")
            assert watch.statuses()[0]["rtt"] < 2
            upstream.ip("link set far down")
            began = time.monotonic()
            await until(lambda: kept.told[-1][1].down)
            assert kept.told[-1][0] - began < 20
            silent = "no answer to ARP from 172.28.0.3 on near"
            await until(lambda: watch.statuses()[0]["why"] == silent)
            upstream.ip("link set far up")
            await until(lambda: not kept.told[-1][1].down)

    asyncio.run(run())
    assert [bool(told.down) for _, told in kept.told] == [False, True, False]


def test_a_tunnel_that_dies_behind_a_living_gateway_is_down(
    upstream: Namespace, sh: Shell, tmp_path: Path
) -> None:
    """The usual way: the container runs, its tunnel does not; no neighbour ever tells."""
    kept = reconciler(sh)
    watch = ExitWatch(kept, tmp_path)

    async def run() -> None:
        async with running(watch):
            await until(lambda: state(watch) == "up")
            upstream.nft(
                "table inet t { chain c { type filter hook input priority 0;"
                " ip daddr 203.0.113.1 drop; }; }"
            )
            await until(lambda: kept.told[-1][1].down)

    asyncio.run(run())
    assert kept.told[-1][1].down.startswith("no answer from 203.0.113.1:443 for ")


def test_without_probes_the_neighbour_decides(
    upstream: Namespace, sh: Shell, tmp_path: Path
) -> None:
    """Nothing is sent there but what the watch makes the kernel ask."""
    sh("sysctl -qw net.ipv4.neigh.near.retrans_time_ms=20 net.ipv4.neigh.near.gc_stale_time=1;"
       "sysctl -qw net.ipv4.neigh.near.base_reachable_time_ms=100;"
       "sysctl -qw net.ipv4.neigh.near.delay_first_probe_time=1")  # fmt: skip
    kept = reconciler(sh, EXIT_PROBE="off")
    watch = ExitWatch(kept, tmp_path)

    async def run() -> None:
        async with running(watch):
            await until(lambda: state(watch) == "up")
            upstream.ip("addr del 172.28.0.3/24 dev far", "addr replace 172.28.0.4/24 dev far")
            await until(lambda: state(watch) == "down")
            upstream.ip("addr add 172.28.0.3/24 dev far")
            await until(lambda: state(watch) == "up")

    asyncio.run(run())


def test_a_name_that_moves_is_followed_when_its_time_is_over(
    upstream: Namespace,
    netns: Namespace,
    sh: Shell,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And nothing is asked before, nor is a nameserver that fails a reason to move."""
    monkeypatch.setattr(address_book, "SHORTEST_TTL", 0.5)
    files = Lookup((), tmp_path / "hosts", tmp_path / "resolv.conf")
    files.resolv_conf.write_text("nameserver 127.0.0.53\n")
    server = DnsServer(netns, [ip_address("127.0.0.53")], {"nl.example": [A, B]}, ttl=0)
    kept = reconciler(sh, VPN_GATEWAY="nl.example")
    watch = ExitWatch(kept, tmp_path, resolve=partial(_with, files))

    async def run() -> None:
        async with running(watch):
            await until(lambda: state(watch) == "up" and len(server.queries) >= 3)
            assert watch.statuses()[0]["address"] == str(A)
            server.table.clear()  # NXDOMAIN
            asked = len(server.queries)
            await until(lambda: len(server.queries) >= asked + 2)
            assert watch.statuses()[0]["address"] == str(A)
            server.table["nl.example"] = [ip_address("10.10.10.7"), B]  # the first is a client's
            await until(lambda: kept.exits.exit4 == ExitState(B))
            await until(lambda: state(watch) == "up")

    asyncio.run(run())
    server.close()
    waits = [b.at - a.at for a, b in pairwise(server.queries)]
    assert min(waits) > 0.2
    assert [told.address for _, told in kept.told] == [A, B]


def test_a_gateway_that_was_replaced_is_found_before_its_time(
    upstream: Namespace, netns: Namespace, sh: Shell, tmp_path: Path
) -> None:
    """Docker answers with 600 s; the container is back under another address at once."""
    files = Lookup((), tmp_path / "hosts", tmp_path / "resolv.conf")
    files.resolv_conf.write_text("nameserver 127.0.0.53\n")
    server = DnsServer(netns, [ip_address("127.0.0.53")], {"nl.example": [A]}, ttl=600)
    kept = reconciler(sh, VPN_GATEWAY="nl.example")
    watch = ExitWatch(kept, tmp_path, resolve=partial(_with, files))

    async def run() -> float:
        async with running(watch):
            await until(lambda: state(watch) == "up" and server.queries)
            server.table["nl.example"] = [B]
            # Another container, so another link-layer address as well.
            upstream.ip(
                "addr del 172.28.0.3/24 dev far",
                "addr replace 172.28.0.4/24 dev far",
                "link set far address 02:00:00:00:00:04",
            )
            began = time.monotonic()
            await until(lambda: kept.exits.exit4 == ExitState(B))
            await until(lambda: state(watch) == "up")
            return time.monotonic() - began

    seconds = asyncio.run(run())
    server.close()
    assert seconds < 20  # of 600


async def _with(
    files: Lookup, name: str, family: Family, timeout: float, _lookup: Lookup
) -> Answer:
    return await resolve(name, family, timeout, files)

"""What it costs to watch exits: CPU time and bytes on the wire, for 1, 16 and 64 of them.

[this] va 192.0.2.1 ─── vb 192.0.2.2 [responder] lo 203.0.113.1: TCP 443, DNS, ping

The driver alone (`runtime.probing`), all exits in one event loop, each with three targets of three
kinds and the counters of its own reading; every question is answered. A process of its own, so that
its CPU time is that of probing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import socketserver
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from bench.measure import Series
from bench.patience import SETTINGS
from bench.report import Found, Headline, Table
from bench.size import Size
from ocgate.kernel.probe import ask
from ocgate.kernel.way import Found as Answer
from ocgate.kernel.way import TcpTarget, Way
from ocgate.names import NFT_TABLE_EXIT, PROBE_DNS, PROBE_ICMP
from ocgate.netlab import namespace
from ocgate.netlab.namespace import Namespace
from ocgate.netlab.services import Tcp, Udp, close_servers, serve
from ocgate.plan.carried import CAME_BACK
from ocgate.runtime.carried import Carried
from ocgate.runtime.probing import Probing
from ocgate.tunnel.reasons import REASONS, SENT
from ocgate.upstream import liveness
from ocgate.upstream.line import Pace, State

ROOT = Path(__file__).resolve().parents[1]
EXITS = (1, 16, 64)
HOUR = 3600.0
_ETHERNET = 14  # bytes of each frame that are of the veth alone
_WARM = 2.0  # seconds
_FAR = IPv4Address("203.0.113.1")
TARGETS = {
    "tcp": TcpTarget(_FAR, 443),
    "dns": TcpTarget(_FAR, 53, PROBE_DNS),
    "icmp": TcpTarget(_FAR, 0, PROBE_ICMP),
}


@dataclass(frozen=True)
class Cost:
    """Of one exit: seconds of CPU, and bytes of IP there and back, an hour."""

    cpu: float
    bytes: float


def measure(size: Size) -> Found:
    """All numbers of exits with both settings."""
    seconds = size.of(1, 3, 60)
    found: dict[tuple[str, int], Cost] = {}
    with _ground() as near:
        for name, settings in SETTINGS.items():
            for count in EXITS:
                interval = float(settings["EXIT_PROBE_INTERVAL"])
                found[name, count] = _cost(near, count, interval, seconds)
                print(name, count, found[name, count], flush=True)
    return _found(found, seconds)


def _cost(near: Namespace, count: int, interval: float, seconds: float) -> Cost:
    argv = [sys.executable, "-m", "bench.probing", str(count), str(interval), str(seconds)]
    done = near.run(["env", f"PYTHONPATH={ROOT}", *argv], timeout=seconds + 60)
    told = json.loads(done.stdout.splitlines()[-1])
    if told["alive"] != count:
        raise AssertionError(f"{told['alive']} of {count} exits were alive at the end")
    hours = told["seconds"] / HOUR * count
    return Cost(told["cpu"] / hours, told["bytes"] / hours)


# --- the ground ---------------------------------------------------------------------------------


@contextmanager
def _ground() -> Iterator[Namespace]:
    near, far = (namespace.create(f"{namespace.next_prefix()}{end}") for end in ("near", "far"))
    servers: list[socketserver.BaseServer] = []
    try:
        near.ip("link set lo up", f"link add va type veth peer name vb netns {far.name}")
        near.ip("link set va up", "addr add 192.0.2.1/24 dev va")
        far.ip("link set lo up", "link set vb up", "addr add 192.0.2.2/24 dev vb")
        far.ip(f"addr add {_FAR}/32 dev lo")
        near.ip("route add default via 192.0.2.2")
        near.sysctl("net/ipv4/ping_group_range", "0 2147483647")
        counters = " ".join(
            f"counter {name} {{ }};" for name in (*REASONS, SENT, *CAME_BACK.values())
        )
        near.nft(f"table inet {NFT_TABLE_EXIT} {{ {counters} }}")
        with far.entered():
            servers += [Tcp((str(_FAR), 443), _Quiet), _dns()]
        serve(servers)
        yield near
    finally:
        close_servers(servers)
        near.close()
        far.close()


class _Quiet(socketserver.BaseRequestHandler):
    """Takes a connection, and waits for its reset."""

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            self.request.recv(1)


class _Resolver(socketserver.BaseRequestHandler):
    """Any answer will do."""

    def handle(self) -> None:
        packet, sock = self.request
        sock.sendto(packet[:2] + b"\x81\x80" + packet[4:], self.client_address)


def _dns() -> Udp:
    made = Udp((str(_FAR), 53), _Resolver)
    made.socket.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 57)  # not the next hop's own
    return made


# --- in a process of its own --------------------------------------------------------------------


async def _watch(count: int, interval: float, seconds: float) -> dict[str, float]:
    async def question(name: str, wait: float) -> Answer:
        return await ask(TARGETS[name], wait, Way(device="va"))

    async def told() -> None:
        pass

    made = [
        Probing(liveness.begin(Pace(interval), TARGETS, time.monotonic()), question,
                Carried(NFT_TABLE_EXIT, sent=SENT, came_back=CAME_BACK).look)
        for _ in range(count)
    ]  # fmt: skip
    tasks = [asyncio.create_task(each.run(told, lambda: True)) for each in made]
    await asyncio.sleep(_WARM)
    began, cpu, sent = time.monotonic(), time.process_time(), _bytes()
    await asyncio.sleep(seconds)
    result = {
        "seconds": time.monotonic() - began,
        "cpu": time.process_time() - cpu,
        "bytes": _bytes() - sent,
        "alive": sum(each.line.state in (State.ALIVE, State.SUSPECT) for each in made),
    }
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return result


def _bytes() -> int:
    """Of IP, there and back."""
    for line in Path("/proc/self/net/dev").read_text().splitlines():
        name, _, figures = line.partition(":")
        if name.strip() == "va":
            held = [int(figure) for figure in figures.split()]
            return held[0] + held[8] - _ETHERNET * (held[1] + held[9])
    raise AssertionError("va is gone")


# --- what was found -----------------------------------------------------------------------------


def _found(found: dict[tuple[str, int], Cost], seconds: float) -> Found:
    rows = tuple(
        (
            f"{name} probes, {count} exit{'s' * (count > 1)}",
            f"{cost.cpu:.1f}",
            f"{cost.cpu / HOUR:.2%}",
            f"{cost.bytes / 1e3:.0f}",
            f"{cost.cpu * count / HOUR:.1%}",
        )
        for (name, count), cost in found.items()
    )
    most = max(EXITS)
    return Found(
        "probing",
        "What it costs to watch exits",
        (
            Table(
                "Of one exit, an hour",
                ("Exits", "CPU seconds", "of a core", "kB on the wire", "all of them, of a core"),
                rows,
                (f"{seconds:.0f} s each; idle exits, whose every question is answered.",),
            ),
        ),
        (
            Headline("watching one exit, CPU seconds an hour", f"{found['default', 1].cpu:.1f}"),
            Headline(
                "watching one exit, bytes an hour", f"{found['default', 1].bytes / 1e3:.0f} kB"
            ),
            Headline(
                f"watching {most} exits, of a core",
                f"{found['default', most].cpu * most / HOUR:.1%}",
            ),
        ),
        {
            f"{name} probes, {count} exits, CPU s an hour each": Series((cost.cpu,))
            for (name, count), cost in found.items()
        },
    )


if __name__ == "__main__":
    count, interval, seconds = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    print(json.dumps(asyncio.run(_watch(count, interval, seconds))))

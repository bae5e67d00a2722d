"""What the ruleset costs a packet, without ocserv: CPU time of writing it into a tun.

    upload      write ──> tun vpns0 ── gw: prerouting, forward, postrouting ──> tun eth0 (full)
    download    (full) tun vpns0 <── gw: postrouting, forward, prerouting ── tun eth0 <── write

The kernel forwards within write(2), up to the other tun's queue, which nobody reads and which drops
what comes. So the writing thread's CPU time is the packet's whole cost, and other load on the
machine hardly counts. 64-byte UDP of 64 flows, each of another live session.
"""

from __future__ import annotations

import fcntl
import functools
import json
import os
import re
import struct
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from bench import ruleset
from bench.measure import Series, in_turn
from bench.report import Found, Headline, Table
from bench.size import Size
from bench.station import SUBNET, address
from lab.ocserv import hand_made_nat
from ocgate.names import TUNNEL_GROUP
from ocgate.netlab import namespace
from ocgate.netlab.namespace import Namespace
from ocgate.netlab.packet import checksum

FLOWS = 64
AIM_FLAT = 0.95  # "flat in sessions"; what is below is no noise of these medians any more
QUEUE = 64  # packets that a tun holds before it drops; the kernel's default is 500
SERVICE, WAN = IPv4Address("198.51.100.10"), IPv4Address("172.28.0.10")
DIRECTIONS = {"upload": False, "download": True}
PAYLOAD = bytes(64 - 28)  # with IPv4 and UDP headers 64 bytes

# <linux/if_tun.h>
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x4004_54CA, 0x0001, 0x1000

Flow = tuple[IPv4Address, int]
"""Source address and port."""

# conntrack(8)'s line: the original direction, then the answers', whose dport is the translated one.
_TRANSLATION = re.compile(r"src=(\S+) dst=\S+ sport=(\d+) .*dport=(\d+)")

HANDED_IN, FORWARDED, MASQUERADE = "handed in and dropped", "forwarded", "masqueraded, one rule"
GATEWAY = "ocgate by a gateway"
PLAIN = (HANDED_IN, FORWARDED)  # without NAT


@dataclass(frozen=True)
class Gate:
    """A namespace between two tuns. up, down: descriptor, and one packet of each flow."""

    netns: Namespace
    up: tuple[int, tuple[bytes, ...]]
    down: tuple[int, tuple[bytes, ...]]

    def push(self, count: int, *, download: bool) -> float:
        """Seconds of CPU time a packet, over `count` of them (a multiple of FLOWS)."""
        tun, packets = self.down if download else self.up
        write = os.write
        started = time.thread_time()
        for _ in range(count // FLOWS):
            for packet in packets:
                write(tun, packet)
        return (time.thread_time() - started) / count

    def came_out(self, device: str) -> int:
        """Packets that reached this tun's full queue so far."""
        shown = json.loads(self.netns.run(["ip", "-j", "-s", "link", "show", device]).stdout)
        return int(shown[0]["stats64"]["tx"]["dropped"])


def measure(size: Size) -> Found:
    """All rulesets in turn, in both directions, each in a namespace of its own."""
    counts = (1, *size.sessions[1:])
    chunk, rounds = FLOWS * size.of(10, 60, 300), size.of(3, 12, 40)
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        gates = {
            name: stack.enter_context(_gate(set_up, sessions, translated=name not in PLAIN))
            for name, set_up, sessions in _rulesets(counts, work)
        }
        sides = {
            f"{direction} | {name}": functools.partial(gate.push, chunk, download=download)
            for direction, download in DIRECTIONS.items()
            for name, gate in gates.items()
        }
        for gate in gates.values():  # the flows begin, the queues fill up
            gate.push(QUEUE + FLOWS, download=False)
            gate.push(QUEUE + FLOWS, download=True)
        before = _came_out(gates)
        found = in_turn(rounds, sides)
        _check(before, _came_out(gates), rounds * chunk)
    return _found(found, counts)


def _came_out(gates: dict[str, Gate]) -> dict[str, int]:
    return {
        f"{name} by {device}": gate.came_out(device)
        for name, gate in gates.items()
        for device in ("eth0", "vpns0")
    }


def _check(before: dict[str, int], after: dict[str, int], sent: int) -> None:
    """A rate of packets that did not come out would say nothing."""
    for name, count in after.items():
        wanted = 0 if name.startswith(HANDED_IN) else sent
        got = count - before[name]
        assert got == wanted, f"{name}: {got} of {wanted} packets came out"


SetUp = Callable[[Namespace], None]


def _rulesets(counts: tuple[int, ...], work: Path) -> Iterator[tuple[str, SetUp, int]]:
    """Name, what to do to the namespace, number of sessions."""
    yield HANDED_IN, lambda netns: _forward(netns, 0), 1
    yield FORWARDED, lambda netns: _forward(netns, 1), 1
    yield MASQUERADE, _masquerade, 1
    for count in counts:
        yield _name(count), functools.partial(_ours, count, work, gateway=False), count
    for count in counts:
        yield f"{GATEWAY} @ {count}", functools.partial(_ours, count, work, gateway=True), count


def _name(count: int) -> str:
    return f"ocgate @ {count}"


def _forward(netns: Namespace, on: int) -> None:
    netns.sysctl("net/ipv4/ip_forward", on)


def _masquerade(netns: Namespace) -> None:
    _forward(netns, 1)
    netns.nft(hand_made_nat([SUBNET]))


def _ours(count: int, work: Path, netns: Namespace, *, gateway: bool) -> None:
    sessions = [ruleset.on_device(number, "vpns0") for number in range(count)]
    run_dir = work / f"run-{count}-{gateway}"
    ruleset.install(netns, "eth0", sessions, run_dir, gateway=gateway).close()
    netns.ip(f"link set vpns0 group {TUNNEL_GROUP}")  # as of a session that is admitted


@contextmanager
def _gate(set_up: SetUp, sessions: int, *, translated: bool) -> Iterator[Gate]:
    """translated: downloads come for gw's own address, else for the sessions'."""
    netns = namespace.create(f"{namespace.next_prefix()}gw")
    with ExitStack() as stack:
        stack.callback(netns.close)
        for scope in ("all", "default"):
            netns.sysctl(f"net/ipv4/conf/{scope}/rp_filter", 0)
            netns.sysctl(f"net/ipv6/conf/{scope}/disable_ipv6", 1)
        with netns.entered():
            tun, wan = _open_tun("vpns0"), _open_tun("eth0")
        for descriptor in (tun, wan):
            stack.callback(os.close, descriptor)
        netns.ip(
            f"link set vpns0 txqueuelen {QUEUE} up",
            f"route add {SUBNET} dev vpns0",
            f"link set eth0 txqueuelen {QUEUE} up",
            f"address add {WAN}/24 dev eth0",
            "route add default dev eth0",
        )
        set_up(netns)
        flows = [(address(n * sessions // FLOWS), 20_000 + n) for n in range(FLOWS)]
        # As ocserv makes them: a session's route is its address alone.
        netns.ip(*(f"route replace {own} dev vpns0" for own in {own for own, _ in flows}))
        up = tuple(_udp((own, port), (SERVICE, 9)) for own, port in flows)
        for packet in up:  # the flows begin
            os.write(tun, packet)
        ends = _translated(netns, flows) if translated else flows
        down = tuple(_udp((SERVICE, 9), end) for end in ends)
        yield Gate(netns, (tun, up), (wan, down))


def _translated(netns: Namespace, flows: Sequence[Flow]) -> list[Flow]:
    """Where the answers to each flow go: ports may have been chosen at random."""
    shown = netns.run(["conntrack", "-L", "-p", "udp"]).stdout
    found = {}
    for line in shown.splitlines():
        own, port, answer = _TRANSLATION.findall(line)[0]
        found[IPv4Address(own), int(port)] = (WAN, int(answer))
    return [found[flow] for flow in flows]


def _open_tun(name: str) -> int:
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return tun


def _udp(source: tuple[IPv4Address, int], to: tuple[IPv4Address, int]) -> bytes:
    """A UDP datagram, without UDP checksum, which IPv4 allows (RFC 768)."""
    datagram = struct.pack("!HHHH", source[1], to[1], 8 + len(PAYLOAD), 0) + PAYLOAD
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(datagram), 0, 0x4000, 64, 17, 0)
    head += source[0].packed + to[0].packed
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + datagram


def _found(found: dict[str, Series], counts: tuple[int, ...]) -> Found:
    tables = tuple(_table(direction, found) for direction in DIRECTIONS)
    return Found(
        "packets",
        "Packet rate without ocserv",
        tables,
        tuple(h for direction in DIRECTIONS for h in _headlines(direction, found, counts)),
        {f"{name}, ns": series.scaled(1e9) for name, series in found.items()},
    )


def _of(direction: str, found: dict[str, Series]) -> dict[str, Series]:
    """The series of one direction, by ruleset."""
    split = {name: name.split(" | ") for name in found}
    return {own: found[name] for name, (its, own) in split.items() if its == direction}


def _table(direction: str, found: dict[str, Series]) -> Table:
    own = _of(direction, found)
    floor, base = own[HANDED_IN], own[MASQUERADE]
    rows = []
    for name, series in own.items():
        rate = base.over(series)
        low, high = rate.spread
        rows.append(
            (
                _words(name),
                f"{series.median * 1e9:.0f}",
                f"{series.above(floor).median * 1e9:.0f}",
                f"{1e-3 / series.median:.0f}",
                f"{rate.median:.3f}",
                f"{low:.3f} to {high:.3f}",
            )
        )
    return Table(
        f"64-byte UDP, {direction}",
        ("Ruleset", "ns a packet", "above floor", "1000 a second", "rate : masqueraded", "half"),
        tuple(rows),
        (
            f"{len(base.values)} rounds of all, in turn; CPU time of the writing thread, which "
            f"does the forwarding. '{HANDED_IN}' is the floor: write(2) itself.",
        ),
    )


def _headlines(
    direction: str, found: dict[str, Series], counts: tuple[int, ...]
) -> tuple[Headline, ...]:
    own = _of(direction, found)
    base, one, many = own[MASQUERADE], own[_name(counts[0])], own[_name(counts[-1])]
    flat = one.over(many).median
    gateway = own[f"{GATEWAY} @ {counts[-1]}"]
    return (
        Headline(
            f"packet rate by a gateway, {direction}, {counts[-1]:,} sessions : plain masquerade",
            f"{base.over(gateway).median:.2f}",
        ),
        Headline(
            f"packet rate, {direction}, {counts[-1]:,} sessions : plain masquerade",
            f"{base.over(many).median:.2f}",
        ),
        Headline(
            f"packet rate, {direction}, {counts[-1]:,} sessions : one",
            f"{flat:.3f}",
            f"flat, {AIM_FLAT}",
            flat >= AIM_FLAT,
        ),
    )


def _words(name: str) -> str:
    part, _, count = name.partition(" @ ")
    return f"{part}, {int(count):,} sessions" if count else part

"""What this host lacks is no answer: neither a refusal nor silence, for all kinds of question.

[asker's namespace] va 192.0.2.1, 2001:db8::1 ─── vb (nobody: its MAC address is known for certain)
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import resource
import socket
import struct
from collections.abc import Callable, Iterator
from ipaddress import ip_address

import pytest

from ocgate.kernel.probe import ask, probe
from ocgate.kernel.way import Found, TcpTarget, Way

pytestmark = pytest.mark.kernel
Shell = Callable[[str], str]

KINDS = {"tcp": 443, "dns": 53, "icmp": 0}
ADDRESSES = {"IPv4": ip_address("203.0.113.1"), "IPv6": ip_address("2001:db8:1::1")}
TARGETS = {
    f"{kind}, {family}": TcpTarget(address, port, kind)
    for kind, port in KINDS.items()
    for family, address in ADDRESSES.items()
}
each = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
with_port = pytest.mark.parametrize(
    "target",
    [target for target in TARGETS.values() if target.port],
    ids=[name for name, target in TARGETS.items() if target.port],
)
HERE = Way()

# <linux/if_tun.h>
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x4004_54CA, 0x0001, 0x1000


@pytest.fixture(autouse=True)
def link(sh: Shell) -> None:
    """A link on which nobody answers, and nobody has to be asked who is there."""
    sh(
        "sysctl -qw net.ipv4.ping_group_range='0 2147483647';"
        "ip link add va type veth peer name vb; ip link set va up; ip link set vb up;"
        "ip addr add 192.0.2.1/24 dev va; ip addr add 2001:db8::1/64 dev va nodad;"
        "ip route add default via 192.0.2.2; ip -6 route add default via 2001:db8::2;"
        "ip neigh replace 192.0.2.2 lladdr 02:00:00:00:00:01 dev va;"
        "ip neigh replace 2001:db8::2 lladdr 02:00:00:00:00:01 dev va;"
        "nft 'add table inet t; add chain inet t o { type filter hook output priority 0; }'"
    )


def found(target: TcpTarget, way: Way = HERE) -> Found:
    return asyncio.run(ask(target, 0.2, way))


def assert_unable(answer: Found, words: str) -> None:
    assert (answer.ok, answer.refused, answer.unable) == (False, False, True), answer
    assert words in answer.why


@contextlib.contextmanager
def few_files() -> Iterator[None]:
    """This process may open no file more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]
    os.close(taken.pop())
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[-1] + 1, hard))
    spare = []
    with contextlib.suppress(OSError):
        while True:  # gaps below it
            spare.append(os.open("/dev/null", os.O_RDONLY))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for file in taken + spare:
            os.close(file)


@each
def test_here_silence_is_silence(target: TcpTarget) -> None:
    """Positive control: but for what the others take away, it is asked."""
    answer = found(target)
    assert (answer.ok, answer.refused, answer.unable) == (False, False, False)


@each
def test_no_descriptor_is_left(target: TcpTarget) -> None:
    async def asked() -> Found:
        with few_files():
            return await ask(target, 0.2, HERE)

    assert_unable(asyncio.run(asked()), "too many open files")


@each
@pytest.mark.parametrize("refuses", ["drop", "reject", "reject with icmpx admin-prohibited"])
def test_a_rule_of_this_host(target: TcpTarget, refuses: str, sh: Shell) -> None:
    """A SYN that is dropped here can't be told from one that is lost, for TCP tries again; nor can
    an ICMPv6 question, whose error the kernel keeps to itself."""
    sh(f"nft 'add rule inet t o oifname va {refuses}'")
    answer = found(target)
    untold = target.kind == "tcp" or (target.kind, target.address.version) == ("icmp", 6)
    if refuses == "drop" and untold:
        assert (answer.ok, answer.refused, answer.unable) == (False, False, False)
    else:
        assert_unable(answer, "a rule of its firewall")


@with_port
def test_no_free_port(target: TcpTarget, sh: Shell) -> None:
    sh("sysctl -qw net.ipv4.ip_local_port_range='40000 40000'")
    version = target.address.version
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    kind = socket.SOCK_STREAM if target.kind == "tcp" else socket.SOCK_DGRAM
    with socket.socket(family, kind) as holds:
        holds.settimeout(0)
        holds.connect_ex((str(target.address), target.port))
        assert_unable(found(target), "no free port")


@with_port
def test_all_ports_of_the_exit_are_taken(target: TcpTarget) -> None:
    family = socket.AF_INET if target.address.version == 4 else socket.AF_INET6
    kind = socket.SOCK_STREAM if target.kind == "tcp" else socket.SOCK_DGRAM
    with socket.socket(family, kind) as holds:
        holds.bind(("", 40000))
        assert_unable(found(target, Way(ports=(40000, 40000))), "no free port")


@each
@pytest.mark.parametrize("gone", ["addresses", "link", "route", "device"])
def test_a_way_that_this_host_has_not_is_down(target: TcpTarget, gone: str, sh: Shell) -> None:
    """That is no want: clients' packets find none either."""
    version, way = target.address.version, Way(device="va")
    if gone == "addresses":
        sh("for each in va vb lo; do ip addr flush dev $each; done; ip link set va down")
    elif gone == "link":
        sh("ip link set va down")
    elif gone == "route":
        way = HERE  # by a device without a route IPv4 takes everybody for a neighbour
        sh(f"ip -{version} route del default")
    else:
        way = Way(device="nope")
    answer = found(target, way)
    assert (answer.ok, answer.refused, answer.unable) == (False, True, False), answer


@pytest.mark.parametrize("kind", KINDS)
def test_without_an_address_of_its_own_ipv6_is_down(kind: str, sh: Shell) -> None:
    """EADDRNOTAVAIL; of IPv4 Linux takes another interface's address, and the packet is lost."""
    sh("for each in va vb lo; do ip -6 addr flush dev $each; done; ip -6 route replace ::/0 dev va")
    answer = found(TARGETS[f"{kind}, IPv6"], Way(device="va"))
    assert (answer.ok, answer.refused, answer.unable) == (False, True, False), answer


@each
@pytest.mark.parametrize("kind", ["blackhole", "unreachable", "prohibit"])
def test_a_route_that_leads_nowhere_is_down(target: TcpTarget, kind: str, sh: Shell) -> None:
    sh(f"ip -{target.address.version} route add {kind} {target.address}")
    answer = found(target)
    assert (answer.ok, answer.refused, answer.unable) == (False, True, False), answer


@each
def test_a_device_that_takes_nothing_more_loses_packets(target: TcpTarget, sh: Shell) -> None:
    """A tunnel's client has stopped, and its device's queue is full: silence, not a want of ours,
    or such a tunnel would never be down."""
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", b"full", IFF_TUN | IFF_NO_PI))
    sh(
        "ip link set full txqueuelen 2 up; tc qdisc replace dev full root pfifo limit 2 || true;"
        "ip addr add 198.51.100.1/24 dev full; ip addr add 2001:db8:9::1/64 dev full nodad;"
        "ip route replace default dev full; ip -6 route replace default dev full"
    )
    version = target.address.version
    with socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as s:
        for _ in range(20):
            s.sendto(b"fill", (str(target.address), 9))
    answer = found(target, Way(device="full"))
    os.close(tun)
    assert (answer.ok, answer.refused, answer.unable) == (False, False, False), answer
    assert answer.why.endswith("timed out")


def test_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuses(*_: object) -> Found:
        raise MemoryError

    monkeypatch.setattr("ocgate.kernel.probe.ask_tcp", refuses)
    assert_unable(found(TARGETS["tcp, IPv4"]), "no memory")


def test_a_probe_of_several_is_unable_where_none_could_be_asked() -> None:
    async def asked() -> tuple[bool, bool]:
        with few_files():
            result = await probe(list(TARGETS.values()), timeout=0.2)
        silent = await probe(list(TARGETS.values()), timeout=0.2)
        return result.unable, silent.unable

    assert asyncio.run(asked()) == (True, False)

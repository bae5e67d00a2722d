"""The other kinds of probe: a DNS question and a ping, each answered from beyond, refused, or lost.

[asker's namespace] va 192.0.2.1, 2001:db8::1 ─── vb 192.0.2.2, 2001:db8::2 [router, resolver]
                                                  lo 203.0.113.1, 2001:db8:1::1 (the target)
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from ipaddress import ip_address

import pytest

from ocgate.kernel.questions import ask_dns, ask_echo
from ocgate.kernel.way import Found, Way
from ocgate.netlab import namespace
from ocgate.netlab.namespace import Namespace
from ocgate.plan.facts import Address

pytestmark = pytest.mark.kernel
Shell = Callable[[str], str]

TARGETS = [ip_address("203.0.113.1"), ip_address("2001:db8:1::1")]
families = pytest.mark.parametrize("target", TARGETS, ids=["IPv4", "IPv6"])
HERE = Way()

# A resolver: argv are its address, the time to live of its answers, and the code in them.
RESOLVER = """
import socket, sys
address, ttl, code = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
family, option = (
    (socket.AF_INET6, (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS))
    if ":" in address
    else (socket.AF_INET, (socket.IPPROTO_IP, socket.IP_TTL))
)
sock = socket.socket(family, socket.SOCK_DGRAM)
sock.bind((address, 53))
sock.setsockopt(*option, ttl)
print(flush=True)
while True:
    packet, peer = sock.recvfrom(512)
    sock.sendto(packet[:2] + bytes([0x81, 0x80 | code]) + packet[4:], peer)
"""


@pytest.fixture
def far(sh: Shell) -> Iterator[Namespace]:
    """The router's namespace, whose own addresses the targets are."""
    router = namespace.create(f"{namespace.next_prefix()}router")
    sh(
        f"ip link add va type veth peer name vb netns {router.name}; ip link set va up;"
        "ip addr add 192.0.2.1/24 dev va; ip addr add 2001:db8::1/64 dev va nodad;"
        "ip route add default via 192.0.2.2; ip -6 route add default via 2001:db8::2"
    )
    router.ip(
        "link set vb up",
        "addr add 192.0.2.2/24 dev vb",
        "addr add 2001:db8::2/64 dev vb nodad",
        "addr add 203.0.113.1/32 dev lo",
        "addr add 2001:db8:1::1/128 dev lo",
    )
    router.nft("table inet t { chain c { type filter hook input priority 0; }; }")
    yield router
    router.close()


@contextlib.contextmanager
def resolver(far: Namespace, address: Address, *, ttl: int = 57, code: int = 0) -> Iterator[None]:
    argv = [sys.executable, "-I", "-c", RESOLVER, str(address), str(ttl), str(code)]
    with far.entered():
        process = subprocess.Popen(argv, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    yield
    process.kill()
    process.wait()
    process.stdout.close()


def dns(target: Address, timeout: float = 5.0, way: Way = HERE) -> Found:
    return asyncio.run(ask_dns(target, 53, timeout, way))


def echo(target: Address, timeout: float = 5.0, way: Way = HERE) -> Found:
    return asyncio.run(ask_echo(target, timeout, way))


@families
def test_an_answer_by_dns_is_one(far: Namespace, target: Address) -> None:
    with resolver(far, target):
        found = dns(target)
    assert found.ok and not found.refused
    assert found.trip is not None and 0 < found.trip < 5
    assert found.why.startswith("dns:") and found.why.endswith("answered by DNS")


@families
def test_an_answer_of_the_next_hop_itself_proves_nothing(far: Namespace, target: Address) -> None:
    """A gateway that takes all DNS for itself answers from its cache when its tunnel is dead."""
    with resolver(far, target, ttl=64):
        found = dns(target)
    assert not found.ok and found.refused
    assert found.why.endswith("the next hop answers in its place")


def test_an_error_by_dns_is_no_answer(far: Namespace) -> None:
    with resolver(far, TARGETS[0], code=2):
        found = dns(TARGETS[0])
    assert not found.ok and found.refused
    assert found.why == "dns:203.0.113.1: it has no answer (DNS code 2)"


@families
def test_nobody_listens(far: Namespace, target: Address) -> None:
    found = dns(target)
    assert not found.ok and found.refused
    assert found.why.endswith(f"Connection refused, says {target} by ICMP")


@families
def test_an_icmp_error_refuses(far: Namespace, target: Address) -> None:
    far.nft("add rule inet t c ip saddr 192.0.2.1 reject with icmp admin-prohibited")
    far.nft("add rule inet t c ip6 saddr 2001:db8::1 meta l4proto != ipv6-icmp reject")
    found = dns(target)
    assert not found.ok and found.refused
    assert "by ICMP" in found.why


@families
def test_silence_is_neither_answer_nor_refusal(far: Namespace, target: Address) -> None:
    far.nft("add rule inet t c udp dport 53 drop")
    far.nft("add rule inet t c icmp type echo-request drop")
    far.nft("add rule inet t c icmpv6 type echo-request drop")
    for ask in (dns, echo):
        found = ask(target, timeout=0.2)
        assert (found.ok, found.refused, found.trip) == (False, False, None)
        assert found.why.endswith(": timed out")


@families
@pytest.mark.parametrize("groups", ["0 2147483647", "1 0"], ids=["datagram", "raw"])
def test_a_ping_is_answered(far: Namespace, sh: Shell, target: Address, groups: str) -> None:
    """With a datagram socket where ping_group_range has us, with a raw one where it has not."""
    sh(f"sysctl -qw net.ipv4.ping_group_range='{groups}'")
    found = echo(target)
    assert found.ok, found
    assert found.why == f"icmp:{target} answered a ping"


@families
def test_a_ping_that_is_refused(far: Namespace, sh: Shell, target: Address) -> None:
    sh("ip route flush root 0/0 table main type unicast scope global; ip -6 route del default")
    found = echo(target)
    assert not found.ok and found.refused
    assert "unreachable" in found.why


def test_it_goes_by_the_exits_mark_device_and_ports(far: Namespace, sh: Shell) -> None:
    """A question that went by another way would call a dead exit alive."""
    sh(
        "ip route del default; ip rule add fwmark 0x02000000/0x3f000000 lookup 100;"
        "ip route add default via 192.0.2.2 dev va table 100"
    )
    way = Way(mark=0x02000000, device="va", ports=(20000, 20010))
    with resolver(far, TARGETS[0]):
        assert not dns(TARGETS[0]).ok
        far.nft("insert rule inet t c udp dport 53 udp sport != 20000-20010 drop")
        assert dns(TARGETS[0], way=way).ok
    assert echo(TARGETS[0], way=way).ok


def test_a_ping_that_this_process_may_not_send_says_nothing_of_the_target(
    far: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither ping_group_range nor NET_RAW: it was not asked, and that is nobody's refusal."""

    def refuses(_version: int, kind: int, _protocol: int = 0) -> socket.socket:
        raise PermissionError(1, f"socket type {kind}")

    monkeypatch.setattr("ocgate.kernel.questions._socket", refuses)
    found = echo(TARGETS[0])
    assert (found.ok, found.refused, found.unable) == (False, False, True)
    assert "this process may not ping" in found.why

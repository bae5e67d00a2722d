"""Neighbour entries as the kernel has them, read and asked for.

[this namespace] near 172.28.0.2, fd00:28::2 ─── far 172.28.0.3, fd00:28::3 [upstream]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_address

import pytest

from ocgate.kernel.neighbours import Neighbour, neighbour, solicit
from ocgate.netlab import namespace
from ocgate.netlab.namespace import Namespace
from ocgate.netlab.wait import wait_until

pytestmark = pytest.mark.kernel
Shell = Callable[[str], str]

families = pytest.mark.parametrize(
    ("there", "nobody"),
    [("172.28.0.3", "172.28.0.9"), ("fd00:28::3", "fd00:28::9")],
    ids=["IPv4", "IPv6"],
)


@pytest.fixture
def upstream(sh: Shell) -> Iterator[Namespace]:
    """The other end of `near`; a neighbour fails after 30 ms here, not after 3 s."""
    far = namespace.create(f"{namespace.next_prefix()}upstream")
    sh(
        "sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0;"
        f"ip link add near type veth peer name far netns {far.name};"
        "ip link set near up; ip addr add 172.28.0.2/24 dev near;"
        "ip addr add fd00:28::2/64 dev near;"
        "for v in 4 6; do sysctl -qw net.ipv$v.neigh.near.retrans_time_ms=10; done"
    )
    far.sysctl("net/ipv6/conf/far/accept_dad", 0)
    far.ip("link set far up", "addr add 172.28.0.3/24 dev far", "addr add fd00:28::3/64 dev far")
    yield far
    far.close()


@families
def test_one_that_answers(upstream: Namespace, there: str, nobody: str) -> None:
    address = ip_address(there)
    assert neighbour(address, "near") is Neighbour.UNKNOWN
    assert solicit(address, "near")
    wait_until(lambda: neighbour(address, "near") is Neighbour.ANSWERED, 5, "an answer")


@families
def test_one_that_does_not_fails_and_is_asked_again(
    upstream: Namespace, there: str, nobody: str
) -> None:
    address = ip_address(nobody)
    assert solicit(address, "near")
    assert neighbour(address, "near") in (Neighbour.ASKED, Neighbour.FAILED)
    wait_until(lambda: neighbour(address, "near") is Neighbour.FAILED, 5, "the kernel to give up")
    upstream.ip(f"addr add {nobody}/{24 if address.version == 4 else 64} dev far")
    assert solicit(address, "near")
    wait_until(lambda: neighbour(address, "near") is Neighbour.ANSWERED, 5, "an answer")


@families
def test_a_device_that_is_not_there_is_no_error(netns: object, there: str, nobody: str) -> None:
    assert neighbour(ip_address(there), "nope") is Neighbour.UNKNOWN
    assert not solicit(ip_address(there), "nope")

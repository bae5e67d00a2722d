"""A gateway's MAC address pinned in the kernel, and the question who has an address.

[this namespace] near 172.28.0.2, fd00:28::2 ─── far 172.28.0.3, fd00:28::3 [upstream]
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from ipaddress import ip_address

import pytest

from ocgate.kernel import neighbours
from ocgate.kernel.link_question import holders
from ocgate.kernel.neighbours import Neighbour, mac_of, neighbour
from ocgate.netlab import namespace
from ocgate.netlab.inject import mac_of as own_mac
from ocgate.netlab.namespace import Namespace
from ocgate.netlab.wait import wait_until
from ocgate.plan.model import PinnedNeighbour

pytestmark = pytest.mark.kernel
Shell = Callable[[str], str]
PIN = "02:42:ac:1c:00:03"
ADDRESSES = [ip_address("172.28.0.3"), ip_address("fd00:28::3")]
families = pytest.mark.parametrize("there", ADDRESSES, ids=["IPv4", "IPv6"])


@pytest.fixture
def upstream(sh: Shell) -> Iterator[Namespace]:
    far = namespace.create(f"{namespace.next_prefix()}pinned")
    sh(
        "sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0;"
        f"ip link add near type veth peer name far netns {far.name};"
        "ip link set near up; ip addr add 172.28.0.2/24 dev near;"
        "ip addr add fd00:28::2/64 dev near"
    )
    far.sysctl("net/ipv6/conf/far/accept_dad", 0)
    far.ip("link set far up", "addr add 172.28.0.3/24 dev far", "addr add fd00:28::3/64 dev far")
    yield far
    far.close()


@families
def test_a_pin_is_permanent_and_told_when_it_is_changed(
    upstream: Namespace, sh: Shell, there: object
) -> None:
    wanted = PinnedNeighbour(there, "near", PIN)  # type: ignore[arg-type]
    neighbours.pin([wanted])
    assert neighbours.pins() == [wanted]
    assert neighbours.differing([wanted]) == []
    assert mac_of(wanted.address, "near") == PIN
    for change in (f"replace {there} lladdr 02:00:00:00:00:99 nud reachable", f"del {there}"):
        sh(f"ip neigh {change} dev near")
        assert neighbours.differing([wanted]) == [f"neighbour {wanted.text} is gone"]
        neighbours.pin([wanted])
        assert neighbours.differing([wanted]) == []
    sh(f"ip neigh add 172.28.0.9 lladdr {PIN} nud permanent dev near")
    neighbours.pin(())
    assert neighbours.pins() == []
    assert neighbour(wanted.address, "near") is Neighbour.UNKNOWN
    assert "172.28.0.9" in sh("ip neigh")  # another's


@families
def test_who_has_an_address_is_heard_whatever_is_pinned(
    upstream: Namespace, sh: Shell, there: object
) -> None:
    address = ip_address(str(there))
    far = own_mac(upstream, "far")
    neighbours.pin([PinnedNeighbour(address, "near", PIN)])
    # The first question may come before the link is up at both ends.
    wait_until(lambda: asyncio.run(holders(address, "near", wait=0.3)) == {far}, 5.0, "its MAC")
    assert mac_of(address, "near") == PIN
    nobody = ip_address("172.28.0.9" if address.version == 4 else "fd00:28::9")
    assert asyncio.run(holders(nobody, "near", wait=0.05)) == frozenset()
    assert asyncio.run(holders(address, "gone", wait=0.05)) is None
    assert asyncio.run(holders(address, "lo", wait=0.05)) in (None, frozenset())

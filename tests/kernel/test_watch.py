"""Kernel events: none lost, bursts coalesced, client tunnels apart, foreign nft commits named."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Callable

import pytest

from ocgate.kernel import watch as watch_module
from ocgate.kernel.nft import Nft
from ocgate.kernel.watch import EVERYTHING, Look, Topic, Watch

pytestmark = pytest.mark.kernel
Shell = Callable[[str], str]


def heard(
    act: Callable[[], object],
    *,
    until: Callable[[list[Look]], bool] = bool,
    is_own: Callable[[int], bool] = lambda _: False,
    seconds: float = 5.0,
) -> list[Look]:
    """The looks that follow `act`, up to the one that satisfies `until`, or all of `seconds`."""

    async def collect() -> list[Look]:
        looks: list[Look] = []
        watch = Watch(session_prefix="vpns", is_own=is_own)
        # A worker thread begun here inherits this thread's namespace.
        acting = asyncio.get_running_loop().run_in_executor(None, act)
        try:
            async with asyncio.timeout(seconds):
                async for look in watch:
                    looks.append(look)
                    if until(looks):
                        break
        except TimeoutError:
            pass
        finally:
            watch.close()
            await acting
        return looks

    return asyncio.run(collect())


def topics(looks: list[Look]) -> set[Topic]:
    return {topic for look in looks for topic in look.topics}


@pytest.mark.parametrize(
    ("command", "topic"),
    [
        ("ip link set wan0 mtu 1400", Topic.LINK),
        ("ip link add other0 type veth peer name other1", Topic.LINK),
        ("ip addr add 192.0.2.77/24 dev wan0", Topic.ADDRESS),
        ("ip addr del 2001:db8::2/64 dev wan0", Topic.ADDRESS),
        ("ip route add 10.0.0.0/8 dev wan0", Topic.ROUTE),
        ("ip route add blackhole 10.0.0.0/8", Topic.ROUTE),
        ("ip -6 route add 2001:db8:5::/64 dev wan0", Topic.ROUTE),
        ("ip rule add from 10.0.0.0/8 lookup 100", Topic.RULE),
        ("sysctl -qw net.ipv4.ip_forward=1", Topic.FORWARDING),
        ("sysctl -qw net.ipv6.conf.all.forwarding=1", Topic.FORWARDING),
        ("ip -6 rule add from fda9::/64 lookup 100", Topic.RULE),
        ("nft add table inet other", Topic.NFT),
        (
            "ip neigh add 192.0.2.9 lladdr 2:0:0:0:0:9 dev wan0;"
            "ip neigh change 192.0.2.9 nud failed dev wan0",
            Topic.NEIGHBOUR,
        ),
        (
            "ip neigh add 192.0.2.9 lladdr 2:0:0:0:0:9 dev wan0; ip neigh del 192.0.2.9 dev wan0",
            Topic.NEIGHBOUR,
        ),
    ],
)
def test_every_kind_of_change_is_heard(uplink: str, sh: Shell, command: str, topic: Topic) -> None:
    looks = heard(lambda: sh(command), until=lambda looks: topic in topics(looks))
    assert topic in topics(looks)


def test_a_foreign_commit_is_named(uplink: str, sh: Shell) -> None:
    (look,) = heard(lambda: sh("nft add table inet other"))
    assert [commit.process for commit in look.commits] == ["nft"]
    assert look.commits[0].pid > 0


def test_our_own_commits_wake_nobody(netns: object) -> None:
    nft = Nft()
    looks = heard(lambda: nft.run("add table inet ours"), is_own=nft.is_own, seconds=0.3)
    nft.close()
    assert looks == []


def test_ten_thousand_elements_are_one_event(netns: object) -> None:
    nft = Nft()
    nft.run("add table inet t\nadd set inet t s { type ipv4_addr; }")
    elements = ", ".join(f"10.1.{i >> 8}.{i & 255}" for i in range(10_000))
    looks = heard(lambda: nft.run(f"add element inet t s {{ {elements} }}"), seconds=1)
    nft.close()
    assert len(looks) == 1
    assert len(looks[0].commits) == 1
    assert not looks[0].overflow


def test_tunnels_that_go_are_named_and_wake_no_planning(sh: Shell) -> None:
    def act() -> None:
        sh(
            "for i in 0 1 2; do ip tuntap add vpns$i mode tun; ip link set vpns$i up;"
            "ip addr add 10.9.0.1 peer 10.9.0.$((i+2)) dev vpns$i; done; ip link del vpns0;"
            "ip link del vpns1; ip link del vpns2"
        )

    looks = heard(act, until=lambda looks: sum(len(look.gone) for look in looks) == 3)
    assert [name for look in looks for name in look.gone] == ["vpns0", "vpns1", "vpns2"]
    assert topics(looks) == set()


def test_tunnels_from_before_the_watch_are_known(sh: Shell) -> None:
    sh("ip tuntap add vpns7 mode tun; ip link set vpns7 up; ip addr add 10.9.0.1/32 dev vpns7")

    def act() -> None:
        sh("ip addr add 10.9.0.5/32 dev vpns7; ip route add 10.9.0.9 dev vpns7; ip link del vpns7")

    looks = heard(act, until=lambda looks: any(look.gone for look in looks))
    assert [name for look in looks for name in look.gone] == ["vpns7"]
    assert topics(looks) == set()


def test_a_tunnel_that_leaves_its_group_is_named_and_wakes_no_planning(sh: Shell) -> None:
    """One that was never in it, joins it or merely changes is not named. (Of a device that is down
    the kernel tells when it comes up.)"""
    sh("ip tuntap add vpns7 mode tun; ip link set vpns7 group 143; ip link set vpns7 up")

    def act() -> None:
        sh(
            "ip tuntap add vpns8 mode tun; ip link set vpns8 up; ip link set vpns8 group 143;"
            "ip tuntap add vpns9 mode tun; ip link set vpns9 up; ip link set vpns8 mtu 1400;"
            "ip link set vpns7 group 7; ip link set vpns8 group 0; ip link set vpns8 group 143;"
            "ip link set vpns8 group default; ip link del vpns9"
        )

    looks = heard(act, until=lambda looks: any(look.gone for look in looks))
    assert [name for look in looks for name in look.left] == ["vpns7", "vpns8", "vpns8"]
    assert topics(looks) == set()


def test_after_an_overflow_all_that_are_in_no_group_are_named(
    uplink: str, sh: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    sh("for i in 7 8; do ip tuntap add vpns$i mode tun; ip link set vpns$i group 143; done")
    monkeypatch.setattr(watch_module, "_RECEIVE", 4096)
    lines = "\n".join(f"route add 10.{i >> 8}.{i & 255}.0/24 dev wan0" for i in range(2000))

    async def collect() -> Look:
        watch = Watch(session_prefix="vpns")
        sh(f"ip -batch - <<'EOT'\n{lines}\nlink set vpns8 group 0\nEOT")
        async for look in watch:
            watch.close()
            return look
        raise AssertionError("nothing was heard")

    look = asyncio.run(collect())
    assert look.overflow
    assert set(look.left) == {"vpns8"}


def test_a_neighbour_that_does_not_answer_is_heard(uplink: str, sh: Shell) -> None:
    """Asked by a packet, as in real life; `isp0` at the other end of the pair has no address."""
    for family, address in ((4, "192.0.2.9"), (6, "2001:db8::9")):
        sh(
            f"sysctl -qw net.ipv{family}.neigh.wan0.retrans_time_ms=10;"
            f"sysctl -qw net.ipv{family}.neigh.wan0.mcast_solicit=1"
        )
        looks = heard(lambda to=address: sh(f"ping -c1 -W0.1 {to} >/dev/null || true"))  # type: ignore[misc]
        assert topics(looks) == {Topic.NEIGHBOUR}


def test_neighbours_that_answer_and_those_of_tunnels_and_bridges_wake_nobody(
    uplink: str, sh: Shell
) -> None:
    sh(
        "ip link add vpns0 type veth peer name vpns1; ip link set vpns0 up; ip link set vpns1 up;"
        "ip link add br0 type bridge; ip link add port0 type veth peer name port1;"
        "ip link set port0 master br0"
    )

    def act() -> None:
        sh(
            "ip neigh add 192.0.2.9 lladdr 2:0:0:0:0:9 nud reachable dev wan0;"
            "ip neigh change 192.0.2.9 lladdr 2:0:0:0:0:9 nud stale dev wan0;"
            "ip neigh add 10.9.0.2 lladdr 2:0:0:0:0:7 dev vpns0;"
            "ip neigh change 10.9.0.2 nud failed dev vpns0; ip neigh del 10.9.0.2 dev vpns0;"
            "bridge fdb add 2:0:0:0:0:8 dev port0 master;"
            "bridge fdb del 2:0:0:0:0:8 dev port0 master"
        )

    assert heard(act, seconds=0.3) == []


def test_a_burst_is_few_looks(uplink: str, sh: Shell) -> None:
    lines = "\n".join(f"route add 10.{i >> 8}.{i & 255}.0/24 dev wan0" for i in range(2000))
    looks = heard(lambda: sh(f"ip -batch - <<'EOT'\n{lines}\nEOT"), seconds=1)
    assert 1 <= len(looks) <= 20
    assert Topic.ROUTE in topics(looks)


def test_a_change_is_told_within_a_tenth_of_a_second(netns: object) -> None:
    nft = Nft()
    began: list[float] = []

    def act() -> None:
        began.append(time.monotonic())
        nft.run("add table inet other")

    heard(act)
    assert time.monotonic() - began[0] < 0.1
    nft.close()


def test_an_overflow_says_look_at_everything(
    uplink: str, sh: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "_RECEIVE", 4096)
    lines = "\n".join(f"route add 10.{i >> 8}.{i & 255}.0/24 dev wan0" for i in range(2000))

    async def collect() -> Look:
        watch = Watch(session_prefix="vpns")
        sh(f"ip -batch - <<'EOT'\n{lines}\nEOT")
        async for look in watch:
            watch.close()
            return look
        raise AssertionError("nothing was heard")

    look = asyncio.run(collect())
    assert look.overflow
    assert look.topics == EVERYTHING


@pytest.mark.parametrize("turns", range(4))
def test_it_ends_when_it_is_cancelled_in_the_middle_of_a_burst(
    netns: object, sh: Shell, turns: int
) -> None:
    async def run() -> None:
        watch = Watch(session_prefix="vpns", debounce=0.05)

        async def follow() -> None:
            async for _ in watch:
                pass

        following = asyncio.create_task(follow())
        await asyncio.sleep(0)
        watch._heard.set()
        await asyncio.sleep(0.01)  # it settles
        watch._heard.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        following.cancel()
        done, _ = await asyncio.wait([following], timeout=0.5)
        following.cancel()
        watch.close()
        assert done

    asyncio.run(run())


def test_close_ends_the_iteration(netns: object) -> None:
    async def run() -> None:
        watch = Watch(session_prefix="vpns")
        asyncio.get_running_loop().call_later(0.02, watch.close)
        async with asyncio.timeout(5):
            assert [look async for look in watch] == []
        watch.close()

    asyncio.run(run())


def test_an_overflow_is_heard_without_descriptors_too(
    netns: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list of tunnels can't be had then; the look must come all the same, and not with the
    next event."""

    class Full:
        def recv(self, _size: int) -> bytes:
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))

    def refused(_watch: Watch) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    watch = Watch(session_prefix="vpns")
    try:
        monkeypatch.setattr(Watch, "_learn_session_links", refused)
        with pytest.raises(OSError, match="Too many open files"):
            watch._drain(Full(), watch._hear_route)  # type: ignore[arg-type]
        assert watch._heard.is_set()
    finally:
        watch.close()

"""A tunnel's IPv6 in a network namespace that has it off: turned on where that may be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest

from ocgate.exit_node import ipv6
from ocgate.exit_node.reconciler import Open, Reconciler
from ocgate.kernel import sysctl
from ocgate.kernel.nft import Nft
from ocgate.names import TUNNEL_UID
from ocgate.tunnel.model import Carried, Endpoint, ExitIntent

pytestmark = pytest.mark.kernel
Shell = Callable[[str], str]

BASE = ExitIntent(
    "tun0",
    (),
    (ip_network("192.0.2.0/24"), ip_network("2001:db8::/64")),
    client_uid=TUNNEL_UID,
)
CARRIED = Carried(
    (ip_interface("10.8.0.2/24"), ip_interface("fd9c:41d7:58a2:8::2/64")),
    1400,
    (ip_address("10.8.0.1"), ip_address("fd9c:41d7:58a2:8::1")),
)
UP = Open(Endpoint(ip_address("198.51.100.200"), 1194, ("udp",)), CARRIED)
OFF = "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1"


@pytest.fixture
def nft(uplink: str) -> Iterator[Nft]:
    door = Nft()
    yield door
    door.close()


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """/proc/sys as docker mounts it: nothing in it can be written."""
    monkeypatch.setattr(sysctl, "_write", lambda key, value: False)
    monkeypatch.setattr(sysctl, "is_writable", lambda key: False)


def held(nft: Nft, run_dir: Path) -> Reconciler:
    async def main() -> Reconciler:
        reconciler = Reconciler(nft, run_dir, BASE)
        await reconciler.hold(Open(UP.endpoint))
        await reconciler.hold(UP)
        assert await reconciler.drift() == ()
        return reconciler

    return asyncio.run(main())


def test_it_is_turned_on_where_it_may_be(nft: Nft, sh: Shell, tmp_path: Path) -> None:
    sh(OFF)
    reconciler = held(nft, tmp_path)
    assert reconciler.intent.carries(6) and reconciler.ipv6_obstacle == ""
    assert sysctl.read("net.ipv6.conf.all.forwarding") == "1"
    assert sysctl.read("net.ipv6.conf.tun0.disable_ipv6") == "0"


def test_where_it_is_off_and_may_not_be_turned_on_the_tunnel_carries_ipv4(
    nft: Nft, sh: Shell, tmp_path: Path, read_only: None
) -> None:
    sh(f"{OFF} net.ipv4.ip_forward=1")
    reconciler = held(nft, tmp_path)
    assert reconciler.intent.carries(4) and not reconciler.intent.carries(6)
    assert "--sysctl net.ipv6.conf.all.disable_ipv6=0" in reconciler.ipv6_obstacle


def test_where_it_may_not_be_forwarded_clients_are_told(
    nft: Nft, sh: Shell, tmp_path: Path, read_only: None
) -> None:
    """Their IPv6 is rejected, and would else vanish without a word."""
    sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=0")
    reconciler = held(nft, tmp_path)
    assert not reconciler.intent.carries(6)
    assert "--sysctl net.ipv6.conf.all.forwarding=1" in reconciler.ipv6_obstacle
    assert "ipv6_not_carried" in sh("nft list chain inet ocgate_exit prerouting")


def test_a_kernel_without_ipv6_is_not_asked_for_it(tmp_path: Path) -> None:
    intent = replace(BASE, carried=CARRIED, ipv6=False)
    assert ipv6.obstacle(intent, run_dir=tmp_path) == "this kernel has no IPv6"
    assert ipv6.obstacle(replace(intent, carried=None), run_dir=tmp_path) == ""

"""The exit role's device: made before its client, the client's to open, and kept when it dies."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any

import pytest

from ocgate.errors import KernelRefused, MissingRequirement
from ocgate.kernel import tun
from ocgate.kernel.apply import apply, drift, read_table
from ocgate.kernel.nft import Nft
from ocgate.names import NFT_TABLE, NFT_TABLE_EXIT, NULL_DEVICE, TUNNEL_UID
from ocgate.netlab.kernel_state import observe
from ocgate.netlab.namespace import Namespace
from ocgate.plan.model import Plan, Table
from ocgate.plan.tunnel_device import TunnelDevice
from ocgate.tunnel.killswitch import plan
from ocgate.tunnel.model import Carried, ExitIntent

pytestmark = pytest.mark.kernel
Shell = Callable[[str], str]

BARE = TunnelDevice("tun0", TUNNEL_UID)
ADDRESSES = (ip_interface("10.8.0.2/24"), ip_interface("fd9c:41d7:58a2:8::2/64"))
UP = TunnelDevice("tun0", TUNNEL_UID, ADDRESSES, mtu=1400)
INTENT = ExitIntent("tun0", ("wan0",), (ip_network("172.28.0.0/24"),), client_uid=TUNNEL_UID)

# What a client does with a device by its name: TUNSETIFF, IFF_TUN | IFF_NO_PI.
ATTACH = """
import fcntl, os, struct, sys
tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", b"tun0", 0x1001))
"""


def attach(uid: int) -> int:
    """Exit status of a client that runs as `uid`, without any capability."""
    words = [sys.executable, "-I", "-c", ATTACH]
    return subprocess.run(
        words, user=uid, group=uid, extra_groups=[], capture_output=True
    ).returncode


def link(sh: Shell) -> dict[str, Any]:
    (found,) = json.loads(sh("ip -j -d link show tun0"))
    return dict(found)


def test_it_is_persistent_up_and_has_what_was_asked(uplink: str, sh: Shell) -> None:
    tun.ensure(UP)
    found = link(sh)
    data = found["linkinfo"]["info_data"]
    assert (data["type"], data["persist"], data["user"]) == ("tun", True, TUNNEL_UID)
    assert found["mtu"] == 1400 and "UP" in found["flags"]
    assert tun.missing(UP) == []


def test_its_addresses_bring_no_routes_into_main(uplink: str, sh: Shell) -> None:
    """A network that the other end made up must not stand beside the docker network's route."""
    before = sh("ip route; ip -6 route")
    tun.ensure(UP)
    after = sh("ip route; ip -6 route")
    assert "10.8.0.0" not in after and "fd9c:" not in after
    assert [line for line in before.splitlines() if line not in after] == []


def test_only_its_owner_opens_it_without_a_capability(uplink: str) -> None:
    tun.ensure(UP)
    assert attach(TUNNEL_UID) == 0
    assert attach(1000) != 0
    assert tun.missing(UP) == []  # the client has ended, and the device is as before


def test_ensure_twice_changes_nothing(uplink: str, sh: Shell) -> None:
    tun.ensure(UP)
    first = link(sh)
    tun.ensure(UP)
    assert link(sh) == first


def test_other_addresses_replace_those_before(uplink: str, sh: Shell) -> None:
    """In one network, too, where deleting the first address would take the second along."""
    tun.ensure(UP)
    index = link(sh)["ifindex"]
    other = TunnelDevice("tun0", TUNNEL_UID, (ip_interface("10.8.0.9/24"),), mtu=1500)
    tun.ensure(other)
    assert tun.missing(other) == []
    assert sorted(tun.missing(UP)) == [
        "device tun0 has 10.8.0.9/24",
        "device tun0 has mtu 1500; expected 1400",
        "device tun0 lacks 10.8.0.2/24",
        "device tun0 lacks fd9c:41d7:58a2:8::2/64",
    ]
    tun.ensure(BARE)
    assert tun.missing(BARE) == []
    assert link(sh)["ifindex"] == index


DAMAGE = {
    "deleted": "ip link delete tun0",
    "down": "ip link set tun0 down",
    "another's": "ip link delete tun0; ip tuntap add tun0 mode tun user 1000; ip link set tun0 up",
    "root's": "ip link delete tun0; ip tuntap add tun0 mode tun; ip link set tun0 up",
    "a tap": f"ip link delete tun0; ip tuntap add tun0 mode tap user {TUNNEL_UID}",
    "no tun": "ip link delete tun0; ip link add tun0 type bridge; ip link set tun0 up",
    "no tun, and down": "ip link delete tun0; ip link add tun0 type veth peer name tun9",
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_told_and_undone(uplink: str, sh: Shell, kind: str) -> None:
    tun.ensure(UP)
    sh(DAMAGE[kind])
    assert tun.missing(UP) != []
    tun.ensure(UP)
    assert tun.missing(UP) == []
    assert attach(TUNNEL_UID) == 0


def test_ipv6_is_turned_on_where_it_is_off(uplink: str, sh: Shell) -> None:
    """Docker turns it off on networks without IPv6; the tunnel's is its own affair."""
    sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1")
    tun.ensure(BARE)
    tun.ensure(UP)
    assert tun.missing(UP) == []
    assert tun.allow_ipv6("tun0")
    assert sh("sysctl -n net.ipv6.conf.wan0.disable_ipv6") == "1\n"


def test_a_device_that_is_not_there_has_no_ipv6(uplink: str) -> None:
    assert not tun.allow_ipv6("absent0")


def test_an_address_that_the_kernel_refuses_is_told_with_the_command(uplink: str) -> None:
    """A multicast address, which no device takes."""
    bad = TunnelDevice("tun0", TUNNEL_UID, (ip_interface("ff02::7/128"),))
    with pytest.raises(KernelRefused, match=r"ip address add ff02::7/128 dev tun0"):
        tun.ensure(bad)


def test_wireguard_is_made_or_its_lack_is_named(uplink: str, sh: Shell) -> None:
    device = TunnelDevice("wg0", None, ADDRESSES, mtu=1420)
    try:
        tun.ensure(device)
    except MissingRequirement as lacking:
        assert "WireGuard" in str(lacking)
        assert "wg0" not in sh("ip -br link")
    else:
        assert tun.missing(device) == []


def test_the_device_of_another_kind_of_tunnel_is_removed(uplink: str, sh: Shell) -> None:
    """... and one of that name that somebody else made is not."""
    tun.ensure(TunnelDevice("wg0", TUNNEL_UID))
    assert tun.sweep(BARE) == ["device wg0"]
    sh("ip tuntap add wg0 mode tun user 1000")
    assert tun.sweep(BARE) == []


# --- beside the server role ---------------------------------------------------------------------


@pytest.fixture
def nft(uplink: str) -> Iterator[Nft]:
    door = Nft()
    yield door
    door.close()


def test_a_server_that_starts_beside_a_kill_switch_leaves_its_table(
    nft: Nft, tmp_path: Path
) -> None:
    """Failing closed is better than opening what another was to keep closed."""
    apply(nft, plan(INTENT), {}, run_dir=tmp_path)
    server = Plan(tables=(Table(NFT_TABLE, ()),), routes=(), rules=(), sysctls=())
    apply(nft, server, {}, run_dir=tmp_path)
    assert read_table(nft, NFT_TABLE_EXIT) is not None


def test_an_exit_removes_what_a_server_left(nft: Nft, sh: Shell, tmp_path: Path) -> None:
    sh(f"nft add table inet {NFT_TABLE}; nft add table inet ocserv_gw")
    sh(f"ip tuntap add {NULL_DEVICE} mode tun; ip rule add pref 900 lookup 100 protocol 143")
    made = apply(nft, plan(INTENT), {}, run_dir=tmp_path)
    assert read_table(nft, NFT_TABLE) is None and read_table(nft, "ocserv_gw") is None
    assert NULL_DEVICE not in sh("ip -br link") and "900:" not in sh("ip rule")
    assert drift(nft, made, {}) == ()


def test_a_namespace_with_ipv6_off_takes_every_state(
    nft: Nft, sh: Shell, netns: Namespace, tmp_path: Path
) -> None:
    """Its rules and routes stand all the same: it may be turned on later."""
    sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1")
    for carried in (None, Carried(ADDRESSES[:1], 1500), Carried(ADDRESSES, 1500)):
        intent = ExitIntent("tun0", (), INTENT.forward_from, client_uid=TUNNEL_UID, carried=carried)
        made = apply(nft, plan(intent), {}, run_dir=tmp_path)
        assert drift(nft, made, {}) == ()
    state = observe(netns)
    assert apply(nft, plan(intent), {}, run_dir=tmp_path) == made
    assert state.differences(observe(netns)) == []

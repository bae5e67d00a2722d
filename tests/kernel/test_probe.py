"""The egress probe: any TCP answer of the target is egress, whatever ICMP or silence says is not.

[probe's namespace] va 192.0.2.1, 2001:db8::1 ─── vb 192.0.2.2, 2001:db8::2 [router]
                                                  lo 203.0.113.1, 2001:db8:1::1 (the target)
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from ipaddress import ip_address

import pytest

from ocgate.kernel.probe import ProbeResult, probe
from ocgate.kernel.way import Target, TcpTarget

pytestmark = pytest.mark.kernel
Shell = Callable[[str], str]
Far = Callable[[str], None]

TARGETS = [TcpTarget(ip_address(a), 443) for a in ("203.0.113.1", "2001:db8:1::1")]
families = pytest.mark.parametrize("target", TARGETS, ids=["IPv4", "IPv6"])


@pytest.fixture
def far(sh: Shell) -> Iterator[Far]:
    """The router's namespace: a function that runs shell lines there."""
    holder = subprocess.Popen(
        ["unshare", "-n", "sh", "-c", "echo; exec sleep 60"], stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    holder.stdout.readline()

    def run(lines: str) -> None:
        command = ["nsenter", "-t", str(holder.pid), "-n", "sh", "-e"]
        subprocess.run(command, input=lines, text=True, check=True)

    sh(
        f"ip link add va type veth peer name vb netns {holder.pid}; ip link set va up;"
        "ip addr add 192.0.2.1/24 dev va; ip addr add 2001:db8::1/64 dev va nodad;"
        "ip route add default via 192.0.2.2; ip -6 route add default via 2001:db8::2"
    )
    run(
        "ip link set lo up; ip link set vb up;"
        "ip addr add 192.0.2.2/24 dev vb; ip addr add 2001:db8::2/64 dev vb nodad;"
        "ip addr add 203.0.113.1/32 dev lo; ip addr add 2001:db8:1::1/128 dev lo;"
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1;"
        "nft add table inet t; nft add chain inet t c '{type filter hook input priority 0;}'"
    )
    yield run
    holder.kill()
    holder.wait()
    holder.stdout.close()


def ask(*targets: Target, timeout: float = 5.0, **options: object) -> ProbeResult:
    return asyncio.run(probe(targets, timeout=timeout, **options))  # type: ignore[arg-type]


@families
def test_a_closed_port_is_egress(far: Far, target: Target) -> None:
    result = ask(target)
    assert result.ok
    assert result.target == target
    assert "answered (port closed)" in result.reason
    assert result.seconds < 4


@families
def test_an_open_port_is_egress(far: Far, target: Target) -> None:
    """The DNAT target of the router's own listener stands for any server."""
    far(
        "nft add chain inet t n '{type nat hook prerouting priority -100;}';"
        "nft add rule inet t n tcp dport 443 redirect to :4443;"
        "python3 -c 'import socket, os\n"
        's = socket.create_server(("::", 4443), family=socket.AF_INET6, dualstack_ipv6=True)\n'
        "os.fork() and os._exit(0)\n"
        "s.settimeout(20)\n"
        "s.accept()' </dev/null >/dev/null 2>&1"
    )
    result = ask(target)
    assert result.ok
    assert result.reason.endswith("answered")


@families
@pytest.mark.parametrize("how", ["reject", "reject with icmpx type admin-prohibited"])
def test_an_icmp_error_is_no_egress_and_names_its_sender(
    far: Far, target: Target, how: str
) -> None:
    """`reject` answers port unreachable, which connect(2) calls refused as it calls an RST."""
    far(f"nft add rule inet t c tcp dport 443 {how}")
    result = ask(target)
    assert not result.ok
    assert f"says {target.address} by ICMP" in result.reason


@families
def test_a_router_without_a_route_is_no_egress(far: Far, target: Target) -> None:
    beyond = ip_address("198.51.100.9" if target.address.version == 4 else "2001:db8:9::9")
    result = ask(TcpTarget(beyond, 443))
    assert not result.ok
    assert "Network is unreachable, says " in result.reason


@families
def test_silence_is_no_egress(far: Far, target: Target) -> None:
    far("nft add rule inet t c tcp dport 443 drop")
    result = ask(target, timeout=0.2)
    assert not result.ok
    assert "timed out" in result.reason
    assert 0.2 <= result.seconds < 3


@families
def test_without_a_default_route_nothing_is_sent(netns: object, target: Target) -> None:
    result = ask(target)
    assert not result.ok
    assert result.reason == f"no IPv{target.address.version} default route"


def test_one_answer_among_silent_targets_is_enough_and_not_waited_for(far: Far) -> None:
    far("nft add rule inet t c ip6 daddr 2001:db8:1::7 drop; ip addr add 2001:db8:1::7/128 dev lo")
    silent = TcpTarget(ip_address("2001:db8:1::7"), 443)
    result = ask(silent, TARGETS[1], timeout=30)
    assert result.ok
    assert result.target == TARGETS[1]
    assert result.seconds < 10


def test_all_reasons_are_given(far: Far) -> None:
    far("nft add rule inet t c tcp dport 443 reject")
    result = ask(*TARGETS)
    assert "203.0.113.1:443: Connection refused, says 203.0.113.1 by ICMP" in result.reason
    assert "[2001:db8:1::1]:443: Connection refused" in result.reason


def test_it_goes_the_way_of_its_mark_device_and_source(far: Far, sh: Shell) -> None:
    sh(
        "ip -6 route del default; ip -6 rule add fwmark 0x7 lookup 70;"
        "ip -6 route add default via 2001:db8::2 table 70"
    )
    assert not ask(TARGETS[1]).ok
    assert ask(TARGETS[1], mark=7).ok
    assert ask(TARGETS[1], mark=7, device="va", source=ip_address("2001:db8::1")).ok


def test_what_this_host_cannot_do_is_a_reason_not_an_exception(far: Far) -> None:
    assert "No such device" in ask(TARGETS[1], device="nope").reason
    assert "Cannot assign" in ask(TARGETS[1], source=ip_address("2001:db8:77::1")).reason
    assert ask().reason == "no probe target is configured"


def test_a_blackhole_here_is_said_to_be_here(far: Far, sh: Shell) -> None:
    sh("ip -6 route add prohibit 2001:db8:1::/64")
    assert "this host may not send there: Permission denied" in ask(TARGETS[1]).reason

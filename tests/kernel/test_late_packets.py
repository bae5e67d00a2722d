"""What a stop of gateway mode waits for behind the guard, and the sysctls it sets meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path

import pytest

from ocgate.kernel import closing, sysctl
from ocgate.kernel.apply import apply
from ocgate.kernel.nft import Nft
from ocgate.names import SYSCTLS_BEFORE
from ocgate.netlab.namespace import Namespace
from ocgate.netlab.packet import build_udp
from ocgate.plan.closing import REFLECT, Wait
from ocgate.plan.closing import closing as planned
from ocgate.plan.exits import Exit, ExitKind, FormerAddress, Steering
from ocgate.plan.intent import Intent, Wan
from ocgate.plan.ipv6 import Ipv6Path
from ocgate.plan.planner import plan
from ocgate.plan.sysctls import Sysctl
from ocgate.prove.tun import open_tun
from ocgate.sessions.elements import NO_SESSIONS

pytestmark = pytest.mark.kernel

OWN, OWN6 = ip_address("192.0.2.2"), ip_address("2001:db8::2")
# IPv4 leaves by a gateway on the very device by which IPv6 leaves directly.
INTENT = Intent(
    device="vpns",
    subnets4=(IPv4Network("10.10.10.0/24"),),
    subnets6=(IPv6Network("fd00:7::/64"),),
    prefix6=128,
    gateways=(ip_address("10.10.10.1"),),
    resolvers=(),
    tcp_ports=(443,),
    mss=None,
    wan4=Wan("wan0", 1500),
    wan6=Wan("wan0", 1500),
    ipv6=Ipv6Path.NAT66,
    ports=(10240, 32767),
    steering=Steering(
        exit4=Exit(4, ExitKind.GATEWAY, "wan0", ip_address("192.0.2.3"), own=(OWN,)),
        exit6=Exit(6, ExitKind.DIRECT, "wan0"),
        table=100,
        priority=1000,
        exclusive=True,
        strays=(FormerAddress("wan0", OWN),),
    ),
)
LATE4 = build_udp("198.51.100.10", str(OWN), 53, 20000, b"late")
LATE6 = build_udp("2001:db8:1::10", str(OWN6), 53, 20000, b"late")


@pytest.fixture
def wan(netns: Namespace) -> Iterator[int]:
    """The descriptor of wan0: what is written to it arrives by it."""
    descriptor = open_tun(netns, "wan0")
    netns.ip("link set wan0 up", f"address add {OWN}/24 dev wan0")
    netns.ip(f"address add {OWN6}/64 dev wan0 nodad", v6=True)
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize(
    ("packet", "seconds", "counts"), [(LATE4, 1.0, True), (LATE6, 0.2, False)], ids=["4", "6"]
)
def test_a_stop_waits_for_packets_of_a_gateway_s_family_alone(
    wan: int, tmp_path: Path, packet: bytes, seconds: float, counts: bool
) -> None:
    """IPv4, the gateway's, is the positive control."""
    nft = Nft()
    apply(nft, plan(INTENT), NO_SESSIONS, run_dir=tmp_path)
    wanted = planned(INTENT, Wait(least=0.1, quiet=0.2, most=1.0))
    assert wanted is not None
    passed = 0.0

    def sleep(given: float) -> None:
        nonlocal passed
        passed += given
        os.write(wan, packet)

    came = closing.wait(nft, wanted, run_dir=tmp_path, clock=lambda: passed, sleep=sleep)
    assert passed == pytest.approx(seconds, abs=0.06)
    assert (came > 0) == counts


_LENDS = """
import sys, time
from pathlib import Path
from ocgate.kernel import sysctl
from ocgate.plan.closing import REFLECT
with sysctl.lent(REFLECT, run_dir=Path(sys.argv[1])):
    print("lent", flush=True)
    time.sleep(60)
"""

FORWARD = Sysctl("net.ipv4.ip_forward", "1", "a test")


def reflected() -> list[str | None]:
    return [sysctl.read(wish.key) for wish in REFLECT]


@pytest.mark.parametrize("before", ["0", "1"])
def test_what_a_stop_lends_reads_afterwards_as_before(
    netns: Namespace, tmp_path: Path, before: str
) -> None:
    for wish in REFLECT:
        netns.sysctl(wish.key, before)
    with sysctl.lent(REFLECT, run_dir=tmp_path):
        assert reflected() == ["1", "1"]
    assert reflected() == [before, before]
    assert not (tmp_path / SYSCTLS_BEFORE).exists()


def _put_back(run_dir: Path) -> None:
    sysctl.put_back((wish.key for wish in REFLECT), run_dir=run_dir)


def _restore(run_dir: Path) -> None:
    sysctl.restore(run_dir=run_dir)


@pytest.mark.parametrize("by", [_put_back, _restore], ids=["the next start", "another stop"])
def test_a_killed_stop_leaves_the_record_of_what_it_lent(
    netns: Namespace, tmp_path: Path, by: Callable[[Path], None]
) -> None:
    sysctl.ensure([FORWARD], run_dir=tmp_path)  # of a run before, whose stop failed there
    with subprocess.Popen(
        [sys.executable, "-c", _LENDS, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "lent\n"
        child.kill()
    assert reflected() == ["1", "1"]
    by(tmp_path)
    assert reflected() == ["0", "0"]
    assert sysctl.read(FORWARD.key) == ("1" if by is _put_back else "0")
    sysctl.restore(run_dir=tmp_path)
    assert sysctl.read(FORWARD.key) == "0"


def test_nothing_is_lent_that_can_t_be_recorded(netns: Namespace, tmp_path: Path) -> None:
    """Late packets are then dropped by the guard: no word is better than one by the ISP."""
    with sysctl.lent(REFLECT, run_dir=tmp_path / "gone"):
        assert reflected() == ["0", "0"]

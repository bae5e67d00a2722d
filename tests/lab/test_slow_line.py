"""An exit behind a slow line that its users fill: alive while it carries, and down when it ends.

    neighbour1 -- exit ===(OpenVPN)=== [slow line: 2 Mbit/s, 2 s of buffer, 2% lost] === provider

The line is a relay beside the provider (lab.slow_line); the exit's probes and its users' downloads
share it, as they share a home's uplink.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time

import pytest

from lab.addresses import Host
from lab.cgroup import UNLIMITED, Cgroup, NoCgroup
from lab.slow_line import Line
from lab.streams import TcpDownload, UdpStream
from lab.topology import SERVICE, Lab
from ocgate.netlab.packet import SYN, build_tcp
from ocgate.netlab.wait import wait_until
from support.exit_node import Ground, LabFactory, frozen, ground
from support.slow_tunnel import FILLED, TWO_MBIT, dropped, slowed

pytestmark = pytest.mark.lab

# Of these nobody answers DNS: that is refused each time, and no outage.
PROBES = {
    "EXIT_PROBE": f"{SERVICE}:443, dns:{SERVICE}, icmp:{SERVICE}",
    "EXIT_PROBE_INTERVAL": "1",
}


def behind(lab: LabFactory, line: Line, *, wait: bool = True, **environ: str) -> Ground:
    """The exit, whose provider is reached by that line."""

    def relayed(built: Lab) -> None:
        built.upstream.netns.sysctl("net/ipv4/ping_group_range", "0 2147483647")  # as docker does
        slowed(built, line)

    return ground(lab, environ=PROBES | environ, between=relayed, wait=wait)


def downloads(g: Ground, count: int) -> list[TcpDownload]:
    return [g.lab.own(TcpDownload(g.user.netns, SERVICE, size=10**8)) for _ in range(count)]


def probe(g: Ground) -> str:
    return str(g.exit.status()["probe"]["state"])


def watched(g: Ground, seconds: float) -> set[str]:
    """The tunnel's and the probes' states in that time."""
    states: set[str] = set()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        status = g.exit.status()
        found = {status["tunnel"]["state"], f"probes: {status['probe']['state']}"}
        if found - states:
            print(found, status["probe"]["why"])
        states |= found
        time.sleep(0.5)
    return states


@pytest.mark.parametrize("count", [1, 6, 16])
def test_downloads_that_fill_the_line_are_no_outage(lab: LabFactory, count: int) -> None:
    """No change of state, each download goes on, and the tunnel is the first one."""
    g = behind(lab, Line(TWO_MBIT, loss=0.02))
    wait_until(lambda: probe(g) == "up", 10.0, "the first answer")
    running = downloads(g, count)
    assert watched(g, FILLED) == {"up", "probes: up"}
    before = [each.bytes_received for each in running]
    assert watched(g, FILLED / 2) == {"up", "probes: up"}
    went_on = sum(each.bytes_received > got for each, got in zip(running, before, strict=True))
    print(f"{went_on} of {count} went on; {sum(before)} bytes in {FILLED} s")
    assert went_on >= count * 0.75  # 2 Mbit/s for 16 of them: one of them may stand for 10 s
    assert g.exit.status()["tunnel"]["attempts"] == 1


def test_a_stream_sent_into_a_full_line_is_no_outage(lab: LabFactory) -> None:
    """Nothing comes back of it, and probes are late or lost: twice what the line carries."""
    g = behind(lab, Line(TWO_MBIT, loss=0.02))
    wait_until(lambda: probe(g) == "up", 10.0, "the first answer")
    g.provider.host.netns.nft(dropped("udp dport 9"))
    stream = g.lab.own(UdpStream(g.user.netns, SERVICE, rate=400, size=1200, port=9))
    assert watched(g, FILLED) == {"up", "probes: up"}
    assert stream.tally.sent > 1000
    assert g.exit.status()["tunnel"]["attempts"] == 1


@pytest.mark.parametrize("interval", ["1", "0.1"])
@pytest.mark.parametrize("count", [0, 6], ids=["idle", "under 6 downloads"])
def test_a_line_that_ends_is_noticed(lab: LabFactory, count: int, interval: str) -> None:
    line = Line(TWO_MBIT)
    g = behind(lab, line, EXIT_PROBE_INTERVAL=interval)
    wait_until(lambda: probe(g) == "up", 10.0, "the first answer")
    running = downloads(g, count)
    if running:
        wait_until(lambda: sum(each.bytes_received for each in running) > 10**6, 15.0, "their load")
    began = time.monotonic()
    line.dead = True
    wait_until(lambda: probe(g) == "down", 15.0, "the verdict")
    seconds, why = time.monotonic() - began, g.exit.status()["probe"]["why"]
    print(f"down after {seconds:.2f} s, {count} downloads, interval {interval}: {why}")
    line.dead = False
    wait_until(lambda: probe(g) == "up", 15.0, "the line to be alive again")
    wait_until(lambda: g.leaves_by_the_provider(), 10.0, "the user's traffic")
    assert g.exit.status()["tunnel"]["attempts"] == 1  # nobody remade what was not broken


def test_a_target_that_is_blocked_behind_the_provider_is_no_outage(lab: LabFactory) -> None:
    g = behind(lab, Line(TWO_MBIT * 10))
    g.provider.host.netns.nft(dropped("tcp dport 443"))
    assert watched(g, FILLED / 2) == {"up", "probes: up"}
    assert g.leaves_by_the_provider()
    assert g.exit.status()["tunnel"]["attempts"] == 1


def test_users_traffic_speaks_for_a_tunnel_whose_every_target_is_blocked(lab: LabFactory) -> None:
    """`EXIT_PROBE` names what never answers: an idle tunnel is doubted, one that carries is not."""
    g = behind(lab, Line(TWO_MBIT * 10), wait=False, EXIT_PROBE="198.51.100.99:443")
    g.exit.wait_state("up")
    wait_until(g.leaves_by_the_provider, 5.0, "the tunnel")
    running = downloads(g, 1)
    wait_until(lambda: probe(g) == "up", 15.0, "its traffic to be heard")
    assert watched(g, FILLED / 2) == {"up", "probes: up"}
    assert running[0].bytes_received
    assert "came back in the last" in g.exit.status()["probe"]["why"]


# --- what an exit itself has to bear -------------------------------------------------------------


class SynFlood:
    """SYNs of a user to port after port, each the first packet of a flow, until closed.
    rate: packets a second."""

    def __init__(self, user: Host, *, rate: int) -> None:
        with user.netns.entered():
            self._raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._source, self._rate = str(user.address), rate
        self.sent = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="SYN flood")
        self._thread.start()

    def close(self) -> None:
        """Twice is fine."""
        self._closing.set()
        self._thread.join()
        self._raw.close()

    def _work(self) -> None:
        began = time.monotonic()
        while not self._closing.wait(0.005):
            for _ in range(int((time.monotonic() - began) * self._rate) - self.sent):
                ports = 1024 + self.sent % 60000, 1024 + self.sent // 60000
                syn = build_tcp(self._source, SERVICE, *ports, flags=SYN)
                with contextlib.suppress(OSError):  # rejected at once: also fine
                    self._raw.sendto(syn, (str(SERVICE), 0))
                self.sent += 1


@pytest.mark.parametrize("answered", [True, False], ids=["refused", "dropped"])
def test_a_flood_of_syns_by_a_user_is_no_outage(lab: LabFactory, *, answered: bool) -> None:
    """More than the line carries (52 bytes each, beside OpenVPN's 50): probes have to pass it."""
    g = behind(lab, Line(TWO_MBIT))
    wait_until(lambda: probe(g) == "up", 10.0, "the first answer")
    if not answered:
        g.provider.host.netns.nft(dropped(f"ip daddr {SERVICE} tcp dport 1024-65535"))
    flood = g.lab.own(SynFlood(g.user, rate=4000))
    assert watched(g, FILLED) == {"up", "probes: up"}
    assert flood.sent > 20_000
    assert "does not answer" not in g.exit.output
    assert g.exit.status()["tunnel"]["attempts"] == 1


@pytest.mark.parametrize("count", [0, 6], ids=["idle", "under 6 downloads"])
@pytest.mark.parametrize("interval", ["1", "0.1"])
def test_a_control_that_gets_no_processor_is_no_outage(
    lab: LabFactory, count: int, interval: str
) -> None:
    """It stands still for 3 s, several times: its own late wake-ups are no lost probes."""
    g = behind(lab, Line(TWO_MBIT), EXIT_PROBE_INTERVAL=interval)
    wait_until(lambda: probe(g) == "up", 10.0, "the first answer")
    running = downloads(g, count)
    for _ in range(3):
        with frozen(g.exit):
            time.sleep(3.0)
        assert watched(g, 2.0) == {"up", "probes: up"}
    assert "does not answer" not in g.exit.output
    assert g.exit.status()["tunnel"]["attempts"] == 1
    assert all(each.running() for each in running)


def cpu_group() -> Cgroup:
    try:
        return Cgroup("cpu")
    except NoCgroup as error:
        required = os.environ.get("CI") == "true" or os.environ.get("OCGATE_REQUIRE_ALL") == "1"
        (pytest.fail if required else pytest.skip)(str(error))


def test_a_control_with_a_hundredth_of_a_processor_is_no_outage(lab: LabFactory) -> None:
    group = cpu_group()
    g = behind(lab, Line(TWO_MBIT), EXIT_PROBE_INTERVAL="0.1")
    wait_until(lambda: probe(g) == "up", 10.0, "the first answer")
    g.lab.own(group)
    group.add([g.exit.control_pid()])
    group.most_cpu(0.01)
    downloads(g, 3)
    time.sleep(FILLED)
    group.most_cpu(UNLIMITED)
    assert watched(g, 2.0) == {"up", "probes: up"}
    assert "does not answer" not in g.exit.output
    assert g.exit.status()["tunnel"]["attempts"] == 1

"""Control under want, with the real thing: memory, processes, CPU and a clock that is set.

client1, client2 ==== inet ==== router -- gw (ocgate, ocserv)     support.gateway_mode draws it
                       |                  |
                    provider ========= upstream

The limits are those of a container: a cgroup of the lab's own around gw's processes. While each
lasts alice's stream goes on by the exit, nothing goes by the ISP (which the captures would see),
who is refused is refused with a reason, and status and healthcheck say why; when it ends nothing
has to be restarted.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

from lab import gateway
from lab.capture import now
from lab.cgroup import UNLIMITED, Cgroup, NoCgroup
from lab.client import Client, Refused
from lab.gateway import Gateway
from lab.streams import UdpStream
from lab.topology import SERVICE, Lab, Options
from lab.traffic import ask_udp
from ocgate.netlab.program import Mount
from ocgate.netlab.wait import wait_until
from support import exit_node as exits
from support.gateway_mode import Chain, chain
from support.leak_captures import LabFactory
from support.lifecycle import elements, log_in, ocgate, operator_conf, sessions, two_clients

pytestmark = pytest.mark.lab

# s6-supervise waits so long after a fork that the kernel refused, and some seconds are the start's.
FORK_AGAIN_SECONDS = 75.0

BACK_SECONDS = 20.0  # control's start, with s6's pause of 5 s after many deaths in a row


@dataclass
class Served:
    """alice is in, and her stream goes on."""

    g: Chain
    alice: Client
    stream: UdpStream
    may_lose: bool = False

    @property
    def gw(self) -> Gateway:
        return self.g.gateway

    def goes_on(self) -> None:
        """Her packets still come back."""
        self.stream.wait_for(len(self.stream.tally.received) + 50, 10.0)

    def repairs(self) -> None:
        """A table that somebody deletes is back; until then her packets are turned away."""
        self.may_lose = True
        self.gw.netns.nft("delete table inet ocserv")
        self.g.wait_guarded()
        self.goes_on()

    def refused(self) -> None:
        """bob is not let in, and nothing of him stays."""
        with pytest.raises(Refused):
            self.g.connect(1, "bob")
        self.goes_on()
        assert len(elements(self.gw)) == 1

    def unhealthy(self, *reasons: str) -> None:
        """healthcheck and status fail, and both say why."""
        for command in ("healthcheck", "status"):
            done = ocgate(self.gw, command)
            said = " ".join((done.stdout + done.stderr).split())
            assert done.returncode == 1
            assert any(reason in said for reason in reasons), said
            assert "Traceback" not in said

    def healthy_again(self, timeout: float = BACK_SECONDS) -> None:
        """By itself; alice's session is there, and bob gets in."""

        def healthy() -> bool:
            status = self.gw.status_or_none()
            return status is not None and bool(status["healthy"])

        wait_until(healthy, timeout, "its health")
        assert [session["user"] for session in sessions(self.gw)] == ["alice"]
        self.g.wait_up()
        assert ask_udp(self.g.connect(1, "bob").netns, SERVICE, timeout=5.0)
        assert len(elements(self.gw)) == 2
        self.goes_on()


@contextmanager
def watched(lab: LabFactory) -> Iterator[Served]:
    """A gateway with alice in. Until the end nothing goes by the ISP and her stream loses nothing;
    the captures have shown before that they would see it."""
    g = chain(lab, Options(upstream=True, clients=2))
    alice = g.connect(0, "alice")
    g.prove_leaks_are_seen(alice)
    began = now()
    with UdpStream(alice.netns, SERVICE, rate=100) as stream:
        stream.wait_for(20)
        served = Served(g, alice, stream)
        yield served
    g.assert_nothing_by_isp(began)
    assert served.may_lose or stream.tally.lost == 0
    assert "Traceback" not in g.gateway.output


@contextmanager
def limited(lab: LabFactory, controller: str) -> Iterator[tuple[Served, Cgroup]]:
    """The same, and a cgroup for what shall be limited."""
    group = cgroup(controller)
    with watched(lab) as served:
        served.g.lab.own(group)
        yield served, group


def cgroup(controller: str) -> Cgroup:
    try:
        return Cgroup(controller)
    except NoCgroup as error:
        lacking(str(error))


def lacking(what: str) -> NoReturn:
    required = os.environ.get("CI") == "true" or os.environ.get("OCGATE_REQUIRE_ALL") == "1"
    (pytest.fail if required else pytest.skip)(what)


def parent(pid: int) -> int:
    """Of control: its supervisor, which starts the next one."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])


def tasks(pid: int) -> int:
    """Its threads, the first one too."""
    return sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())


def limit(pid: int, *words: str) -> None:
    subprocess.run(["prlimit", f"--pid={pid}", *words], check=True)


def said(gw: Gateway, text: str, times: int = 1, timeout: float = 10.0) -> None:
    wait_until(lambda: gw.output.count(text) >= times, timeout, f"{times} times {text!r}")


# --- memory --------------------------------------------------------------------------------------


def test_no_memory_for_control(lab: LabFactory) -> None:
    """The kernel's OOM killer ends control and each that follows it."""
    with limited(lab, "memory") as (served, group):
        gw = served.gw
        group.add([parent(gw.pid())])
        group.most_memory(8 << 20)  # Python alone takes three times as much
        gw.kill()
        said(gw, "control was ended by signal 9 (SIGKILL: by somebody, or by the kernel", times=3)
        served.unhealthy("The control plane does not answer")
        served.refused()
        assert "refused: control is not reachable" in gw.output
        group.most_memory(UNLIMITED)
        served.healthy_again()


def test_memory_that_is_refused(lab: LabFactory) -> None:
    """Every allocation that needs more from the kernel fails, in control and what it starts: it
    stays, and says of what it could not ask that it could not."""
    with watched(lab) as served:
        gw, control = served.gw, served.gw.pid()
        limit(control, "--as=1:", "--data=1:")
        served.unhealthy("whether ocserv runs can't be asked: asking for ocserv: s6-svstat")
        reloaded = ocgate(gw, "reload")
        assert reloaded.returncode == 1
        assert "Asking ocserv for its version: it said" in reloaded.stderr
        served.repairs()
        limit(control, "--as=unlimited:", "--data=unlimited:")
        served.healthy_again()
        assert ocgate(gw, "reload").returncode == 0
        assert gw.pid() == control


# --- processes -----------------------------------------------------------------------------------


def test_no_processes(lab: LabFactory) -> None:
    """A pids limit that is reached: ocserv turns logins away, a reload changes nothing, and control
    goes on and repairs."""
    with limited(lab, "pids") as (served, group):
        gw, control = served.gw, served.gw.pid()
        group.add(gw.netns.pids())
        group.most_tasks(group.count())
        served.refused()
        assert "fork failed" in gw.output  # ocserv's own word for it
        served.unhealthy("s6-svstat can't be started: Resource temporarily unavailable")
        reloaded = ocgate(gw, "reload")
        assert reloaded.returncode == 1
        assert "Running ocserv: Resource temporarily unavailable" in reloaded.stderr
        served.repairs()
        group.most_tasks(UNLIMITED)
        served.healthy_again()
        assert gw.pid() == control


def test_a_control_that_finds_room_for_some_of_its_threads(lab: LabFactory) -> None:
    """It comes back with what it can have, keeps the sessions, and takes the rest later."""
    with limited(lab, "pids") as (served, group):
        gw, former = served.gw, served.gw.pid()
        threads = tasks(former)
        group.add(gw.netns.pids())
        group.most_tasks(group.count() - threads + 5)
        gw.kill()
        wait_until(lambda: gw.status_or_none(), FORK_AGAIN_SECONDS, "control to answer")
        assert tasks(gw.pid()) < threads
        assert [session["user"] for session in sessions(gw)] == ["alice"]
        served.repairs()
        group.most_tasks(UNLIMITED)
        served.healthy_again()


# --- CPU -----------------------------------------------------------------------------------------


class Burners:
    """Programs at normal priority that take all the CPU they get."""

    def __init__(self, number: int) -> None:
        words = ("sh", "-c", "while :; do :; done")
        self._running = [subprocess.Popen(words) for _ in range(number)]

    def pids(self) -> list[int]:
        return [one.pid for one in self._running]

    def close(self) -> None:
        for one in self._running:
            one.kill()
            one.wait()


def test_no_cpu_for_control(lab: LabFactory) -> None:
    """30 busy programs share a hundredth of one CPU with control: who logs in waits 5 s for a
    verdict and is refused."""
    with limited(lab, "cpu") as (served, group):
        gw, control = served.gw, served.gw.pid()
        burners = served.g.lab.own(Burners(30))
        group.add([control, *burners.pids()])
        group.most_cpu(0.01)
        served.refused()
        assert "refused: no verdict from control in 5 s" in gw.output
        checked = ocgate(gw, "healthcheck")
        assert checked.returncode == 1
        assert "does not answer" in checked.stdout
        group.most_cpu(UNLIMITED)  # first, because it takes CPU to end
        burners.close()
        served.healthy_again()
        assert gw.pid() == control


# --- a clock that is set -------------------------------------------------------------------------

HOUR, DAY = 3600, 86400
LIBRARY = [*Path("/usr/lib").glob("*/faketime/libfaketime.so.1")]


class Clock:
    """The wall's clock of ocserv, which libfaketime reads from a file at each look; monotonic
    clocks and files' times stay the kernel's. Python's own can't be set so: of its sleeps (since
    3.11 by the monotonic clock) libfaketime 0.9.10 makes errors."""

    def __init__(self, lab: Lab) -> None:
        self._offset, self._directory = lab.path("offset"), lab.path("faketime")
        self.set(0)
        self._directory.mkdir()
        for program in ("ocserv", "ocserv-worker"):  # main looks for the worker beside itself
            shutil.copy(Path("/usr/sbin", program), self._directory)
        words = (
            f"LD_PRELOAD={LIBRARY[0]} FAKETIME_TIMESTAMP_FILE={self._offset} FAKETIME_NO_CACHE=1"
        )
        words += " FAKETIME_DONT_FAKE_MONOTONIC=1 NO_FAKE_STAT=1"
        start = self._directory / "start"
        start.write_text(f'#!/bin/sh\nexec env {words} {self._directory}/ocserv "$@"\n')
        start.chmod(0o755)
        self.mount = Mount(start, Path("/usr/sbin/ocserv"))

    def set(self, seconds: int) -> None:
        """So far from the true time, from now on."""
        new = self._offset.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self._offset)


def test_the_clock_is_set_under_ocserv(lab: LabFactory) -> None:
    """By an hour and by 20 days, forwards and back: alice's session goes on, who logs out is taken
    out, who logs in gets in, and a reload is done."""
    if not LIBRARY:
        lacking("needs libfaketime")
    built = two_clients(lab)
    clock = Clock(built)
    directory = operator_conf(built, isolate_workers="false")  # seccomp knows no such library
    gw = gateway.run(built, {}, directory, mounts=[clock.mount])
    alice, bob = log_in(gw, 0, "alice"), log_in(gw, 1, "bob")
    with UdpStream(alice.netns, SERVICE, rate=100) as stream:
        for step in (HOUR, -HOUR, 20 * DAY, -20 * DAY):
            assert ask_udp(bob.netns, SERVICE, timeout=5.0)
            clock.set(step)
            bob.disconnect()
            wait_until(lambda: len(elements(gw)) == 1, 5.0, "bob's element to go")
            bob = log_in(gw, 1, "bob")
            assert abs(connected(gw, "bob") - time.time() - step) < 120
            assert sorted(str(one["user"]) for one in sessions(gw)) == ["alice", "bob"]
            assert ocgate(gw, "healthcheck").returncode == 0
        assert ocgate(gw, "reload").returncode == 0
        stream.wait_for(len(stream.tally.received) + 50, 10.0)
    assert stream.tally.lost == 0
    assert "Traceback" not in gw.output


def connected(gw: Gateway, user: str) -> float:
    """When ocserv says that the user connected, to the minute."""
    users = gw.occtl("show", "users")
    shown = next(one for one in users if one["Username"] == user)
    text = shown.get("Connected at") or shown["Last connected at"]  # as 1.5.0 names it
    return time.mktime(time.strptime(text, "%Y-%m-%d %H:%M"))


# --- the exit node -------------------------------------------------------------------------------


def test_an_exit_without_memory_for_control(lab: LabFactory) -> None:
    """The OOM killer ends each control: who uses the exit notices nothing."""
    group = cgroup("memory")
    g = exits.ground(lab)
    g.lab.own(group)
    g.prove_leaks_are_seen()
    began, client = now(), g.exit.client_pid()
    group.add([parent(g.exit.control_pid())])
    group.most_memory(8 << 20)
    with UdpStream(g.user.netns, SERVICE, rate=100) as stream:
        os.kill(g.exit.control_pid(), signal.SIGKILL)
        words = "control was ended by signal 9 (SIGKILL: by somebody, or by the kernel"
        wait_until(lambda: g.exit.output.count(words) > 2, 10.0, words)
        assert g.exit.status() == {}
        stream.wait_for(len(stream.tally.received) + 50)
        group.most_memory(UNLIMITED)
        g.exit.wait_healthy(BACK_SECONDS)
    assert stream.tally.lost == 0
    assert g.exit.client_pid() == client
    g.assert_nothing_by_isp(began)
    assert "Traceback" not in g.exit.output


def test_an_exit_without_processes(lab: LabFactory) -> None:
    """Its client ends and no other can be started: users are told at once, status says why, and it
    is up again when there is room."""
    group = cgroup("pids")
    g = exits.ground(lab)
    g.lab.own(group)
    g.prove_leaks_are_seen()
    began, control = now(), g.exit.control_pid()
    group.add(g.exit.netns.pids())
    client = g.exit.client_pid()
    assert client is not None
    group.most_tasks(group.count() - 1)  # what the client leaves is not to be had, either
    os.kill(client, signal.SIGKILL)
    wait_until(g.rejected_at_once, 15.0, "users to be told")
    lacks = "Resource temporarily unavailable"
    wait_until(lambda: lacks in json.dumps(g.exit.status()), 30.0, "the reason")
    print(g.exit.status()["reasons"], g.exit.status()["tunnel"])
    group.most_tasks(UNLIMITED)
    g.exit.wait_healthy(FORK_AGAIN_SECONDS)
    assert g.leaves_by_the_provider()
    assert g.exit.control_pid() == control
    g.assert_nothing_by_isp(began)
    assert "Traceback" not in g.exit.output

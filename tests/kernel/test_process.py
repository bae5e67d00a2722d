"""Processes are named by pid and start time, peers by the kernel's word."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

from ocgate.kernel import process


def test_a_process_is_alive_until_it_ends_even_as_a_zombie() -> None:
    child = subprocess.Popen(["sleep", "60"])
    started = process.start_time(child.pid)
    assert started is not None
    assert process.alive(child.pid, started)
    assert not process.alive(child.pid, started + 1)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process.start_time(child.pid) is None
    child.wait()
    assert not process.alive(child.pid, started)
    assert process.name(child.pid) is None


def test_a_name_with_blanks_and_parentheses_shifts_no_field(tmp_path: Path) -> None:
    odd = tmp_path / "a) S 1 (b"
    shutil.copy("/bin/sleep", odd)
    child = subprocess.Popen([str(odd), "60"])
    try:
        plain = process.start_time(os.getpid())
        started = process.start_time(child.pid)
        assert process.name(child.pid) == "a) S 1 (b"
        assert plain is not None
        assert started is not None
        assert started >= plain
    finally:
        child.kill()
        child.wait()


def test_the_peer_of_a_unix_socket_is_known() -> None:
    near, far = socket.socketpair(socket.AF_UNIX)
    with near, far:
        found = process.peer(near)
    assert (found.pid, found.uid, found.gid) == (os.getpid(), os.getuid(), os.getgid())


def test_a_process_descends_from_its_parents_and_from_nobody_else() -> None:
    own = os.getpid()
    child = subprocess.Popen(["sh", "-c", "sleep 30 & echo $!; wait"], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        grandchild = int(child.stdout.readline())
        assert process.descends(own, own, generations=0)
        assert process.descends(child.pid, own, generations=1)
        assert process.descends(grandchild, own, generations=2)
        assert not process.descends(grandchild, own, generations=1)
        assert not process.descends(own, child.pid, generations=3)
    finally:
        os.kill(grandchild, signal.SIGKILL)
        child.kill()
        child.wait()
    assert not process.descends(grandchild, own, generations=3)

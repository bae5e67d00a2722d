"""The lock of a network namespace: who gets it, who is told of whom, and when it is free again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ocgate.errors import OcgateError
from ocgate.kernel import namespace_lock
from ocgate.kernel.namespace_lock import Holder, Lock
from ocgate.netlab import namespace
from ocgate.netlab.wait import wait_until

pytestmark = pytest.mark.kernel

# Takes the lock, hands it on over exec, and is then a shell with a child that has it and one that
# gave it up, as a service's run script does.
HOLDER = """
import os, sys
from pathlib import Path
from ocgate.kernel.namespace_lock import required
lock = required("server", "/etc/ocserv", Path("/run/first"))
lock.hand_on()
os.execvp("sh", ["sh", "-c", '''
sleep 600 & echo $!
(exec 8<&- 9<&-; exec sleep 600) & echo $!
wait''', "sh"])
"""


@contextmanager
def holding() -> Iterator[tuple[subprocess.Popen[str], int, int]]:
    """The holder, its child that has the lock, and the one that has not."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert holder.stdout is not None
    pids = [int(holder.stdout.readline()) for _ in range(2)]
    try:
        yield holder, pids[0], pids[1]
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.wait()
        holder.stdout.close()


def take() -> Lock | Holder:
    return namespace_lock.take("exit", "openvpn", Path("/run/second"))


def is_free() -> bool:
    found = take()
    if isinstance(found, Holder):
        return False
    for held in found.sockets:
        held.close()
    return True


def test_the_second_is_refused_and_told_who_is_first(netns: object) -> None:
    with holding() as (holder, _, _):
        with pytest.raises(OcgateError) as refused:
            namespace_lock.required("exit", "openvpn", Path("/run/second"))
        words = str(refused.value)
        assert f"server, /etc/ocserv, /run/first, pid {holder.pid}" in words
        assert "a container) of its own" in words
        assert "RUN_DIR" not in words


def test_another_network_has_a_lock_of_its_own(netns: object) -> None:
    with holding(), namespace.isolated():
        assert is_free()


def test_it_is_held_by_whoever_inherited_it_and_free_when_all_are_killed(netns: object) -> None:
    """kill -9 of the supervisor leaves control with the lock; a service has none to hold."""
    with holding() as (holder, control, service):
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        assert not is_free()
        os.kill(control, signal.SIGKILL)
        wait_until(is_free, 5.0, "the lock")
        assert Path(f"/proc/{service}").exists()


def test_what_is_left_of_a_killed_run_is_ended_before_it_is_asked_again(netns: object) -> None:
    with holding():
        named = ("server", "/etc/ocserv", Path("/run/first"))
        assert namespace_lock.held(*named, leftover=lambda: True) is None
        with pytest.raises(OcgateError):
            namespace_lock.held(*named, leftover=lambda: False)


def test_a_name_that_somebody_else_took_is_said_to_be_his(netns: object) -> None:
    """Abstract names belong to whoever comes first, root or not."""
    squatter = (
        "import socket, time; s = socket.socket(socket.AF_UNIX); s.bind('\\0ocgate'); s.listen(9);"
        "print('there', flush=True); time.sleep(600)"
    )
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    process = subprocess.Popen(
        [*command, "/usr/bin/python3", "-I", "-c", squatter], stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == b"there\n"
        assert "uid 65534" in str(take())
        assert f"pid {process.pid}" in str(take())
    finally:
        process.kill()
        process.wait()
        process.stdout and process.stdout.close()


def test_names_of_any_length_and_kind_are_told_as_far_as_they_fit(netns: object) -> None:
    taken = namespace_lock.take("server", "/etc/\nocserv", Path("/run/" + "ä" * 200))
    assert isinstance(taken, Lock)
    assert str(take()).startswith("server, /etc/?ocserv, /run/ää")
    for held in taken.sockets:
        held.close()

"""Who a process is: its start time, whether it still lives, who is at the other end of a socket.

A pid alone names nobody, because pids are reused; pid and start time together do. Any edge and the
wiring may import this.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
# Descriptors: far more than control ever needs. Where the hard limit is a billion (docker), a
# program that it starts and that closes all of them one by one would take minutes.
MOST_FILES = 65536

_STARTTIME = 22  # proc(5), /proc/pid/stat, field 22, counted from 1
_STATE = 3
_PARENT = 4
_UCRED = struct.Struct("=iII")  # struct ucred of unix(7): pid_t, uid_t, gid_t


@dataclass(frozen=True)
class Peer:
    """Credentials of the process that connected, taken by the kernel at connect(2).

    pid: in our pid namespace; 0 when the peer lives in one that we can't see.
    """

    pid: int
    uid: int
    gid: int


def start_time(pid: int) -> int | None:
    """When the process started, in clock ticks since boot, or None if there is none (or a zombie).

    Constant for the life of a process, so (pid, start_time) survives pid reuse.
    """
    fields = _stat(pid)
    return None if fields is None else int(fields[_STARTTIME - _STATE])


def started_at(pid: int) -> float | None:
    """When the process started, in seconds since the epoch, or None if there is none."""
    since_boot = started_since_boot(pid)
    if since_boot is None:
        return None
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + since_boot


def started_since_boot(pid: int) -> float | None:
    """When the process started, in seconds since boot (CLOCK_BOOTTIME), or None if there is none;
    in steps of a clock tick, 0.01 s."""
    ticks = start_time(pid)
    return None if ticks is None else ticks / os.sysconf("SC_CLK_TCK")


def alive(pid: int, started: int) -> bool:
    """Whether the process that was `pid` at `started` ticks still runs (a zombie doesn't)."""
    return start_time(pid) == started


def descends(pid: int, ancestor: int, *, generations: int) -> bool:
    """Whether `pid` is `ancestor`, or a descendant of at most so many generations, now."""
    for _ in range(generations + 1):
        if pid == ancestor:
            return True
        fields = _stat(pid)
        if fields is None:
            return False
        pid = int(fields[_PARENT - _STATE])
    return False


def kill(pid: int, started: int) -> bool:
    """SIGKILL that very process, never one that has its pid by now; False if it is gone."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if start_time(pid) != started:
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def name(pid: int) -> str | None:
    """The command name (16 bytes at most, its own choice: data, not proof), or None."""
    try:
        return (PROC / str(pid) / "comm").read_bytes().rstrip(b"\n").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None


def peer(connection: socket.socket) -> Peer:
    """Who connected to our Unix socket (SO_PEERCRED, unix(7))."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return Peer(*_UCRED.unpack(raw))


def files_limit() -> int:
    """How many descriptors this process may have now."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_FILES if soft == resource.RLIM_INFINITY else soft


def raise_files_limit() -> int:
    """Raise it to the hard limit, which is ours to do; the new one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return files_limit()


def _stat(pid: int) -> list[bytes] | None:
    """Fields of /proc/pid/stat from the state on; None if the process is gone or a zombie."""
    try:
        line = (PROC / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may hold spaces and parentheses of its own: cut at the last one.
    fields = line[line.rindex(b")") + 1 :].split()
    return None if fields[0] in (b"Z", b"X") else fields

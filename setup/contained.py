"""Runs a command and says what it has left behind: `python contained.py COMMAND...`.

Of everything that the command started, however deep: whatever loses its parent becomes a child of
this process (PR_SET_CHILD_SUBREAPER, prctl(2)) and not of the machine's init, so what is left when
the command has ended is known for certain, also where several people's tests run on one machine.

    processes     children of this one
    files         what is in $TMPDIR, a directory of this run alone
    namespaces    names under /run/netns of the owners that are listed in $TEST_OWNERS
    mounts        below $TMPDIR or of those namespaces

Exit status: the command's; 3 if that is 0 and something is left, which is named on stderr and then
removed. setup/stages.py runs each stage of ./test so.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

LEFT = 3  # exit status; pytest has 0 to 5, of which 3 is its own error
OWNERS = "TEST_OWNERS"
NETNS = Path("/run/netns")

_PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>
_MNT_DETACH = 2

# What was told to end by the last test may still be at it, on a busy machine.
GRACE_SECONDS = 5.0
_POLL = 0.05


def contained(command: Sequence[str]) -> tuple[int, list[str]]:
    """(exit status, what is left in words); nothing of it is there afterwards."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # Short, because names of Unix sockets below it end at 107 bytes; open to others, because
    # ocserv's workers run as nobody.
    scratch = Path(tempfile.mkdtemp(prefix="oct-", dir="/tmp"))
    scratch.chmod(0o1777)
    owners = Path(f"{scratch}.owners")
    owners.touch()
    environ = {**os.environ, "TMPDIR": str(scratch), OWNERS: str(owners)}
    environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())  # pytest keeps three of its
    try:
        status = _run(command, environ)
        return status, [*_processes(), *_names(scratch, owners)]
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        owners.unlink(missing_ok=True)


def _run(command: Sequence[str], environ: dict[str, str]) -> int:
    """The command's exit status; meanwhile every orphan's end is taken note of, as init does."""
    child = subprocess.Popen(command, env=environ)
    for number in (signal.SIGTERM, signal.SIGINT):  # the command decides what they mean
        signal.signal(number, lambda signum, _frame: child.send_signal(signum))
    while True:
        pid, status = os.wait()
        if pid == child.pid:
            child.returncode = os.waitstatus_to_exitcode(status)
            return child.returncode if child.returncode >= 0 else 128 - child.returncode


# --- processes ----------------------------------------------------------------------------------


def _processes() -> list[str]:
    """Those that have not ended within GRACE_SECONDS; killed then."""
    deadline = time.monotonic() + GRACE_SECONDS
    while _living() and time.monotonic() < deadline:
        time.sleep(_POLL)
    found = [f"process {pid}: {_command(pid)}" for pid in _living()]
    while living := _living():  # whose children become ours in their turn
        for pid in living:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL)
    return found


def _living() -> list[int]:
    """Children that run; those that have ended are reaped."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    me = os.getpid()
    return [int(e.name) for e in Path("/proc").iterdir() if e.name.isdecimal() and _parent(e) == me]


def _parent(entry: Path) -> int:
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return b" ".join(words).decode(errors="replace").strip()[:200]
    return "?"


# --- names --------------------------------------------------------------------------------------


def _names(scratch: Path, owners: Path) -> Iterator[str]:
    prefixes = tuple(owners.read_text().split())
    yield from (f"file {path}" for path in sorted(scratch.iterdir()))
    for mount in _mounts(lambda at: at.startswith((f"{scratch}/", *_below(prefixes)))):
        yield f"mount {mount}"
        ctypes.CDLL(None).umount2(os.fsencode(mount), _MNT_DETACH)
    if NETNS.is_dir() and prefixes:
        for path in sorted(NETNS.iterdir()):
            if path.name.startswith(prefixes):
                yield f"namespace {path.name}"
                with contextlib.suppress(OSError):
                    path.unlink()


def _below(prefixes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{NETNS}/{prefix}" for prefix in prefixes)


def _mounts(chosen: Callable[[str], bool]) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4].encode().decode("unicode_escape") for line in lines]
    return sorted({point for point in points if chosen(point)})


def main(command: Sequence[str]) -> int:
    """See the module's words."""
    status, left = contained(command)
    for what in left:
        print(f"left behind: {what}", file=sys.stderr)
    return LEFT if left and not status else status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

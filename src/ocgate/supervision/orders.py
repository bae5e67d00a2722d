"""Orders to supervised services, and what s6 knows about them. None of them blocks long but
`stop`."""

from __future__ import annotations

import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from ocgate import names
from ocgate.errors import ServerRefused

# s6-svc and s6-svstat talk to a fifo and read a file: milliseconds. More means a frozen machine.
_ORDER_LIMIT = 5.0

# Seconds for a supervisor to come up: s6-svscan starts all of them at once, in milliseconds, and
# looks again for one that died after a second.
_SUPERVISOR_LIMIT = 3.0
_SUPERVISOR_POLL = 0.02

_NOT_YET = "not listening"  # s6-svc, then nothing was ordered

# s6 forks at once, but for a second after the last death of a service.
_UP_LIMIT = "3000"  # milliseconds


@dataclass(frozen=True)
class ServiceStatus:
    """What s6 knows of one service.

    up:        its process runs.
    pid:       of that process; None when it is down.
    wanted_up: s6 starts it (again) when it is down.
    """

    up: bool
    pid: int | None
    wanted_up: bool


# s6-svstat's exit status; of others 127 is: not even loaded.
_NOT_SUPERVISED, _SYSTEM_CALL_FAILED = 1, 111
# s6-supervise listens a moment before it first writes this (src/supervision/s6-supervise.c).
_STATUS = Path("supervise", "status")
_ABSENT = ServiceStatus(up=False, pid=None, wanted_up=False)


def start(run_dir: Path, service: str, *, once: bool = False) -> None:
    """Have it started, and from now on restarted; nothing happens if it runs already.

    Returns when the order is given; once: not restarted, and returns when it was started, which it
    may have survived or not. Raises ServerRefused if its supervisor does not come up.
    """
    deadline = time.monotonic() + _SUPERVISOR_LIMIT
    order = ["-wu", "-T", _UP_LIMIT, "-o"] if once else ["-u"]
    # Asked again with the order itself: one that answers s6-svok has been seen to refuse the very
    # next order ("supervisor not listening"), on a machine with much to do.
    while True:
        last = time.monotonic() >= deadline
        try:
            if last or _supervised(run_dir, service):
                return _order(run_dir, service, order, f"starting {service}")
        except ServerRefused as refused:
            if last or _NOT_YET not in str(refused):
                raise
        time.sleep(_SUPERVISOR_POLL)


def stop(run_dir: Path, service: str, timeout: float) -> None:
    """Stop it and wait for its end and that of its finish script, up to `timeout` seconds; s6 kills
    it after its `kill_after`.

    Raises ServerRefused if it is not down by then.
    """
    milliseconds = str(max(1, int(timeout * 1000)))
    order = ["-wD", "-T", milliseconds, "-d"]
    _order(run_dir, service, order, f"stopping {service}", limit=timeout)


def status(run_dir: Path, service: str) -> ServiceStatus:
    """Its status; a service whose supervisor is not there counts as down. Raises ServerRefused
    where it can't be asked."""
    directory = run_dir / names.SERVICES / service
    begun = (directory / _STATUS).exists()
    doing = f"asking for {service}"
    done = _run(["s6-svstat", "-o", "up,pid,wantedup", str(directory)], doing)
    absent = {_NOT_SUPERVISED} if begun else {_NOT_SUPERVISED, _SYSTEM_CALL_FAILED}
    if done.returncode in absent:
        return _ABSENT
    if done.returncode:  # says nothing about the service
        raise ServerRefused(f"{doing}: s6-svstat {ended(done.returncode)}: {done.stderr.strip()}")
    up, pid, wanted_up = done.stdout.split()
    return ServiceStatus(up == "true", int(pid) if int(pid) > 0 else None, wanted_up == "true")


def ended(code: int) -> str:
    """How a program ended, in words, from subprocess' return code."""
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"


def _supervised(run_dir: Path, service: str) -> bool:
    command = ["s6-svok", str(run_dir / names.SERVICES / service)]
    return _run(command, f"asking for {service}").returncode == 0


def _order(run_dir: Path, service: str, order: list[str], doing: str, *, limit: float = 0) -> None:
    command = ["s6-svc", *order, str(run_dir / names.SERVICES / service)]
    done = _run(command, doing, limit + _ORDER_LIMIT)
    if done.returncode:
        raise ServerRefused(f"{doing}: {done.stderr.strip() or 'not done in time'}")


def _run(
    command: list[str], doing: str, limit: float = _ORDER_LIMIT
) -> subprocess.CompletedProcess[str]:
    """Raises ServerRefused where no process can be started, or it does not end in time."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except OSError as error:
        why = error.strerror or str(error)
        raise ServerRefused(f"{doing}: {command[0]} can't be started: {why}") from error
    except subprocess.TimeoutExpired as error:
        raise ServerRefused(f"{doing}: no answer in {limit:.0f} s") from error

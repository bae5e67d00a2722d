"""Orders to the supervised ocserv, and what s6 knows about the services. None of them blocks long
but `stop_ocserv`."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
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


_ABSENT = ServiceStatus(up=False, pid=None, wanted_up=False)


def start_ocserv(run_dir: Path) -> None:
    """Have ocserv started, and from now on restarted; nothing happens if it runs already.

    Returns when the order is given. Raises ServerRefused if its supervisor does not come up.
    """
    deadline = time.monotonic() + _SUPERVISOR_LIMIT
    while not _supervised(run_dir) and time.monotonic() < deadline:
        time.sleep(_SUPERVISOR_POLL)
    _order(run_dir, ["-u"], "starting ocserv")


def stop_ocserv(run_dir: Path, timeout: float) -> None:
    """Stop ocserv and wait for its end, up to `timeout` seconds; s6 kills it after 1.5.

    Raises ServerRefused if it is not down by then.
    """
    milliseconds = str(max(1, int(timeout * 1000)))
    _order(run_dir, ["-wd", "-T", milliseconds, "-d"], "stopping ocserv", limit=timeout)


def reload_ocserv(run_dir: Path) -> None:
    """Send SIGHUP to ocserv's main process only: certificates and settings for new sessions.

    Never without `ocserv -t` before it: a bad configuration kills main and every session. Raises
    ServerRefused when ocserv does not run.
    """
    pid = ocserv_pid(run_dir)
    if pid is None:
        raise ServerRefused("reloading ocserv: it does not run")
    os.kill(pid, signal.SIGHUP)


def ocserv_pid(run_dir: Path) -> int | None:
    """Pid of ocserv's main process; None while it is down or has not written its pid file yet."""
    pid = _status(run_dir, "ocserv").pid
    try:
        written = (run_dir / names.OCSERV_PID).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return pid if written == str(pid) else None  # before that, the pid is the run script's


def status(run_dir: Path) -> Mapping[str, ServiceStatus]:
    """Status of `control` and `ocserv`; a service whose supervisor is not there counts as down."""
    return {name: _status(run_dir, name) for name in ("control", "ocserv")}


def _status(run_dir: Path, service: str) -> ServiceStatus:
    directory = str(run_dir / names.SERVICES / service)
    done = subprocess.run(
        ["s6-svstat", "-o", "up,pid,wantedup", directory],
        capture_output=True,
        text=True,
        timeout=_ORDER_LIMIT,
    )
    if done.returncode:
        return _ABSENT
    up, pid, wanted_up = done.stdout.split()
    return ServiceStatus(up == "true", int(pid) if int(pid) > 0 else None, wanted_up == "true")


def _supervised(run_dir: Path) -> bool:
    command = ["s6-svok", str(run_dir / names.SERVICES / "ocserv")]
    return subprocess.run(command, timeout=_ORDER_LIMIT, check=False).returncode == 0


def _order(run_dir: Path, order: list[str], doing: str, *, limit: float = 0) -> None:
    command = ["s6-svc", *order, str(run_dir / names.SERVICES / "ocserv")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit + _ORDER_LIMIT)
    if done.returncode:
        raise ServerRefused(f"{doing}: {done.stderr.strip() or 'not done in time'}")

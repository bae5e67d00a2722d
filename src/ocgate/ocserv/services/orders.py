"""Orders to the supervised ocserv. None of them blocks long but `stop_ocserv`."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path

from ocgate import names, supervision
from ocgate.errors import ServerRefused
from ocgate.supervision import ServiceStatus


def start_ocserv(run_dir: Path) -> None:
    """Have ocserv started, and from now on restarted; nothing happens if it runs already.

    Returns when the order is given. Raises ServerRefused if its supervisor does not come up.
    """
    supervision.start(run_dir, "ocserv")


def stop_ocserv(run_dir: Path, timeout: float) -> None:
    """Stop ocserv and wait for its end, up to `timeout` seconds; s6 kills it after 1.5.

    Raises ServerRefused if it is not down by then.
    """
    supervision.stop(run_dir, "ocserv", timeout)


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
    pid = supervision.status(run_dir, "ocserv").pid
    try:
        written = (run_dir / names.OCSERV_PID).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return pid if written == str(pid) else None  # before that, the pid is the run script's


def status(run_dir: Path) -> Mapping[str, ServiceStatus]:
    """Status of `control` and `ocserv`; a service whose supervisor is not there counts as down."""
    return {name: supervision.status(run_dir, name) for name in ("control", "ocserv")}

"""control.pid: which process is control, for scripts and for healthchecks of others."""

from __future__ import annotations

import os
from pathlib import Path

from ocgate.control.log import stage
from ocgate.names import CONTROL_PID
from ocgate.own_files import write

log = stage("svc-control")


def keep_pid(run_dir: Path) -> None:
    """Note this process; where there is no space, no file is better than a predecessor's."""
    path = run_dir / CONTROL_PID
    try:
        write(path, f"{os.getpid()}\n".encode(), mode=0o644)
    except OSError as error:
        log.warning("the pid can't be noted", file=str(path), why=error.strerror)
        path.unlink(missing_ok=True)

"""control.pid: which process is control, for scripts and for healthchecks of others."""

from __future__ import annotations

import functools
import os
from pathlib import Path

from ocgate.names import CONTROL_PID
from ocgate.own_files import write
from ocgate.runtime.records import Records


def keep_pid(run_dir: Path, records: Records) -> None:
    """Note this process; where there is no space, no file is better than a predecessor's."""
    records.keep(CONTROL_PID, functools.partial(_write, run_dir / CONTROL_PID))


def _write(path: Path) -> None:
    try:
        write(path, f"{os.getpid()}\n".encode(), mode=0o644)
    except OSError:
        path.unlink(missing_ok=True)
        raise

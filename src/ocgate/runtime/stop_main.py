"""The last step of a stop, as a program of its own: `python -m … RUN_DIR [when-input-ends]`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from ocgate.errors import OcgateError
from ocgate.runtime.log import Log

# An ordered stop starts it while the services still end (supervision/stop.sh).
WAITS = "when-input-ends"


def run(configure_log: Callable[[Path], None], teardown: Callable[[Path], None], log: Log) -> int:
    """Exit 0 when `teardown` of the run dir in argv is through; what it raises is logged."""
    run_dir = Path(sys.argv[1])
    configure_log(run_dir)
    if WAITS in sys.argv[2:]:
        sys.stdin.buffer.read()
    try:
        teardown(run_dir)
    except OcgateError as error:
        log.error("teardown incomplete", why=str(error))
        return error.exit_code
    return 0

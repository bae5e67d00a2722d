"""Take everything of ours out of the kernel: the last step of a stop, after ocserv and control.

    python -m ocgate.control.teardown RUN_DIR

Guards go last, so that clients are closed all the way. Repeatable; what is gone is no error.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ocgate.control import last_step
from ocgate.control import log as logs
from ocgate.control.sources import SNAPSHOT, configure_log, read_snapshot
from ocgate.errors import OcgateError
from ocgate.kernel.apply import remove
from ocgate.kernel.nft import Nft
from ocgate.names import CONTROL_PID, CONTROL_SOCKET, OCSERV_PID
from ocgate.plan.facts import Network
from ocgate.server import key_copies

log = logs.stage("svc-control")

# What would make the next start, or a script, believe that somebody is there.
_SIGNS_OF_LIFE = (CONTROL_SOCKET, CONTROL_PID, OCSERV_PID, SNAPSHOT)


def teardown(run_dir: Path) -> None:
    """Remove our kernel state and the run dir's signs of life; raises OcgateError."""
    key_copies.remove(run_dir)  # whatever comes of the rest
    remove(Nft(), run_dir=run_dir, subnets=_subnets(run_dir))
    for name in _SIGNS_OF_LIFE:
        (run_dir / name).unlink(missing_ok=True)
    log.info("stopped; nothing of ours is left in the kernel")


def _subnets(run_dir: Path) -> tuple[Network, ...]:
    """Whose flows to forget; none where nothing was ever applied."""
    try:
        sources = read_snapshot(run_dir)
    except OcgateError:
        return ()
    agreed = sources.synced
    return (*agreed.subnets4, *(agreed.subnets6 if sources.wants_ipv6 else ()))


def main() -> int:
    """Exit 0 when nothing is left."""
    return last_step.run(configure_log, teardown, log)


if __name__ == "__main__":
    sys.exit(main())

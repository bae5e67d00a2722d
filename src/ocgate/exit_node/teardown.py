"""The last step of a stop, after control and the tunnel's client: close, and leave it closed.

    python -m ocgate.exit_node.teardown RUN_DIR

The switch stays in the kernel: in a network namespace that others share (a pod, docker's
`network_mode: service:`) nothing may leak between two starts. Repeatable.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from ocgate import names
from ocgate.exit_node.intent import intent_of
from ocgate.exit_node.kinds import kind_of
from ocgate.exit_node.reconciler import CLOSED, intent_now
from ocgate.exit_node.sources import configure_log, read_snapshot
from ocgate.kernel.apply import apply
from ocgate.kernel.facts import observe
from ocgate.kernel.nft import Nft
from ocgate.runtime import log as logs
from ocgate.runtime import stop_main
from ocgate.tunnel import killswitch

log = logs.stage("svc-control")

# What would make the next start, or a script, believe that somebody is there; and all secrets.
_FILES = (
    *(names.CONTROL_SOCKET, names.CONTROL_PID, names.EXIT_RECORD, names.EXIT_SNAPSHOT),
    *(names.TUNNEL_COMMAND, names.TUNNEL_STDIN, names.TUNNEL_SAID),
)


def teardown(run_dir: Path) -> None:
    """Close the switch, and remove the run dir's signs of life; raises OcgateError."""
    sources = read_snapshot(run_dir)
    base = intent_of(sources.settings, kind_of(sources))
    plan = killswitch.plan(intent_now(base, CLOSED, observe()))
    apply(Nft(), plan, {}, run_dir=run_dir)
    shutil.rmtree(run_dir / names.TUNNEL, ignore_errors=True)
    for name in _FILES:
        (run_dir / name).unlink(missing_ok=True)
    log.info("stopped; the kill switch stands, closed")


def main() -> int:
    """Exit 0 when it is closed."""
    return stop_main.run(configure_log, teardown, log)


if __name__ == "__main__":
    sys.exit(main())

"""Take everything of ours out of the kernel: the last step of a stop, after ocserv and control.

    python -m ocgate.server.teardown RUN_DIR

Guards go last, so that clients are closed all the way, and only when nothing more comes by a
gateway: what it still sends for a flow of before is answered by that gateway, or by nobody.
Repeatable; what is gone is no error.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from ocgate.errors import OcgateError
from ocgate.kernel import closing as late_packets
from ocgate.kernel.apply import remove
from ocgate.kernel.facts import observe
from ocgate.kernel.nft import Nft
from ocgate.names import CONTROL_PID, CONTROL_SOCKET, OCSERV_PID, SERVICES
from ocgate.ocserv import key_copies
from ocgate.plan.closing import Closing, Wait, closing
from ocgate.plan.facts import Network
from ocgate.runtime import log as logs
from ocgate.runtime import stop_main
from ocgate.server.desired.prepare import Ipv6Egress, prepare
from ocgate.server.desired.sources import SNAPSHOT, Sources, configure_log, read_snapshot
from ocgate.server.reconcile.former_addresses import STRAYS, read_strays

# supervision/stop.sh makes it at the beginning of an ordered stop.
STOPPING = f"{SERVICES}/.s6-svscan/stopping"

log = logs.stage("svc-control")

# What would make the next start, or a script, believe that somebody is there; and former addresses,
# for which nothing comes any more.
_FILES = (CONTROL_SOCKET, CONTROL_PID, OCSERV_PID, SNAPSHOT, STRAYS)

# Seconds in which nothing has come by a gateway: an answer that counts as one comes within a
# probe's own limit, the interval between two, and one second at the least (server.exits.watch).
SHORTEST_QUIET, LONGEST_QUIET = 1.0, 2.0
# A container is killed 10 s after SIGTERM: the wait is over after 8, but where the services took
# all of that (up to 4 s each, on a machine that is far too busy) it still has a moment.
LONGEST_WAIT, SHORTEST_WAIT, WHOLE_STOP = 3.0, 0.5, 8.0


def teardown(run_dir: Path) -> None:
    """Remove our kernel state and the run dir's signs of life; raises OcgateError."""
    key_copies.remove(run_dir)  # whatever comes of the rest
    nft, sources = Nft(), _sources(run_dir)
    subnets = _subnets(sources) if sources else ()
    remove(nft, run_dir=run_dir, subnets=subnets, late=lambda: _wait(nft, run_dir, sources))
    for name in _FILES:
        (run_dir / name).unlink(missing_ok=True)
    log.info("stopped; nothing of ours is left in the kernel")


def _wait(nft: Nft, run_dir: Path, sources: Sources | None) -> None:
    """For late packets, where clients have left by a gateway."""
    wanted = _closing(run_dir, sources) if sources else None
    came = late_packets.wait(nft, wanted, run_dir=run_dir) if wanted else 0
    if came:
        log.info("late packets of former flows were answered by their exit", packets=came)


def _closing(run_dir: Path, sources: Sources) -> Closing | None:
    facts = observe(session_prefix=sources.synced.device)
    strays = read_strays(run_dir)
    intent = prepare(sources, facts, Ipv6Egress("stopping"), strays=strays).intent
    interval = sources.settings.exit_probe_interval
    quiet = min(max(interval, SHORTEST_QUIET), LONGEST_QUIET)
    since = _since_the_stop(run_dir)
    most = min(max(WHOLE_STOP - since, SHORTEST_WAIT), LONGEST_WAIT)
    return closing(intent, Wait(since, quiet, most))


def _since_the_stop(run_dir: Path) -> float:
    """Seconds since its first order, which ended sessions. A server whose data is not acknowledged
    sends it again after twice the time each (RFC 6298), so one that did so just before this waits
    no longer than that for the next, and is told then that the flow has ended."""
    try:
        return max(0.0, time.time() - (run_dir / STOPPING).stat().st_mtime)
    except OSError:
        return 0.0


def _sources(run_dir: Path) -> Sources | None:
    """None where nothing was ever applied."""
    try:
        return read_snapshot(run_dir)
    except OcgateError:
        return None


def _subnets(sources: Sources) -> tuple[Network, ...]:
    """Whose flows to forget."""
    agreed = sources.synced
    return (*agreed.subnets4, *(agreed.subnets6 if sources.wants_ipv6 else ()))


def main() -> int:
    """Exit 0 when nothing is left."""
    return stop_main.run(configure_log, teardown, log)


if __name__ == "__main__":
    sys.exit(main())

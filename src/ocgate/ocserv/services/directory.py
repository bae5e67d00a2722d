"""The service directory of the server role: control and ocserv."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from ocgate import names, supervision
from ocgate.ocserv.releases import LOG_TO_STDERR, Release

# Milliseconds from SIGTERM to SIGKILL, so that this, control's (supervision) and the teardown
# (0.5 s) together stay below 5 s. ocserv 1.1.6 itself waits up to 5 s for disconnect hooks; ours
# take milliseconds, and workers end with main, however it ends.
_KILL_OCSERV_AFTER = 1500

# Of control and the teardown: rules, routes, devices; asking a link who has an address, and on
# kernels before 5.7 probes by a device (net_raw); files of the operator's accounts; the end of a
# worker, which is of ocserv's account (kill).
_HOLDS = ("net_admin", "net_raw", "dac_override", "kill")

# The server first, so that no client is served by less than the whole guard; then control, which
# would put back what the teardown removes; ocserv once more, should control have started it in
# between: at once if not.
_ORDER = ("ocserv", "control", "ocserv")


def logging_arguments(release: Release) -> tuple[str, ...]:
    """What makes an ocserv of this release write its log to stderr, level info."""
    return ("-d", "1", "--log-stderr") if LOG_TO_STDERR.holds(release) else ("-d", "1")


def write(
    run_dir: Path,
    *,
    python: str,
    ocserv: str,
    ocserv_arguments: Sequence[str],
    log_format: str,
    ocserv_directory: Path = Path("/"),
) -> None:
    """Write RUN_DIR/services anew.

    python:           interpreter of control; absolute.
    ocserv:           the server; absolute, it runs with an empty environment.
    ocserv_arguments: between `-f` and our own `-c` and `-p`, e.g. `logging_arguments(release)`.
    ocserv_directory: where ocserv is started; relative paths in its configuration begin there.
    log_format:       human | json, for ocserv's lines; control's pass unchanged.

    Raises as `supervision.write` does.
    """
    values = {
        "RUN_DIR": str(run_dir.absolute()),
        "OCSERV": ocserv,
        "CONF": names.EFFECTIVE_CONF,
        "PID_FILE": names.OCSERV_PID,
        "OCCTL_SOCKET": names.OCCTL_SOCKET,
        "OCSERV_SOCKET": names.OCSERV_SOCKET,
        "OCSERV_DIRECTORY": str(ocserv_directory.absolute()),
    }
    run = supervision.script(__package__, "ocserv-run.sh", values)
    service = supervision.Service(
        name="ocserv",
        run=run.replace("@ARGUMENTS@", shlex.join(ocserv_arguments)),
        finish=supervision.script(__package__, "ocserv-finish.sh", {}),
        kill_after=_KILL_OCSERV_AFTER,
        stage="svc-ocserv",
    )
    role = supervision.Role(
        "ocgate.server.daemon",
        "ocgate.server.teardown",
        "ocgate.server.reload",
        _HOLDS,
        (service,),
        _ORDER,
    )
    supervision.write(run_dir, role, python=python, log_format=log_format)

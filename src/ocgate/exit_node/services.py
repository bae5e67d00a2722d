"""The exit's services: control, and the tunnel's client, which control starts and ends."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ocgate import names, supervision

# Milliseconds from SIGTERM to SIGKILL. openconnect says goodbye to its server, a round trip;
# OpenVPN ends at once. With control's second and the teardown (0.5 s) a stop stays below 5 s.
_KILL_CLIENT_AFTER = 2000

# Of control and the teardown: rules, routes, devices; files of the operator's accounts, and those
# that it makes for the client's (chown), its directory and the socket of wireguard-go among them.
_HOLDS = ("net_admin", "dac_override", "chown")

# Besides, for probes by a device, on kernels before this one (SO_BINDTODEVICE, net/core/sock.c).
_HOLDS_ONCE, _UNTIL = ("net_raw",), (5, 7)

# Control first: it would start the client anew.
_ORDER = (supervision.CONTROL, names.TUNNEL)


def write(run_dir: Path, *, python: str, log_format: str) -> None:
    """Write RUN_DIR/services anew; raises as `supervision.write` does."""
    here = run_dir.absolute()
    command = {"COMMAND": str(here / names.TUNNEL_COMMAND)}
    ended = {"HOOK": str(here / names.HOOK_ENDED)}
    client = supervision.Service(
        name=names.TUNNEL,
        run=supervision.script(__package__, "tunnel-run.sh", command),
        finish=supervision.script(__package__, "tunnel-finish.sh", ended),
        kill_after=_KILL_CLIENT_AFTER,
        stage="svc-tunnel",
        kept=str(here / names.TUNNEL_SAID),
    )
    role = supervision.Role(
        "ocgate.exit_node.daemon",
        "ocgate.exit_node.teardown",
        "ocgate.exit_node.reload",
        _holds(),
        (client,),
        _ORDER,
    )
    supervision.write(run_dir, role, python=python, log_format=log_format)


def _holds() -> tuple[str, ...]:
    """On this kernel."""
    release = tuple(int(number) for number in re.findall(r"\d+", os.uname().release)[:2])
    return (*_HOLDS, *(_HOLDS_ONCE if release < _UNTIL else ()))

"""What the supervisor runs at SIGHUP logs as its own role says, and not as the other does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ocgate.config.exit_load import load_exit
from ocgate.exit_node import sources as of_exit
from ocgate.server.desired import sources as of_server
from support.sources import sources


def server(run_dir: Path, form: str) -> None:
    of_server.write_snapshot(run_dir, sources(OCGATE_LOG_FORMAT=form))


def exit_node(run_dir: Path, form: str) -> None:
    environ = {"OVPN_CONFIG": "/config/vpn.ovpn", "OCGATE_LOG_FORMAT": form}
    of_exit.write_snapshot(run_dir, of_exit.Sources(load_exit(environ).settings, environ))


@pytest.mark.parametrize("form", ["human", "json"])
@pytest.mark.parametrize("role", [server, exit_node], ids=["server", "exit_node"])
def test_it_logs_in_the_form_of_its_role(
    tmp_path: Path, role: Callable[[Path, str], None], form: str
) -> None:
    role(tmp_path, form)
    command = [sys.executable, "-I", "-m", f"ocgate.{role.__name__}.reload", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1  # there is no control to ask
    if form == "json":
        assert json.loads(done.stderr)["event"] == "reload not done"
    else:
        assert done.stderr.startswith("svc-control: error: reload not done")

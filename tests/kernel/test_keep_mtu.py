"""The filter that keeps wireguard-go from its device's MTU: what it answers, what it lets pass."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import ocgate
from ocgate.exit_role import keep_mtu

pytestmark = pytest.mark.kernel

SOURCE = Path(ocgate.__file__).parents[1]

# Sets lo's MTU as wireguard-go sets its device's, and asks for it.
SET = """
import fcntl, socket, struct
door = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
fcntl.ioctl(door, 0x8922, struct.pack("16si12x", b"lo", 1234))
print(struct.unpack("16si12x", fcntl.ioctl(door, 0x8921, struct.pack("16si12x", b"lo", 0)))[1])
print([line for line in open("/proc/self/status") if line.startswith("NoNewPrivs")][0].split()[1])
"""
KEPT = [sys.executable, "-m", "ocgate.exit_role.keep_mtu"]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = ["unshare", "--net", *words]
    environ = {"PYTHONPATH": str(SOURCE), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    return subprocess.run(command, capture_output=True, text=True, env=environ)


def test_an_mtu_is_said_to_be_set_and_is_not() -> None:
    """Everything else does what it did: the MTU is asked for by the same system call."""
    program = [sys.executable, "-c", SET]
    assert run(*program).stdout.split() == ["1234", "0"], "positive control"
    assert run(*KEPT, *program).stdout.split() == ["65536", "1"]


def test_it_needs_no_capability_and_what_it_runs_gets_none() -> None:
    account = ["setpriv", "--reuid=23143", "--regid=23143", "--clear-groups"]
    program = ["/usr/bin/python3", "-c", SET]
    refused = run(*account, *program)
    assert "PermissionError" in refused.stderr, "positive control"
    assert run(*KEPT, *account, *program).stdout.split() == ["65536", "1"]


def test_what_cannot_be_run_is_named() -> None:
    done = run(*KEPT, "not-a-program")
    assert done.returncode == 1
    assert done.stderr == "not-a-program: No such file or directory\n"


def test_a_machine_without_a_filter_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than to run it with more."""
    monkeypatch.setattr(keep_mtu, "_MACHINES", {})
    assert "use a kernel with WireGuard" in keep_mtu.main(["true"])

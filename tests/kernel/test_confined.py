"""The filter of a tunnel's client: what it answers, and what it lets pass, asked of the kernel."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import ocgate
from ocgate.exit_node import confined

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
# What a client does: threads and children.
WORK = """
import subprocess, threading
said = []
thread = threading.Thread(target=lambda: said.append("thread"))
thread.start(); thread.join()
print(*said, subprocess.run(["echo", "child"], capture_output=True, text=True).stdout.strip())
"""
CONFINED = [sys.executable, "-m", "ocgate.exit_node.confined"]
ACCOUNT = ["setpriv", "--reuid=23143", "--regid=23143", "--clear-groups"]
PYTHON = "/usr/bin/python3"  # the account may run it


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = ["unshare", "--net", *words]
    environ = {"PYTHONPATH": str(SOURCE), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    return subprocess.run(command, capture_output=True, text=True, env=environ)


def test_an_mtu_is_said_to_be_set_and_is_not() -> None:
    """Everything else does what it did: the MTU is asked for by the same system call."""
    assert run(PYTHON, "-c", SET).stdout.split() == ["1234", "0"], "positive control"
    assert run(*CONFINED, PYTHON, "-c", SET).stdout.split() == ["1234", "1"]
    assert run(*CONFINED, "--keep-mtu", PYTHON, "-c", SET).stdout.split() == ["65536", "1"]


def test_for_that_it_needs_no_capability() -> None:
    assert "PermissionError" in run(*ACCOUNT, PYTHON, "-c", SET).stderr, "positive control"
    done = run(*CONFINED, "--keep-mtu", *ACCOUNT, PYTHON, "-c", SET)
    assert done.stdout.split() == ["65536", "1"]


@pytest.mark.parametrize("kind", ["user", "net", "mount", "pid", "time"])
def test_no_namespace_is_made(kind: str) -> None:
    """Not even by root; a user namespace would be made by anybody."""
    words = ["unshare", f"--{kind}", "true"]
    assert run(*words).returncode == 0, "positive control"
    assert run(*CONFINED, *words).returncode == 1
    if kind == "user":
        if run(*ACCOUNT, *words).returncode != 0:
            pytest.skip("this machine lets nobody but root make user namespaces")
        assert run(*CONFINED, *ACCOUNT, *words).returncode == 1


def test_none_is_entered() -> None:
    words = ["nsenter", "--net=/proc/self/ns/net", "true"]
    assert run(*words).returncode == 0, "positive control"
    assert "Operation not permitted" in run(*CONFINED, *words).stderr


def test_threads_and_children_are_as_ever() -> None:
    assert run(*CONFINED, *ACCOUNT, PYTHON, "-c", WORK).stdout == "thread child\n"


def test_what_cannot_be_run_is_named() -> None:
    done = run(*CONFINED, "not-a-program")
    assert (done.returncode, done.stderr) == (1, "not-a-program: No such file or directory\n")


def test_without_a_filter_only_what_needs_it_does_not_run(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    nothing: Mapping[str, confined.Machine] = {}
    monkeypatch.setattr(confined, "MACHINES", nothing)
    assert "use a kernel with WireGuard" in confined.main(["--keep-mtu", "true"])
    assert confined.main(["not-a-program"]) == "not-a-program: No such file or directory"
    assert "no seccomp filter for the tunnel's client: none is known" in capfd.readouterr().err

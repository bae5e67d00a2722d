"""What the supervised processes may do, read from the kernel while they run: less than root.

Run in a network namespace of its own, as in a container; on a host s6 and ocserv keep what root
has, because the operator's scripts run below them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocgate import supervision
from ocgate.lab.wait import wait_until

pytestmark = pytest.mark.kernel

STUB = """#!/bin/sh
case "$*" in
*daemon*) echo $$ >@RUN@/control.started && exec sleep 600 ;;
esac
"""
RUN = """
import sys
from pathlib import Path
from ocgate.supervision import exec_supervisor
exec_supervisor(Path(sys.argv[1]))
"""
SOURCE = Path(supervision.__file__).parents[2]

# Bits of linux/capability.h.
CHOWN, DAC_OVERRIDE, FOWNER, KILL, NET_ADMIN, NET_RAW = 0, 1, 3, 5, 12, 13
SETPCAP, SYS_MODULE, SYS_PTRACE, SYS_ADMIN, MKNOD, SETFCAP = 8, 16, 19, 21, 27, 31


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Path]:
    """The run dir of a supervised stub."""
    stub = tmp_path / "stub"
    stub.write_text(STUB.replace("@RUN@", str(tmp_path)))
    stub.chmod(0o700)
    role = supervision.Role("daemon", "teardown", (), (supervision.CONTROL,))
    supervision.write(tmp_path, role, python=str(stub), log_format="human")
    command = ["unshare", "--net", sys.executable, "-c", RUN, str(tmp_path)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            env={"PYTHONPATH": str(SOURCE), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            start_new_session=True,
        )
    (tmp_path / "supervisor.pid").write_text(str(process.pid))
    wait_until(lambda: supervision.status(tmp_path, "control").up, 10, "control")
    wait_until((tmp_path / "control.started").exists, 10, "the stub")
    yield tmp_path
    process.terminate()
    process.wait(10)


def capabilities(pid: int | str, which: str = "CapEff") -> set[int]:
    """The numbers in one of a process's sets."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    mask = int(next(line.split()[1] for line in status if line.startswith(f"{which}:")), 16)
    return {bit for bit in range(64) if mask >> bit & 1}


def control_pid(run_dir: Path) -> int:
    found = supervision.status(run_dir, "control").pid
    assert found is not None
    return found


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
def test_control_holds_what_the_guard_and_sessions_need_and_no_more(running: Path) -> None:
    pid = control_pid(running)
    expected = {CHOWN, DAC_OVERRIDE, FOWNER, KILL, NET_ADMIN, NET_RAW}
    assert capabilities(pid) == expected
    assert capabilities(pid, "CapBnd") == expected, "what it executes gets no more"
    assert "NoNewPrivs:\t1" in Path(f"/proc/{pid}/status").read_text()


def test_a_log_relay_holds_nothing(running: Path) -> None:
    pid = supervision.status(running, "control/log").pid
    wait_until(lambda: b"relay" in Path(f"/proc/{pid}/cmdline").read_bytes(), 10, "the relay")
    assert capabilities(str(pid)) == set()


def test_the_supervisor_of_a_container_gives_up_what_no_service_needs(running: Path) -> None:
    held = capabilities((running / "supervisor.pid").read_text())
    assert NET_ADMIN in held, "positive control: the set is read"
    assert not held & {SYS_MODULE, SYS_PTRACE, SYS_ADMIN, MKNOD, SETFCAP}

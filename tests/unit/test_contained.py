"""What a stage of ./test leaves behind is named, removed, and fails it (setup/contained.py)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONTAINED = Path(__file__).parents[2] / "setup/contained.py"


def run(script: str) -> subprocess.CompletedProcess[str]:
    """The script of a shell, contained."""
    return subprocess.run(
        [sys.executable, "-P", str(CONTAINED), "sh", "-c", script],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("status", [0, 1, 5])
def test_nothing_left_is_the_commands_own_status(status: int) -> None:
    done = run(f"sleep 0.01 & exit {status}")
    assert (done.returncode, done.stderr) == (status, "")


def test_a_process_that_is_left_is_named_and_ended() -> None:
    """However it has hidden: without parent, session, environment."""
    done = run("(env -i setsid sh -c 'echo $$; exec sleep 77' &) ; sleep 0.2")
    assert done.returncode == 3
    pid = int(done.stdout)
    assert done.stderr == f"left behind: process {pid}: sleep 77\n"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_file_that_is_left_is_named_and_removed() -> None:
    done = run("touch $TMPDIR/thing; echo $TMPDIR")
    directory = done.stdout.strip()
    assert (done.returncode, done.stderr) == (3, f"left behind: file {directory}/thing\n")
    assert not Path(directory).exists()


def test_what_others_run_is_none_of_its_business() -> None:
    other = subprocess.Popen(["sleep", "77"])
    try:
        assert run("true").returncode == 0
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()

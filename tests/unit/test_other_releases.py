"""setup/releases.py refuses a release that is not to be had, and tells why; it takes no other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SETUP = Path(__file__).resolve().parents[2] / "setup"
sys.path.append(str(SETUP))
import releases  # noqa: E402
import stages  # noqa: E402


def test_each_release_is_one_debian_s() -> None:
    for column in ("suite", "ocserv", "openconnect"):
        assert len({getattr(row, column) for row in releases.RELEASES}) == len(releases.RELEASES)


def test_an_unknown_release_is_refused_with_those_that_are_known() -> None:
    done = subprocess.run(
        [sys.executable, SETUP / "releases.py", "run", "--ocserv", "1.4.0", "true"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == releases.UNAVAILABLE
    assert done.stderr == "releases: ocserv 1.4.0: not known; there is 1.1.6, 1.3.0, 1.5.0\n"


def test_a_suite_that_has_moved_on_is_no_other_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came is not used under the name of what was asked for."""
    row = releases.RELEASES[-1]
    monkeypatch.setattr(releases, "version_of", lambda _program: "1.6.0")
    with pytest.raises(releases.MovedOn, match=rf"ocserv {row.ocserv}: Debian \w+ has 1.6.0 now"):
        releases._compare(row, tmp_path)


def test_the_stage_skips_what_moved_on_and_fails_for_what_could_not_be_fetched(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each with its reason, in what is printed and in the table."""
    monkeypatch.setattr(stages.releases, "version_of", lambda _program: "1.1.6")

    def directory(row: releases.Release) -> Path:
        if row.ocserv == "1.3.0":
            raise releases.MovedOn("moved")
        raise releases.Unavailable("no network")

    monkeypatch.setattr(stages.releases, "directory", directory)
    moved, lacking = stages.run_releases([])
    assert (moved.stage, moved.status, moved.counts) == ("ocserv 1.3.0", 0, {"skipped": 1})
    assert (lacking.stage, lacking.status, lacking.counts) == ("ocserv 1.5.0", 1, {"error": 1})
    assert "moved" in stages.table([moved, lacking])
    assert "no network" in capsys.readouterr().out


def test_the_chosen_tests_are_those_with_the_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(SETUP.parent)
    *files, option, mark = stages.chosen()
    assert (option, mark) == ("-m", "releases")
    assert {"tests/lab/test_reload.py", "tests/lab/test_worker_crash.py"} <= set(files)
    assert "tests/lab/test_storm.py" not in files

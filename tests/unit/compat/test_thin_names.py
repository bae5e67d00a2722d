"""The names of azinchen/ocserv-server's commands, and what they come to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ocgate.cli.app import app
from ocgate.compat.names import NAMES, Call, Refusal, answer, usage

ROOT = Path(__file__).resolve().parents[3]

# The names that people have in scripts and compose files.
KEPT = {
    "network-diagnostic",
    "session-report",
    "vpngw-reload",
    "vpngw-gw-resolve",
    "bypass-reload",
    "bypass-fetch",
    "cert-reload",
    "healthcheck",
}


def test_every_name_that_people_type_is_kept() -> None:
    assert set(NAMES) == KEPT


@pytest.mark.parametrize("name", sorted(KEPT))
def test_a_name_means_a_command_of_ours_or_says_why_there_is_none(name: str) -> None:
    found = answer(name, [])
    ours = {command.name or command.callback.__name__ for command in app.registered_commands}  # type: ignore[union-attr]
    if NAMES[name].absent:
        assert isinstance(found, Refusal)
        assert name in found.words
    else:
        assert isinstance(found, Call)
        assert found.argv[0] in ours


def test_the_diagnostic_speaks_json_when_asked_in_their_words() -> None:
    assert answer("network-diagnostic", ["--json"]) == Call(("doctor", "--json"))


@pytest.mark.parametrize("option", ["--basic", "-f"])
def test_an_option_that_only_shortens_is_dropped(option: str) -> None:
    assert answer("network-diagnostic", [option]) == Call(("doctor",))


def test_explain_takes_a_user_and_a_destination() -> None:
    """A user's name may begin with anything; what is missing is shown."""
    assert answer("network-diagnostic", ["--explain", "alice", "5.255.192.10"]) == Call(
        ("explain", "--", "alice", "5.255.192.10")
    )
    assert answer("network-diagnostic", ["--json", "-e", "a", "::1"]) == Call(
        ("explain", "--json", "--", "a", "::1")
    )
    for words in (["--explain"], ["--explain", "alice"]):
        assert isinstance(answer("network-diagnostic", words), Refusal)


def test_the_report_takes_a_user() -> None:
    words = ["-u", "-x y", "--no-geo", "--no-rate", "-j"]
    assert answer("session-report", words) == Call(("sessions", "--user=-x y", "--json"))
    assert isinstance(answer("session-report", ["--user"]), Refusal)
    assert isinstance(answer("session-report", ["--csv"]), Refusal)


def test_an_option_without_meaning_here_is_refused_by_name() -> None:
    found = answer("cert-reload", ["--force"])
    assert isinstance(found, Refusal)
    assert "--force" in found.words


@pytest.mark.parametrize("name", sorted(KEPT))
def test_help_says_which_command_it_is(name: str) -> None:
    assert usage(name).startswith(f"{name}: ")


def called(link: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the program under the link's name, as the image does."""
    code = "from ocgate.compat.command import main; sys.exit(main())"
    code = f"import sys; sys.argv[0] = {str(link)!r}; {code}"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)


def test_the_program_refuses_with_status_2_what_is_not_there() -> None:
    done = called(Path("/usr/local/bin/bypass-reload"))
    assert done.returncode == 2
    assert "not in this version" in done.stderr


def test_the_program_becomes_our_command_with_its_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCGATE_RUN_DIR", str(tmp_path))
    done = called(Path("/usr/local/bin/healthcheck"))
    assert done.returncode == 1
    assert "control plane does not answer" in done.stdout


def test_the_program_under_a_strange_name_lists_the_names() -> None:
    done = called(Path("/usr/local/bin/else"))
    assert done.returncode == 2
    assert "network-diagnostic" in done.stderr

"""The run dir must be root's alone, and no writer of ours follows a link that is put in its way."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from ocgate import own_files
from ocgate.config.origin import Origin
from ocgate.errors import ConfigurationError
from ocgate.ocserv import hooks, key_copies
from ocgate.runtime import run_dir
from ocgate.server.admission.journal import Journal
from ocgate.server.desired.sources import EGRESS, write_egress
from ocgate.server.exits.record import EXITS, write_known
from ocgate.server.reconcile.former_addresses import STRAYS, write_strays
from ocgate.sessions.session import Session

NOBODY = 65534
PLACE = Origin("environment")

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to others: needs root")


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A run dir as it should be, somewhere below /tmp."""
    made = tmp_path / "ocgate"
    made.mkdir(mode=0o755)
    return made


def session() -> Session:
    return Session(
        worker=812,
        started=40522,
        user="alice",
        vhost="default",
        device="vpns0",
        peer="192.0.2.9",
        agent="",
        address4=IPv4Address("10.10.10.2"),
        prefix6=None,
        connected_at=0.0,
    )


def test_a_directory_of_root_s_is_fine(here: Path) -> None:
    assert own_files.intruder(here) == ""
    assert own_files.intruder(here / "not" / "made" / "yet") == ""


def test_a_link_of_root_s_is_followed(here: Path) -> None:
    link = here.parent / "link"
    link.symlink_to("ocgate")
    assert own_files.intruder(link) == ""
    assert own_files.intruder(link / "deeper") == ""


@as_root
def test_somebody_else_s_directory_is_named(here: Path) -> None:
    os.chown(here, NOBODY, NOBODY)
    assert own_files.intruder(here / "run") == f"{here} belongs to uid {NOBODY}"


@pytest.mark.parametrize("mode", [0o777, 0o757])
def test_a_directory_that_others_write_to_is_named(here: Path, mode: int) -> None:
    here.chmod(mode)
    assert own_files.intruder(here / "run") == (
        f"{here} can be written to by others (mode {mode:04o})"
    )


@as_root
def test_a_group_that_is_not_root_s_counts_as_others(here: Path) -> None:
    os.chown(here, 0, 0)
    here.chmod(0o775)
    assert own_files.intruder(here / "run") == ""
    os.chown(here, 0, NOBODY)
    here.chmod(0o775)
    assert "can be written to by others" in own_files.intruder(here / "run")


@as_root
def test_a_link_of_somebody_else_s_is_named(here: Path) -> None:
    link = here.parent / "link"
    link.symlink_to("ocgate")
    os.chown(link, NOBODY, NOBODY, follow_symlinks=False)
    assert own_files.intruder(link / "run") == f"{link} is a link of uid {NOBODY}"


def test_links_without_end_are_named(here: Path) -> None:
    (here / "a").symlink_to("b")
    (here / "b").symlink_to("a")
    assert "is a link" in own_files.intruder(here / "a" / "run")


def test_below_a_sticky_directory_root_s_own_is_safe(here: Path) -> None:
    """As /tmp, and as docker mounts a tmpfs."""
    here.chmod(0o1777)
    (here / "run").mkdir()
    assert own_files.intruder(here / "run") == ""


def test_a_fresh_mount_for_all_is_made_root_s(here: Path) -> None:
    """docker run --tmpfs /run/ocgate:exec is 1777, and empty."""
    here.chmod(0o1777)
    run_dir.make(here, PLACE)
    assert here.stat().st_mode & 0o7777 == 0o755


def test_one_in_which_somebody_was_already_is_refused(here: Path) -> None:
    here.chmod(0o1777)
    (here / "applied.json.new").symlink_to("/etc/shadow")
    with pytest.raises(ConfigurationError) as refused:
        run_dir.make(here, PLACE)
    assert "can be written to by others (mode 1777)" in str(refused.value)


@as_root
@pytest.mark.parametrize("name", ["hooks", "services"])
def test_a_directory_of_programs_from_a_former_owner_is_refused(here: Path, name: str) -> None:
    """The run dir was nobody's, then given to root; in it nobody could still replace a hook."""
    (here / name).mkdir()
    os.chown(here / name, NOBODY, NOBODY)
    with pytest.raises(ConfigurationError) as refused:
        run_dir.require(here, PLACE)
    assert f"{here / name} belongs to uid {NOBODY}" in str(refused.value)


@as_root
def test_the_refusal_names_everything_and_changes_nothing(here: Path) -> None:
    os.chown(here, NOBODY, NOBODY)
    with pytest.raises(ConfigurationError) as refused:
        run_dir.make(here, PLACE)
    words = str(refused.value)
    assert refused.value.exit_code == 2
    assert words.startswith(f"environment: OCGATE_RUN_DIR: got '{here}'")
    assert f"{here} belongs to uid {NOBODY}" in words
    assert f"chown root: {here}; chmod 755 {here}" in words
    assert list(here.iterdir()) == []
    assert here.stat().st_uid == NOBODY


def test_no_umask_makes_a_parent_that_others_write_to(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        run_dir.make(tmp_path / "a" / "b", PLACE)
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o7777 == 0o755


# --- writers -------------------------------------------------------------------------------------

ATTACKED = {
    EGRESS: lambda here: write_egress(here, None),
    EXITS: lambda here: write_known(here, {}),
    STRAYS: lambda here: write_strays(here, ()),
    "hooks/connect": lambda here: hooks.install(here, chain=(), auth_timeout=240),
    "hooks/chain": lambda here: hooks.install(here, chain=(), auth_timeout=240),
    "keys.new/cert.pem": lambda here: key_copies.stage(
        here, key_copies.KeyFiles({"cert.pem": b"secret"})
    ),
    "sessions/812-40522.json": lambda here: Journal(here).write(session()),
}


@pytest.mark.parametrize("name", ATTACKED)
@pytest.mark.parametrize("link", ["{}", ".{}.new", "{}.new"])
def test_no_writer_follows_a_link(here: Path, name: str, link: str) -> None:
    """Both the name and each temporary name that was ever used point at a file of root's."""
    run_dir.make(here, PLACE)
    treasure = here.parent / "shadow"
    treasure.write_text("root:secret")
    treasure.chmod(0o600)
    target = here / name
    target.parent.mkdir(exist_ok=True, mode=0o700)
    target.with_name(link.format(target.name)).symlink_to(treasure)
    ATTACKED[name](here)
    assert treasure.read_text() == "root:secret"
    assert treasure.stat().st_mode & 0o777 == 0o600
    assert target.is_file()
    assert not target.is_symlink()


def test_a_write_that_fails_leaves_the_old_and_nothing_beside(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = here / "file"
    own_files.write(path, b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fchmod", full)
    with pytest.raises(OSError, match="No space left"):
        own_files.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in here.iterdir()] == ["file"]


def test_a_directory_is_not_taken_for_ours_by_a_link(here: Path) -> None:
    (here / "sessions").symlink_to(here.parent)
    with pytest.raises(OSError, match="not a directory of root's"):
        own_files.make_directory(here / "sessions", 0o700)


def test_the_journal_keeps_what_it_cannot_read_and_drops_what_was_never_put(here: Path) -> None:
    journal = Journal(here)
    journal.write(session())
    journal.write(replace(session(), worker=813))
    (here / "sessions" / "torn.json").write_text("{")
    (here / "sessions" / ".814-1.json.new").write_text("{")
    (here / "sessions" / "dir.json").mkdir()  # stands for any error of the disk
    assert [found.worker for found in journal.read()] == [812, 813]
    assert sorted(entry.name for entry in (here / "sessions").iterdir()) == [
        "812-40522.json",
        "813-40522.json",
        "dir.json",
    ]

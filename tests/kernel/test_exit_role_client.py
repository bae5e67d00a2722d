"""The tunnel's client under the real s6: who it is, what it sees, and what is left of it."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocgate import names
from ocgate.errors import OcgateError
from ocgate.exit_node import hooks, services
from ocgate.exit_node.client import Client
from ocgate.names import TUNNEL_UID
from ocgate.netlab.wait import wait_until
from ocgate.tunnel.model import Launch

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(
        shutil.which("s6-svscan") is None and os.environ.get("CI") != "true", reason="needs s6"
    ),
]

# Tells who it is and what it was given, then waits for its end.
SHOW = """
id -u; id -g; id -G
env | grep -v '^PWD=' | cut -d= -f1 | sort | tr '\\n' ' '; echo
cat secret 2>&1; cat; echo said
exec sleep 60
"""


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Path]:
    """A run dir whose tunnel service is supervised, without control."""
    for directory in (tmp_path, *tmp_path.parents):  # the client's user must get there
        if directory.stat().st_uid == os.geteuid() and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o111)
    run_dir = tmp_path / "run"
    (run_dir / "hooks").mkdir(parents=True)
    services.write(run_dir, python=sys.executable, log_format="human")
    hooks.install(run_dir)
    service = run_dir / names.SERVICES / names.TUNNEL
    shutil.rmtree(service / "log")  # its output is the supervisor's then
    log = (run_dir / "log").open("wb")
    process = subprocess.Popen(["s6-supervise", str(service)], stdout=log, stderr=log)
    yield run_dir
    process.terminate()  # as `s6-svc -xd`, also where it isn't up yet
    process.wait(10)
    log.close()


def said(run_dir: Path) -> str:
    return (run_dir / "log").read_text()


def test_the_client_is_a_user_of_its_own_and_gets_its_files_and_nothing_else(
    supervised: Path,
) -> None:
    client = Client(supervised)
    launch = Launch(("sh", "-c", SHOW), {"secret": b"in a file\n"}, "on stdin\n")
    client.start(launch, uid=TUNNEL_UID)
    assert client.running() is not None
    wait_until(lambda: "\nsaid\n" in said(supervised), 5.0, "its words")
    lines = said(supervised).splitlines()
    assert lines[:3] == [str(TUNNEL_UID)] * 3
    assert lines[3].split() == ["PATH"]
    assert lines[4:6] == ["in a file", "on stdin"]
    for path, mode in ((client.directory, 0o700), (client.directory / "secret", 0o600)):
        found = path.stat()
        assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (TUNNEL_UID, mode)
    client.stop()
    assert client.running() is None
    assert not client.directory.exists()
    assert not (supervised / names.TUNNEL_STDIN).exists()


def test_a_set_user_id_program_gives_the_client_nothing(supervised: Path) -> None:
    """As `su` did that is on every machine: started by the client's account it was root. First
    shown of that account alone."""
    program = supervised / "hooks" / "who"
    shutil.copy(shutil.which("id") or "", program)
    program.chmod(0o6755)
    as_user = ["s6-applyuidgid", "-u", str(TUNNEL_UID), "-g", str(TUNNEL_UID), "-G", ""]
    shown = subprocess.run([*as_user, program], capture_output=True, text=True, check=True).stdout
    assert "euid=0" in shown, "positive control: set-user-id counts on this file system"
    client = Client(supervised)
    look = f"{program}; grep -E '^(Cap|NoNew)' /proc/self/status; echo said; exec sleep 60"
    client.start(Launch(("sh", "-c", look), {}), uid=TUNNEL_UID)
    wait_until(lambda: "\nsaid\n" in said(supervised), 5.0, "its words")
    client.stop()
    first, *status = said(supervised).splitlines()[:7]
    assert f"uid={TUNNEL_UID}" in first
    assert "euid" not in first
    assert [line.split()[1] for line in status] == ["0" * 16] * 5 + ["1"]


def test_it_is_not_started_again_by_itself(supervised: Path) -> None:
    client = Client(supervised)
    client.start(Launch(("sh", "-c", "exit 3"), {}), uid=TUNNEL_UID)
    wait_until(lambda: "tunnel exited with 3" in said(supervised), 5.0, "its end")
    assert client.running() is None
    client.stop()  # what is down already is no error


def test_words_of_its_command_are_data(supervised: Path) -> None:
    client = Client(supervised)
    word = "$(touch /tmp/never) '; `x` \\ \n end"
    launch = Launch(("printf", "%s|", word), {})
    client.start(launch, uid=TUNNEL_UID)
    wait_until(lambda: "exited with 0" in said(supervised), 5.0, "its end")
    assert f"{word}|" in said(supervised)


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/../../outside"])
def test_no_file_is_written_outside_of_its_directory(supervised: Path, name: str) -> None:
    client = Client(supervised)
    with pytest.raises(OcgateError, match="outside"):
        client.start(Launch(("true",), {name: b""}), uid=TUNNEL_UID)


def test_a_link_that_the_client_left_leads_root_nowhere(supervised: Path) -> None:
    victim = supervised / "victim"
    victim.write_text("safe")
    client = Client(supervised)
    client.directory.mkdir()
    (client.directory / "secret").symlink_to(victim)
    (client.directory / "secret.new").symlink_to(victim)
    client.start(Launch(("true",), {"secret": b"x"}), uid=TUNNEL_UID)
    assert victim.read_text() == "safe"

"""`ocgate init` and `ocgate user …`, through the command line and on real files."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ocgate import __main__

Invoke = Callable[..., int]

pytestmark = pytest.mark.skipif(not shutil.which("ocpasswd"), reason="ocserv is not installed")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "etc"


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, directory: Path) -> Invoke:
    monkeypatch.setenv("OCGATE_CONFIG_DIR", str(directory))
    monkeypatch.setenv("OCGATE_RUN_DIR", str(tmp_path / "run"))

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["ocgate", *arguments])
        return __main__.main()

    return run


@pytest.fixture
def small(directory: Path) -> Path:
    """A config dir of the operator's, with users elsewhere than ours would be."""
    directory.mkdir()
    users = directory / "people"
    users.write_text("# people\nbob:staff:$5$a$b\n")
    conf = f'auth = "plain[passwd={users}]"\ntcp-port = 4443\n[vhost:x]\nauth = "pam"\n'
    (directory / "ocserv.conf").write_text(conf)
    return users


def password_in(printed: str) -> str:
    (line,) = [line for line in printed.splitlines() if line.startswith("  Password")]
    return line.split()[1]


def test_init_twice(invoke: Invoke, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first shows how to connect, once; the second changes nothing and shows no secret."""
    assert invoke("init") == 0
    first = capsys.readouterr().out
    password = password_in(first)
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert f"echo '{password}' | sudo openconnect --non-inter" in first
    assert "\x1b" not in first
    assert invoke("init") == 0
    second = capsys.readouterr().out
    assert "Nothing to do" in second and password not in second
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


def test_init_beside_somebodys_files_is_2(
    invoke: Invoke, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is missing is named."""
    directory.mkdir()
    (directory / "ocpasswd").write_text("x")
    assert invoke("init") == 2
    assert "not there: ocserv.conf, server-cert.pem" in capsys.readouterr().err


def test_add_list_remove(invoke: Invoke, small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file that ocserv.conf names; the random password is shown once, then never."""
    assert invoke("user", "add", "--group", "staff", "--", "-al ice") == 0
    printed = capsys.readouterr().out
    password = password_in(printed)
    assert ":4443" in printed
    assert password not in small.read_text()
    assert invoke("user", "list", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert [user["name"] for user in listed] == ["bob", "-al ice"]
    assert invoke("user", "list") == 0
    assert "-al ice" in capsys.readouterr().out
    assert invoke("user", "remove", "--", "-al ice") == 0
    assert small.read_text() == "# people\nbob:staff:$5$a$b\n"
    assert invoke("user", "remove", "nobody") == 1


def test_existing_user(invoke: Invoke, small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Is kept, unless a new password is what one wants."""
    assert invoke("user", "add", "bob") == 1
    assert "--replace" in capsys.readouterr().err
    assert invoke("user", "add", "bob", "--replace") == 0
    assert small.read_text().startswith("# people\nbob:staff:$5$")


def test_given_passwords_are_not_printed(
    invoke: Invoke,
    small: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From stdin or a file, their first line."""
    stdin = io.TextIOWrapper(io.BytesIO(b"hush hush\nmore\n"))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert invoke("user", "add", "carol", "--password-stdin") == 0
    secret = tmp_path / "secret"
    secret.write_text("hush hush\n")
    assert invoke("user", "add", "dave", "--password-file", str(secret)) == 0
    assert "hush" not in "".join(capsys.readouterr())
    for line in small.read_text().splitlines()[2:]:
        hashed = line.split(":")[2]
        command = ["openssl", "passwd", "-5", "-salt", hashed.split("$")[2], "hush hush"]
        assert subprocess.check_output(command, text=True).strip() == hashed


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["add", "a:b"], 2, "without ':'"),
        (["add", "x" * 64], 2, "63 bytes"),
        (["add", "eve", "--group", "a,b"], 2, "group"),
        (["add", "eve", "--vhost", "x"], 1, "no users in a file"),
        (["add", "eve", "--password-file", "/none"], 1, "No such file"),
    ],
)
def test_refusals(
    invoke: Invoke,
    small: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    """Nothing is written, and it says why."""
    before = small.read_bytes()
    assert invoke("user", *arguments) == code
    assert words in capsys.readouterr().err
    assert small.read_bytes() == before


def test_without_a_configuration(invoke: Invoke, capsys: pytest.CaptureFixture[str]) -> None:
    """The way out is named."""
    assert invoke("user", "list") == 1
    assert "ocgate init" in capsys.readouterr().err


def test_narrow_terminal_does_not_break_the_line(directory: Path) -> None:
    """Forty columns and colours: the command is still one line that can be pasted."""
    master, slave = pty.openpty()
    environment = os.environ | {
        "OCGATE_CONFIG_DIR": str(directory),
        "COLUMNS": "40",
        "TERM": "xterm",
    }
    command = [sys.executable, "-m", "ocgate", "init"]
    process = subprocess.Popen(command, stdout=slave, env=environment)
    os.close(slave)
    printed = b""
    with os.fdopen(master, "rb", buffering=0) as terminal:
        while True:
            try:
                piece = terminal.read(4096)
            except OSError:  # EIO: the other side is closed
                break
            if not piece:
                break
            printed += piece
    assert process.wait(60) == 0
    lines = printed.decode().replace("\r\n", "\n").splitlines()
    (line,) = [line for line in lines if line.startswith("echo '")]
    assert re.search(r" https://\S+$", line)
    assert "\x1b[" in printed.decode()
    assert "\x1b[" not in line

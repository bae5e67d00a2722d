"""Users in the passwd file: what an edit changes and, above all, what it leaves alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocgate.errors import ConfigurationError, OcgateError
from ocgate.ocserv import passwords, users
from ocgate.ocserv.passwd_file import edit

HASH = "$5$saltsalt$abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
ODD_NAMES = [
    "a b",
    " lead",
    "trail ",
    "$(id)",
    "`id`",
    "*",
    "back\\slash",
    "-lead",
    "--delete",
    "#hash",
    "!bang",
    "comma,x",
    'quo"te',
    "it's",
    "<&>",
    "%41",
    "üñî",
    "x" * 63,
]
BAD_NAMES = [
    "",
    "../x",
    "a/b",
    ".",
    "..",
    "a:b",
    "a\nb",
    "a\0b",
    "a\rb",
    "tab\t",
    "\x1b[2J",
    "x" * 64,
    "ü" * 32,
    "\udc80",
]


def test_random_passwords_are_long_and_readable() -> None:
    """99 bits in an alphabet without look-alikes, never the same twice."""
    made = {passwords.random_password() for _ in range(200)}
    assert len(made) == 200
    assert len(passwords.ALPHABET) == 31 == len(set(passwords.ALPHABET))
    assert not set("01lio") & set(passwords.ALPHABET)
    assert passwords.GROUPS * passwords.GROUP_LENGTH * 4.954 > 96
    assert all(set(word) <= {*passwords.ALPHABET, "-"} for word in made)


@pytest.mark.skipif(not shutil.which("ocpasswd"), reason="ocpasswd is not installed")
@pytest.mark.parametrize("password", ["secret", "pü ß€", "-n", "a" * 127, "$(id) \\ '\"", " x "])
def test_hash_is_what_crypt_makes_of_the_password(password: str) -> None:
    """openssl, with the same salt, gets the same SHA-256 crypt."""
    hashed = passwords.hash_password(password)
    scheme, salt = hashed.split("$")[1:3]
    assert scheme == "5"
    command = ["openssl", "passwd", "-5", "-salt", salt, "-stdin"]
    again = subprocess.run(command, input=f"{password}\n".encode(), capture_output=True, check=True)
    assert again.stdout.decode().strip() == hashed


@pytest.mark.parametrize("password", ["", "two\nlines", "nul\0", "a" * 128, "\udc80"])
def test_unusable_passwords_are_refused_and_not_shown(password: str) -> None:
    """Clients could not send them; the message must not repeat them."""
    with pytest.raises(ConfigurationError) as caught:
        passwords.validate_password(password, source="stdin")
    assert caught.value.problems[0].got is None


@pytest.mark.parametrize("name", ODD_NAMES)
def test_names_are_data(tmp_path: Path, name: str) -> None:
    """An odd name goes in, is listed as it is, and comes out without a trace."""
    path = tmp_path / "ocpasswd"
    users.add(path, "before", HASH)
    users.add(path, name, HASH, groups=["staff", "admin"])
    assert users.read(path)[1] == users.User(name, ("staff", "admin"), locked=False, open=False)
    users.remove(path, name)
    assert path.read_text() == f"before:*:{HASH}\n"


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_ocserv_cannot_take_are_refused(tmp_path: Path, name: str) -> None:
    """Nothing is written; 64 bytes and more would log in as the user of the first 63."""
    path = tmp_path / "ocpasswd"
    with pytest.raises(ConfigurationError):
        users.add(path, name, HASH)
    assert not path.exists()


@pytest.mark.parametrize("group", ["", "a,b", "a:b", "*", " a", "a\n", "x" * 64])
def test_bad_groups_are_refused(tmp_path: Path, group: str) -> None:
    """They would become other groups, or another field."""
    with pytest.raises(ConfigurationError):
        users.add(tmp_path / "ocpasswd", "alice", HASH, groups=[group])


def test_foreign_lines_stay(tmp_path: Path) -> None:
    """Comments, blank lines, CRLF, further fields, order and mode survive add and remove."""
    path = tmp_path / "ocpasswd"
    content = f"# ours\r\n\r\nbob:g1, g2:{HASH}:more\r\nbroken line\nlast:*:!{HASH}"
    path.write_bytes(content.encode())
    path.chmod(0o640)
    users.add(path, "new", HASH)
    assert path.read_bytes() == f"{content}\nnew:*:{HASH}\n".encode()
    users.remove(path, "new")
    assert path.read_bytes() == f"{content}\n".encode()
    assert path.stat().st_mode & 0o777 == 0o640
    assert users.read(path) == (
        users.User("bob", ("g1", "g2"), locked=False, open=False),
        users.User("last", (), locked=True, open=False),
    )


def test_open_entry_is_told(tmp_path: Path) -> None:
    """`u:*:` accepts any password, so it must not look like any user."""
    path = tmp_path / "ocpasswd"
    path.write_text("u:*:\n")
    assert users.read(path)[0].open


def test_adding_an_existing_user_is_an_error(tmp_path: Path) -> None:
    """The old password stays."""
    path = tmp_path / "ocpasswd"
    users.add(path, "alice", HASH)
    before = path.read_bytes()
    with pytest.raises(OcgateError, match="exists"):
        users.add(path, "alice", HASH + "x")
    assert path.read_bytes() == before


def test_replace_keeps_groups_and_place(tmp_path: Path) -> None:
    """A new password is no new user; it also unlocks."""
    path = tmp_path / "ocpasswd"
    path.write_text(f"alice:staff:!{HASH}\nbob:*:{HASH}\n")
    users.add(path, "alice", "$5$new$hash", replace=True)
    assert path.read_text() == f"alice:staff:$5$new$hash\nbob:*:{HASH}\n"
    users.add(path, "alice", "$5$new$hash", groups=["admin"], replace=True)
    assert path.read_text() == f"alice:admin:$5$new$hash\nbob:*:{HASH}\n"


def test_remove_takes_every_line_of_the_user(tmp_path: Path) -> None:
    """A shadowed second line would come alive."""
    path = tmp_path / "ocpasswd"
    path.write_text(f"alice:*:{HASH}\nbob:*:{HASH}\nalice:*:$5$old$old\n")
    users.remove(path, "alice")
    assert [user.name for user in users.read(path)] == ["bob"]
    with pytest.raises(OcgateError, match="no user"):
        users.remove(path, "alice")


def test_symbolic_link_stays(tmp_path: Path) -> None:
    """The file it points to is edited."""
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("")
    link.symlink_to(real)
    users.add(link, "alice", HASH)
    assert link.is_symlink() and real.read_text() == f"alice:*:{HASH}\n"


def test_nothing_is_left_beside(tmp_path: Path) -> None:
    """Also when the change itself fails."""
    path = tmp_path / "ocpasswd"
    users.add(path, "alice", HASH)

    def broken(_content: bytes) -> bytes:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        edit(path, broken)
    assert [entry.name for entry in tmp_path.iterdir()] == ["ocpasswd"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_parallel_edits_lose_no_user(tmp_path: Path) -> None:
    """Eight writers at once: the lock is taken again on the file that replaced ours."""
    path = tmp_path / "ocpasswd"
    code = (
        "import sys; from pathlib import Path; from ocgate.ocserv import users\n"
        "for n in range(5): users.add(Path(sys.argv[1]), f'{sys.argv[2]}-{n}', '$5$a$b')"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(path), str(number)])
        for number in range(8)
    ]
    assert [process.wait(60) for process in running] == [0] * 8
    assert len(users.read(path)) == 40


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.parametrize("options", ["bind", "bind,ro"])
def test_single_file_mount(tmp_path: Path, options: str) -> None:
    """Mounted alone it is written in place, with a note; read-only it is a clear error."""
    source, target = tmp_path / "source", tmp_path / "ocpasswd"
    source.write_text(f"old:*:{HASH}\n")
    target.touch()
    code = (
        "import sys, json; from pathlib import Path; from ocgate.ocserv import users\n"
        "from ocgate.errors import OcgateError\n"
        "try: print(json.dumps(users.add(Path(sys.argv[1]), 'new', '$5$a$b').in_place))\n"
        "except OcgateError as error: print(json.dumps(str(error)))"
    )
    script = 'mount --bind "$1" "$2" && mount -o remount,"$3" "$2" && exec "$4" -c "$5" "$2"'
    command = ["unshare", "--mount", "sh", "-ec", script, "sh"]
    arguments = [str(source), str(target), options, sys.executable, code]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if options == "bind":
        assert json.loads(done.stdout) is True
        assert source.read_text() == f"old:*:{HASH}\nnew:*:$5$a$b\n"
    else:
        assert "read-only" in json.loads(done.stdout)
        assert source.read_text() == f"old:*:{HASH}\n"


names = st.text(st.characters(categories=("L", "N", "P", "S", "Zs"), exclude_characters=":"))


@given(name=names, rest=st.binary(max_size=200))
def test_any_file_survives_adding_and_removing(
    tmp_path_factory: pytest.TempPathFactory, name: str, rest: bytes
) -> None:
    """Whatever else is in the file, add then remove gives it back, newline at the end apart."""
    path = tmp_path_factory.mktemp("users") / "ocpasswd"
    path.write_bytes(rest)
    try:
        users.add(path, name, HASH)
    except (ConfigurationError, OcgateError):
        assert path.read_bytes() == rest
        return
    users.remove(path, name)
    assert path.read_bytes() in (rest, rest + b"\n")

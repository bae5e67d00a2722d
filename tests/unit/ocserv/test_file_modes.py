"""Files that others may write to are refused, secrets that others may read are warned of."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocgate.ocserv import files
from ocgate.ocserv.file_modes import readable, writable
from ocgate.ocserv.ini_parser import parse
from ocgate.ocserv.reading import read_view
from ocgate.ocserv.releases import DEBIAN_12

CONF = """auth = "plain[passwd=ocpasswd]"
server-cert = cert.pem
server-key = key.pem
connect-script = up.sh
[vhost:other]
auth = "plain[passwd=others]"
"""


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    (tmp_path / "ocserv.conf").write_text(CONF)
    for name in ("ocserv.conf", "ocpasswd", "others", "cert.pem", "key.pem", "up.sh"):
        path = tmp_path / name
        path.touch()
        path.chmod(0o700 if name == "up.sh" else 0o600)
    return tmp_path


def found(etc: Path) -> tuple[list[str], list[str]]:
    """Keys of problems, codes of warnings with the file's name."""
    view = read_view(
        parse((etc / "ocserv.conf").read_bytes(), str(etc / "ocserv.conf")), release=DEBIAN_12
    )
    facts = files.observe(view, etc)
    problems = writable(view, facts, files.mode_of(etc / "ocserv.conf"))
    return (
        [f"{problem.key} {problem.got}" for problem in problems],
        [f"{warning.code} {warning.remedy.split()[-1]}" for warning in readable(view, facts)],
    )


def test_files_of_their_owner_alone_are_fine(etc: Path) -> None:
    (etc / "cert.pem").chmod(0o644)
    (etc / "up.sh").chmod(0o755)
    (etc / "ocserv.conf").chmod(0o644)
    (etc / "ocpasswd").chmod(0o660)  # a group's is the operator's choice
    assert found(etc) == ([], [])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ocserv.conf", "ocserv.conf mode 0602"),
        ("ocpasswd", "auth ocpasswd"),
        ("others", "auth others"),
        ("up.sh", "connect-script up.sh"),
    ],
)
def test_what_everybody_may_write_is_refused(etc: Path, name: str, said: str) -> None:
    (etc / name).chmod(0o702 if name == "up.sh" else 0o602)
    assert found(etc) == ([said], [])


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("key.pem", "key-readable"),
        ("ocpasswd", "passwords-readable"),
        ("others", "passwords-readable"),
    ],
)
def test_a_secret_that_everybody_may_read_is_warned_of(etc: Path, name: str, code: str) -> None:
    (etc / name).chmod(0o644)
    assert found(etc) == ([], [f"{code} {name}"])


def test_a_link_s_own_mode_says_nothing(etc: Path) -> None:
    """Kubernetes and certbot name files by links, which are 0777."""
    (etc / "key.pem").rename(etc / "real.pem")
    (etc / "key.pem").symlink_to("real.pem")
    assert found(etc) == ([], [])

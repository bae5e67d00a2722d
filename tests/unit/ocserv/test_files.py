"""The edge that reads what ocserv.conf names, and the file of a fresh installation as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocgate.errors import ConfigurationError
from ocgate.ocserv import files, initial_conf
from ocgate.ocserv.certificate import create
from ocgate.ocserv.checks import check
from ocgate.ocserv.file_checks import FileFact, FileFacts, check_files
from ocgate.ocserv.ini_parser import parse
from ocgate.ocserv.reading import read_view
from ocgate.ocserv.releases import DEBIAN_12, IN_THE_IMAGE
from ocgate.ocserv.view import ScopeKind


def test_per_user_and_per_group_files(tmp_path: Path) -> None:
    """Relative to the directory ocserv starts in; a directory that is not there is none."""
    for name in ("users/bob", "users/alice", "groups/staff", "everybody"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("mtu = 1400\n")
    conf = (
        b"config-per-user = users/\nconfig-per-group = groups\n[vhost:a]\n"
        b"config-per-group = nowhere\ndefault-user-config = everybody\n"
    )
    found = files.read_supplements(parse(conf, "conf"), tmp_path, DEBIAN_12)
    assert [(extra.kind, Path(extra.document.source).name) for extra in found] == [
        (ScopeKind.USER, "alice"),
        (ScopeKind.USER, "bob"),
        (ScopeKind.GROUP, "staff"),
        (ScopeKind.USER, "everybody"),
    ]


def test_facts(tmp_path: Path) -> None:
    """Keys as public keys, passwd files as bytes, no other content; directories are no files."""
    made = create(["a.example"])
    (tmp_path / "cert.pem").write_bytes(made.certificate)
    (tmp_path / "key.pem").write_bytes(made.key)
    (tmp_path / "passwd").write_bytes(b"u:*:h\n")
    (tmp_path / "script").write_bytes(b"#!/bin/sh\n")
    (tmp_path / "script").chmod(0o755)
    view = read_view(
        parse(
            b"server-cert = cert.pem\nserver-key = key.pem\nauth = plain[passwd=passwd]\n"
            b"connect-script = script\nca-cert = .\ncrl = gone\n",
            "conf",
        ),
        release=DEBIAN_12,
    )
    facts = files.observe(view, tmp_path)
    assert facts["cert.pem"].public_key == facts["key.pem"].public_key is not None
    assert facts["cert.pem"].content is None
    assert facts["passwd"].content == b"u:*:h\n"
    assert facts["script"].executable
    assert not facts["passwd"].executable
    assert facts["."].missing == "it is no regular file"
    assert facts["gone"].missing == "No such file or directory"


def test_no_file(tmp_path: Path) -> None:
    """The problem names the path and the system's words."""
    with pytest.raises(ConfigurationError, match="No such file"):
        files.read_document(tmp_path / "ocserv.conf")


def test_fresh_installation_passes_all_checks(tmp_path: Path) -> None:
    """What `ocgate init` writes is free of what `ocgate check` refuses."""
    made = create(["a.example"])
    (tmp_path / initial_conf.CERTIFICATE).write_bytes(made.certificate)
    (tmp_path / initial_conf.KEY).write_bytes(made.key)
    (tmp_path / initial_conf.PASSWD).write_bytes(b"u:*:h\n")
    (tmp_path / "config-per-user").mkdir()
    (tmp_path / "config-per-group").mkdir()
    path = tmp_path / initial_conf.CONF
    path.write_text(initial_conf.ocserv_conf(initial_conf.Choices(tmp_path)))
    document = files.read_document(path)
    view = read_view(document, release=IN_THE_IMAGE)
    assert check(document, [], view, ipv6=True, release=IN_THE_IMAGE) == []
    assert check_files(view, files.observe(view, tmp_path)) == []


@pytest.mark.parametrize("line", ["alice$5$salt$hash", "alice:$5$salt$hash", "$5$salt$hash:"])
def test_a_malformed_passwd_line_is_not_quoted(line: str) -> None:
    """It may hold a hash; the place says which line it is."""
    conf = b"auth = plain[passwd=p]\nserver-cert = c\n"
    view = read_view(parse(conf, "ocserv.conf"), release=DEBIAN_12)
    facts = FileFacts({"p": FileFact(content=b"# fine\n" + line.encode() + b"\n")})
    (found,) = [p for p in check_files(view, facts) if p.source == "p"]
    assert (found.line, found.got) == (2, None)
    assert "$5$" not in str(found)
    assert "hash" not in str(found).replace("user:groups:hash", "").replace("hold a hash", "")

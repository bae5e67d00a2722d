"""Copies of certificates and keys: which lines name them, and that only whole pairs get there."""

from __future__ import annotations

import dataclasses
import time
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from ocgate.errors import ConfigurationError
from ocgate.names import KEYS, KEYS_NEW
from ocgate.ocserv import key_copies
from ocgate.ocserv.certificate import create
from ocgate.ocserv.ini_parser import Document, parse
from ocgate.ocserv.keys import named_files
from ocgate.ocserv.reading import read_view
from ocgate.ocserv.releases import DEBIAN_12
from ocgate.ocserv.render import EffectiveChoices, render

CONF = b"""\
device = vpns
server-cert = a.pem
server-cert = pkcs11:object=b;type=cert
server-key = a.key
server-key = pkcs11:object=b;type=private
[vhost:b.example]
server-cert = b.pem
  b2.pem
server-key = b.key
server-key = b2.key
"""
CHOICES = EffectiveChoices(
    connect_hook="/c",
    disconnect_hook="/d",
    socket_file="/s",
    pid_file="/p",
    occtl_socket_file="/o",
    directory="/etc/ocserv",
    ipv4_network=IPv4Network("10.10.10.0/24"),
    release=DEBIAN_12,
)


def document(text: bytes = CONF) -> Document:
    return parse(text, "/etc/ocserv/ocserv.conf")


def test_every_pair_keeps_its_order_and_hardware_keeps_its_url() -> None:
    """ocserv makes pairs by order alone: what it reads of the effective file are the same pairs."""
    choices = dataclasses.replace(CHOICES, keys_directory="/run/ocgate/keys")
    effective = render(document(), choices)
    view = read_view(parse(effective.data, "effective"), release=DEBIAN_12)
    pairs = [
        (pair.certificate.value, pair.key.value if pair.key else None) for pair in view.key_pairs
    ]
    assert pairs[:2] == [
        ("/run/ocgate/keys/main-0-cert.pem", "/run/ocgate/keys/main-0-key.pem"),
        ("pkcs11:object=b;type=cert", "pkcs11:object=b;type=private"),
    ]
    assert len(pairs) == 4
    for rank, (certificate, key) in enumerate(pairs[2:]):
        assert key is not None
        assert certificate.endswith(f"-{rank}-cert.pem")
        assert certificate.startswith("/run/ocgate/keys/vhost-")
        assert key == certificate.replace("cert.pem", "key.pem")
    assert b"# ocgate, a copy is used: server-cert = a.pem" in effective.data


def test_without_a_directory_the_operators_files_are_named() -> None:
    data = render(document(), CHOICES).data
    assert b"\nserver-cert = a.pem\n" in data
    assert b"a copy" not in data


def test_a_copy_is_named_by_its_place() -> None:
    """A reload may name another path: ocserv still looks at the one that it was started with."""
    names = [found.copy_name for found in named_files(document())]
    assert len(set(names)) == len(names) == 8
    moved = document(CONF.replace(b"b.pem", b"/elsewhere/c.pem"))
    assert [found.copy_name for found in named_files(moved)] == names


PAIR = b"server-cert = a.pem\nserver-key = a.key\n"


def write(directory: Path, name: str = "a.example") -> None:
    made = create([name])
    (directory / "a.pem").write_bytes(made.certificate)
    (directory / "a.key").write_bytes(made.key)


def taken(directory: Path) -> key_copies.KeyFiles:
    found = document(PAIR)
    return key_copies.read_keys(found, read_view(found, release=DEBIAN_12), directory)


def test_only_what_changed_is_replaced_and_with_a_time_to_come(tmp_path: Path) -> None:
    """ocserv compares whole seconds with its last look: a copy's time is later than any look until
    now, also of two renewals within a second; what is the same is not new to it."""
    write(tmp_path)
    for _ in range(2):
        began = int(time.time())
        keys = taken(tmp_path)
        assert not key_copies.in_use(tmp_path, keys)
        key_copies.stage(tmp_path, keys)
        key_copies.put(tmp_path)
        assert key_copies.in_use(tmp_path, keys)
        copies = sorted((tmp_path / KEYS).iterdir())
        assert [path.stat().st_mode & 0o777 for path in copies] == [0o600, 0o600]
        assert all(path.stat().st_mtime > began for path in copies)
        before = [(path.stat().st_ino, path.stat().st_mtime) for path in copies]
        key_copies.stage(tmp_path, taken(tmp_path))
        key_copies.put(tmp_path)
        assert [(path.stat().st_ino, path.stat().st_mtime) for path in copies] == before
        write(tmp_path)
    assert not (tmp_path / KEYS_NEW).exists()
    key_copies.remove(tmp_path)
    assert not (tmp_path / KEYS).exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.key", create(["b.example"]).key, "the key of the certificate"),
        ("a.pem", b"-----BEGIN CERTIFICATE-----\nhalf", "X.509"),
        ("a.key", b"", "unencrypted key"),
        ("a.pem", None, "No such file"),
    ],
)
def test_what_does_not_match_is_never_taken(
    tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    write(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigurationError, match=words):
        taken(tmp_path)


def test_what_was_staged_and_refused_is_never_put(tmp_path: Path) -> None:
    write(tmp_path)
    key_copies.stage(tmp_path, taken(tmp_path))
    key_copies.unstage(tmp_path)
    key_copies.put(tmp_path)
    assert not (tmp_path / KEYS).exists()

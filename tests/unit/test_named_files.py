"""Files that a configuration names: where they may lie and what they may be."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from ocgate import named_files
from ocgate.named_files import read

MOST = 4096


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """A provider's file in a directory of its own, with one beside it and one outside."""
    directory = tmp_path / "vpn"
    directory.mkdir()
    (directory / "ca.pem").write_bytes(b"certificate")
    (tmp_path / "secret").write_bytes(b"root:hash")
    (directory / "vpn.ovpn").write_text("client")
    return directory / "vpn.ovpn"


def refusal(path: Path, beside: Path | None = None) -> str:
    with pytest.raises(OSError) as refused:
        read(path, most=MOST, beside=beside)
    return named_files.words(refused.value)


def test_what_lies_beside_is_read(conf: Path) -> None:
    assert read(conf.parent / "ca.pem", most=MOST, beside=conf) == b"certificate"
    (conf.parent / "keys").mkdir()
    (conf.parent / "keys" / "own.key").write_bytes(b"key")
    assert read(conf.parent / "keys" / "own.key", most=MOST, beside=conf) == b"key"


def test_links_that_stay_inside_are_followed(conf: Path) -> None:
    """As Kubernetes makes them: `ca.crt` -> `..data/ca.crt`, and a link to the whole directory."""
    (conf.parent / "link").symlink_to("ca.pem")
    assert read(conf.parent / "link", most=MOST, beside=conf) == b"certificate"
    whole = conf.parent.parent / "mounted"
    whole.symlink_to(conf.parent)
    assert read(whole / "ca.pem", most=MOST, beside=whole / "vpn.ovpn") == b"certificate"


@pytest.mark.parametrize("name", ["../secret", "{outside}/secret", "link", "dir/secret"])
def test_what_lies_elsewhere_is_not(conf: Path, name: str) -> None:
    """By name, by an absolute path, through a link to the file or to its directory."""
    (conf.parent / "link").symlink_to("../secret")
    (conf.parent / "dir").symlink_to("..")
    path = conf.parent / name.format(outside=conf.parent.parent)
    why = refusal(path, conf)
    assert "may only lie beside" in why
    assert str(conf) in why
    assert read(path, most=MOST) == b"root:hash"  # the operator's own word


@pytest.mark.parametrize("directory", ["/etc", "/tmp", "/"])
def test_a_configuration_among_others_files_names_none(directory: str) -> None:
    beside = Path(directory) / "vpn.ovpn"
    assert "give it a directory of its own" in refusal(Path("/etc/passwd"), beside)


def test_a_container_s_secrets_are_the_operator_s(
    conf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(named_files, "SECRETS", conf.parent.parent / "secrets")
    named_files.SECRETS.mkdir()
    (named_files.SECRETS / "login").write_bytes(b"me")
    assert read(named_files.SECRETS / "login", most=MOST, beside=conf) == b"me"


@pytest.mark.parametrize(
    "path", ["/proc/kmsg", "/proc/self/environ", "/sys/kernel/profiling", "/dev/zero"]
)
def test_what_the_system_makes_is_no_file(conf: Path, path: str) -> None:
    """Whoever names it; some of it blocks a reader for ever."""
    (conf.parent / "link").symlink_to(path)
    for beside in (None, conf):
        assert "the system's" in refusal(Path(path), beside)
        assert "the system's" in refusal(conf.parent / "link", beside)


def test_only_regular_files(conf: Path) -> None:
    os.mkfifo(conf.parent / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(conf.parent / "socket"))
        for name in ("fifo", "socket", "."):
            assert refusal(conf.parent / name) == "it is no regular file"


def test_a_large_file_is_refused_without_reading_it_all(conf: Path) -> None:
    with (conf.parent / "large").open("wb") as file:
        file.truncate(1 << 40)
    assert refusal(conf.parent / "large", conf) == f"it is larger than {MOST} bytes"


def test_what_is_not_there_is_said(conf: Path) -> None:
    assert refusal(conf.parent / "none", conf) == "No such file or directory"
    (conf.parent / "loop").symlink_to("loop")
    assert refusal(conf.parent / "loop", conf)

"""Reads OVPN_CONFIG and the files that it names: the edge of `openvpn`."""

from __future__ import annotations

from pathlib import Path

from ocgate import named_files
from ocgate.errors import ConfigurationError, Problem
from ocgate.tunnel import openvpn
from ocgate.tunnel.openvpn_profile import Content, Login, Profile
from ocgate.tunnel.openvpn_syntax import LARGEST_FILE


def read_profile(path: Path, login: Login | None) -> Profile:
    """The profile in the file `path`; what it names is looked for beside it.

    login: user and password of the environment. Raises ConfigurationError with all problems.
    """
    text = read_text(path, "OVPN_CONFIG")
    names = {each.name for each in openvpn.referred(text, str(path))}
    files = {name: content(path.parent / name, beside=path) for name in names}
    return openvpn.read(text, str(path), files=files, login=login)


def read_text(path: Path, key: str) -> str:
    """A configuration's text; `key` is the setting that named it. Raises ConfigurationError."""
    data = content(path)
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else None
    except UnicodeDecodeError:
        text, data = None, "it is no UTF-8"
    if text is None:
        expected = f"a readable file ({data!s})"
        raise ConfigurationError(
            [Problem(str(path), 0, key, None, expected, "mount it into the container, readable")]
        )
    return text


def content(path: Path, *, beside: Path | None = None) -> Content:
    """The file's bytes, or why it can't be read. beside: the configuration that names it, whose
    author is not the operator."""
    try:
        return named_files.read(path, most=LARGEST_FILE, beside=beside)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        return named_files.words(error)

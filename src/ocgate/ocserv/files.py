"""Reads what ocserv.conf names: the file itself, per-user and per-group files, keys, passwd files.

An edge: it opens files and judges nothing. Relative paths are taken from the directory in which
ocserv is started (it never changes its own with `-f`); ours is the config dir.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from ocgate import named_files
from ocgate.errors import ConfigurationError, Problem
from ocgate.ocserv.file_checks import FileFact, FileFacts, named_paths
from ocgate.ocserv.ini_parser import Document, parse
from ocgate.ocserv.reading import Supplement, read_view
from ocgate.ocserv.releases import Release
from ocgate.ocserv.view import ScopeKind, ServerView

# ocserv.conf has a few hundred lines; what is larger is another file, or a device without end.
_LARGEST = 4 << 20

_DIRECTORIES = {"config-per-user": ScopeKind.USER, "config-per-group": ScopeKind.GROUP}
_DEFAULTS = {"default-user-config": ScopeKind.USER, "default-group-config": ScopeKind.GROUP}


def read_document(path: Path) -> Document:
    """ocserv.conf, parsed. Raises `ConfigurationError` if it can't be read."""
    try:
        return parse(_read(path), str(path))
    except OSError as error:
        expected = f"a readable file ({named_files.words(error)})"
        problem = Problem(str(path), 0, "ocserv.conf", None, expected, "Create it")
        raise ConfigurationError([problem]) from error


def read_supplements(document: Document, base: Path, release: Release) -> tuple[Supplement, ...]:
    """Per-user and per-group files of main and all virtual hosts; unreadable ones are left out.

    base: the directory that relative paths start from. release: of the ocserv that reads them.
    """
    found: dict[Path, Supplement] = {}
    for path, kind in _supplement_paths(read_view(document, release=release), base):
        try:
            found.setdefault(path, Supplement(kind, parse(_read(path), str(path))))
        except OSError:
            continue
    return tuple(found.values())


def _supplement_paths(view: ServerView, base: Path) -> Iterator[tuple[Path, ScopeKind]]:
    for scope in view.scopes:
        for key, kind in _DIRECTORIES.items():
            text = scope.text(key)
            if text:
                yield from ((path, kind) for path in _files_in(base / text))
        for key, kind in _DEFAULTS.items():
            text = scope.text(key)
            if text:
                yield base / text, kind


def _files_in(directory: Path) -> list[Path]:
    try:
        return sorted(path for path in directory.iterdir() if path.is_file())
    except OSError:  # ocserv goes without, too
        return []


def observe(view: ServerView, base: Path) -> FileFacts:
    """Facts of every file that the view names. `base` as for `read_supplements`."""
    passwords = {passwd.value.path for passwd in view.passwd_files}
    return FileFacts(
        {path: _fact(base / path, secret=path in passwords) for path in named_paths(view)}
    )


def read_key(path: Path) -> tuple[bytes | None, FileFact]:
    """A certificate's or key's content, None if it can't be had, and what `observe` says of it."""
    content, _, missing = _regular(path)
    if content is None:
        return None, FileFact(missing=missing)
    return content, FileFact(public_key=_public_key(content))


def _regular(path: Path) -> tuple[bytes | None, int, str]:
    """Content, mode, and why there is no content."""
    try:
        return _read(path), path.stat().st_mode, ""
    except OSError as error:
        return None, mode_of(path), named_files.words(error)


def _fact(path: Path, *, secret: bool) -> FileFact:
    content, mode, missing = _regular(path)
    if content is None:
        return FileFact(missing=missing)
    executable = bool(mode & 0o111) and os.access(path, os.X_OK)
    return FileFact(
        executable=executable,
        content=content if secret else None,
        public_key=_public_key(content),
        mode=stat.S_IMODE(mode),
    )


def mode_of(path: Path) -> int:
    """Permission bits; 0 where it can't be asked."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return 0


def _public_key(content: bytes) -> bytes | None:
    """The public key of the first certificate or of the unencrypted key in a PEM file."""
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if b"PRIVATE KEY-----" in content:
        try:
            return load_pem_private_key(content, None).public_key().public_bytes(*form)
        except (ValueError, TypeError):
            return None
    if b"-----BEGIN CERTIFICATE-----" in content:
        try:
            return x509.load_pem_x509_certificate(content).public_key().public_bytes(*form)
        except ValueError:
            return None
    return None


def _read(path: Path) -> bytes:
    return named_files.read(path, most=_LARGEST)

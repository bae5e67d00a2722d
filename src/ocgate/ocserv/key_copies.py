"""The copies of certificates and keys in the run dir: staged, compared, put in place. An edge.

    RUN_DIR/keys.new/   staged: read, found to match, to be shown to `ocserv -t`
    RUN_DIR/keys/       what ocserv reads

0600 in directories of 0700; a stop removes both.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ocgate import own_files
from ocgate.errors import ConfigurationError, OcgateError
from ocgate.names import EFFECTIVE_CONF, KEYS, KEYS_NEW
from ocgate.ocserv import files
from ocgate.ocserv.file_checks import FileFact, FileFacts, check_keys
from ocgate.ocserv.ini_parser import Document
from ocgate.ocserv.keys import NamedFile, named_files
from ocgate.ocserv.view import ServerView


@dataclass(frozen=True)
class KeyFiles:
    """Contents as they were read at one moment, by the copy's name. They match, or there would be
    no such value."""

    by_name: Mapping[str, bytes]


def read_keys(document: Document, view: ServerView, base: Path) -> KeyFiles:
    """The files that ocserv.conf names; raises ConfigurationError where one is missing, is no
    certificate or key, or does not belong to its pair. base: for relative paths."""
    contents: dict[str, bytes] = {}
    facts: dict[str, FileFact] = {}
    named = [found for found in named_files(document) if found.copied]
    for path in {found.value for found in named}:
        content, facts[path] = files.read_key(base / path)
        if content is not None:
            contents[path] = content
    problems = check_keys(view, FileFacts(facts))
    if problems:
        raise ConfigurationError(problems)
    return KeyFiles({found.copy_name: contents[found.value] for found in named})


def stage(run_dir: Path, keys: KeyFiles) -> None:
    """Write them beside those in use; raises OcgateError."""
    directory = run_dir / KEYS_NEW
    try:
        unstage(run_dir)
        own_files.make_directory(directory, 0o700)
        for name, content in keys.by_name.items():
            own_files.write(directory / name, content)
    except OSError as error:
        raise OcgateError(
            f"writing {directory}: {error.strerror or error}", hint="Free some space in the run dir"
        ) from error


def unstage(run_dir: Path) -> None:
    """Forget what was staged."""
    shutil.rmtree(run_dir / KEYS_NEW, ignore_errors=True)


def put(run_dir: Path) -> None:
    """Make what was staged what ocserv reads next; each file in one step, those that are the same
    already not at all: ocserv would take them for new.

    Their time is a second ahead, so that it is later than ocserv's last look whenever that was,
    also where the machine's clock has been set back since.
    """
    staged, directory = run_dir / KEYS_NEW, run_dir / KEYS
    if not staged.is_dir():
        return
    own_files.make_directory(directory, 0o700)
    later = _later_than_ocserv(directory)
    for path in sorted(staged.iterdir()):
        final = directory / path.name
        if _content(final) == path.read_bytes():
            continue
        os.utime(path, (later, later))
        path.replace(final)
    shutil.rmtree(staged)


def in_use(run_dir: Path, keys: KeyFiles) -> bool:
    """Whether ocserv's copies hold exactly these."""
    directory = run_dir / KEYS
    return all(_content(directory / name) == data for name, data in keys.by_name.items())


def copy_of(run_dir: Path, named: NamedFile) -> tuple[bytes, float] | None:
    """What ocserv has for that line, and since when (seconds since the epoch); None: nothing."""
    path = run_dir / KEYS / named.copy_name
    content = _content(path)
    return None if content is None else (content, path.stat().st_ctime)


def remove(run_dir: Path) -> None:
    """No key stays in the run dir."""
    for name in (KEYS, KEYS_NEW):
        shutil.rmtree(run_dir / name, ignore_errors=True)


def _later_than_ocserv(directory: Path) -> int:
    """Whole seconds since the epoch. ocserv's last look was before now, or, by a clock that has
    been set back since, when we wrote the copies that it has or its configuration."""
    there = (*directory.iterdir(), directory.parent / EFFECTIVE_CONF)
    written = [max(s.st_mtime, s.st_ctime) for path in there if (s := _status(path))]
    return int(max(time.time(), *written, 0)) + 1


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None

"""New files into a directory: all of them or none, and never over one that is there. An edge.

Everything is written and synced in a hidden directory beside, then linked into place one by one;
a link fails where the name is taken. Whatever fails half-way is undone. Should the machine die
half-way, the last file of the list is missing: put the one there that makes the rest count.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from ocgate.errors import OcgateError

STAGING_PREFIX = ".ocgate-init-"

# link(2) on file systems that know no hard links (vfat, some network and FUSE mounts).
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}


@dataclass(frozen=True)
class NewFile:
    """name: without directories; mode: permission bits, whatever the umask."""

    name: str
    content: bytes = field(repr=False)
    mode: int


def publish(directory: Path, files: Sequence[NewFile], *, aside: Mapping[str, str]) -> None:
    """Create `files` in `directory` (made if missing), in this order; raises `OcgateError`.

    aside: files of the directory to rename before (old name -> new name).
    """
    try:
        with ExitStack() as undo:
            _make(directory, undo)
            staging = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=directory))
            try:
                _stage(staging, files)
                for old, new in aside.items():
                    _rename(directory / old, directory / new, undo)
                for file in files:
                    _place(staging / file.name, directory / file.name, undo)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
            _sync(directory)
            undo.pop_all()
    except OSError as error:
        raise _explained(directory, error) from error


def _make(directory: Path, undo: ExitStack) -> None:
    missing = [place for place in (directory, *directory.parents) if not place.exists()]
    for place in reversed(missing):
        place.mkdir(mode=0o755)
        undo.callback(place.rmdir)


def _stage(staging: Path, files: Sequence[NewFile]) -> None:
    for file in files:
        descriptor = os.open(staging / file.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as new:
            new.write(file.content)
            new.flush()
            os.fchmod(descriptor, file.mode)
            os.fsync(descriptor)


def _place(staged: Path, final: Path, undo: ExitStack) -> None:
    try:
        final.hardlink_to(staged)
        undo.callback(final.unlink)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _copy(staged, final, undo)


def _copy(staged: Path, final: Path, undo: ExitStack) -> None:
    with final.open("xb") as new:
        undo.callback(final.unlink)
        os.fchmod(new.fileno(), staged.stat().st_mode & 0o7777)
        new.write(staged.read_bytes())
        new.flush()
        os.fsync(new.fileno())


def _rename(old: Path, new: Path, undo: ExitStack) -> None:
    if new.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(new))
    old.rename(new)
    undo.callback(new.rename, old)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _explained(directory: Path, error: OSError) -> OcgateError:
    hints = {
        errno.EROFS: "It is on a read-only mount: mount it writable for the first start, or "
        "put a complete configuration there",
        errno.EACCES: "Run it as root",
        errno.EEXIST: "Something else is creating files there; see who, then start again",
        errno.ENOSPC: "Free some space and start again",
    }
    place = f" ({error.filename})" if error.filename else ""
    return OcgateError(
        f"initialising {directory}: {error.strerror}{place}; nothing was left behind",
        hint=hints.get(error.errno or 0, ""),
    )

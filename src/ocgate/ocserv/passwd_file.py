"""Editing one small file in place of its owner: under a lock, atomically where that can be.

An edge, for ocserv's passwd files. Readers (ocserv's sec-mod, at each login) see the old or the
new content. Mode and owner stay. A file that is itself a mount point (`-v ./ocpasswd:/etc/…`)
can't be replaced by rename; it is written in place then, which a crash may cut short.
"""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ocgate.errors import OcgateError

# What rename(2) or creating a neighbour says where only the file itself may be written:
# a mount point, or a directory that is read-only while the file is not.
_NOT_BESIDE = {errno.EBUSY, errno.EXDEV, errno.EROFS, errno.EACCES, errno.EPERM}

# Secrets: only root may read a passwd file that we create.
_NEW_FILE_MODE = 0o600


@dataclass(frozen=True)
class Edited:
    """What `edit` did. changed: the content differs; in_place: not atomic, see the module head."""

    changed: bool
    in_place: bool = False


def edit(path: Path, change: Callable[[bytes], bytes]) -> Edited:
    """Replace the content of `path` (made if absent) by `change` of it; raises `OcgateError`.

    `change` runs under the lock and may raise: then nothing was written.
    """
    real = path.resolve()  # a symbolic link stays one
    try:
        with _locked(real) as held:
            old = held.read()
            new = change(old)
            if new == old:
                return Edited(changed=False)
            return Edited(changed=True, in_place=not _replaced(real, held, new))
    except OSError as error:
        raise _explained(path, error) from error


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """The file, open for reading and writing, locked, and still the one of that name."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _NEW_FILE_MODE)
        with os.fdopen(descriptor, "r+b") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            # Who waited for the lock may hold the inode that the other has just replaced.
            if os.path.samestat(os.fstat(held.fileno()), path.stat()):
                yield held
                return


def _replaced(path: Path, held: BinaryIO, content: bytes) -> bool:
    """True if renamed into place, False if it had to be written in place."""
    try:
        _replace(path, os.fstat(held.fileno()), content)
    except OSError as error:
        if error.errno not in _NOT_BESIDE:
            raise
        _overwrite(held, content)
        return False
    return True


def _replace(path: Path, like: os.stat_result, content: bytes) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    beside = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as new:
            os.fchown(new.fileno(), like.st_uid, like.st_gid)
            os.fchmod(new.fileno(), like.st_mode & 0o7777)
            new.write(content)
            new.flush()
            os.fsync(new.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _overwrite(held: BinaryIO, content: bytes) -> None:
    """One write, then the cut: padded with newlines, so that no reader meets an old line's tail."""
    held.seek(0, os.SEEK_END)
    padding = b"\n" * max(0, held.tell() - len(content))
    held.seek(0)
    held.write(content + padding)
    held.flush()
    held.truncate(len(content))
    os.fsync(held.fileno())


def _explained(path: Path, error: OSError) -> OcgateError:
    hints = {
        errno.EROFS: "It is on a read-only mount: mount it writable, or edit it on the host",
        errno.EACCES: "Run it as root",
        errno.EPERM: "Run it as root, and see whether the file is immutable (lsattr)",
        errno.ENOENT: "Create the directory first, or see `auth` in ocserv.conf",
        errno.ENOSPC: "Free some space; the file is as it was",
    }
    hint = hints.get(error.errno or 0, "")
    return OcgateError(f"editing {path}: {error.strerror}", hint=hint)

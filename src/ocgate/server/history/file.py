"""The file of completed sessions: appended line by line, bounded, read back. An edge.

It is opened for each batch, so that somebody's logrotate may move it at any time. What is appended
is not synced: a machine that dies loses the last seconds of its history, and a thousand
disconnects at once would otherwise wait for a thousand disk writes.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from ocgate.sessions.record import Record, parsed

# Some 400 bytes a session: 40,000 of them, and as many in the predecessor.
LARGEST = 16 << 20
# The run dir is memory (tmpfs): 2,600 sessions, and as many.
LARGEST_IN_MEMORY = 1 << 20

# How much of the end is asked for what was written last.
_TAIL = 256 << 10

# What the first byte of a history is: JSON's brace, or a digit of the reference image's epoch.
# Anything else is somebody's file that SESSION_HISTORY_FILE names by mistake.
_BEGINNINGS = b"{0123456789"


def append(path: Path, lines: Sequence[bytes], *, largest: int) -> None:
    """Add whole lines; a file that would grow beyond `largest` becomes `NAME.1` first.

    A new file is 0600: it tells who was where. The mode of one that is there is its owner's choice.
    Raises OSError, and then nothing was added.
    """
    descriptor, size = _opened(path)
    try:
        data = b"".join(lines)
        if size and size + len(data) > largest:
            os.close(descriptor)
            descriptor = -1
            path.rename(predecessor(path))
            descriptor, size = _opened(path)
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            data = b"\n" + data  # a write was torn by the machine's end
        _write(descriptor, data, size)
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def predecessor(path: Path) -> Path:
    """Where a full file goes."""
    return path.with_name(f"{path.name}.1")


def records(path: Path) -> Iterator[Record]:
    """All that both files hold, oldest first; lines that are none are passed over. Raises OSError
    where a file is there but can't be read."""
    for each in (predecessor(path), path):
        with suppress(FileNotFoundError), each.open("rb") as file:
            yield from (record for line in file if (record := parsed(line)))


def latest(path: Path) -> Iterator[Record]:
    """What was written last, a few hundred of them; nothing where nothing can be read."""
    with suppress(OSError), open(path, "rb", opener=_without_waiting) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL))
        yield from (record for line in file if (record := parsed(line)))


def _without_waiting(path: str, flags: int) -> int:
    """The control plane's start asks; of a FIFO `open` would wait for a writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def _opened(path: Path) -> tuple[int, int]:
    """Its descriptor and size; the file is made if there is none. O_NONBLOCK: a FIFO would wait."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    if not _is_own_link(path):
        flags |= os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    found = os.fstat(descriptor)
    strange = not stat.S_ISREG(found.st_mode)
    if strange or (found.st_size and os.pread(descriptor, 1, 0) not in _each(_BEGINNINGS)):
        os.close(descriptor)
        words = "is no regular file" if strange else "holds something else than a session history"
        raise OSError(errno.EINVAL, words, str(path))
    return descriptor, found.st_size


def _is_own_link(path: Path) -> bool:
    """A link of the operator's is followed; one that somebody else put there is not."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISLNK(found.st_mode) and found.st_uid in (0, os.geteuid())


def _each(chars: bytes) -> frozenset[bytes]:
    return frozenset(bytes([char]) for char in chars)


def _write(descriptor: int, data: bytes, size: int) -> None:
    """All of it or nothing: a full disk takes a part."""
    done = os.write(descriptor, data)
    if done != len(data):
        os.ftruncate(descriptor, size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

"""Tells that one of some files may have changed, by whatever way: inotify(7), through ctypes.

A file is changed by writing it, by renaming another over it, by turning a link on its way
(certbot's `live/NAME.pem -> ../../archive/…`, Kubernetes' `..data`), or by swapping a directory. So
every directory that is looked into on the way to the file is watched for that one name, and the
file itself, too: what is bind-mounted alone has its directory elsewhere. Events only say "look
again". The wiring imports this.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

# linux/inotify.h
_MODIFY, _ATTRIB, _CLOSE_WRITE = 0x2, 0x4, 0x8
_MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x40, 0x80, 0x100, 0x200
_DELETE_SELF, _MOVE_SELF = 0x400, 0x800
_OVERFLOW, _IGNORED = 0x4000, 0x8000

_FILE = _MODIFY | _ATTRIB | _CLOSE_WRITE | _DELETE_SELF | _MOVE_SELF
_DIRECTORY = _FILE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE

_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC  # IN_NONBLOCK, IN_CLOEXEC are these

_EVENT = struct.Struct("=iIII")  # struct inotify_event: wd, mask, cookie, len; then the name

# MAXSYMLINKS of linux/namei.h: the kernel gives up there, too.
_MOST_LINKS = 40


class FileWatch:
    """Watches some files, from `__init__` on. Raises OSError where the kernel gives no inotify
    (EMFILE: fs.inotify.max_user_instances)."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = tuple(paths)
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._call("inotify_init1", _NONBLOCK_CLOEXEC)
        self._names: dict[int, set[bytes]] = {}  # by watch; b"" is the watched thing itself
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._read)
        try:
            self.rearm()
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """End all watches."""
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    async def changed(self) -> None:
        """Until something happened since the last return; the watches are renewed by then, so what
        is read after this is what is there, or there is another event."""
        await self._news.wait()
        self._news.clear()
        self.rearm()

    def rearm(self) -> None:
        """Watch what is on the way to the files now. Raises OSError for want of watches (ENOSPC:
        fs.inotify.max_user_watches)."""
        names: dict[int, set[bytes]] = {}
        for path in self._paths:
            for place, name in consulted(path):
                watch = self._add(place, _DIRECTORY if name else _FILE)
                if watch is not None:
                    names.setdefault(watch, set()).add(name)
        for stale in self._names.keys() - names.keys():
            self._libc.inotify_rm_watch(self._fd, stale)
        self._names = names

    def _add(self, path: Path, mask: int) -> int | None:
        """None where there is no such file now: the watch of its directory tells when there is."""
        try:
            return self._call("inotify_add_watch", self._fd, os.fsencode(path), mask)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return None

    def _call(self, name: str, *arguments: int | bytes) -> int:
        result = int(getattr(self._libc, name)(*arguments))
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), name)
        return result

    def _read(self) -> None:
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        if any(self._concerns(*event) for event in _events(data)):
            self._news.set()

    def _concerns(self, watch: int, mask: int, name: bytes) -> bool:
        if mask & _OVERFLOW:
            return True
        names = self._names.get(watch)
        if names is None:
            return False
        # Without a name it is of the watched thing itself: gone (IGNORED comes last), or changed.
        return name in names or (not name and bool(mask & (_DELETE_SELF | _MOVE_SELF | _IGNORED)))


def consulted(path: Path) -> Iterator[tuple[Path, bytes]]:
    """What is looked at on the way to an absolute path: (directory, name in it), links followed;
    last the file itself with an empty name. Ends early where the way does."""
    at, left, links = Path("/"), [*reversed(path.parts[1:])], 0
    while left:
        name = left.pop()
        if name in (".", ""):
            continue
        if name == "..":
            at = at.parent
            continue
        yield at, os.fsencode(name)
        target = _link(at / name)
        if target is None:
            at = at / name
            continue
        links += 1
        if links > _MOST_LINKS:
            return
        at = Path("/") if target.is_absolute() else at
        left += reversed(target.parts[1:] if target.is_absolute() else target.parts)
    yield at, b""


def _link(path: Path) -> Path | None:
    """Where it points; None where it is no link, or nothing."""
    try:
        return path.readlink()
    except OSError:
        return None


def _events(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 0
    while at < len(data):
        watch, mask, _, length = _EVENT.unpack_from(data, at)
        at += _EVENT.size
        yield watch, mask, data[at : at + length].rstrip(b"\0")
        at += length

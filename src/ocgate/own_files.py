"""Files and directories of ours in the run dir: who may be there, and how everything is written.

Root's programs are started from the run dir, and root writes there all the time. So whoever could
rename or replace an entry on the way to it could have root run a program or write through a link.
`intruder` finds that; every writer of both roles goes through `write`, which follows no link and
never opens a file that is there already. Any room may import this.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH

# As the kernel's own limit (MAXSYMLINKS).
_MOST_LINKS = 40

# O_EXCL: neither a file nor a link that is there already is opened. O_NOFOLLOW says it once more.
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

# What shows whether anything can be written: a page, which is what a tmpfs gives at a time.
_PAGE = 4096


@dataclass(frozen=True)
class Staged:
    """A whole new content beside the file that it is for: it takes no more space to put it."""

    path: Path
    fresh: Path

    def put(self) -> None:
        """Make it the file's content in one step."""
        self.fresh.replace(self.path)

    def drop(self) -> None:
        """Forget it."""
        self.fresh.unlink(missing_ok=True)


def write(path: Path, data: bytes, *, mode: int = 0o600, durable: bool = False) -> None:
    """Replace the file's content as a whole; a reader sees the old or the new. Raises OSError, and
    then the old one stands and nothing is left beside it.

    mode: whatever the umask. durable: on the disk before it gets its name.
    """
    stage(path, data, mode=mode, durable=durable).put()


def stage(path: Path, data: bytes, *, mode: int = 0o600, durable: bool = False) -> Staged:
    """Write a content that `put` makes the file's; raises OSError, and then nothing is left."""
    fresh = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()  # of a writer that was killed
    descriptor = os.open(fresh, _NEW, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            if durable:
                os.fsync(descriptor)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    return Staged(path, fresh)


def is_staged(path: Path) -> bool:
    """Whether this entry is a content that was never put: of a writer that was killed."""
    return path.name.startswith(".") and path.suffix == ".new"


def make_directory(path: Path, mode: int) -> None:
    """A directory of our own, of this mode where it is made now or others could write to it; raises
    OSError where the name is taken by anything else, also by a link to a directory."""
    try:
        path.mkdir(mode=mode)
    except FileExistsError:
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or not _is_ours(found):
            raise NotADirectoryError(20, "not a directory of root's", str(path)) from None
        if not _others_write(found):
            return
    path.chmod(mode)  # whatever the umask


def room(directory: Path) -> str:
    """Why nothing more can be written in this directory, or ''."""
    probe = directory / ".room"
    try:
        write(probe, bytes(_PAGE))
        probe.unlink()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def intruder(path: Path) -> str:
    """Who besides root could change what `path`, a directory, or an entry on the way to it is: a
    clause that names the entry, '' if nobody. What does not exist yet is no objection.

    A directory with the sticky bit (/tmp, a tmpfs of docker) on the way is good enough where the
    next entry is root's own: nobody else may rename or remove it. `path` itself may be a fresh
    mount that all may write to, root's and empty: `make_directory` takes that right away.
    """
    return next(_objections(path.absolute()), "")


def _objections(path: Path) -> Iterator[str]:
    here, ahead, links = Path("/"), list(path.parts[1:]), 0
    yield from _judged(here, here.lstat(), last=not ahead)
    while ahead:
        name = ahead.pop(0)
        if name == "..":
            here = here.parent
            continue
        try:
            found = (here / name).lstat()
        except FileNotFoundError:
            return
        if stat.S_ISLNK(found.st_mode):
            links += 1
            if not _is_ours(found) or links > _MOST_LINKS:
                yield f"{here / name} is a link of uid {found.st_uid}"
                return
            target = (here / name).readlink()
            here = Path("/") if target.is_absolute() else here
            ahead = [*(part for part in target.parts if part != "/"), *ahead]
            continue
        here = here / name
        yield from _judged(here, found, last=not ahead)


def _judged(path: Path, found: os.stat_result, *, last: bool) -> Iterator[str]:
    if not stat.S_ISDIR(found.st_mode):
        yield f"{path} is not a directory"
    elif not _is_ours(found):
        yield f"{path} belongs to uid {found.st_uid}"
    elif _others_write(found) and not (_is_empty(path) if last else found.st_mode & stat.S_ISVTX):
        yield f"{path} can be written to by others (mode {stat.S_IMODE(found.st_mode):04o})"


def _is_empty(path: Path) -> bool:
    return next(path.iterdir(), None) is None


def _others_write(found: os.stat_result) -> bool:
    """The group root is root's: /run of some systems is 0775 root:root."""
    others = _OTHERS_WRITE if found.st_gid != 0 else stat.S_IWOTH
    return bool(found.st_mode & others)


def _is_ours(found: os.stat_result) -> bool:
    """Root's, or of the user that this runs as (tests and containers without root)."""
    return found.st_uid in (0, os.geteuid())

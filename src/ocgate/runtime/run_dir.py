"""The run dir: checked to be root's alone, and made with the right modes.

Everything in it is ours and replaced at each start. 0755, because `ocserv` workers look for their
sockets there after they dropped root; what is secret in it has its own mode.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ocgate import own_files
from ocgate.config.origin import Origin
from ocgate.errors import ConfigurationError, OcgateError, Problem
from ocgate.own_files import write

__all__ = ["make", "problems", "require", "require_passage", "write", "writing"]

KEY = "OCGATE_RUN_DIR"

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}

_EXPECTED = "a directory that only root can write to, in directories of which that is true, too"


def problems(run_dir: Path, origin: Origin) -> Iterator[Problem]:
    """Why it can't be used: root runs programs from it. origin: where it was set."""
    why = own_files.intruder(run_dir) or _stranger_in(run_dir)
    if why:
        remedy = f"Use /run/ocgate, or make it root's: chown root: {run_dir}; chmod 755 {run_dir}"
        expected = f"{_EXPECTED} ({why})"
        yield Problem(origin.source, origin.line, KEY, str(run_dir), expected, remedy)


def require(run_dir: Path, origin: Origin) -> None:
    """Raises ConfigurationError where `problems` finds any."""
    found = tuple(problems(run_dir, origin))
    if found:
        raise ConfigurationError(found)


def require_passage(run_dir: Path, origin: Origin) -> None:
    """Who is not root can go to files there that he may read; raises ConfigurationError. The run
    dir itself, and what is not there yet, gets mode 0755 when it is made."""
    here = run_dir.absolute().parents
    closed = next((p for p in here if p.is_dir() and not p.stat().st_mode & stat.S_IXOTH), None)
    if closed is None:
        return
    mode = stat.S_IMODE(closed.stat().st_mode)
    expected = "a place that the tunnel's client, which is not root, can go to"
    remedy = f"Use /run/ocgate, or: chmod o+x {closed}"
    found = Problem(origin.source, origin.line, KEY, str(run_dir),
                    f"{expected} ({closed} has mode {mode:04o})", remedy)  # fmt: skip
    raise ConfigurationError([found])


def make(run_dir: Path, origin: Origin) -> None:
    """Create it and what must exist in it; no error where it stands. Raises ConfigurationError
    where it is not root's alone, also by then: somebody may have been first to make it."""
    require(run_dir, origin)
    try:
        missing = [part for part in (run_dir, *run_dir.parents) if not part.exists()]
        for part in (*reversed(missing), run_dir, run_dir / "hooks"):
            own_files.make_directory(part, 0o755)
    except OSError as error:
        require(run_dir, origin)
        raise OcgateError(
            f"making {error.filename or run_dir}: {error.strerror or error}",
            hint="Free some space there, or set OCGATE_RUN_DIR to another directory",
        ) from error
    require(run_dir, origin)


@contextlib.contextmanager
def writing(run_dir: Path) -> Iterator[None]:
    """What finds no room there raises OcgateError, which says where and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise OcgateError(
            f"writing in {run_dir}: {error.strerror}",
            hint="Free some space there, or set OCGATE_RUN_DIR to another directory",
        ) from error


def _stranger_in(run_dir: Path) -> str:
    """A directory in it of somebody else, from when the run dir was his: programs are run from
    there."""
    for name in ("hooks", "services"):
        try:
            owner = (run_dir / name).lstat().st_uid
        except OSError:
            continue
        if owner not in (0, os.geteuid()):
            return f"{run_dir / name} belongs to uid {owner}"
    return ""

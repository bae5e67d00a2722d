"""Admitted sessions as small files in the run dir, so that a new control plane re-adopts them.

A file is written before the kernel holds the session, so that a full run dir refuses it while there
is nothing to undo; it names the worker by pid and start time, so a live worker proves the session
and a dead one disproves it. occtl knows the sessions too, but mangles names that are not ASCII, and
takes longer.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from ipaddress import IPv4Address, IPv6Network
from pathlib import Path
from typing import Any

from ocgate import own_files
from ocgate.names import SESSIONS
from ocgate.sessions.session import Session


class Journal:
    """The files in `run_dir`/sessions, 0600 in a directory of 0700."""

    def __init__(self, run_dir: Path) -> None:
        self._dir = run_dir / SESSIONS
        with contextlib.suppress(OSError):  # no space: then nobody is let in, and status says why
            own_files.make_directory(self._dir, 0o700)

    def write(self, session: Session) -> None:
        """Remember it; atomic. Raises OSError, and then nothing of it is there."""
        content = json.dumps(asdict(session), default=str).encode("ascii")
        try:
            own_files.write(self._path(session), content)
        except FileNotFoundError:  # the directory could not be made before, or somebody removed it
            own_files.make_directory(self._dir, 0o700)
            own_files.write(self._path(session), content)

    def remove(self, session: Session) -> None:
        """Forget it; no error if it was not there."""
        self._path(session).unlink(missing_ok=True)

    def read(self) -> Iterator[Session]:
        """All sessions remembered, dead or alive; files that can't be understood are removed."""
        try:
            found = sorted(self._dir.iterdir())
        except OSError:
            return
        for path in found:
            with contextlib.suppress(OSError):  # what can't be read now may be read by the next one
                session = None if own_files.is_staged(path) else _read(path)
                if session is None:
                    path.unlink()
                else:
                    yield session

    def _path(self, session: Session) -> Path:
        return self._dir / f"{session.worker}-{session.started}.json"


def _read(path: Path) -> Session | None:
    try:
        raw: dict[str, Any] = json.loads(path.read_text(encoding="ascii"))
        for key, kind in (("address4", IPv4Address), ("prefix6", IPv6Network)):
            raw[key] = None if raw[key] is None else kind(raw[key])
        return Session(**raw)
    except (ValueError, TypeError, KeyError):
        return None

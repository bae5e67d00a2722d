"""The door to sysctls: read, set, verify, and put back what stood there before.

Docker mounts /proc/sys read-only, and then only `docker run --sysctl` can set one: the error names
the exact flags. Edges of the room `kernel` and the wiring may import it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ocgate import own_files
from ocgate.errors import MissingRequirement, OcgateError, VerificationFailed
from ocgate.names import SYSCTLS_BEFORE
from ocgate.plan.sysctls import Sysctl, path_of

ROOT = Path("/proc/sys")

# What says "not by you": a read-only mount (docker), not root, or not of this user namespace.
_FORBIDDEN = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


@dataclass(frozen=True)
class _Entry:
    """One line of the record: what we found, and what we made of it."""

    before: str
    ours: str


def read(key: str) -> str | None:
    """Its value, white space between numbers as one blank; None if this kernel has no such key."""
    try:
        return " ".join((ROOT / path_of(key)).read_text().split())
    except (FileNotFoundError, NotADirectoryError):
        return None


def differing(sysctls: Iterable[Sysctl]) -> list[str]:
    """What does not read as it must, in words; empty when all required ones do."""
    found = ((wanted, read(wanted.key)) for wanted in sysctls if wanted.required)
    return [
        f"sysctl {wanted.key} is {'absent' if value is None else value}; expected {wanted.value}"
        for wanted, value in found
        if value != wanted.value
    ]


def unmet(sysctls: Iterable[Sysctl]) -> list[Sysctl]:
    """Those that are not required and do not read as wished."""
    return [wish for wish in sysctls if not wish.required and read(wish.key) != wish.value]


def ensure(sysctls: Iterable[Sysctl], *, run_dir: Path) -> list[Sysctl]:
    """Set those that differ, in the order given, and return them; a second call returns none.

    The values found are recorded in RUN_DIR/sysctl.before first. Where there is no room for that,
    one that is not required stays as it is, and of a required one OcgateError is raised. Raises
    MissingRequirement that names the docker flags of all required ones that could not be set
    (others are set), or VerificationFailed when a value was accepted but doesn't read back.
    """
    lacking = [(wanted, read(wanted.key)) for wanted in sysctls]
    lacking = [(w, value) for w, value in lacking if value != w.value and _matters(w, value)]
    if not lacking:
        return []
    absent = [wanted for wanted, value in lacking if value is None]
    if absent:
        raise _absent(absent)
    lacking = _noted(lacking, run_dir)
    refused = [wanted for wanted, _ in lacking if not _write(wanted.key, wanted.value)]
    if any(wanted.required for wanted in refused):
        raise _forbidden([wanted for wanted in refused if wanted.required])
    changed = [wanted for wanted, _ in lacking if wanted not in refused]
    still = differing(changed)
    if still:
        raise VerificationFailed("\n".join(still), hint="another program sets it: find out which")
    return changed


def _noted(
    lacking: list[tuple[Sysctl, str | None]], run_dir: Path
) -> list[tuple[Sysctl, str | None]]:
    """Record them, and leave out what can't be recorded; of a required one raises OcgateError."""
    found = {w.key: _Entry(before=v or "", ours=w.value) for w, v in lacking}
    needed = {w.key: found[w.key] for w, _ in lacking if w.required}
    try:
        _record(run_dir, {**_coupled(found), **found})
    except OcgateError:
        _record(run_dir, {**_coupled(needed), **needed})
        standing = _recorded(run_dir)
        return [(w, v) for w, v in lacking if w.key in standing]
    return lacking


def is_writable(key: str) -> bool:
    """Whether it may be set here at all."""
    return os.access(ROOT / path_of(key), os.W_OK)


def attempt(key: str, value: str) -> bool:
    """Set one that goes with its device, so that nothing is recorded; False where it is not ours to
    set. Raises OcgateError when the kernel refuses the value."""
    return _write(key, value)


def require(wanted: Sysctl) -> None:
    """Set one that goes with its device, so that nothing is recorded; raises MissingRequirement."""
    if read(wanted.key) != wanted.value and not _write(wanted.key, wanted.value):
        raise _forbidden([wanted])


@contextlib.contextmanager
def lent(sysctls: Iterable[Sysctl], *, run_dir: Path) -> Iterator[None]:
    """Set these for a moment, in the last step of a stop. They are recorded like all others, so
    whoever is killed meanwhile leaves it to the next start, or stop, to put them back. One that
    can't be set or recorded stays as it is."""
    wished = [replace(wanted, required=False) for wanted in sysctls]
    try:
        ensure(wished, run_dir=run_dir)
    except OcgateError:
        yield
        return
    try:
        yield
    finally:
        restore(run_dir=run_dir)


def put_back(keys: Iterable[str], *, run_dir: Path) -> list[str]:
    """Put these back and forget them, and leave the rest of the record; those that changed. At a
    start: what the plan does not set, and a stop that was killed has left."""
    record = _recorded(run_dir)
    left = {key: record.pop(key) for key in keys if key in record}
    restored = _restored(left)
    if left:  # after the values: killed in between, this is done once more
        _save(run_dir, record, left)
    return restored


def restore(*, run_dir: Path) -> list[str]:
    """Put recorded values back and forget the record; the keys that were put back.

    Latest first, because a later one may be lost by an earlier (`all.forwarding` resets devices).
    A key that no longer reads as we had set it belongs to whoever changed it since and is left
    alone, as is one that went with its device or that we may not write.
    """
    restored = _restored(_recorded(run_dir))
    (run_dir / SYSCTLS_BEFORE).unlink(missing_ok=True)
    return restored


def _restored(record: dict[str, _Entry]) -> list[str]:
    return [
        key
        for key, entry in reversed(record.items())
        if read(key) == entry.ours and _write(key, entry.before)
    ]


# What the kernel itself sets when forwarding is put back to 0: whoever had refused redirects would
# accept them from then on (net/ipv4/devinet.c, inet_forward_change).
_FORWARDING = "net.ipv4.ip_forward"
_RESET = "net.ipv4.conf.all.accept_redirects"


def _coupled(found: dict[str, _Entry]) -> dict[str, _Entry]:
    """An entry that stands before forwarding's, so that it is put back after it: what it is, and
    what the kernel makes of it."""
    forwards = _FORWARDING in found and found[_FORWARDING].before == "0"
    if not forwards or _RESET in found or read(_RESET) != "0":
        return {}
    return {_RESET: _Entry(before="0", ours="1")}


def _matters(wanted: Sysctl, value: str | None) -> bool:
    """A kernel that has no such key is an obstacle only where it is required."""
    return wanted.required or value is not None


def _write(key: str, value: str) -> bool:
    """False when it is not ours to set; raises OcgateError when the kernel refuses the value."""
    try:
        (ROOT / path_of(key)).write_text(value)
    except FileNotFoundError:
        return False
    except OSError as problem:
        if problem.errno in _FORBIDDEN:
            return False
        raise OcgateError(f"sysctl -w {key}={value}: {problem.strerror}") from problem
    return True


def _record(run_dir: Path, found: dict[str, _Entry]) -> None:
    """Add entries; a value that is recorded already stays, since a crashed run left it."""
    standing = _recorded(run_dir)
    merged = standing | {
        key: _Entry(standing[key].before if key in standing else entry.before, entry.ours)
        for key, entry in found.items()
    }
    if merged == standing:  # put right for the second time: a full run dir is no obstacle
        return
    _save(run_dir, merged, found)


def _save(run_dir: Path, record: dict[str, _Entry], concerned: Iterable[str]) -> None:
    text = json.dumps({key: asdict(entry) for key, entry in record.items()}, indent=1) + "\n"
    path = run_dir / SYSCTLS_BEFORE
    try:  # durable: the sysctl itself survives our crash, so the record must, too
        own_files.write(path, text.encode(), mode=0o644, durable=True)
    except OSError as problem:
        raise OcgateError(
            f"{', '.join(concerned)}: not set, because what was there before can't be noted in "
            f"{path}: {problem.strerror}",
            hint="Free some space in the run dir",
        ) from problem


def _recorded(run_dir: Path) -> dict[str, _Entry]:
    path = run_dir / SYSCTLS_BEFORE
    try:
        content = json.loads(path.read_text())
        return {key: _Entry(**entry) for key, entry in content.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError) as problem:
        raise OcgateError(
            f"{path}: not what ocgate wrote: {problem}",
            hint="delete the file; the sysctls then stay as they are",
        ) from problem


def _forbidden(refused: list[Sysctl]) -> MissingRequirement:
    reasons = "; ".join(f"{wanted.key}={wanted.value} ({wanted.reason})" for wanted in refused)
    flags = " ".join(wanted.flag for wanted in refused)
    compose = ", ".join(wanted.compose for wanted in refused)
    return MissingRequirement(
        f"/proc/sys is read-only here, and these are needed: {reasons}",
        hint=f"docker run {flags}   (compose: sysctls: {{ {compose} }})",
    )


def _absent(absent: list[Sysctl]) -> MissingRequirement:
    reasons = "; ".join(f"{wanted.key} ({wanted.reason})" for wanted in absent)
    return MissingRequirement(
        f"this kernel has no {reasons}",
        hint="is it built in and not turned off? IPv6's are absent after ipv6.disable=1",
    )

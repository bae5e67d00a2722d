"""A completed session as one line of the history: JSON, or a line of the reference image's. Pure.

Someone who changes only the image's name keeps his history file; so its former lines, columns
separated by blanks, are read as well. Written is JSON alone, in ASCII, whatever a client called
itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any

from ocgate.sessions.session import Session

# A client may call itself what it likes, at any length; a line stays below a page (4,096 bytes),
# which a local file system appends as a whole.
LONGEST_AGENT = 200

# connect, disconnect, user, ip4, ip6, client, gateway, device, up, down, ocserv-in, ocserv-out,
# pools (azinchen/ocserv-server, wiki/Session-Accounting).
_COLUMNS = 13


@dataclass(frozen=True)
class Moved:
    """Bytes of one session, as ocserv counted them: from the client and to it."""

    received: int
    sent: int


@dataclass(frozen=True)
class Record:
    """One completed session. Times are ISO 8601 in UTC, to the second.

    id:        worker's pid and start time; '' in lines of the reference image.
    vhost:     `default` outside of virtual hosts. device: its tunnel.
    peer:      where the client came from. agent: what it called itself.
    seconds:   from since to until.
    bytes_in:  from the client, bytes_out: to it; None where ocserv told nothing (it was killed).
    exit:      by which the clients' IPv4 left when it ended, as the settings write it.
    reason:    why it ended, a clause.
    """

    id: str
    user: str
    vhost: str
    device: str
    peer: str
    agent: str
    address4: str | None
    address6: str | None
    since: str
    until: str
    seconds: int
    bytes_in: int | None
    bytes_out: int | None
    exit: str
    reason: str


def record_of(
    session: Session, *, until: float, moved: Moved | None, exit: str, reason: str
) -> Record:
    """Of a session that ended at `until`, in seconds since the epoch."""
    return Record(
        id=identity(session),
        user=plain(session.user),
        vhost=plain(session.vhost),
        device=session.device,
        peer=plain(session.peer),
        agent=plain(session.agent)[:LONGEST_AGENT],
        address4=None if session.address4 is None else str(session.address4),
        address6=None if session.prefix6 is None else str(session.prefix6.network_address),
        since=_iso(session.connected_at),
        until=_iso(until),
        seconds=max(0, round(until - session.connected_at)),
        bytes_in=moved.received if moved else None,
        bytes_out=moved.sent if moved else None,
        exit=exit,
        reason=reason,
    )


def identity(session: Session) -> str:
    """Tells a session from every other since boot."""
    return f"{session.worker}-{session.started}"


def written(record: Record) -> bytes:
    """The line, with its end."""
    return json.dumps(asdict(record), separators=(",", ":")).encode("ascii") + b"\n"


def parsed(line: bytes) -> Record | None:
    """The record of a line of either format; None for what is neither (torn, by hand, empty)."""
    text = line.decode("utf-8", "replace").strip()
    try:
        return _of_json(json.loads(text)) if text.startswith("{") else _of_reference(text.split())
    except (ValueError, TypeError, OverflowError, OSError):
        return None


def _of_json(found: Mapping[str, Any]) -> Record | None:
    known: dict[str, Any] = {field.name: found.get(field.name) for field in fields(Record)}
    moments = [datetime.fromisoformat(str(known[name])) for name in ("since", "until")]
    if any(moment.utcoffset() is None for moment in moments):
        return None
    texts = ("id", "user", "vhost", "device", "peer", "agent", "exit", "reason")
    numbers = (known["bytes_in"], known["bytes_out"])
    sound = all(isinstance(known[name], str) for name in texts) and all(
        number is None or isinstance(number, int) for number in numbers
    )
    return Record(**known) if sound and isinstance(known["seconds"], int) else None


def _of_reference(columns: list[str]) -> Record | None:
    if len(columns) != _COLUMNS:
        return None
    began, ended = int(columns[0]), int(columns[1])
    address4, address6 = (None if text == "-" else text for text in columns[3:5])
    forwarded, counted = columns[8:10], columns[10:12]
    received, sent = counted if "-" not in counted else forwarded
    return Record(
        id="",
        user=columns[2],
        vhost="default",
        device=columns[7],
        peer=columns[5],
        agent="",
        address4=address4,
        address6=address6,
        since=_iso(began),
        until=_iso(ended),
        seconds=max(0, ended - began),
        bytes_in=_count(received),
        bytes_out=_count(sent),
        exit="direct" if columns[6] == "-" else columns[6],
        reason="disconnected",
    )


def _count(text: str) -> int | None:
    return None if text == "-" else int(text)


def plain(text: str) -> str:
    """A client's bytes as text that can be printed and encoded: what is no UTF-8 escaped."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

"""Asking and telling ocserv by `occtl`: who is connected, how the server is, disconnect a user.

An edge. Every call has a time limit and no shell. occtl's JSON is read defensively: some releases
leave trailing commas (`releases.OCCTL_JSON`), give nearly everything as text, repeat keys and turn
each byte of a non-ASCII name into `\\u00ff`, so that names from here are for show; sessions are
known by their ID.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, TypeVar

from ocgate.errors import MissingRequirement, ServerRefused
from ocgate.ocserv.releases import TERMINATE, Release

# 1,000 sessions take ocserv 0.2 s; main answers between two logins, which a hook may hold up.
_TIMEOUT = 10.0

_Ip = TypeVar("_Ip", IPv4Address, IPv6Address)

# A comma before a closing bracket, outside of strings; strings are matched first and kept.
_TRAILING_COMMA = re.compile(r'("(?:\\.|[^"\\])*")|,(\s*[}\]])')

# occtl splits its command at blanks and joins it with single ones: such names don't arrive.
_UNSPEAKABLE = re.compile(r"^\s|\s$|\s\s|[\t\n]|^$")


@dataclass(frozen=True)
class Row:
    """One session as `show users` lists it.

    id:           the worker's pid; unique among live sessions.
    user, group:  for show only: non-ASCII is lost; group is None where there is none.
    state:        ocserv's word: `connected`, `authenticated`, `pre-auth` …
    device:       `vpns0`, None before there is one.
    remote:       where the client comes from, as text.
    address4/6:   the session's own; None without that family.
    connected_at: UTC; None before `releases.CONNECTED_AT`: there it is local time by the minute.
    """

    id: int
    user: str
    group: str | None
    state: str
    vhost: str
    device: str | None
    remote: str
    address4: IPv4Address | None
    address6: IPv6Address | None
    connected_at: datetime | None


@dataclass(frozen=True)
class Status:
    """The server as `show status` has it.

    up_since:        UTC. pid: of main.
    active_sessions: now. auth_failures: since the statistics' last reset.
    """

    state: str
    pid: int
    up_since: datetime | None
    active_sessions: int
    auth_failures: int
    banned_addresses: int


def sessions(socket: Path) -> tuple[Row, ...]:
    """All sessions of the server behind this occtl socket; raises `ServerRefused`."""
    return parse_users(_ask(socket, "show", "users"))


def status(socket: Path) -> Status:
    """How the server is; raises `ServerRefused`."""
    return parse_status(_ask(socket, "show", "status"))


def disconnect_user(socket: Path, name: str, release: Release) -> bool:
    """End every session of the user, with its cookie where this release can (`releases.TERMINATE`);
    False if there was none. Raises `ServerRefused`."""
    if _UNSPEAKABLE.search(name):
        ids = [row.id for row in sessions(socket) if row.user == mangled(name)]
        return sum(disconnect_id(socket, session, release) for session in ids) > 0
    return _run(socket, _end(release), "user", name).returncode == 0


def disconnect_id(socket: Path, session: int, release: Release) -> bool:
    """End one session, with its cookie where this release can; False if there is none of that ID.
    Raises `ServerRefused`."""
    return _run(socket, _end(release), "id", str(session)).returncode == 0


def _end(release: Release) -> str:
    return "terminate" if TERMINATE.holds(release) else "disconnect"


def mangled(name: str) -> str:
    """A user's name as occtl's JSON shows it: each byte beyond ASCII becomes U+00FF."""
    return "".join(chr(byte) if byte < 0x80 else "\xff" for byte in name.encode())


def parse_users(text: str) -> tuple[Row, ...]:
    """Rows of `occtl -j show users`; entries without an ID are passed over."""
    listed = parse_json(text)
    entries = listed if isinstance(listed, list) else []
    return tuple(_row(entry) for entry in entries if _number(entry, "ID") is not None)


def parse_status(text: str) -> Status:
    """Of `occtl -j show status`; what is missing becomes 0, '' or None."""
    found = parse_json(text)
    entry = found if isinstance(found, dict) else {}
    return Status(
        state=_text(entry, "Status"),
        pid=_number(entry, "Server PID") or 0,
        up_since=_moment(entry, "raw_up_since"),
        active_sessions=_number(entry, "Active sessions") or 0,
        auth_failures=_number(entry, "Authentication failures") or 0,
        banned_addresses=_number(entry, "IPs in ban list") or 0,
    )


def parse_json(text: str) -> Any:
    """JSON as occtl writes it, trailing commas and all; raises `ServerRefused`."""
    if not text.strip():
        return []
    repaired = _TRAILING_COMMA.sub(lambda found: found[1] or found[2], text)
    try:
        return json.loads(repaired, strict=False)
    except ValueError as error:
        raise ServerRefused(f"occtl answered what is no JSON: {error}") from None


def _row(entry: Mapping[str, Any]) -> Row:
    group = _text(entry, "Groupname")
    return Row(
        id=_number(entry, "ID") or 0,
        user=_text(entry, "Username"),
        group=None if group in ("", "(none)") else group,
        state=_text(entry, "State"),
        vhost=_text(entry, "vhost"),
        device=_text(entry, "Device") or None,
        remote=_text(entry, "Remote IP"),
        address4=_address(entry, "IPv4", IPv4Address),
        address6=_address(entry, "IPv6", IPv6Address),
        connected_at=_moment(entry, "raw_connected_at"),
    )


def _text(entry: Mapping[str, Any], key: str) -> str:
    value = entry.get(key)
    return "" if value is None else str(value)


def _number(entry: object, key: str) -> int | None:
    value = entry.get(key) if isinstance(entry, dict) else None
    try:
        return int(value) if value is not None else None
    except (TypeError, ValueError):
        return None


def _address(entry: Mapping[str, Any], key: str, kind: type[_Ip]) -> _Ip | None:
    try:
        return kind(_text(entry, key).partition("%")[0])
    except ValueError:
        return None


def _moment(entry: Mapping[str, Any], key: str) -> datetime | None:
    seconds = _number(entry, key)
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _ask(socket: Path, *words: str) -> str:
    done = _run(socket, *words)
    if done.returncode != 0:
        reply = done.stderr.decode(errors="replace").strip()
        raise ServerRefused(f"occtl {' '.join(words)}: {reply}", hint="Is ocserv running?")
    return done.stdout.decode(errors="replace")


def _run(socket: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    # An absolute path: occtl takes a bare file name for one below its own directory.
    command = ["occtl", "-j", "-s", str(socket.absolute()), *words]
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT,
            check=False,
        )
    except FileNotFoundError:
        raise MissingRequirement(
            "occtl is not installed", hint="Install the package ocserv, which holds it"
        ) from None
    except subprocess.TimeoutExpired:
        raise ServerRefused(
            f"occtl {words[0]}: no answer within {_TIMEOUT:g} s",
            hint="A hook or a full log may hold ocserv up; see its log",
        ) from None

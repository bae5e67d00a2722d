"""`ocgate user add|remove|list`: the passwd file that ocserv.conf names."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ocgate.cli import terminal
from ocgate.errors import OcgateError

if TYPE_CHECKING:
    from ocgate.config import Settings
    from ocgate.ocserv.passwd_file import Edited
    from ocgate.ocserv.view import ServerView

# What a password file may hold: the password, a newline, and no more that anybody could mean.
_LARGEST_PASSWORD_FILE = 4096


def add(
    name: str,
    *,
    groups: Sequence[str],
    replace: bool,
    from_stdin: bool,
    from_file: Path | None,
    vhost: str,
) -> int:
    """Add the user, with a random password unless one is given; print that one once."""
    from ocgate.ocserv import passwords, users

    users.validate_name(name)
    settings, view = _configuration()
    path = _passwd_file(settings, view, vhost)
    given = _given(from_stdin=from_stdin, from_file=from_file)
    password = given or passwords.random_password()
    edited = users.add(
        path, name, passwords.hash_password(password), groups=groups, replace=replace
    )
    _print_edit(f"User {name!r} can log in now", path, edited)
    if given is None:
        _show_card(settings, view, name, password)
    return 0


def remove(name: str, *, vhost: str) -> int:
    """Take the user out and end its sessions."""
    from ocgate.names import OCCTL_SOCKET
    from ocgate.ocserv import occtl, users
    from ocgate.ocserv.dryrun import version
    from ocgate.ocserv.releases import TERMINATE, shown

    settings, view = _configuration()
    path = _passwd_file(settings, view, vhost)
    edited = users.remove(path, name)
    _print_edit(f"User {name!r} can't log in any more", path, edited)
    socket = Path(view.occtl_socket_file or settings.run_dir / OCCTL_SOCKET)
    if not socket.exists():
        return 0
    release = version()
    if not occtl.disconnect_user(socket, name, release):
        return 0
    terminal.out().print("Its sessions were disconnected.")
    if not TERMINATE.holds(release) and any(s.flag("persistent-cookies") for s in view.scopes):
        seconds = view.main.text("cookie-timeout") or "some"
        words = f"ocserv {shown(release)} keeps its cookie, since persistent-cookies is on: for "
        words += f"{seconds} seconds a client that was connected gets in without a password."
        terminal.err().print(f"{words} {TERMINATE.remedy}.", style="yellow", soft_wrap=True)
    return 0


def list_users(*, as_json: bool, vhost: str) -> int:
    """Print who can log in."""
    from ocgate.ocserv import users

    settings, view = _configuration()
    found = users.read(_passwd_file(settings, view, vhost))
    if as_json:
        print(json.dumps([asdict(user) for user in found], indent=2))
        return 0
    shown = terminal.table(f"Users: {len(found)}", "User", "Groups", "")
    for user in found:
        state = "locked" if user.locked else "ANY PASSWORD LOGS IN" if user.open else ""
        shown.add_row(_printable(user.name), ", ".join(user.groups), state)
    terminal.out().print(shown)
    return 0


def _configuration() -> tuple[Settings, ServerView]:
    from ocgate.config import load
    from ocgate.ocserv.dryrun import version
    from ocgate.ocserv.ini_parser import parse
    from ocgate.ocserv.reading import read_view

    settings = load(os.environ).settings
    path = settings.config_dir / "ocserv.conf"
    try:
        document = parse(path.read_bytes(), str(path))
    except OSError as error:
        raise OcgateError(
            f"reading {path}: {error.strerror}",
            hint="`ocgate init` makes a configuration where there is none",
        ) from error
    return settings, read_view(document, release=version())


def _passwd_file(settings: Settings, view: ServerView, vhost: str) -> Path:
    """The file of the main host, or of [vhost:…]; raises `OcgateError` if users stand elsewhere."""
    scopes = [view.main] if not vhost else [found for found in view.vhosts if found.name == vhost]
    files = [placed.value.path for scope in scopes for placed in scope.passwd_files]
    if files:
        return settings.config_dir / files[-1]
    where = f"[vhost:{vhost}]" if vhost else "the main host"
    raise OcgateError(
        f"{view.source}: {where} has no users in a file",
        hint='It needs auth = "plain[passwd=FILE]"; users of PAM, RADIUS or certificates are '
        "kept there",
    )


def _given(*, from_stdin: bool, from_file: Path | None) -> str | None:
    """The password that the operator gives, None for a random one."""
    from ocgate.ocserv.passwords import validate_password

    if from_stdin:
        password, source = sys.stdin.buffer.readline(_LARGEST_PASSWORD_FILE), "stdin"
    elif from_file is not None:
        password, source = _first_line(from_file), str(from_file)
    else:
        return None
    text = password.rstrip(b"\r\n").decode(errors="surrogateescape")
    validate_password(text, source=source)
    return text


def _first_line(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.readline(_LARGEST_PASSWORD_FILE)
    except OSError as error:
        raise OcgateError(f"reading {path}: {error.strerror}") from error


def _print_edit(what: str, path: Path, edited: Edited) -> None:
    console = terminal.out()
    console.print(f"{what} ({path}).", soft_wrap=True)
    if edited.in_place:
        note = "The file was written in place: it is mounted by itself and can't be replaced whole."
        console.print(note, style="yellow", soft_wrap=True)


def _show_card(settings: Settings, view: ServerView, name: str, password: str) -> None:
    from ocgate.kernel.facts import observe
    from ocgate.ocserv import connect_card
    from ocgate.ocserv.initialise import url_of
    from ocgate.server.first_start import host_facts

    url = url_of(settings.url, host_facts(observe()), port=view.tcp_port)
    url = connect_card.with_secret(url, view.camouflage_secret)
    card = connect_card.Card(url, name, password, _pin(settings, view))
    connect_card.show(card, terminal.out())


def _pin(settings: Settings, view: ServerView) -> str | None:
    """The certificate's pin where clients need one; None also where it can't be read from here."""
    from ocgate.ocserv.certificate import pin_where_needed

    for pair in view.main.key_pairs:
        with suppress(OSError):
            return pin_where_needed((settings.config_dir / pair.certificate.value).read_bytes())
    return None


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "�" for char in text)

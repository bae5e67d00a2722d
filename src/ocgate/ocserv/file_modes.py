"""Who besides root and the owner may write or read what ocserv.conf names. Pure.

What is written decides who gets in (passwd files, ocserv.conf) or what root runs (scripts): anybody
who may write it is root, so that is refused. A secret that anybody may read is warned of: it works,
and on some mounts (Windows, network shares) modes say nothing.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator

from ocgate.errors import Problem
from ocgate.ocserv.fields import problem
from ocgate.ocserv.file_checks import SCRIPT_KEYS, FileFacts, is_file
from ocgate.ocserv.view import ScopeKind, ServerView
from ocgate.ocserv.warnings import ServerWarning


def writable(view: ServerView, facts: FileFacts, conf_mode: int) -> list[Problem]:
    """Files that everybody may write to. conf_mode: of ocserv.conf itself."""
    return list(dict.fromkeys(_writable(view, facts, conf_mode)))


def _writable(view: ServerView, facts: FileFacts, conf_mode: int) -> Iterator[Problem]:
    if conf_mode & stat.S_IWOTH:
        expected = "a file that only its owner can write to: it names scripts that root runs"
        remedy = f"Run chmod o-w {view.source}"
        yield Problem(view.source, 0, "ocserv.conf", f"mode {conf_mode:04o}", expected, remedy)
    for scope in view.scopes:
        placed = [scope.settings.get(key) for key in SCRIPT_KEYS]
        if scope.kind is ScopeKind.MAIN:
            for found in placed:
                if found and facts[found.value].mode & stat.S_IWOTH:
                    expected = "a script that only its owner can write to: root runs it"
                    yield problem(found, expected, f"Run chmod o-w {found.value}")
        for passwd in scope.passwd_files:
            if facts[passwd.value.path].mode & stat.S_IWOTH:
                expected = "a password file that only its owner can write to: who writes it gets in"
                path = passwd.value.path
                yield problem(passwd, expected, f"Run chmod 600 {path}", got=path)


def readable(view: ServerView, facts: FileFacts) -> Iterator[ServerWarning]:
    """Keys and password files that everybody on this machine may read."""
    found: dict[str, ServerWarning] = {}
    for scope in view.scopes:
        keys = [pair.key for pair in scope.key_pairs if pair.key and is_file(pair.key.value)]
        for placed in keys:
            if facts[placed.value].mode & stat.S_IROTH:
                found[placed.value] = ServerWarning(
                    "key-readable",
                    f"{placed.place}: everybody on this machine can read the private key "
                    f"{placed.value}, and with it be this server",
                    f"Run chmod 600 {placed.value}",
                )
        for passwd in scope.passwd_files:
            path = passwd.value.path
            if facts[path].mode & stat.S_IROTH:
                found[path] = ServerWarning(
                    "passwords-readable",
                    f"{passwd.place}: everybody on this machine can read the hashes in {path}, and "
                    "try passwords at leisure",
                    f"Run chmod 600 {path}",
                )
    yield from found.values()

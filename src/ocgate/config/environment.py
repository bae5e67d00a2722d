"""The settings in the environment, and the names there that were meant to be settings. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ocgate.config.injected import is_injected
from ocgate.config.nearest import nearest, one_slip
from ocgate.config.origin import ENVIRONMENT, Found, Origin, Written, printable
from ocgate.config.table import KNOWN, SERVER, Table
from ocgate.errors import Problem

OUR_PREFIXES = ("VPN_", "OCGATE_", "EXIT_PROBE")


@dataclass(frozen=True)
class Vocabulary:
    """Which names one role reads, and how near a foreign name must be to be a slip of ours.

    ours:      prefixes under which every name must be known.
    guarded:   names a slip away from which another one is refused.
    loose:     prefixes under which a quarter of the letters may be wrong.
    elsewhere: names that mean nothing in this role, with the remedy.
    """

    table: Table[Any]
    ours: tuple[str, ...]
    guarded: frozenset[str]
    loose: tuple[str, ...]
    elsewhere: Mapping[str, str]


SERVER_NAMES = Vocabulary(
    SERVER,
    OUR_PREFIXES,
    frozenset(name for name in KNOWN if name.startswith((*OUR_PREFIXES, "IPV6_"))),
    loose=("IPV6_",),
    elsewhere={},
)


def from_environment(environ: Mapping[str, str], names: Vocabulary = SERVER_NAMES) -> Found:
    """The known variables that are set, and a problem for each name that is meant for us but wrong.

    An empty value is unset: compose passes `FOO=` for what was not given.
    """
    found: dict[str, Written] = {}
    problems: list[Problem] = []
    origin = Origin(ENVIRONMENT)
    for name, text in environ.items():
        if not names.table.is_set(name, text):
            continue
        if name in names.table.known:
            found[name] = Written(text, origin)
        elif meant := _meant(name, text, names):
            problems.append(origin.problem(printable(name), None, "a known name", meant))
    return found, problems


def _meant(name: str, value: str, names: Vocabulary) -> str | None:
    """The remedy for an unknown variable that looks like one of ours; None for foreign ones."""
    if is_injected(name, value):
        return None
    if name in names.elsewhere:
        return names.elsewhere[name]
    if name.startswith(names.ours):
        return rename(name, names.table.known)
    spelled = name.upper().replace("-", "_")
    if spelled.startswith("IPV4_"):  # one letter from IPV6_, but never a slip
        return None
    if spelled in names.guarded:  # `vpn_subnet`: an environment keeps upper and lower case apart
        meant: str | None = spelled
    elif names.loose and spelled.startswith(names.loose):
        best, steps = nearest(spelled, names.guarded)
        meant = best if steps <= len(spelled) // 4 else None
    else:
        meant = one_slip(spelled, names.guarded)
    return None if meant is None else f"write {meant}, or remove it"


def rename(name: str, known: Iterable[str] = KNOWN) -> str:
    """The remedy for an unknown name: the nearest known one, or to remove it."""
    best, steps = nearest(name.upper(), known)
    if steps <= len(name) // 3:
        return f"write {best}, or remove it"
    return f"remove it (the nearest known name is {best})"

"""The settings in the environment, and the names there that were meant to be settings. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from ocgate.config.injected import is_injected
from ocgate.config.nearest import nearest, one_slip
from ocgate.config.origin import ENVIRONMENT, Found, Origin, Written, printable
from ocgate.config.table import KNOWN, is_set
from ocgate.errors import Problem

OUR_PREFIXES = ("VPN_", "OCGATE_", "EXIT_PROBE")
_GUARDING_PREFIXES = (*OUR_PREFIXES, "IPV6_")


def from_environment(environ: Mapping[str, str]) -> Found:
    """The known variables that are set, and a problem for each name that is meant for us but wrong.

    An empty value is unset: compose passes `FOO=` for what was not given.
    """
    found: dict[str, Written] = {}
    problems: list[Problem] = []
    origin = Origin(ENVIRONMENT)
    for name, text in environ.items():
        if not is_set(name, text):
            continue
        if name in KNOWN:
            found[name] = Written(text, origin)
        elif meant := _meant(name, text):
            problems.append(origin.problem(printable(name), None, "a known name", meant))
    return found, problems


def _meant(name: str, value: str) -> str | None:
    """The remedy for an unknown variable that looks like one of ours; None for foreign ones."""
    if is_injected(name, value):
        return None
    if name.startswith(OUR_PREFIXES):
        return rename(name)
    spelled = name.upper().replace("-", "_")
    if spelled.startswith("IPV4_"):  # one letter from IPV6_, but never a slip
        return None
    candidates = [known for known in KNOWN if known.startswith(_GUARDING_PREFIXES)]
    if spelled in candidates:  # `vpn_subnet`: an environment keeps upper and lower case apart
        meant: str | None = spelled
    elif spelled.startswith("IPV6_"):
        best, steps = nearest(spelled, candidates)
        meant = best if steps <= len(spelled) // 4 else None
    else:
        meant = one_slip(spelled, candidates)
    return None if meant is None else f"write {meant}, or remove it"


def rename(name: str) -> str:
    """The remedy for an unknown name: the nearest known one, or to remove it."""
    best, steps = nearest(name.upper(), KNOWN)
    if steps <= len(name) // 3:
        return f"write {best}, or remove it"
    return f"remove it (the nearest known name is {best})"

"""Which of our commands each known name means, as one table. Pure.

An option that we have nothing for is answered in words, never ignored when that would change what
is shown; one that only makes their output shorter or quicker is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

UNKNOWN = 2  # usage, as for every command of ours


@dataclass(frozen=True)
class Call:
    """Run `ocgate ARGV`; `note` is a sentence for stderr before it, or ''."""

    argv: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True)
class Refusal:
    """Exit status 2 with these words."""

    words: str


Answer = Call | Refusal


@dataclass(frozen=True)
class Name:
    """One name.

    argv:    our command, without options; () where there is none yet.
    doc:     what the name does, a clause for its --help.
    options: their option -> our arguments for it; () drops it.
    absent:  why there is no command yet, a sentence; '' where there is one.
    special: answers all arguments on its own, where a table of options can't.
    """

    argv: tuple[str, ...]
    doc: str
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    absent: str = ""
    special: Callable[[Sequence[str]], Answer | None] | None = None


_JSON = {"--json": ("--json",), "-j": ("--json",)}

_NO_POOLS = (
    "Destination pools are not in this version, so there is nothing to load: a configuration that "
    "sets VPN_BYPASS_… is refused at the start rather than served without them."
)


def _explain(arguments: Sequence[str]) -> Answer | None:
    """`--explain USER DESTINATION`: which way that user's packets take."""
    word = next((word for word in arguments if word in ("--explain", "-e")), None)
    if word is None:
        return None
    who = list(arguments[arguments.index(word) + 1 :])
    if len(who) < 2 or who[0].startswith("-"):
        return Refusal("network-diagnostic --explain USER DESTINATION")
    return Call(("explain", *(("--json",) if set(_JSON) & set(arguments) else ()), "--", *who[:2]))


def _report(arguments: Sequence[str]) -> Answer | None:
    """`-u NAME` has a value, which a table of options can't tell from one."""
    found, left = ["sessions"], list(arguments)
    while left:
        word = left.pop(0)
        if word in ("-u", "--user"):
            if not left:
                return Refusal("session-report --user NAME")
            found.append(f"--user={left.pop(0)}")
        elif word in _JSON:
            found.append("--json")
        elif word not in ("--no-geo", "--no-rate"):
            return None  # told by the table
    return Call(tuple(found))


NAMES: Mapping[str, Name] = {
    "network-diagnostic": Name(
        ("doctor",),
        "checks everything, and says what is wrong and what to do",
        {**_JSON, "--full": (), "-f": (), "--basic": (), "-b": ()},
        special=_explain,
    ),
    "session-report": Name(
        ("sessions",),
        "reports live and completed sessions; where a client's address is on the map is not asked",
        {**_JSON, "--user": (), "-u": (), "--no-geo": (), "--no-rate": ()},
        special=_report,
    ),
    "vpngw-reload": Name(("reload",), "re-reads the configuration, gateways included"),
    "vpngw-gw-resolve": Name(("reload",), "resolves gateways' names anew, with all the rest"),
    "bypass-reload": Name((), "re-reads destination pools", absent=_NO_POOLS),
    "bypass-fetch": Name((), "fetches destination pools", absent=_NO_POOLS),
    "cert-reload": Name(("reload",), "puts new certificates in force, with all the rest"),
    "healthcheck": Name(("healthcheck",), "says whether the server is healthy"),
}


def answer(name: str, arguments: Sequence[str]) -> Answer:
    """What `name ARGUMENTS` comes to; KeyError for a name that is not in the table."""
    known = NAMES[name]
    if known.absent:
        return Refusal(f"{name}: {known.absent}")
    found = known.special(arguments) if known.special else None
    if found is not None:
        return found
    strange = [word for word in arguments if word not in known.options]
    if strange:
        return Refusal(_unknown(name, known, strange[0]))
    extra = (part for word in arguments for part in known.options[word])
    return Call((*known.argv, *dict.fromkeys(extra)))


def usage(name: str) -> str:
    """Its --help."""
    known = NAMES[name]
    ours = f"`ocgate {' '.join(known.argv)}`" if known.argv else "nothing of ours yet"
    lines = [f"{name}: {known.doc}. Kept for azinchen/ocserv-server; it is {ours}."]
    if known.options:
        lines.append(f"Options: {', '.join(known.options)}")
    return "\n".join([*lines, *([known.absent] if known.absent else [])])


def _unknown(name: str, known: Name, word: str) -> str:
    accepted = ", ".join(known.options) or "none"
    ours = f"ocgate {' '.join(known.argv)} --help"
    return f"{name}: got {word!r}; accepted: {accepted}. Ours is richer: {ours}"

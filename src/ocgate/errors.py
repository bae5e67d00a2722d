"""Every exception that ocgate raises on purpose, drawn as one tree; any room may import it.

OcgateError                    exit 1   something is wrong; the hint says what to do
├── ConfigurationError         exit 2   what the operator wrote; carries all problems at once
├── MissingRequirement         exit 1   the machine or container lacks something; names the flag
├── KernelRefused              exit 1   the kernel said no; carries our input and its words
├── VerificationFailed         exit 1   the kernel does not hold what we just asked for
└── ServerRefused              exit 1   ocserv said no; carries its words
    └── ConfigurationRefused   exit 2   `ocserv -t` said no, of what the operator wrote
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing wrong in the operator's input.

    source:   where it stands: a file's path, or ``environment``.
    line:     1-based line in that file; 0 where lines have no meaning.
    key:      the setting, spelled as the operator must write it.
    got:      the value found, exactly as written; None when the key itself is the problem.
    expected: what is accepted: type, unit, range.
    remedy:   what to do, an imperative sentence without full stop.
    """

    source: str
    line: int
    key: str
    got: str | None
    expected: str
    remedy: str

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}" if self.line else self.source
        got = "" if self.got is None else f"got {self.got!r}; "
        remedy = self.remedy[:1].upper() + self.remedy[1:]
        return f"{place}: {self.key}: {got}expected {self.expected}. {remedy}"


def _place(problem: Problem) -> tuple[str, int, str, str, str]:
    """The order in which problems are told: by file, line and key, then the same one every time."""
    return (problem.source, problem.line, problem.key, problem.got or "", problem.expected)


class OcgateError(Exception):
    """Base of all errors meant for the operator: `message` says what, `hint` what to do."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class ConfigurationError(OcgateError):
    """The operator's input can't be used; nothing was changed."""

    exit_code = 2

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems), key=_place))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class MissingRequirement(OcgateError):
    """A capability, device, sysctl or program is not there; the hint is the flag that gives it."""


class KernelRefused(OcgateError):
    """A transaction was rejected as a whole: `request` is our input, `reply` the kernel's words."""

    def __init__(self, message: str, *, request: str, reply: str, hint: str = "") -> None:
        super().__init__(f"{message}: {reply.strip()}", hint=hint)
        self.request = request
        self.reply = reply


class VerificationFailed(OcgateError):
    """Read back after applying, the kernel holds something else than the plan."""


class ServerRefused(OcgateError):
    """ocserv did not do what it was asked, or did not come up."""


class ConfigurationRefused(ServerRefused):
    """`ocserv -t` rejected a configuration; nothing was changed."""

    exit_code = 2

"""How to connect, as words: shown once, when a user has just been made. Pure but for `show`.

A line that people paste is never wrapped, indented or coloured.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ocgate.ocserv.passwords import ALPHABET

if TYPE_CHECKING:
    from rich.console import Console

_LABEL_WIDTH = 10


@dataclass(frozen=True)
class Card:
    """What a client needs.

    password: None where the operator chose it: then it is not repeated, the client asks for it.
    pin:      `pin-sha256:…` for a certificate that clients can't verify otherwise, or None.
    notes:    sentences to show below.
    """

    url: str
    user: str
    password: str | None = field(repr=False)
    pin: str | None
    notes: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """The complete openconnect line for a POSIX shell."""
        return command(self.url, self.user, self.password, self.pin)


def command(url: str, user: str, password: str | None, pin: str | None) -> str:
    """`openconnect` for this user, quoted for a shell; without a password it asks for it."""
    # `--user=…` in one word, since a name may begin with a dash.
    options = [f"--user={user}"] + ([f"--servercert={pin}"] if pin else [])
    if password is not None:
        options = ["--non-inter", "--passwd-on-stdin", *options]
    line = " ".join(["sudo openconnect", *map(shlex.quote, options), shlex.quote(url)])
    return line if password is None else f"{_printing(password)} | {line}"


def _printing(password: str) -> str:
    """The shell command that prints the password and a newline."""
    if set(password) <= {*ALPHABET, "-"} and not password.startswith("-"):
        return f"echo '{password}'"
    # echo of some shells takes `-n` and backslashes for itself.
    return f"printf '%s\\n' {shlex.quote(password)}"


def with_secret(url: str, secret: str | None) -> str:
    """The URL by which clients get past ocserv's camouflage: the secret is its whole query, and the
    path is the root (ocserv 1.3 answers any other with 404). What has a query stays as it is."""
    if not secret or "?" in url:
        return url
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}/?{secret}"


def lines(card: Card) -> list[str]:
    """The card as plain lines; the command stands alone on its own."""
    rows = [("URL", card.url), ("User", card.user), ("Password", card.password)]
    if card.password is None:
        rows[-1] = ("Password", "the one you set")
    rows.append(("Pin", card.pin))
    shown = [f"  {label:<{_LABEL_WIDTH}}{value}" for label, value in rows if value]
    return ["How to connect", *shown, "", "With openconnect:", card.command, "", *card.notes]


def show(card: Card, console: Console) -> None:
    """Print the card; colours only where `console` is a terminal, and never a wrapped line."""
    from rich.text import Text

    for line in lines(card):
        if line == "How to connect":
            once = Text(" (the password is shown only now)", style="yellow")
            text = Text(line, style="bold green") + (once if card.password else Text())
        elif line.startswith("  "):
            text = Text(line)
            text.stylize("cyan", 0, 2 + _LABEL_WIDTH)
        else:
            text = Text(line)
        console.print(text, soft_wrap=True, highlight=False)

"""The commands that report: sessions, doctor, explain. Declared as in `app`, which adds them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from ocgate.cli.declaring import LOOK, Json, end, examples


def declare(app: typer.Typer) -> None:
    """Add them to the command line."""
    app.command(
        rich_help_panel=LOOK,
        epilog=examples(
            "sudo ocgate doctor",
            "sudo ocgate doctor --json | jq '.findings[] | select(.verdict != \"ok\")'",
        ),
    )(doctor)
    app.command(
        rich_help_panel=LOOK,
        epilog=examples(
            "sudo ocgate explain alice 1.1.1.1",
            "sudo ocgate explain alice www.example.org --json",
        ),
    )(explain)
    app.command(
        rich_help_panel=LOOK,
        epilog=examples(
            "sudo ocgate sessions                     # who is, and who was, connected",
            "sudo ocgate sessions --user alice --day 2026-03-01",
            "sudo ocgate sessions --json | jq .totals",
        ),
    )(sessions)


def doctor(as_json: Json = False) -> None:
    """Check everything, and say for each finding what it means and what to do.

    Configuration, machine, server, guard, exits, names, resolvers, certificates, history, and what
    is being blocked just now. Changes nothing. Exit status 1 if anything is to be done.
    """
    from ocgate.cli.doctor import doctor as examine

    end(examine(as_json=as_json))


def explain(
    user: Annotated[str, typer.Argument(metavar="USER", help="A user's name.")],
    destination: Annotated[
        str, typer.Argument(metavar="DEST", help="An address, or a name that this host resolves.")
    ],
    as_json: Json = False,
) -> None:
    """Say which way a user's traffic to a destination goes, by which rule, and why.

    Exit status 1 if it goes nowhere.
    """
    from ocgate.cli.explain import explain as tell

    end(tell(user, destination, as_json=as_json))


def sessions(
    user: Annotated[
        str | None, typer.Option("--user", "-u", metavar="NAME", help="Only this user's.")
    ] = None,
    day: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"], help="Only those that lived on this day, by this machine's clock."
        ),
    ] = None,
    last: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="List N completed sessions at most.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Report live and completed sessions: from where, how long, how many bytes, why ended.

    Completed ones are kept in the file that SESSION_HISTORY_FILE names.
    """
    from ocgate.cli.sessions import sessions as report

    end(report(user=user, day=day, last=last, as_json=as_json))

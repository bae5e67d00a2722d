"""`ocgate run`, `exit`, `init` and `reload`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NoReturn

from ocgate.cli import terminal
from ocgate.cli.places import run_dir

if TYPE_CHECKING:
    from ocgate.ocserv.initialise import Created


def run() -> NoReturn:
    """Serve until a signal; the wiring replaces or ends this process."""
    from ocgate.server.run import run as serve

    serve(os.environ, created=show_created)


def exit_role() -> NoReturn:
    """Be an exit until a signal; the wiring replaces or ends this process."""
    from ocgate.exit_node.run import run as leave

    leave(os.environ)


def init() -> int:
    """Make what an empty config dir lacks and print how to connect; 0 if nothing is to do."""
    from ocgate.config import load
    from ocgate.server.first_start import initialise_if_empty

    settings = load(os.environ).settings
    created = initialise_if_empty(settings)
    console = terminal.out()
    if created is None:
        console.print(
            f"Nothing to do: {settings.config_dir}/ocserv.conf is there and stays as it is."
        )
        return 0
    show_created(created)
    console.print("Start it with: ocgate run", style="bold")
    return 0


def show_created(created: Created) -> None:
    """Print what was made and, once, how to connect."""
    from ocgate.ocserv.connect_card import show

    console = terminal.out()
    for path in created.aside:
        console.print(f"The package's unchanged sample is now {path}", soft_wrap=True)
    for path in created.files:
        console.print(f"Created {path}", soft_wrap=True)
    console.print()
    show(created.card, console)


def reload(*, learn_mac: bool = False) -> int:
    """Have the control plane re-read everything; 1 and its reasons if it refused. learn_mac: and
    forget the MAC addresses that it has learned of gateways."""
    from ocgate.runtime.control_client import ask
    from ocgate.sessions.protocol import LEARN_MAC

    fields = {LEARN_MAC: "1"} if learn_mac else {}
    answer = ask(run_dir(os.environ), "reload", fields).decode(errors="replace")
    verdict, _, reasons = answer.partition("\n")
    if verdict == "ok":
        said = reasons.strip() or "Reloaded: nobody was disconnected."
        terminal.out().print(said, style="green", soft_wrap=True)
        return 0
    err = terminal.err()
    err.print("ocgate: reload refused, nothing was changed", style="red")
    err.print(reasons.strip() or verdict, soft_wrap=True)
    return 1

"""`ocgate explain`: asks the control plane, which knows what is in force. Names resolve here."""

from __future__ import annotations

import json
import os
import socket
from ipaddress import ip_address
from typing import Any

from ocgate.cli import terminal
from ocgate.cli.places import run_dir
from ocgate.cli.shown import printable
from ocgate.errors import OcgateError
from ocgate.sessions.protocol import read_error

_STYLES = {"rejected": "bold red", "dropped": "bold red", "outside": "bold yellow"}


def explain(user: str, destination: str, *, as_json: bool) -> int:
    """Print it for each address; 1 if the packet goes nowhere by any of them."""
    from ocgate.runtime.control_client import ask

    found: list[dict[str, Any]] = []
    for address in _addresses(destination):
        reply = ask(run_dir(os.environ), "explain", {"USERNAME": user, "DESTINATION": address})
        try:
            found.append(json.loads(reply))
        except ValueError:
            raise OcgateError(read_error(reply) or "the control plane gave no answer") from None
    if as_json:
        print(json.dumps({"schema": 1, "explanations": found}, indent=2))
    else:
        for each in found:
            _show(each)
    return 0 if any(each["arrives"] for each in found) else 1


def _addresses(destination: str) -> list[str]:
    """Itself, or what this host resolves the name to. Clients may be told something else."""
    try:
        return [str(ip_address(destination))]
    except ValueError:
        pass
    try:
        answers = socket.getaddrinfo(destination, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise OcgateError(
            f"{destination!r} is no address, and resolving it: {error}", hint="Write an address"
        ) from None
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


def _show(found: dict[str, Any]) -> None:
    console = terminal.out()
    verdict = found["verdict"]
    way = f" {found['way']}" if found["way"] else ""
    who = f"on {found['session']}" if found["session"] else "who is not connected now"
    console.print(f"{printable(found['user'])}, {who}, to {found['destination']}:", soft_wrap=True)
    console.print(f"  {verdict}{way}", style=_STYLES.get(verdict, "bold green"), soft_wrap=True)
    console.print(f"  {found['why']}", soft_wrap=True)
    for step in found["steps"]:
        console.print(f"    {step['at']}: {step['says']}", soft_wrap=True)

"""Is somebody listening? Read from /proc, so that asking leaves no connection behind."""

from __future__ import annotations

from pathlib import Path

from ocgate.lab.namespace import Namespace

_TCP_LISTEN = "0A"  # include/net/tcp_states.h


def listens(netns: Namespace, port: int) -> bool:
    """Does a TCP socket of either family listen on `port`, on any address?"""
    with netns.entered():
        rows = [row for name in ("tcp", "tcp6") for row in _rows(name)]
    return any(row[1].endswith(f":{port:04X}") and row[3] == _TCP_LISTEN for row in rows)


def _rows(name: str) -> list[list[str]]:
    # thread-self: /proc/net would show the namespace of the main thread.
    table = Path(f"/proc/thread-self/net/{name}").read_text()
    return [line.split() for line in table.splitlines()[1:]]

"""Bare ocserv and ocgate side by side: two labs alike, the same ocserv.conf, the same client.

Lab "bare"     client1 ── inet ── router ── gw: ocserv, ip_forward, one masquerade rule
Lab "ocgate"   client1 ── inet ── router ── gw: ocgate run
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from lab import gateway
from lab.client import Login
from lab.ocserv import run_ocserv, write_config_dir
from lab.topology import Lab

BARE, OCGATE = "bare ocserv", "ocgate"
_USERS = {"bench": "bench"}


@dataclass(frozen=True)
class Side:
    """A server that listens, and what its client needs."""

    lab: Lab
    login: Login


@contextmanager
def pair() -> Iterator[dict[str, Side]]:
    """Both, serving at the same time."""
    with ExitStack() as stack:
        bare = stack.enter_context(Lab())
        ours = stack.enter_context(Lab())
        server = run_ocserv(bare, _USERS)
        directory = ours.path("etc")
        write_config_dir(ours, directory, _USERS)
        serving = gateway.run(ours, {}, directory)
        yield {
            BARE: Side(bare, server.login("bench")),
            OCGATE: Side(ours, serving.login("bench", "bench")),
        }

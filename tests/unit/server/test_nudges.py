"""Nudges go out in the background: what they lack holds up no change of the kernel's state."""

from __future__ import annotations

import asyncio
import errno
import os
from ipaddress import ip_address, ip_network
from types import SimpleNamespace
from typing import Any

import pytest

from ocgate.kernel.conntrack import TcpFlow
from ocgate.server.exits import nudges as module
from ocgate.server.exits.nudges import Nudges

FLOW = TcpFlow(ip_address("10.10.10.5"), 40000, ip_address("198.51.100.10"), 443)
NETWORKS = [ip_network("10.10.10.0/24")]


def test_what_the_kernel_knows_is_nudged_and_what_it_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nudged: list[Any] = []
    known = {tuple(NETWORKS): [FLOW]}
    monkeypatch.setattr(module.conntrack, "tcp_of_networks", lambda networks: known[networks])
    monkeypatch.setattr(module, "nudge", lambda flows, *, tunnels: nudged.append((*flows, tunnels)))

    async def run() -> None:
        made = Nudges()
        made.of_networks(NETWORKS, tunnels="vpns")
        made.of_flows([FLOW, FLOW], tunnels="vpns")
        await asyncio.gather(*made._tasks)

    asyncio.run(run())
    assert sorted(nudged, key=len) == [(FLOW, "vpns"), (FLOW, FLOW, "vpns")]


def test_without_the_privilege_it_is_said_and_nothing_else_happens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []

    def refused(*_: object, **__: object) -> int:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(module, "nudge", refused)

    async def run() -> None:
        made = Nudges()
        quiet: Any = SimpleNamespace(tell=said.append)
        made._complaints = quiet
        made.of_flows([FLOW], tunnels="vpns")
        await asyncio.gather(*made._tasks)

    asyncio.run(run())
    assert len(said) == 1
    assert os.strerror(errno.EPERM) in said[0]

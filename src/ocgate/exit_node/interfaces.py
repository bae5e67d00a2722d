"""What the runner asks of those who touch the kernel, the client and the network."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from ocgate.exit_node.client import Running
from ocgate.exit_node.reconciler import Open
from ocgate.tunnel.gate import Reported
from ocgate.tunnel.model import Carried, Endpoint, Launch, Remote


class KillSwitch(Protocol):
    """The reconciler."""

    async def hold(self, wanted: Open, *, insist: bool = False) -> None:
        """Make the kernel hold this; insist: where it refuses, it is tried again and again."""

    def taken(self, given: Reported | Carried) -> Carried:
        """What may be used of what a tunnel's server or file says; raises Unusable."""


class TunnelProcess(Protocol):
    """The client."""

    @property
    def directory(self) -> Path: ...

    def start(self, launch: Launch, *, uid: int) -> None: ...

    def stop(self) -> None: ...

    def running(self) -> Running | None: ...

    def last_words(self) -> list[str]: ...


class ServerLookup(Protocol):
    """The look-ups."""

    async def endpoint(self, remote: Remote, nth: int) -> Endpoint: ...

    async def remotes(self) -> tuple[Remote, ...]: ...

"""What the wiring asks of a kind of tunnel, whatever it is: the one interface of four clients."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from ocgate.tunnel.model import Carried, Endpoint, Launch, Remote


class Kind(Protocol):
    """A profile that was read, and how its client is spoken to.

    name:   as in `ocgate status`: openvpn, openconnect, wireguard, nordvpn.
    device: that it uses. uid: of its client, None for root. programs: that must be installed.
    """

    @property
    def name(self) -> str: ...

    @property
    def device(self) -> str: ...

    @property
    def uid(self) -> int | None: ...

    @property
    def programs(self) -> tuple[str, ...]: ...

    @property
    def notices(self) -> tuple[str, ...]:
        """What of the profile has no effect, one sentence each."""

    def remotes(self) -> tuple[Remote, ...]:
        """Its servers in the order in which they are tried; none where they have to be listed."""

    def launch(self, remote: Remote, endpoint: Endpoint, directory: Path, hook: Path) -> Launch:
        """How the client is started; directory: where its files will be."""

    def carried(self, environment: Mapping[str, str]) -> Carried:
        """What its hook reported; raises OcgateError or ValueError where that makes no sense."""

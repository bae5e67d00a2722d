"""What the wiring asks of a kind of tunnel, whatever it is: the one interface of four clients."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from ocgate.tunnel.gate import Reported
from ocgate.tunnel.model import Endpoint, Launch, Remote
from ocgate.tunnel.wireguard import Interface


class Kind(Protocol):
    """A profile that was read, and how its client is spoken to.

    name:   as in `ocgate status`: openvpn, openconnect, wireguard, nordvpn.
    device: that it uses. uid: of its client, None where the kernel is the client.
    programs: that must be installed. notices: what of the profile has no effect, and the like.
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
    def notices(self) -> tuple[str, ...]: ...

    def remotes(self) -> tuple[Remote, ...]:
        """Its servers in the order in which they are tried; none where they have to be listed."""

    def launch(
        self, remote: Remote, endpoint: Endpoint, directory: Path, hook: Path, /
    ) -> Launch | None:
        """How the client is started, None where there is no process. directory: for its files."""

    def interface(self, remote: Remote, endpoint: Endpoint, /) -> Interface | None:
        """How a device without a hook is configured (WireGuard's); None for all others."""

    def reported(self, environment: Mapping[str, str], /) -> Reported:
        """What its hook was given; raises OcgateError of a kind without one."""

"""control.sock: whose it is and who may connect, in both roles, as docs/security.md says."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest

from ocgate.exit_node.daemon import _GUEST
from ocgate.names import TUNNEL_UID
from ocgate.runtime.control_socket import ControlSocket, Guest

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize(
    ("guest", "mode", "group"),
    [(None, 0o600, 0), (_GUEST, 0o660, TUNNEL_UID)],
    ids=["server", "exit"],
)
def test_the_control_sockets_mode(
    guest: Guest | None, mode: int, group: int, tmp_path: Path
) -> None:
    """Root's alone; at an exit the tunnel's client may write to it, too, for one verb."""

    async def main() -> tuple[int, int, int]:
        door = ControlSocket(tmp_path / "control.sock", {}, guest=guest)
        await door.open()
        found = (tmp_path / "control.sock").stat()
        await door.close()
        return stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid

    assert asyncio.run(main()) == (mode, 0, group)
    assert _GUEST.verbs == {"tunnel"}

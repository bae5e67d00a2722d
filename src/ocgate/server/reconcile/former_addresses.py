"""Addresses that clients have been translated to, kept for a control plane that is restarted.

What comes late for one of them must not be answered by the ISP, also if this host had the address
before a crash and has it no more.
"""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path

from ocgate.own_files import write
from ocgate.plan.exits import FormerAddress

STRAYS = "strays.json"


def write_strays(run_dir: Path, strays: tuple[FormerAddress, ...]) -> None:
    """Keep them; a file that holds no secret."""
    kept = [[stray.device, str(stray.address)] for stray in strays]
    write(run_dir / STRAYS, json.dumps(kept).encode(), mode=0o644)


def read_strays(run_dir: Path) -> tuple[FormerAddress, ...]:
    """What `write_strays` kept; none where nothing usable is there."""
    try:
        kept: list[list[str]] = json.loads((run_dir / STRAYS).read_bytes())
        return tuple(FormerAddress(device, ip_address(address)) for device, address in kept)
    except (OSError, ValueError, TypeError):
        return ()

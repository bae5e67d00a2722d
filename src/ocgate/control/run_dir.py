"""The run dir: made with the right modes, written atomically.

Everything in it is ours and replaced at each start. 0755, because `ocserv` workers look for their
sockets there after they dropped root; what is secret in it has its own mode.
"""

from __future__ import annotations

import os
from pathlib import Path


def make(run_dir: Path) -> None:
    """Create it and what must exist in it; no error where it stands."""
    for part in ("", "hooks"):
        (run_dir / part).mkdir(mode=0o755, parents=True, exist_ok=True)


def write(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replace the file's content as a whole; a reader sees the old or the new."""
    new = path.with_name(path.name + ".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(data)
    new.replace(path)

"""Installs the hook program that the tunnel's client and its finish script run (`hook.pl`)."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from ocgate import names
from ocgate.own_files import write

# The client runs it without privilege; there is nothing in it that anybody may not read.
_EXECUTABLE = 0o755


def install(run_dir: Path) -> None:
    """Write RUN_DIR/hooks/tunnel and ended, each replaced in one step."""
    quoted = str(run_dir.absolute()).replace("\\", "\\\\").replace("'", "\\'")
    text = files(__package__).joinpath("hook.pl").read_text("utf-8")
    program = text.replace("@RUN_DIR@", quoted).encode("utf-8", "surrogateescape")
    for name in (names.HOOK_TUNNEL, names.HOOK_ENDED):
        write(run_dir / name, program, mode=_EXECUTABLE)

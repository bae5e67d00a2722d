"""What the exit's control holds follows from what its kernel asks for."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from ocgate import names
from ocgate.exit_node import services


@pytest.mark.parametrize(
    ("release", "asked"),
    [
        ("4.4.302+", True),
        ("5.6.19", True),
        ("5.7.0-1", False),
        ("6.18.44-fc", False),
        ("10.0", False),
    ],
)
def test_raw_sockets_are_held_where_the_kernel_asks_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: str, asked: bool
) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release=release))
    services.write(tmp_path, python="/usr/bin/python3", log_format="human")
    run = (tmp_path / names.SERVICES / "control" / "run").read_text()
    held = "hold_only -all,+net_admin,+dac_override,+chown"
    assert f"{held}{',+net_raw' if asked else ''} " in run

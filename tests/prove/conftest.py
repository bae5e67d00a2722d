"""What tests of `ocgate prove` insist on: nothing of it is left, however it ended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.topology import WORK_ROOT
from support import clean_end
from support.prove_configs import write_configuration


@pytest.fixture
def config_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An operator's config dir; ocserv's workers, which run as nobody, may pass through it."""
    made = passable(tmp_path_factory.mktemp("etc"))
    write_configuration(made)
    return made


@pytest.fixture
def empty_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same before a first start."""
    return passable(tmp_path_factory.mktemp("etc"))


def passable(directory: Path) -> Path:
    """May be passed through by everybody."""
    for parent in (directory, *directory.parents):
        if parent.is_relative_to(WORK_ROOT) and parent != WORK_ROOT:
            parent.chmod(0o755)
    return directory


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """No namespace, no work directory of this process after a test."""
    yield
    left = clean_end.left_behind()
    assert not left, f"left behind: {left}"

"""How a test ends that has built a site: its evidence is kept if it failed, and nothing is left."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from lab.site import WORK_ROOT, Site
from ocgate.netlab import namespace

REPORT = pytest.StashKey[pytest.TestReport]()
"""How the body of a test ended; the root's conftest puts it there."""


def of(node: pytest.Item, made: Sequence[Site]) -> None:
    """Close them. After a failure, captures and logs go to $OCGATE_PCAP_DIR/TEST/ first. Fails if a
    process in a namespace, a namespace or a work directory stays."""
    _keep_evidence(node, made)
    for built in made:
        built.close()
    left = [line for built in made for line in built.leftovers] + left_behind()
    assert not left, f"left behind: {left}"


def left_behind() -> list[str]:
    """Namespaces and work directories of this process."""
    directories = WORK_ROOT.glob(f"{namespace.owner_prefix()}*")
    return [*namespace.owned(), *(str(path) for path in directories)]


def _keep_evidence(node: pytest.Item, made: Sequence[Site]) -> None:
    directory = os.environ.get("OCGATE_PCAP_DIR")
    report = node.stash.get(REPORT, None)
    if directory and (report is None or report.failed):
        name = re.sub(r"[^\w.-]+", "_", node.name)
        for number, built in enumerate(made):
            built.save_evidence(Path(directory) / name / str(number))

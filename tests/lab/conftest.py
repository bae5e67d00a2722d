"""The `lab` fixture: builds topologies, keeps evidence of a failure, insists on a clean end."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ocgate.lab import namespace
from ocgate.lab.topology import WORK_ROOT, Lab, Options

LabFactory = Callable[..., Lab]

_REPORT = pytest.StashKey[pytest.TestReport]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Remember how the test's body ended, for the fixture that runs after it."""
    report = yield
    if report.when == "call":
        item.stash[_REPORT] = report
    return report


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[LabFactory]:
    """`lab()` or `lab(Options(clients=2))` builds one; it and all in it ends with the test.

    After a failure, captures and logs go to $OCGATE_PCAP_DIR/TEST/. After every test nothing may
    be left: no process in a namespace, no namespace, no work directory.
    """
    made: list[Lab] = []

    def build(options: Options | None = None) -> Lab:
        made.append(Lab(options).__enter__())
        return made[-1]

    yield build
    _keep_evidence(request.node, made)
    for built in made:
        built.close()
    left = [line for built in made for line in built.leftovers]
    left += namespace.owned()
    left += [str(path) for path in WORK_ROOT.glob(f"{namespace.owner_prefix()}*")]
    assert not left, f"left behind: {left}"


def _keep_evidence(node: pytest.Item, made: list[Lab]) -> None:
    directory = os.environ.get("OCGATE_PCAP_DIR")
    report = node.stash.get(_REPORT, None)
    if directory and (report is None or report.failed):
        name = re.sub(r"[^\w.-]+", "_", node.name)
        for number, built in enumerate(made):
            built.save_evidence(Path(directory) / name / str(number))

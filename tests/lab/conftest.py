"""The `lab` fixture: builds topologies, keeps evidence of a failure, insists on a clean end."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from lab.topology import Lab, Options
from support import clean_end

LabFactory = Callable[..., Lab]


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[LabFactory]:
    """`lab()` or `lab(Options(clients=2))` builds one; it and all in it ends with the test."""
    made: list[Lab] = []

    def build(options: Options | None = None) -> Lab:
        made.append(Lab(options).__enter__())
        return made[-1]

    yield build
    clean_end.of(request.node, made)

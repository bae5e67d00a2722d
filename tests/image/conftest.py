"""The `site` fixture: docker hosts on a stand-in internet, evidence of a failure, a clean end."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator

import pytest

from lab import podman
from lab.addresses import RESOLVER
from lab.chained import Chained
from lab.docker_host import DockerHosts, Machines
from lab.podman import Engine
from support import clean_end
from support.example import SiteFactory

# What setup/build-image makes, and what the examples name.
IMAGE = "ocgate"


@functools.cache
def missing() -> str:
    """Why containers can't run here; empty if one has just run."""
    if reason := podman.missing():
        return reason
    if not podman.has_image(IMAGE):
        return f"needs the image {IMAGE}: sudo setup/build-image"
    try:
        with DockerHosts(Machines(clients=0)) as built:
            engine = Engine(built, built.host, RESOLVER)
            engine.podman("run", "--rm", "--entrypoint", "true", IMAGE)
    except (OSError, AssertionError) as error:
        return f"needs a podman that can run containers: {error}"
    return ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Root's conftest has asked for root and namespaces already."""
    if reason := missing():
        required = os.environ.get("CI") == "true" or os.environ.get("OCGATE_REQUIRE_ALL") == "1"
        (pytest.fail if required else pytest.skip)(reason)


@pytest.fixture
def site(request: pytest.FixtureRequest) -> Iterator[SiteFactory]:
    """`site()` or `site(Machines(hosts=2))` builds one; it and all in it ends with the test."""
    made: list[DockerHosts] = []

    def build(machines: Machines | None = None) -> DockerHosts:
        made.append(DockerHosts(machines).__enter__())
        return made[-1]

    yield build
    clean_end.of(request.node, made)


@pytest.fixture
def watch(
    site: SiteFactory, record_property: Callable[[str, object], None]
) -> Iterator[Callable[[Chained], Chained]]:
    """`watch(chained(...))`: its recoveries are shown in a table when all tests have run."""
    watched: list[Chained] = []

    def keep(chain: Chained) -> Chained:
        watched.append(chain)
        return chain

    yield keep
    for chain in watched:
        for what, seconds in chain.recoveries.items():
            record_property(f"{_RECOVERY}{chain.project.directory.name}: {what}", seconds)


_RECOVERY = "recovery of "


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How long each recovery took: what `bench/run examples` measures more often."""
    reports = [r for reports in terminalreporter.stats.values() for r in reports]
    found = {
        (name.removeprefix(_RECOVERY), seconds)
        for report in reports
        for name, seconds in getattr(report, "user_properties", ())
        if name.startswith(_RECOVERY)
    }
    if found:
        terminalreporter.section("until clients' packets pass again")
        for what, seconds in sorted(found):
            terminalreporter.write_line(f"{seconds:7.1f} s  {what}")

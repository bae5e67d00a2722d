"""What all tests share: which need root and the kernel, and a namespace of their own for those.

A test marked `kernel`, `lab` or `image` is skipped where root, namespaces or programs are missing,
with the reason; with CI=true or OCGATE_REQUIRE_ALL=1 it fails instead, because a suite that skips
its leak tests has shown nothing.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import structlog

from ocgate.netlab import namespace, wait
from ocgate.netlab.namespace import Namespace
from support import clean_end

# A law holds however busy the machine is: hypothesis' 200 ms an example are no part of it. CI
# judges a change by the same examples as the one before it; everybody else looks for new ones.
hypothesis.settings.register_profile(
    "ocgate", deadline=None, derandomize=os.environ.get("CI") == "true"
)
hypothesis.settings.load_profile("ocgate")

# A limit in a test says what a machine of its own would need; the cores are shared with other
# tests, and those of CI with other machines. Times are measured in bench/, side by side.
PATIENCE = 3.0
wait.be_patient(PATIENCE)

KERNEL_PROGRAMS = ("ip", "nft")
LAB_PROGRAMS = (
    *KERNEL_PROGRAMS,
    "ocserv",
    "ocpasswd",
    "occtl",
    "openconnect",
    "openvpn",
    "iperf3",
    "unshare",
)


@functools.cache
def missing(kind: str) -> str:
    """Why tests marked `kind` can't run here; empty if they can."""
    if os.geteuid() != 0:
        return "needs root"
    programs = KERNEL_PROGRAMS if kind == "kernel" else LAB_PROGRAMS
    absent = [program for program in programs if shutil.which(program) is None]
    if absent:
        return f"needs the programs {', '.join(absent)}"
    if not Path("/dev/net/tun").exists():
        return "needs /dev/net/tun"
    try:
        with namespace.isolated():
            return ""
    except (OSError, AssertionError) as error:
        return f"needs network namespaces: {error}"


def pytest_configure() -> None:
    """Tell setup/contained.py whose namespaces are this run's: each process makes its own."""
    if owners := os.environ.get("TEST_OWNERS"):
        with Path(owners).open("a") as file:
            file.write(f"{namespace.owner_prefix()}\n")


@pytest.hookimpl(trylast=True)  # behind pytest-randomly's shuffle
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long ones first, the longest (by its time-out) before all."""
    items.sort(key=lambda item: -_length(item))


def _length(item: pytest.Item) -> float:
    if item.get_closest_marker("long") is None:
        return 0.0
    limit = item.get_closest_marker("timeout")
    return float(limit.args[0]) if limit else 1.0


def pytest_runtest_setup(item: pytest.Item) -> None:
    for kind in ("kernel", "lab", "image"):
        if item.get_closest_marker(kind) and (reason := missing(kind)):
            required = os.environ.get("CI") == "true" or os.environ.get("OCGATE_REQUIRE_ALL") == "1"
            (pytest.fail if required else pytest.skip)(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Remember how the test's body ended, for the fixture that runs after it."""
    report = yield
    if report.when == "call":
        item.stash[clean_end.REPORT] = report
    return report


@pytest.fixture(autouse=True)
def log_of_its_own() -> Iterator[None]:
    """A log that one test sends to its captured stderr must not be written to by the next one."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def netns() -> Iterator[Namespace]:
    """A fresh, empty network namespace (loopback up) with this test inside it. It does not forward,
    whatever the machine's does, from which it would inherit that."""
    with namespace.isolated() as made:
        made.sysctl("net/ipv4/ip_forward", 0)
        yield made

"""What the kernel tests share: a shell and an uplink inside the test's own namespace (`netns`)."""

from __future__ import annotations

import os
import runpy
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Shell = Callable[[str], str]


@pytest.fixture(scope="session")
def programs() -> Callable[[str], Path]:
    """`programs("forky")`: the directory of that Debian's ocserv, openconnect and nft, fetched once
    (setup/releases.py). Skips where the suite has moved on, or there is no network; for the latter
    CI fails."""
    releases = runpy.run_path(str(Path(__file__).parents[2] / "setup/releases.py"))

    def of(suite: str) -> Path:
        (row,) = (row for row in releases["RELEASES"] if row.suite == suite)
        try:
            return Path(releases["directory"](row), "bin")
        except releases["MovedOn"] as error:
            pytest.skip(str(error))
        except releases["Unavailable"] as error:
            required = os.environ.get("CI") == "true" or os.environ.get("OCGATE_REQUIRE_ALL") == "1"
            (pytest.fail if required else pytest.skip)(str(error))

    return of


@pytest.fixture
def sh(netns: object) -> Shell:
    """Run shell lines in the namespace and return what they print; a failure is a test error."""

    def run(lines: str) -> str:
        return subprocess.run(
            ["/bin/sh", "-e"], input=lines, check=True, text=True, capture_output=True
        ).stdout

    return run


@pytest.fixture
def uplink(sh: Shell) -> str:
    """A veth pair `wan0` 192.0.2.2/24, 2001:db8::2/64 <-> `isp0` in the same namespace, up.

    Without duplicate address detection, whose end would be an event in the middle of a test; and
    without forwarding, which a new namespace inherits from a machine that runs containers.
    """
    sh(
        "sysctl -qw net.ipv4.ip_forward=0;"
        "sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0;"
        "ip link add wan0 type veth peer name isp0;"
        "ip link set wan0 up; ip link set isp0 up;"
        "ip addr add 192.0.2.2/24 dev wan0; ip addr add 2001:db8::2/64 dev wan0"
    )
    return "wan0"

"""A command that setup/releases.py runs has the other release's programs, and nobody else has."""

from __future__ import annotations

import hashlib
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.kernel

RUNNER = Path(__file__).parents[2] / "setup/releases.py"
RELEASES = runpy.run_path(str(RUNNER))

# Each in words of its own; ocserv-worker tells no version, so its bytes are compared.
SHOWN = """
{ ocserv --version; occtl --version; ocpasswd --version; } 2>&1 | grep -E 'OpenConnect|^oc'
openconnect --version | head -n 1
cat /usr/sbin/ocserv-worker | sha256sum
"""


def shown(*before: object) -> str:
    command = [*map(str, before), "sh", "-ec", SHOWN]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("release", RELEASES["RELEASES"], ids=lambda row: str(row.suite))
def test_all_programs_of_a_release_stand_over_the_machine_s(
    programs: Callable[[str], Path], release: Any
) -> None:
    worker = (programs(release.suite) / "ocserv-worker").read_bytes()
    before = shown()
    versions = ("--ocserv", release.ocserv, "--openconnect", release.openconnect)
    found = shown(sys.executable, "-P", RUNNER, "run", *versions)
    assert found.count(release.ocserv) == 3
    assert f"OpenConnect version v{release.openconnect}" in found
    assert hashlib.sha256(worker).hexdigest() in found
    assert shown() == before

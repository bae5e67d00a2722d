"""A command that setup/releases.py runs has the other release's programs, and nobody else has."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

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
def test_all_programs_of_a_release_stand_over_the_machine_s(release: object) -> None:
    try:
        programs = RELEASES["directory"](release) / "bin"
    except RELEASES["MovedOn"] as error:
        pytest.skip(str(error))
    ocserv, openconnect = (getattr(release, name) for name in ("ocserv", "openconnect"))
    before = shown()
    versions = ("--ocserv", ocserv, "--openconnect", openconnect)
    found = shown(sys.executable, "-P", RUNNER, "run", *versions)
    assert found.count(ocserv) == 3
    assert f"OpenConnect version v{openconnect}" in found
    worker = subprocess.run(
        ["sha256sum"], input=(programs / "ocserv-worker").read_bytes(), capture_output=True,
        check=True,
    ).stdout.decode()  # fmt: skip
    assert worker in found
    assert shown() == before

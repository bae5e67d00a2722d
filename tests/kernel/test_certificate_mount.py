"""A certificate that is bind-mounted alone and replaced outside: never seen, so it must be told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ocgate.netlab.namespace import Namespace

pytestmark = pytest.mark.kernel

_ASK = """\
import pathlib, sys
from ocgate.server.certificates.watch import orphaned
inside, outside, new = map(pathlib.Path, sys.argv[1:])
assert orphaned([inside]) == "", "before"
new.rename(outside)
print(orphaned([inside]))
assert inside.read_bytes() == b"former"
"""


def test_a_file_replaced_behind_its_mount_is_told(netns: Namespace, tmp_path: Path) -> None:
    outside, inside, new = (tmp_path / name for name in ("outside", "inside", "new"))
    for path, content in ((outside, b"former"), (inside, b""), (new, b"new")):
        path.write_bytes(content)
    script = tmp_path / "ask.py"
    script.write_text(_ASK)
    mounted = 'mount --bind "$1" "$2" && exec "$4" -P "$5" "$2" "$1" "$3"'
    arguments = [outside, inside, new, sys.executable, script]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mounted, "sh", *arguments],
        check=True,
        timeout=30,
        capture_output=True,
        text=True,
    )
    assert "mount its directory" in done.stdout

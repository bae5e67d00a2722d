"""Which files of a directory are the distribution's own, unchanged. An edge (asks dpkg).

Debian's ocserv package puts a sample ocserv.conf where the operator's belongs; it serves nobody
(example networks, someone else's certificate), so it must not count as a configuration.
"""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path, PurePath

_PACKAGE = "ocserv"

# dpkg answers in 20 ms; five seconds mean that its database is in trouble.
_TIMEOUT = 5.0


def unchanged(directory: Path) -> frozenset[str]:
    """Names of files in `directory` that equal the package's conffile of that name.

    Empty where there is no dpkg or no such package.
    """
    recorded = _conffiles()
    return frozenset(
        name for name, digest in recorded.items() if _digest(directory / name) == digest
    )


def _conffiles() -> dict[str, str]:
    """File name -> MD5 of the conffiles below /etc/ocserv as dpkg recorded them (dpkg-query(1))."""
    command = ["dpkg-query", "--show", "--showformat=${Conffiles}", _PACKAGE]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return {}
    entries = (line.split() for line in done.stdout.splitlines())
    paths = {PurePath(entry[0]): entry[1] for entry in entries if len(entry) >= 2}
    return {path.name: digest for path, digest in paths.items() if path.parent.name == _PACKAGE}


def _digest(path: Path) -> str | None:
    try:
        # MD5 is what dpkg records; it tells a sample from an edited file, no more.
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    except OSError:
        return None

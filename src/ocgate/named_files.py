"""Reads files that a configuration names: where they may lie, what they may be, how large.

A configuration may be somebody else's: a provider's file with `auth-user-pass /etc/shadow` would
send two lines of that file to his server. So what stands beside a file of somebody else's is found
by its real place, links followed to their end, and has to lie in the same directory, or where
containers are given secrets. What the system makes (/proc, /sys, /dev) is nobody's configuration,
and reading some of it blocks for ever (/proc/kmsg). Any room may import this.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

# Where docker and podman put what is given with --secret, files of the operator's choice.
SECRETS = Path("/run/secrets")

_OF_THE_SYSTEM = ("proc", "sys", "dev")

# Directories in which files of others than the configuration lie: whoever puts it there has not
# said that it may name them.
SHARED = frozenset(
    Path(name)
    for name in ("/", "/etc", "/root", "/home", "/tmp", "/var/tmp", "/run", "/var", "/usr", "/opt")
)

# Neither waits for a FIFO's writer or a device, nor follows a link that came after the look.
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC


def read(path: Path, *, most: int, beside: Path | None = None) -> bytes:
    """The content of a regular file of at most `most` bytes; never blocks.

    beside: the file that named it, where that is not the operator's own word. Raises OSError, whose
    `strerror` says why not.
    """
    place = Path(os.path.realpath(path, strict=True))
    if why := _obstacle(place, beside):
        raise OSError(errno.EPERM, why, str(path))
    if not stat.S_ISREG(place.stat().st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    descriptor = os.open(place, _FLAGS)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        data = file.read(most + 1) or b""
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most} bytes", str(path))
    return data


def words(error: OSError | ValueError) -> str:
    """Why a file could not be read, in a clause. ValueError: a NUL in its name."""
    return getattr(error, "strerror", None) or str(error)


def _obstacle(place: Path, beside: Path | None) -> str:
    """Why a file may not be read, by where it is; '' where it may."""
    if len(place.parts) > 1 and place.parts[1] in _OF_THE_SYSTEM:
        return "it is the system's, and no file of a configuration"
    if beside is None or place.is_relative_to(SECRETS):
        return ""
    directory = beside.resolve().parent
    if directory in SHARED:
        return f"{beside} lies in {directory}, among others' files: give it a directory of its own"
    if not place.is_relative_to(directory):
        return f"it lies in {place.parent}, and may only lie beside {beside}, or in {SECRETS}"
    return ""

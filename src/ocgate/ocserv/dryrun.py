"""Asks ocserv itself: `ocserv -t` on the effective file before anything starts or reloads.

An edge. A SIGHUP with a configuration that ocserv refuses kills it and drops every session, so
nothing is handed to it that it has not seen here.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from ocgate.errors import ConfigurationRefused, MissingRequirement, ServerRefused
from ocgate.ocserv.releases import Release
from ocgate.ocserv.render import Effective
from ocgate.supervision import ended

OCSERV = ("ocserv",)

# A dry run takes 10 ms; certificates on a dead network mount or a slow token may hang it for ever.
TIME_LIMIT_SECONDS = 15.0

# The loader's exit status where it can't map a library, for want of memory above all.
_NOT_LOADED = 127

# Nothing of ours, above all no secrets; ocserv finds resolvers and users without help.
ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C",
}

_LINE = re.compile(r"config file error in line ([0-9]+)")
# Rendering gives each virtual host main's device where `releases.VHOSTS_NEED_DEVICE` holds; such an
# ocserv admits it with a word.
_OF_OURS = re.compile(r"device is ignored on .* virtual host")
_VERSION = re.compile(r"\b([0-9]+)\.([0-9]+)\.([0-9]+)\b")


def dry_run(
    path: Path, effective: Effective, *, base: Path, command: Sequence[str] = OCSERV
) -> tuple[str, ...]:
    """`ocserv -t` on the file at `path`, which holds `effective.data`; gives ocserv's warnings.

    base: the directory in which ocserv will be started: relative paths in the file start there.
    Raises `ConfigurationRefused` with ocserv's words, whose line numbers are the operator's where
    the line is the operator's; `MissingRequirement` if there is no ocserv; `ServerRefused` where it
    could not be run to its end, which says nothing about the file.
    """
    code, said = _run([*command, "-t", "-c", str(path)], base)
    words = [_placed(line, path, effective) for line in said.splitlines() if line.strip()]
    if code < 0 or code == _NOT_LOADED:
        raise ServerRefused(
            f"Loading {effective.source}: `ocserv -t` came to no verdict, it {ended(code)}: "
            f"{'; '.join(words) or 'without a word'}",
            hint="Is the machine short of memory? Try again when it is not",
        )
    if code != 0:
        refused = [line for line in words if not line.startswith(("note:", "warning:"))] or words
        raise ConfigurationRefused(
            f"Loading {effective.source}: ocserv refused it (exit {code}): {'; '.join(refused)}",
            hint=f"Correct {effective.source}; `ocgate plan --json` shows what ocserv was shown",
        )
    warned = (line.removeprefix("warning: ") for line in words if not line.startswith("note:"))
    return tuple(line for line in warned if not _OF_OURS.fullmatch(line))


def version(command: Sequence[str] = OCSERV) -> Release:
    """ocserv's version, as (1, 1, 6). Raises `MissingRequirement`, or `ServerRefused`."""
    code, said = _run([*command, "-v"], Path("/"))
    found = _VERSION.search(said)
    if found is None:
        words = f"it said {said.strip()!r}, and {ended(code)}"
        raise ServerRefused(f"Asking ocserv for its version: {words}")
    major, minor, patch = (int(part) for part in found.groups())
    return major, minor, patch


def _run(command: Sequence[str], directory: Path) -> tuple[int, str]:
    """Exit code and all output, as text."""
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            env=dict(ENVIRONMENT),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIME_LIMIT_SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        raise MissingRequirement(
            f"Running {command[0]}: {error.strerror}", hint="Install it: apt-get install ocserv"
        ) from error
    except OSError as error:
        raise ServerRefused(
            f"Running {command[0]}: {error.strerror or error}",
            hint="The machine is short of processes or memory; try again when it is not",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise ServerRefused(
            f"Running {' '.join(command)}: no answer in {TIME_LIMIT_SECONDS:.0f} s",
            hint="Look for a file on a dead network mount, or a token that waits for its PIN",
        ) from error
    return done.returncode, done.stdout.decode("utf-8", "surrogateescape")


def _placed(line: str, path: Path, effective: Effective) -> str:
    """ocserv's words with the operator's line number."""

    def place(found: re.Match[str]) -> str:
        number = int(found[1])
        origin = effective.origin(number)
        return f"{effective.source}:{origin}" if origin else f"{path}:{number} (ocgate's line)"

    return _LINE.sub(place, line)

"""Installs the hook program that ocserv runs for each session; imported by the wiring only.

The program (`hook.pl`) is perl without modules: perl-base is Essential on Debian. From fork to exit
with a verdict of control, p50 on 2 busy cores: a bare client in C 0.8 ms, in dash over
s6-ipcclient 2.0, this program 3.4 (with all its limits and refusals), a bare client in
`python3 -I -S -E` 11 to 13. C would need a compiler, dash has no time limit.
It is rendered rather than configured by environment, because ocserv passes its own environment on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from ocgate import names, own_files
from ocgate.errors import OcgateError

# What ocserv calls the settings before the first [vhost:…] section, in the hooks' VHOST
# (seen with 1.1.6).
DEFAULT_VHOST = "default"

# Seconds between our limit for the operator's connect script and ocserv's auth-timeout, at which
# main sends SIGTERM to the hook: 5 for control's verdict, 1 to give the session back, the rest for
# a busy machine.
AUTH_TIMEOUT_MARGIN = 10
# A script gets this much even where auth-timeout is tiny: the hook ends at ocserv's SIGTERM anyway.
SCRIPT_LIMIT_LEAST = 5

_EXECUTABLE = 0o700  # ocserv runs hooks as root; nobody else has business in the run dir
_PRIVATE = 0o600


@dataclass(frozen=True)
class ChainedScript:
    """The operator's own script of one vhost, run after ours.

    vhost: name as in `[vhost:NAME]`, or `DEFAULT_VHOST`.
    kind:  which of ocserv's two settings named it.
    path:  absolute; exactly as ocserv would have executed it.
    """

    vhost: str
    kind: Literal["connect", "disconnect"]
    path: str


def install(run_dir: Path, *, chain: Iterable[ChainedScript], auth_timeout: int) -> None:
    """Write RUN_DIR/hooks: connect, disconnect and chain; each replaced in one step.

    auth_timeout: ocserv's setting in seconds; it bounds the operator's connect script.
    Safe to repeat while sessions come and go. Raises OcgateError for a script whose name can't be
    written into the chain file.
    """
    lines = "".join(_chain_line(script) for script in chain)
    program = _render(run_dir, max(SCRIPT_LIMIT_LEAST, auth_timeout - AUTH_TIMEOUT_MARGIN))
    own_files.make_directory((run_dir / names.HOOK_CHAIN).parent, 0o700)
    for name, text, mode in (  # the chain first: a hook without it refuses
        (names.HOOK_CHAIN, lines, _PRIVATE),
        (names.HOOK_CONNECT, program, _EXECUTABLE),
        (names.HOOK_DISCONNECT, program, _EXECUTABLE),
    ):
        own_files.write(run_dir / name, text.encode("utf-8", "surrogateescape"), mode=mode)


def _chain_line(script: ChainedScript) -> str:
    if not script.path.startswith("/") or set(script.vhost + script.path) & {"\t", "\n", "\0"}:
        raise OcgateError(
            f"{script.kind}-script of vhost {script.vhost!r}: {script.path!r} can't be chained",
            hint="name it by an absolute path without tab or newline",
        )
    return f"{script.vhost}\t{script.kind}\t{script.path}\n"


def _render(run_dir: Path, script_limit: int) -> str:
    """Fill in the program's two settings, both inside perl's single quotes."""
    quoted = str(run_dir.absolute()).replace("\\", "\\\\").replace("'", "\\'")
    template = files(__package__).joinpath("hook.pl").read_text("utf-8")
    return template.replace("@SCRIPT_LIMIT@", str(script_limit)).replace("@RUN_DIR@", quoted)

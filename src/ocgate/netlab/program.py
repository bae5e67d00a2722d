"""Programs that the lab runs inside a namespace, with captured output, ended by pid.

Output goes to files, not pipes: nobody has to read it for the program to go on, and it is still
there after a crash. Each program leads its own process group, which is what gets the signals.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ocgate.netlab.namespace import Namespace
from ocgate.netlab.wait import wait_until

# Enough to run programs of a Debian system; nothing else of the caller's environment gets in, so
# that a variable of the developer's shell can't change what a test shows.
BASE_ENVIRON = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/root",
}

# ocserv 1.1.6 waits up to 5 s for its disconnect hooks at SIGTERM; a second more is "hung".
STOP_SECONDS = 6.0


@dataclass(frozen=True)
class Mount:
    """A bind mount that only one program sees: `source` appears at the existing `target`."""

    source: Path
    target: Path
    read_only: bool = False

    def commands(self) -> list[str]:
        """Shell commands that mount it."""
        source, target = shlex.quote(str(self.source)), shlex.quote(str(self.target))
        bind = [f"mount --bind {source} {target}"]
        return bind + [f"mount -o remount,bind,ro {target}"] * self.read_only


def _with_mounts(argv: Sequence[str], mounts: Sequence[Mount]) -> list[str]:
    """Prefix `argv` so that it runs, under the same pid, in a mount namespace of its own.

    /sys is mounted anew as well, because sysfs shows the network of whoever mounted it. Slave
    propagation lets later unmounts under /run/netns through.
    """
    script = ["mount -t sysfs sysfs /sys"]
    for mount in mounts:
        script += mount.commands()
    script.append('exec "$@"')
    unshare = ["unshare", "--mount", "--propagation", "slave", "--"]
    return [*unshare, "sh", "-ec", "\n".join(script), "sh", *argv]


class Program:
    """A running child in a namespace; made by `spawn`."""

    def __init__(self, process: subprocess.Popen[bytes], argv: Sequence[str], log: Path) -> None:
        self._process = process
        self._log = log
        self.argv = tuple(argv)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def stdout(self) -> str:
        """All standard output up to now; bytes that aren't UTF-8 are escaped."""
        return self._log.with_suffix(".out").read_text(errors="backslashreplace")

    @property
    def stderr(self) -> str:
        return self._log.with_suffix(".err").read_text(errors="backslashreplace")

    @property
    def output(self) -> str:
        return self.stdout + self.stderr

    def returncode(self) -> int | None:
        """None while it runs; negative signal number if one killed it."""
        return self._process.poll()

    def running(self) -> bool:
        return self.returncode() is None

    def wait(self, timeout: float) -> int:
        """Wait for the end and return the exit code; raises TimedOut with its output."""
        wait_until(lambda: not self.running(), timeout, f"the end of {self}")
        return self._process.returncode

    def wait_for_output(self, text: str, timeout: float) -> str:
        """Wait until `text` stands in stdout or stderr; returns the whole output.

        Raises AssertionError at once if the program ends without having said it.
        """

        def said() -> bool:
            ended = not self.running()
            if text in self.output:
                return True
            if ended:
                raise AssertionError(f"{self} ended without saying {text!r}:\n{self.output}")
            return False

        wait_until(said, timeout, f"{text!r} from {self}")
        return self.output

    def send(self, number: signal.Signals) -> None:
        """Signal this process alone (not its group); a dead one is fine."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout: float = STOP_SECONDS) -> int:
        """Signal it, wait, then SIGKILL its whole group; returns the exit code."""
        self.send(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
        self.kill()
        return self._process.returncode

    def kill(self) -> None:
        """SIGKILL the process group, and reap."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def __str__(self) -> str:
        return f"{shlex.join(self.argv)} (pid {self.pid}, rc {self.returncode()})"


def spawn(
    namespace: Namespace,
    argv: Sequence[str],
    *,
    log: Path,
    environ: Mapping[str, str] | None = None,
    text: str = "",
    mounts: Sequence[Mount] | None = None,
) -> Program:
    """Start `argv` in `namespace`.

    log:     path without suffix; `.out` and `.err` are written there.
    environ: on top of BASE_ENVIRON.
    text:    what it reads on stdin, then EOF.
    mounts:  a list (even an empty one) gives it its own mounts and its own /sys.
    """
    command = list(argv) if mounts is None else _with_mounts(argv, mounts)
    source = log.with_suffix(".in")
    source.write_text(text)
    with (
        source.open("rb") as stdin,
        log.with_suffix(".out").open("wb") as out,
        log.with_suffix(".err").open("wb") as err,
        namespace.entered(),
    ):
        process = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=out,
            stderr=err,
            env={**BASE_ENVIRON, **(environ or {})},
            start_new_session=True,
            cwd="/",
        )
    source.unlink()  # it may hold a password
    return Program(process, argv, log)

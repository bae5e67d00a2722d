"""A site: what a topology of namespaces is built on, and who ends all that was started in it.

It owns namespaces, programs, captures and a work directory, and knows no address: `topology` and
`docker_host` draw the networks. Whatever was still alive when it was closed is told, not hidden.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeVar

from lab.addresses import Host
from lab.capture import Capture
from ocgate.netlab import namespace
from ocgate.netlab.namespace import Namespace
from ocgate.netlab.program import Mount, Program, spawn
from ocgate.netlab.wait import TimedOut, wait_until

# ocserv's workers are gone 50 ms after a killed main; what lives much longer was forgotten.
GRACE_SECONDS = 0.5

# A test's work directory holds Unix sockets, whose paths may have 107 bytes: pytest's tmp_path is
# too long for ocserv's, which get a suffix of their own.
WORK_ROOT = Path(tempfile.gettempdir())


class Closable(Protocol):
    """What a lab closes at its end."""

    def close(self) -> None: ...


Owned = TypeVar("Owned", bound=Closable)


class Site(ABC):
    """Context manager: builds its network on entering, and ends everything on leaving."""

    def __init__(self) -> None:
        self.leftovers: list[str] = []  # what was still alive when the site was closed
        self.captures: list[Capture] = []
        self._prefix = namespace.next_prefix()
        self._stack = contextlib.ExitStack()
        self._serial = 0
        self.work = WORK_ROOT / self._prefix.rstrip("-")

    def __enter__(self) -> Self:
        sweep()
        self.work.mkdir(mode=0o755)  # ocserv's workers run as nobody and pass through here
        self._stack.callback(shutil.rmtree, self.work, ignore_errors=True)
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop what was started, latest first, then delete the namespaces; twice is fine."""
        self._stack.close()

    @abstractmethod
    def _build(self) -> None:
        """Make the network, each namespace by `_create`."""

    @property
    @abstractmethod
    def server(self) -> IPv4Address:
        """The address that clients connect to."""

    # --- what a test adds ---------------------------------------------------------------------

    def own(self, thing: Owned) -> Owned:
        """Close `thing` when the lab closes, before what was owned earlier; returns it."""
        self._stack.callback(thing.close)
        return thing

    def spawn(
        self,
        host: Host,
        argv: Sequence[str],
        *,
        environ: Mapping[str, str] | None = None,
        text: str = "",
        mounts: Sequence[Mount] | None = None,
    ) -> Program:
        """Start a program in `host`'s namespace (see `program.spawn`); killed at the end."""
        log = self.path(f"{host.role}-{Path(argv[0]).name}")
        program = spawn(host.netns, argv, log=log, environ=environ, text=text, mounts=mounts)
        self._stack.callback(program.stop)
        return program

    def capture(self, host: Host, interface: str | None = None) -> Capture:
        """Capture on `host`'s interface (None: on all) from now on; closed at the end."""
        made = Capture(host.netns, interface, name=f"{host.role}-{interface or 'all'}")
        self.captures.append(made)
        return self.own(made)

    def save_evidence(self, directory: Path) -> None:
        """Copy all captures (as pcap) and programs' output to `directory`, for after a failure."""
        directory.mkdir(parents=True, exist_ok=True)
        for number, capture in enumerate(self.captures):
            capture.save(directory / f"{number}-{capture.name}.pcap")
        for log in (*self.work.glob("*.out"), *self.work.glob("*.err")):
            shutil.copy(log, directory)

    def path(self, name: str) -> Path:
        """A path in the work directory that was not given out before."""
        self._serial += 1
        return self.work / f"{self._serial}-{name}"

    # --- the end and the beginning ------------------------------------------------------------

    def _create(self, role: str) -> Namespace:
        made = namespace.create(self._prefix + role)
        self._stack.callback(self._delete, role, made)
        return made

    def _delete(self, role: str, netns: Namespace) -> None:
        """Everything owned was stopped before; what still runs is told, killed and waited for."""
        with contextlib.suppress(TimedOut):
            wait_until(lambda: not netns.pids(), GRACE_SECONDS, "children to follow their parents")
        pids = netns.pids()
        self.leftovers += [f"{role}: {_describe(pid)}" for pid in pids]
        namespace.kill(pids)
        with contextlib.suppress(TimedOut):
            wait_until(lambda: not netns.pids(), 2.0, "killed processes to go")
        netns.close()


def sweep() -> None:
    """Remove what crashed runs left: namespaces, their processes, work directories."""
    namespace.sweep()
    for path in WORK_ROOT.glob(f"{namespace.PREFIX}*"):
        if namespace.is_stale(path.name):
            shutil.rmtree(path, ignore_errors=True)


def _describe(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
    except OSError:
        words = b"(gone)"
    return f"{pid} {words.decode(errors='replace').strip()}"

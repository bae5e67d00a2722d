"""The real `ocgate run` in gw: start, wait until it serves, look inside, kill parts of it, stop."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.client import Login, pin_of
from lab.ocserv import occtl
from lab.topology import PORT, Lab
from ocgate import names
from ocgate.netlab import namespace
from ocgate.netlab.kernel_state import KernelState, observe
from ocgate.netlab.listening import listens
from ocgate.netlab.program import Mount, Program
from ocgate.netlab.wait import TimedOut, wait_until

# A first start makes a key and a certificate; a later one takes about a second.
READY_SECONDS = 20.0

# What docker waits after SIGTERM. With clients in gateway mode it takes 4 to 5, with ocserv's own
# 1.5 and those in which late packets are waited for.
STOP_SECONDS = 10.0


class GatewayEnded(AssertionError):
    """`ocgate run` ended instead of serving; carries its exit code and words."""

    def __init__(self, returncode: int, output: str) -> None:
        super().__init__(f"ocgate run ended with rc {returncode}:\n{output}")
        self.returncode = returncode
        self.output = output


class Gateway:
    """One run of ocgate in `lab.gw`; made by `start` or `run`, stopped by the lab at the end.

    before: the kernel's state just before the start, for "as before".
    """

    def __init__(
        self, lab: Lab, program: Program, config_dir: Path, run_dir: Path, before: KernelState
    ) -> None:
        self.lab = lab
        self.host = lab.gw
        self.netns = lab.gw.netns
        self.program = program
        self.config_dir = config_dir
        self.run_dir = run_dir
        self.before = before
        self.started = time.monotonic()

    # --- is it there? -------------------------------------------------------------------------

    def ready(self) -> bool:
        """ocserv listens and control answers; raises GatewayEnded if it has ended."""
        if not self.program.running():
            raise GatewayEnded(self.program.returncode() or 0, self.program.output)
        return listens(self.netns, PORT) and self.status_or_none() is not None

    def wait_ready(self, timeout: float = READY_SECONDS) -> float:
        """Wait until `ready`; returns seconds since the start."""
        try:
            wait_until(self.ready, timeout, "ocgate to serve")
        except TimedOut as error:
            raise TimedOut(f"{error}; it said:\n{self.output}") from error
        return time.monotonic() - self.started

    def ask(self, verb: str, *fields: tuple[str, str | bytes], timeout: float = 5.0) -> bytes:
        """Speak the hook protocol over control.sock: `ask("status")`; raises OSError."""
        parts = [f"ocgate/1 {verb}".encode()]
        parts += [k.encode() + b"=" + (v.encode() if isinstance(v, str) else v) for k, v in fields]
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(timeout)
            sock.connect(str(self.run_dir / names.CONTROL_SOCKET))
            sock.sendall(b"\0".join(parts) + b"\0\0")
            return b"".join(iter(lambda: sock.recv(65536), b""))

    def status(self) -> dict[str, Any]:
        """Control's status document."""
        answer: dict[str, Any] = json.loads(self.ask("status"))
        return answer

    def status_or_none(self) -> dict[str, Any] | None:
        """The same, or None while nobody answers."""
        try:
            return self.status()
        except (OSError, ValueError):
            return None

    @property
    def output(self) -> str:
        """All that `ocgate run` has printed."""
        return self.program.output

    def lines(self) -> list[str]:
        """Standard output by lines."""
        return self.program.stdout.splitlines()

    def pid(self, file: str = names.CONTROL_PID) -> int:
        """A pid from the run dir (CONTROL_PID or OCSERV_PID); raises OSError or ValueError."""
        return int((self.run_dir / file).read_text())

    def occtl(self, *words: str) -> Any:
        """JSON of `occtl -j WORDS`, asked of this ocserv."""
        return occtl(self.host, self.run_dir / names.OCCTL_SOCKET, *words)

    def login(self, user: str, password: str, certificate: str = "server-cert.pem") -> Login:
        """Credentials with the pin of `certificate` in the config dir."""
        return Login(user, password, pin_of(self.config_dir / certificate))

    def state(self) -> KernelState:
        return observe(self.netns)

    def left_behind(self) -> list[str]:
        """How the kernel's state differs from that before the start; empty after a clean stop."""
        return self.before.differences(self.state())

    # --- faults -------------------------------------------------------------------------------

    def kill(self, file: str = names.CONTROL_PID) -> int:
        """kill -9 what the pid file names; returns that pid."""
        pid = self.pid(file)
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_replaced(self, file: str, old: int, timeout: float = 15.0) -> float:
        """Wait until the pid file names another living process; returns seconds waited."""
        started = time.monotonic()

        def replaced() -> bool:
            with contextlib.suppress(OSError, ValueError):
                return self.pid(file) != old and Path(f"/proc/{self.pid(file)}").exists()
            return False

        wait_until(replaced, timeout, f"a new process in {file}")
        return time.monotonic() - started

    def crash(self) -> None:
        """kill -9 everything of it at once, as a power cut does; its kernel state stays."""
        self.program.kill()
        wait_until(self._nothing_runs, 5.0, "killed processes to go")

    def _nothing_runs(self) -> bool:
        namespace.kill(self.netns.pids())  # again, for what a supervisor forked meanwhile
        return not self.netns.pids()

    def stop(self, timeout: float = STOP_SECONDS) -> float:
        """SIGTERM and wait for the end; returns seconds. A non-zero exit code raises."""
        started = time.monotonic()
        self.program.send(signal.SIGTERM)
        returncode = self.program.wait(timeout)
        if returncode != 0:
            raise GatewayEnded(returncode, self.output)
        return time.monotonic() - started


def command(*arguments: str) -> list[str]:
    """How ocgate is called in the lab: this interpreter, so the code under test, no launcher."""
    return [sys.executable, "-m", "ocgate", *arguments]


def start(
    lab: Lab,
    environ: Mapping[str, str] | None = None,
    config_dir: Path | None = None,
    *,
    arguments: Sequence[str] = ("run",),
    mounts: Sequence[Mount] = (),
    resolv_conf: str = "",
) -> Gateway:
    """Start `ocgate run` in gw without waiting.

    environ:     VPN_*, OCGATE_*, …; config and run dir are set here.
    config_dir:  default is a new empty one.
    mounts:      bind mounts that only it sees, such as a read-only config dir.
    resolv_conf: content of its /etc/resolv.conf; empty: no resolver.
    """
    if config_dir is None:
        config_dir = lab.path("etc")
        config_dir.mkdir()
    run_dir = lab.path("run")
    before = observe(lab.gw.netns)
    program = lab.spawn(
        lab.gw,
        command(*arguments),
        environ={
            "OCGATE_CONFIG_DIR": str(config_dir),
            "OCGATE_RUN_DIR": str(run_dir),
            **(environ or {}),
        },
        mounts=[*_own_resolver(lab, resolv_conf), *mounts],
    )
    return Gateway(lab, program, config_dir, run_dir, before)


def _own_resolver(lab: Lab, text: str) -> list[Mount]:
    """In the place of the machine's: the gateway would open its input for that one's resolver."""
    target = Path("/etc/resolv.conf").resolve()
    if not target.exists():
        if text:
            raise OSError("this machine has no /etc/resolv.conf to mount another one over")
        return []
    source = lab.path("resolv.conf")
    source.write_text(text)
    return [Mount(source, target)]


def run(
    lab: Lab,
    environ: Mapping[str, str] | None = None,
    config_dir: Path | None = None,
    *,
    mounts: Sequence[Mount] = (),
    resolv_conf: str = "",
    timeout: float = READY_SECONDS,
) -> Gateway:
    """Start `ocgate run` in gw and wait until it serves; raises GatewayEnded with its words."""
    gateway = start(lab, environ, config_dir, mounts=mounts, resolv_conf=resolv_conf)
    gateway.wait_ready(timeout)
    return gateway

"""The real `ocgate exit` in the upstream's namespace: start, wait, look inside, kill, stop."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.addresses import DOCKER_NET, SERVICE, Host
from lab.gateway import command
from lab.topology import Lab
from ocgate import names
from ocgate.netlab import namespace
from ocgate.netlab.program import Mount, Program
from ocgate.netlab.wait import TimedOut, wait_until

# Two starts of Python and a TLS handshake take 2 s; the rest is for busy cores.
READY_SECONDS = 20.0
STOP_SECONDS = 8.0

# A probe ten times a second, so that a test is told soon.
PROBES = {"EXIT_PROBE": f"{SERVICE}:443", "EXIT_PROBE_INTERVAL": "0.1"}


class ExitEnded(AssertionError):
    """`ocgate exit` ended instead of serving; carries its exit code and words."""

    def __init__(self, returncode: int, output: str) -> None:
        super().__init__(f"ocgate exit ended with rc {returncode}:\n{output}")
        self.returncode = returncode
        self.output = output


class ExitRole:
    """One run in `host`; made by `start`, ended by the lab."""

    def __init__(self, lab: Lab, host: Host, program: Program, run_dir: Path) -> None:
        self.lab = lab
        self.host = host
        self.netns = host.netns
        self.program = program
        self.run_dir = run_dir
        self.started = time.monotonic()

    @property
    def output(self) -> str:
        """All that it has printed."""
        return self.program.output

    def ask(self, verb: str, timeout: float = 10.0) -> bytes:
        """What its control answers; raises OSError."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(timeout)
            sock.connect(str(self.run_dir / names.CONTROL_SOCKET))
            sock.sendall(f"ocgate/1 {verb}".encode() + b"\0\0")
            return b"".join(iter(lambda: sock.recv(65536), b""))

    def status(self) -> dict[str, Any]:
        """Its status document; {} while nobody answers."""
        with contextlib.suppress(OSError, ValueError):
            answer: dict[str, Any] = json.loads(self.ask("status"))
            return answer
        return {}

    def state(self) -> str:
        """Of the tunnel: `up`, `waiting`, …; "" while nobody answers."""
        return str(self.status().get("tunnel", {}).get("state", ""))

    def wait_state(self, state: str, timeout: float = READY_SECONDS) -> float:
        """Wait until the tunnel is in it; returns seconds waited. Raises ExitEnded if it ends."""
        began = time.monotonic()

        def there() -> bool:
            if not self.program.running():
                raise ExitEnded(self.program.returncode() or 0, self.output)
            return self.state() == state

        self._wait(there, timeout, f"the tunnel to be {state}")
        return time.monotonic() - began

    def wait_healthy(self, timeout: float = READY_SECONDS) -> float:
        """Wait until the tunnel is up and a probe was answered; returns seconds waited."""
        began = time.monotonic()
        self._wait(lambda: self.status().get("healthy", False), timeout, "a healthy exit")
        return time.monotonic() - began

    def wait_said(self, text: str, timeout: float = READY_SECONDS) -> None:
        """Wait until it has printed this."""
        self._wait(lambda: text in self.output, timeout, f"{text!r}")

    def _wait(self, condition: Any, timeout: float, what: str) -> None:
        try:
            wait_until(condition, timeout, what)
        except TimedOut as error:
            raise TimedOut(f"{error}; it said:\n{self.output}") from error

    def control_pid(self) -> int:
        """Of control; raises OSError or ValueError."""
        return int((self.run_dir / names.CONTROL_PID).read_text())

    def client_pid(self) -> int | None:
        """Of the tunnel's client, or None."""
        directory = self.run_dir / names.SERVICES / names.TUNNEL
        shown = self.netns.run(["s6-svstat", "-o", "pid", str(directory)], check=False).stdout
        return int(shown) if shown.strip() not in ("", "-1") else None

    def kill_client(self) -> None:
        """kill -9 the tunnel's client."""
        pid = self.client_pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def stop(self, timeout: float = STOP_SECONDS) -> float:
        """SIGTERM and wait for the end; returns seconds. A non-zero exit code raises."""
        began = time.monotonic()
        self.program.send(signal.SIGTERM)
        returncode = self.program.wait(timeout)
        if returncode != 0:
            raise ExitEnded(returncode, self.output)
        return time.monotonic() - began

    def close(self) -> None:
        """kill -9 all of it, at the end of a test."""
        self.program.kill()
        wait_until(self._nothing_runs, 5.0, "killed processes to go")

    def _nothing_runs(self) -> bool:
        namespace.kill(self.netns.pids())  # again, for what a supervisor forked meanwhile
        return not self.netns.pids()


def start(
    lab: Lab,
    environ: Mapping[str, str],
    *,
    host: Host | None = None,
    run_dir: Path | None = None,
    resolv_conf: str = "",
    hosts: str = "127.0.0.1 localhost\n",
) -> ExitRole:
    """Start `ocgate exit` in `host` (default: the upstream) without waiting.

    environ: on top of FORWARD_FROM, which is the docker network, and fast probes.
    resolv_conf, hosts: content of its /etc/resolv.conf and /etc/hosts.
    """
    host = host or lab.upstream
    run_dir = run_dir or lab.path("exit")
    files = (("/etc/resolv.conf", resolv_conf), ("/etc/hosts", hosts))
    mounts = [_mount(lab, Path(target), text) for target, text in files]
    own = {"OCGATE_RUN_DIR": str(run_dir), "FORWARD_FROM": str(DOCKER_NET), **PROBES}
    program = lab.spawn(host, command("exit"), environ={**own, **environ}, mounts=mounts)
    return lab.own(ExitRole(lab, host, program, run_dir))


def _mount(lab: Lab, target: Path, text: str) -> Mount:
    source = lab.path(target.name)
    source.write_text(text)
    source.chmod(0o644)
    return Mount(source, target.resolve())

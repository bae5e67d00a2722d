"""The subject that matters: the real `ocgate run` in the twin's gw, with the operator's config dir.

It runs with mounts of its own: a resolver and a hosts file of the twin, and the operator's
ocserv.conf without the paths of sockets, pid files and scripts, so that a proof neither takes an
operating server's sockets nor runs anybody's scripts. Nothing of that has a part in the plan.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ocgate import names
from ocgate.config.load import Loaded
from ocgate.config.values import NOTHING
from ocgate.errors import OcgateError
from ocgate.netlab.listening import listens
from ocgate.netlab.namespace import Namespace
from ocgate.netlab.program import BASE_ENVIRON, Mount, Program, spawn
from ocgate.netlab.wait import TimedOut, wait_until
from ocgate.plan.exits import ExitKind
from ocgate.prove.subject import ClientNets, Lease, Ways
from ocgate.prove.world import World
from ocgate.server.desired.prepare import Prepared

OCSERV_CONF = "ocserv.conf"
READY_SECONDS = 30.0  # a start takes one to two; the machine is busy
STOP_SECONDS = 10.0
SAME = "The kernel holds exactly this plan."  # cli.looking; a test compares

# What must not be shared with a server that is running, and what must not run for a proof.
_LEFT_OUT = re.compile(
    rb"^\s*(socket-file|occtl-socket-file|pid-file|connect-script|disconnect-script|"
    rb"host-update-script|listen-host|udp-listen-host|chroot-dir|listen-netns)\s*=.*$",
    re.MULTILINE,
)


class Gateway:
    """`ocgate run` in `world.gw`; see subject.Subject for its methods."""

    name = "ocgate"
    repairs = True

    def __init__(
        self,
        world: World,
        settled: Loaded,
        prepared: Prepared,
        ways: Ways,
        environ: Mapping[str, str],
        *,
        resolver: str = "",
    ) -> None:
        self.ways = ways
        self.tables: Sequence[str] = tuple(
            f"{names.NFT_FAMILY} {table.name}" for table in prepared.plan.tables
        )
        gateway = ExitKind.GATEWAY in (ways.exit4, ways.exit6)
        self.table = settled.settings.vpn_gateway_table if gateway else 0
        settings = settled.settings
        macs = ((4, settings.vpn_gateway_mac), (6, settings.vpn_gateway6_mac))
        self.pinned: Sequence[int] = [family for family, mac in macs if mac != NOTHING]
        self.run_dir = world.work / "run"
        intent = prepared.intent
        self.nets = ClientNets(
            (*intent.subnets4, *(intent.subnets6 if prepared.decision.advertised else ())),
            intent.gateways,
            intent.device,
            intent.prefix6,
        )
        self._port = intent.tcp_ports[0] if intent.tcp_ports else 0
        self._world = world
        self._config_dir = settled.settings.config_dir
        self._environ = {**environ, "OCGATE_RUN_DIR": str(self.run_dir)}
        self._mounts = _mounts(world.work, self._config_dir, resolver)
        self._program: Program | None = None
        self._starts = 0

    # --- life ---------------------------------------------------------------------------------

    @property
    def netns(self) -> Namespace:
        return self._world.gw

    def start(self) -> None:
        """Start and wait until it serves; raises OcgateError with its words."""
        self.launch()
        try:
            wait_until(lambda: not self.ready(), READY_SECONDS, "ocgate to serve in the twin")
        except TimedOut as error:
            why = self.ready()
            raise OcgateError(f"{error}: {why}\n{self.evidence()}") from None

    def launch(self) -> None:
        """Start without waiting."""
        self._starts += 1
        self._program = spawn(
            self.netns,
            [sys.executable, "-P", "-m", "ocgate", "run"],
            log=self._world.work / f"ocgate-{self._starts}",
            environ=self._environ,
            mounts=self._mounts,
        )
        self._world.callback(self._crash)

    def stop(self) -> None:
        """SIGTERM, and wait for the end; raises TimedOut."""
        if self._program is not None:
            self._program.send(signal.SIGTERM)
            self._program.wait(STOP_SECONDS)

    def running(self) -> bool:
        """Whether its supervisor runs."""
        return self._program is not None and self._program.running()

    def _crash(self) -> None:
        if self._program is not None:
            self._program.kill()

    def ready(self) -> str:
        """'' while it serves and the guard stands; raises OcgateError if it has ended."""
        if self._program is not None and not self._program.running():
            raise OcgateError(f"ocgate run has ended in the twin:\n{self.evidence()}")
        if self._port and not listens(self.netns, self._port):
            return "ocserv doesn't listen"
        try:
            status = json.loads(self._ask("status"))
        except (OSError, ValueError):
            return "control doesn't answer"
        return "" if status["network"]["guard"] else "; ".join(status["reasons"]) or "no guard"

    def plan_diff(self) -> str:
        """What `ocgate plan --diff` prints; '' while the kernel holds the plan."""
        program = spawn(
            self.netns,
            [sys.executable, "-P", "-m", "ocgate", "plan", "--diff"],
            log=self._world.work / "plan",
            environ=self._environ,
            mounts=self._mounts,
        )
        code = program.wait(READY_SECONDS)
        same = code == 0 and SAME in program.stdout
        return "" if same else program.output.strip() or f"exit status {code}"

    def status(self) -> dict[str, Any]:
        """Control's status document; raises OSError or ValueError."""
        found: dict[str, Any] = json.loads(self._ask("status"))
        return found

    # --- faults -------------------------------------------------------------------------------

    def freeze(self) -> None:
        """SIGSTOP to control."""
        self._signal(names.CONTROL_PID, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._signal(names.CONTROL_PID, signal.SIGCONT)

    def kill_control(self) -> None:
        """kill -9; s6 starts it again."""
        self._signal(names.CONTROL_PID, signal.SIGKILL)

    def kill_server(self) -> None:
        """kill -9 of ocserv's main; its workers follow."""
        self._signal(names.OCSERV_PID, signal.SIGKILL)

    def _signal(self, file: str, number: signal.Signals) -> None:
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((self.run_dir / file).read_text()), number)

    def reload(self) -> None:
        """As `ocgate reload` asks; a refusal raises OcgateError."""
        answer = self._ask("reload", timeout=20.0).decode(errors="replace")
        if not answer.startswith("ok"):
            raise OcgateError(f"reload in the twin: {answer}")

    def restore(self) -> None:
        """Nothing: it repairs itself, and the engine waits for that."""

    # --- sessions -----------------------------------------------------------------------------

    def admit(self, lease: Lease) -> str:
        """Run the real connect hook as ocserv's main does."""
        return self._hook(names.HOOK_CONNECT, "connect", lease)

    def end(self, lease: Lease) -> None:
        """Run the real disconnect hook; control may be gone, which is no error."""
        self._hook(names.HOOK_DISCONNECT, "disconnect", lease)

    def _hook(self, program: str, reason: str, lease: Lease) -> str:
        environ = {
            **BASE_ENVIRON,
            "REASON": reason,
            "ID": str(lease.worker),
            "USERNAME": lease.user,
            "DEVICE": lease.device,
            "IP_REAL": "192.0.2.1",
            "VHOST": "default",
            "STATS_DURATION": "1",
        }
        for address in lease.addresses:
            server = next(g for g in self.nets.gateways if g.version == address.version)
            if address.version == 4:
                environ |= {"IP_REMOTE": str(address), "IP_LOCAL": str(server)}
            else:
                environ |= {
                    "IPV6_REMOTE": str(address),
                    "IPV6_LOCAL": str(server),
                    "IPV6_PREFIX": f"{address}/{self.nets.prefix6}",
                }
        done = subprocess.run(
            [str(self.run_dir / program)],
            env=environ, capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
        return (done.stderr.strip() or "refused") if done.returncode else ""

    def _ask(self, verb: str, timeout: float = 5.0) -> bytes:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(timeout)
            sock.connect(str(self.run_dir / names.CONTROL_SOCKET))
            sock.sendall(f"ocgate/1 {verb}".encode() + b"\0\0")
            return b"".join(iter(lambda: sock.recv(65536), b""))

    def evidence(self) -> str:
        """The last lines that it has printed."""
        if self._program is None:
            return ""
        return "\n".join(self._program.output.splitlines()[-25:])


def _mounts(work: Path, config_dir: Path, resolver: str) -> list[Mount]:
    """What it sees in the place of the machine's own files."""
    files = {
        Path("/etc/resolv.conf"): f"nameserver {resolver}\n" if resolver else "",
        Path("/etc/hosts"): "127.0.0.1 localhost\n::1 localhost\n",
    }
    made = [
        Mount(_written(work / target.name, text.encode()), target.resolve(), read_only=True)
        for target, text in files.items()
        if target.resolve().exists()
    ]
    conf = config_dir / OCSERV_CONF
    if conf.exists():
        kept = _LEFT_OUT.sub(b"", conf.read_bytes())
        made.append(Mount(_written(work / OCSERV_CONF, kept), conf.resolve(), read_only=True))
    return made


def _written(path: Path, text: bytes) -> Path:
    path.write_bytes(text)
    return path

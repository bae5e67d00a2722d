"""What the lifecycle and reload scenarios share: an operator's gateway, its faces, a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import termios
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lab import gateway
from lab.client import Client, Login, connect
from lab.gateway import Gateway
from lab.ocserv import write_config_dir
from lab.topology import SERVICE, SERVICE6, Lab, Options
from ocgate.netlab.kernel_state import observe
from ocgate.netlab.namespace import Namespace
from ocgate.netlab.program import BASE_ENVIRON
from ocgate.netlab.services import Services
from ocgate.netlab.wait import wait_until

LabFactory = Callable[..., Lab]
USERS = {"alice": "a secret of alice", "bob": "a secret of bob"}
STAGES = ("init-config: ", "init-nat: ", "init-vpngw: ", "svc-ocserv: ", "svc-control: ")


def with_services(lab: Lab) -> Lab:
    lab.own(Services(lab.inet.netns, (SERVICE, SERVICE6)))
    return lab


def two_clients(lab: LabFactory) -> Lab:
    return with_services(lab(Options(clients=2)))


def operator_conf(lab: Lab, lines: Sequence[str] = ("route = default",), **settings: str) -> Path:
    """An operator's config dir with alice and bob; returns it."""
    directory = lab.path("etc")
    replaced: dict[str, str | None] = {k.replace("_", "-"): v for k, v in settings.items()}
    write_config_dir(lab, directory, USERS, settings=replaced, lines=lines)
    return directory


def serve(lab: Lab, environ: Mapping[str, str] | None = None, **settings: str) -> Gateway:
    """`ocgate run` with an operator's config dir, serving."""
    return gateway.run(lab, environ, operator_conf(lab, **settings))


def log_in(gw: Gateway, number: int, user: str, *, dtls: bool = True, **more: Any) -> Client:
    """`user` connects from the client host `number`."""
    login: Login = gw.login(user, USERS[user])
    return connect(gw.lab, gw.lab.clients[number], login, dtls=dtls, **more)


# --- what can be seen of it ----------------------------------------------------------------------


def sessions(gw: Gateway) -> list[dict[str, Any]]:
    """Sessions as control tells them, without what grows by itself."""
    return [
        {k: v for k, v in session.items() if not k.startswith("bytes")}
        for session in gw.status()["sessions"]
    ]


def elements(gw: Gateway) -> list[Any]:
    """Elements of the IPv4 session map in the kernel."""
    return map_elements(gw.netns, "sessions4")


def map_elements(netns: Namespace, name: str) -> list[Any]:
    done = netns.run(["nft", "-j", "list", "map", "inet", "ocserv", name])
    found = [item["map"] for item in json.loads(done.stdout)["nftables"] if "map" in item]
    return [element for item in found for element in item.get("elem", [])]


def flows_of(gw: Gateway, client: str) -> list[str]:
    """conntrack entries of a client's address."""
    done = gw.netns.run(["conntrack", "-L"], check=False)
    return [line for line in done.stdout.splitlines() if f"src={client} " in line]


def journal(gw: Gateway) -> list[str]:
    return sorted(path.name for path in (gw.run_dir / "sessions").iterdir())


def nothing_of_sessions(gw: Gateway) -> bool:
    return not (sessions(gw) or elements(gw) or journal(gw))


def ocgate(gw: Gateway, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of ocgate's, asked of this gateway, whatever its exit code."""
    words_of_environ = {
        "OCGATE_RUN_DIR": str(gw.run_dir),
        "OCGATE_CONFIG_DIR": str(gw.config_dir),
    }
    environ = [f"{key}={value}" for key, value in {**BASE_ENVIRON, **words_of_environ}.items()]
    return gw.netns.run(["env", "-i", *environ, *gateway.command(*words)], check=False, timeout=40)


def order(gw: Gateway, *words: str, service: str = "control") -> None:
    """An order to s6: `-d` down, `-u` up, waiting until it is so."""
    gw.netns.run(["s6-svc", *words, str(gw.run_dir / "services" / service)])


def fields(pid: int, file: str) -> str:
    """/proc/PID/environ, cmdline or comm, NULs as newlines; empty if the process is gone."""
    try:
        return Path(f"/proc/{pid}/{file}").read_bytes().replace(b"\0", b"\n").decode("latin-1")
    except OSError:
        return ""


# --- a terminal ----------------------------------------------------------------------------------


class Terminal:
    """`ocgate run` as somebody types it into a terminal; quacks like lab.program.Program."""

    def __init__(self, netns: Namespace, environ: Mapping[str, str]) -> None:
        self._main, other = pty.openpty()
        self._text = bytearray()
        with netns.entered():
            self._process = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "slave", "--", "sh", "-ec",
                 'mount -t sysfs sysfs /sys; exec "$@"', "sh", *gateway.command("run")],
                stdin=other, stdout=other, stderr=other, cwd="/",
                env={**BASE_ENVIRON, **environ}, start_new_session=True,
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0) and None,
            )  # fmt: skip
        os.close(other)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        poll = select.poll()
        poll.register(self._main, select.POLLIN)
        while poll.poll():
            try:
                data = os.read(self._main, 65536)
            except OSError:  # EIO: the last process has closed the terminal
                return
            if not data:
                return
            self._text += data

    @property
    def output(self) -> str:
        return self._text.decode(errors="backslashreplace")

    def type(self, keys: bytes) -> None:
        os.write(self._main, keys)

    def returncode(self) -> int | None:
        return self._process.poll()

    def running(self) -> bool:
        return self.returncode() is None

    def wait(self, timeout: float) -> int:
        wait_until(
            lambda: not self.running(), timeout, f"ocgate's end in the terminal:\n{self.output}"
        )
        return self._process.returncode

    def close(self) -> None:
        if self.running():
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(10)


def run_in_terminal(lab: Lab) -> tuple[Gateway, Terminal]:
    """`ocgate run` in a terminal, serving."""
    directory, run_dir = operator_conf(lab), lab.path("run")
    before = observe(lab.gw.netns)
    places = {"OCGATE_CONFIG_DIR": str(directory), "OCGATE_RUN_DIR": str(run_dir)}
    terminal = lab.own(Terminal(lab.gw.netns, places))
    gw = Gateway(lab, terminal, directory, run_dir, before)  # type: ignore[arg-type]
    gw.wait_ready()
    return gw, terminal

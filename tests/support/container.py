"""One container of the image on a docker host, started by `podman run` with given options."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from lab.addresses import RESOLVER
from lab.client import Client, Login, connect, pin_of
from lab.docker_host import DockerHosts
from lab.podman import Engine
from lab.topology import PORT
from ocgate.netlab.listening import listens
from ocgate.netlab.wait import wait_until

IMAGE = "ocgate"
NAME = "vpn"

SiteFactory = Callable[..., DockerHosts]

# What README says that a container needs, and nothing else.
NEEDED = (
    *("--cap-add", "NET_ADMIN"),
    *("--device", "/dev/net/tun"),
    *("--sysctl", "net.ipv4.ip_forward=1"),
)
PORTS = ("-p", "443:443/tcp", "-p", "443:443/udp")
# Of docs/docker.md: without one of these no container of a server starts when all is dropped first.
LEAST = ("CHOWN", "DAC_OVERRIDE", "KILL", "NET_ADMIN", "NET_BIND_SERVICE", "SETGID", "SETUID")

SERVING_SECONDS = 60.0
PASSWORD = "correct-horse-battery-staple"


class Container:
    """A running one; the site removes it at its end."""

    def __init__(self, site: DockerHosts, *options: str, command: Sequence[str] = ()) -> None:
        self.site = site
        self.engine = Engine(site, site.host, RESOLVER)
        self.engine.podman("run", "-d", "--name", NAME, *PORTS, *options, IMAGE, *command)

    def exec(self, *words: str, check: bool = True) -> str:
        return self.engine.podman("exec", NAME, *words, check=check)

    def logs(self) -> str:
        done = self.engine.run(["podman", "logs", NAME], check=False)
        return done.stdout + done.stderr

    def wait_serving(self) -> Container:
        def serving() -> bool:
            if not self.engine.pid(NAME):
                return False
            with self.engine.network_of(NAME) as netns:
                return listens(netns, PORT)

        try:
            wait_until(serving, SERVING_SECONDS, "the container to serve", interval=0.1)
        except AssertionError as error:
            raise AssertionError(f"{error}; it said:\n{self.logs()}") from error
        return self

    def printed(self, label: str) -> str:
        """What the first start printed once, by its label: URL, User, Password, Pin."""
        found = re.search(rf"^  {label} +(\S+)", self.logs(), re.MULTILINE)
        assert found, f"no {label} in:\n{self.logs()}"
        return found[1]

    def login(self, user: str = "vpn", password: str = PASSWORD) -> Login:
        path = self.site.path("server-cert.pem")
        path.write_text(self.exec("cat", "/etc/ocserv/server-cert.pem"))
        return Login(user, password, pin_of(path))

    def join(self, login: Login, *, path: str = "", dtls: bool = True) -> Client:
        return connect(self.site, self.site.clients[0], login, path=path, dtls=dtls)

    def processes(self) -> list[Path]:
        """Directories in the machine's /proc."""
        return processes_of(self.engine, NAME)


def processes_of(engine: Engine, container: str) -> list[Path]:
    """Directories of its processes in the machine's /proc."""
    words = engine.podman("top", container, "hpid").split()[1:]
    return [Path("/proc", pid) for pid in words]


def refused(site: DockerHosts, *options: str) -> tuple[int, str]:
    """Exit status and words of a container that can't start."""
    engine = Engine(site, site.host, RESOLVER)
    done = engine.run(["podman", "run", "--rm", *options, IMAGE], check=False)
    return done.returncode, done.stdout + done.stderr


def status_of(process: Path, field: str) -> str:
    """A field of proc(5)'s status; '' of a process that has ended meanwhile."""
    lines = _read(process / "status").decode().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith(f"{field}:")), "")


def command_of(process: Path) -> str:
    """Its command line; '' of a process that has ended meanwhile."""
    return _read(process / "cmdline").replace(b"\0", b" ").decode().strip()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""

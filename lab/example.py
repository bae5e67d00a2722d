"""An example of examples/ on a docker host of the lab, as its README tells to start it.

The directory is copied and started with podman-compose as it stands; only what a user has to put
there (secrets/) is put there. Who leaves by which way is told by the whoami service.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from ipaddress import IPv4Address, ip_address
from pathlib import Path

from lab.addresses import RESOLVER, SERVICE, Host
from lab.client import Client, Login, connect, pin_of
from lab.compose import Project
from lab.docker_host import DockerHosts
from lab.podman import Engine
from lab.topology import PORT
from lab.traffic import http_get
from ocgate.netlab.listening import listens
from ocgate.netlab.wait import wait_until

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"

# As the READMEs' first step makes one.
PASSWORD = "correct-horse-battery-staple"
USER = "alice"  # OCGATE_USER of all examples

# A first start takes three seconds alone; several containers may start at once on two cores.
SERVING_SECONDS = 60.0


def place(
    site: DockerHosts, example: str, secrets: Mapping[str, str], host: Host | None = None
) -> Project:
    """Copy examples/EXAMPLE to an engine of its own on `host`, with these files in secrets/."""
    directory = site.path("project") / Path(example).name
    shutil.copytree(EXAMPLES / example, directory, ignore=shutil.ignore_patterns("secrets"))
    return furnish(site, directory, secrets, host)


def furnish(
    site: DockerHosts, directory: Path, secrets: Mapping[str, str], host: Host | None = None
) -> Project:
    """The project in `directory`, with these files in secrets/ as a careful user keeps them."""
    kept = directory / "secrets"
    kept.mkdir(mode=0o700)
    for name, text in secrets.items():
        (kept / name).write_text(text)
        (kept / name).chmod(0o600)
    return Project(Engine(site, host or site.host, RESOLVER), directory)


def wait_serving(project: Project, service: str, timeout: float = SERVING_SECONDS) -> None:
    """Wait until the service's listener accepts; its words are told if it does not come."""
    container = project.container(service)

    def serving() -> bool:
        if not project.engine.pid(container):
            return False
        with project.engine.network_of(container) as netns:
            return listens(netns, PORT)

    try:
        wait_until(serving, timeout, f"{service} to serve", interval=0.1)
    except AssertionError as error:
        raise AssertionError(f"{error}; it said:\n{project.logs(service)}") from error


def login(
    site: DockerHosts, project: Project, service: str, certificate: str = "server-cert.pem"
) -> Login:
    """The first user, and the pin of the certificate that stands in the container."""
    path = site.path("server-cert.pem")
    path.write_text(project.exec(service, "cat", f"/etc/ocserv/{certificate}"))
    return Login(USER, PASSWORD, pin_of(path))


def join(site: DockerHosts, project: Project, service: str, *, dtls: bool = True) -> Client:
    """Connect the first client to the published port; dtls: also wait for that, or forbid it."""
    wait_serving(project, service)
    return connect(site, site.clients[0], login(site, project, service), dtls=dtls)


def leaves_by(client: Client) -> IPv4Address | None:
    """As whom the whoami service sees the client; None when it gets no answer."""
    try:
        told = http_get(client.netns, SERVICE, "/whoami", timeout=2.0)
    except OSError:
        return None
    address = ip_address(told.split()[0].decode())
    assert isinstance(address, IPv4Address)
    return address

"""Who has azinchen/ocserv-server and changes only `image:` goes on as before."""

from __future__ import annotations

import shutil
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from lab.certificate import write_certificate
from lab.client import Login, Refused, connect, pin_of
from lab.docker_host import DockerHosts
from lab.example import PASSWORD, USER, furnish, leaves_by, wait_serving
from lab.ocserv import write_users
from ocgate.netlab.wait import wait_until
from support.example import SiteFactory

pytestmark = pytest.mark.image

SOURCE = Path(__file__).with_name("azinchen")
SECRET = "?a-secret-of-thirty-two-characters"  # camouflage_secret, as clients add it to the URL

# Names that its users type with `docker exec`, with what they say among other things.
COMMANDS = (
    (["network-diagnostic", "--basic"], "the kernel holds exactly the plan"),
    (["network-diagnostic", "--json"], "the kernel holds exactly the plan"),
    (["session-report"], USER),
    (["cert-reload"], ""),
    (["vpngw-reload"], ""),
    (["healthcheck"], "healthy"),
)


def directory_of(site: DockerHosts) -> tuple[Path, Login]:
    """The project's directory as such a user has it, with certificate and one user in it."""
    directory = site.path("project") / "ocserv-server"
    shutil.copytree(SOURCE, directory)
    config = directory / "volumes/config"
    write_certificate(config / "fullchain.pem", config / "privkey.pem", [site.server])
    write_users(config / "ocpasswd", {USER: PASSWORD})
    return directory, Login(USER, PASSWORD, pin_of(config / "fullchain.pem"))


def test_a_compose_file_of_azinchen_s_serves_with_only_the_image_changed(
    site: SiteFactory,
) -> None:
    """Its variables, mounts, file names and camouflage: the client gets an address of VPN_SUBNET,
    leaves by the docker host, and the commands of its documentation answer; who doesn't know the
    secret is not let in."""
    built = site()
    directory, login = directory_of(built)
    project = furnish(built, directory, {})
    project.up()
    wait_serving(project, "ocserv")
    with pytest.raises(Refused):
        connect(built, built.clients[0], login)
    client = connect(built, built.clients[0], login, path=SECRET)
    assert client.address in IPv4Network("10.20.0.0/24")
    assert leaves_by(client) == built.host.address
    for command, words in COMMANDS:
        # network-diagnostic's status is 1: a certificate for a day is something to do.
        said = project.exec("ocserv", *command, check=command[0] != "network-diagnostic")
        assert words in said, (command, said)
    container = project.container("ocserv")
    assert built.host and project.engine.inspect(container)["Name"] == "ocserv-server"
    assert {"init-config", "init-nat", "svc-ocserv"} <= set(said_words(project.logs("ocserv")))
    client.disconnect()
    history = directory / "volumes/config/session-history.log"
    wait_until(lambda: history.exists() and USER in history.read_text(), 10.0, "its session")


def said_words(text: str) -> list[str]:
    """Words without the punctuation around them."""
    return [word.strip("[]:,.") for word in text.lower().split()]

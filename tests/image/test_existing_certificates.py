"""examples/existing-certificates: the certificate is another program's, and is renewed.

client1 === inet === host1 -- bridge -- ocgate <── /certificates (certbot's, read-only)
"""

from __future__ import annotations

import re
import ssl
from pathlib import Path

import pytest

from lab.certificate import write_certificate
from lab.client import Client, Login, connect, pin_of
from lab.compose import Project
from lab.docker_host import DockerHosts
from lab.example import USER, leaves_by, place, wait_serving
from lab.topology import PORT
from ocgate.netlab.wait import wait_until
from support.example import SiteFactory

pytestmark = pytest.mark.image

NAME = "vpn.example.org"


class Certbot:
    """/etc/letsencrypt as certbot keeps it: live/NAME/ holds links into archive/NAME/."""

    def __init__(self, directory: Path, site: DockerHosts) -> None:
        self.directory = directory
        self._site = site
        self._live, self._archive = directory / "live" / NAME, directory / "archive" / NAME
        for made in (self._live, self._archive):
            made.mkdir(parents=True)
        self._number = 0
        self.renew()

    @property
    def certificate(self) -> Path:
        return self._live / "fullchain.pem"

    def renew(self) -> None:
        """New files in archive/, then the links are replaced, one after the other."""
        self._number += 1
        names = [f"{kind}{self._number}.pem" for kind in ("fullchain", "privkey")]
        write_certificate(*(self._archive / name for name in names), [self._site.server])
        for kind, name in zip(("fullchain", "privkey"), names, strict=True):
            fresh = self._live / f"{kind}.new"
            fresh.symlink_to(f"../../archive/{NAME}/{name}")
            fresh.rename(self._live / f"{kind}.pem")


def shown(site: DockerHosts) -> str:
    """The certificate that a client is shown at the published port; empty while none is."""
    with site.clients[0].netns.entered():
        try:
            return ssl.get_server_certificate((str(site.server), PORT), timeout=5.0)
        except OSError:
            return ""


def same(site: DockerHosts, certbot: Certbot) -> bool:
    """Are clients shown what stands in certbot's directory?"""
    return shown(site).split() == certbot.certificate.read_text().split()


def started(site: DockerHosts) -> tuple[Project, Certbot, Client]:
    """The README's steps, and a client that has come in with the user that they made."""
    project = place(site, "existing-certificates", {})
    certbot = Certbot(site.path("letsencrypt"), site)
    (project.directory / ".env").write_text(f"CERTIFICATES={certbot.directory}\n")
    told = project.compose("run", "--rm", "-T", "ocgate", "user", "add", USER).stdout
    project.compose("run", "--rm", "-T", "ocgate", "check")
    password = re.findall(r"Password +(\S+)", told)
    assert len(password) == 1, told
    project.up()
    wait_serving(project, "ocgate")
    login = Login(USER, password[0], pin_of(certbot.certificate))
    return project, certbot, connect(site, site.clients[0], login)


def test_a_renewed_certificate_is_shown_and_nobody_is_disconnected(site: SiteFactory) -> None:
    """By CERT_WATCH as the example has it: certbot's links move, and new handshakes get the new
    certificate while the client's session goes on; ocgate can't write into the directory."""
    built = site()
    project, certbot, client = started(built)
    assert same(built, certbot)
    certbot.renew()
    assert not same(built, certbot)
    wait_until(lambda: same(built, certbot), 15.0, "the new certificate", interval=0.1)
    assert leaves_by(client) == built.host.address
    assert client.events() == ["pre-init", "connect"]
    touched = project.exec("ocgate", "touch", "/certificates/x", check=False)
    assert not list(certbot.directory.glob("x")), touched


def test_a_renewed_certificate_is_shown_after_a_reload(site: SiteFactory) -> None:
    """As a renewal's hook does it, for systems on which nothing is told of a file's change."""
    built = site()
    project, certbot, client = started(built)
    certbot.renew()
    project.exec("ocgate", "ocgate", "reload")
    wait_until(lambda: same(built, certbot), 5.0, "the new certificate", interval=0.1)
    assert leaves_by(client) == built.host.address

"""Camouflage in the image: who does not know the secret meets a web server, and no VPN.

client1 === inet === host1 -- bridge -- ocgate
"""

from __future__ import annotations

import http.client
import ssl

import pytest

from lab.client import Refused
from lab.docker_host import DockerHosts
from lab.example import leaves_by
from ocgate.netlab.namespace import Namespace
from support.container import NEEDED, PASSWORD, Container, SiteFactory

pytestmark = pytest.mark.image

SECRET = "a-Long_secret.1"
REALM = "Members only"
LINES = ("camouflage = true", f'camouflage_secret = "{SECRET}"')


def camouflaged(built: DockerHosts, *lines: str) -> Container:
    """Serving with these lines in its ocserv.conf, after a restart."""
    container = Container(built, *NEEDED, "-e", f"OCGATE_PASSWORD={PASSWORD}").wait_serving()
    edit = "".join(f"1a {line}\n" for line in lines)
    container.exec("sed", "-i", edit, "/etc/ocserv/ocserv.conf")
    container.exec("ocgate", "reload")
    return container


def answer(
    netns: Namespace, server: str, target: str, method: str = "GET"
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of one request, whatever the certificate."""
    anything = ssl._create_unverified_context()
    with netns.entered():
        connection = http.client.HTTPSConnection(server, timeout=10, context=anything)
        connection.request(method, target)
        found = connection.getresponse()
    body = found.read()
    connection.close()
    return found.status, {name.lower(): value for name, value in found.getheaders()}, body


@pytest.mark.parametrize(
    ("lines", "status"), [((*LINES, f'camouflage_realm = "{REALM}"'), 401), (LINES, 404)]
)
def test_a_probe_without_the_secret_meets_a_web_server_and_with_it_the_tunnel_comes_up(
    site: SiteFactory, lines: tuple[str, ...], status: int
) -> None:
    built = site()
    container = camouflaged(built, *lines)
    probing, server = built.clients[0].netns, str(built.server)
    for target in ("/", "/?wrong", f"/?{SECRET}2", "/auth", "/+CSCOE+/logon.html"):
        for method in ("GET", "POST"):
            got, headers, body = answer(probing, server, target, method)
            assert got == status, (method, target)
            assert not {"x-transcend-version", "set-cookie", "x-aggregate-auth"} & set(headers)
            assert b"config-auth" not in body
            if status == 401:
                assert headers["www-authenticate"] == f'Basic realm="{REALM}"'
    got, headers, body = answer(probing, server, f"/?{SECRET}")
    assert got == 200, "positive control: with the secret the VPN shows itself"
    assert b"config-auth" in body
    with pytest.raises(Refused):
        container.join(container.login(), dtls=False)
    client = container.join(container.login(), path=f"?{SECRET}")
    assert leaves_by(client) == built.host.address


def test_the_connect_line_of_a_new_user_carries_the_secret(site: SiteFactory) -> None:
    container = camouflaged(site(), *LINES)
    said = container.exec("ocgate", "user", "add", "bob")
    assert f"/?{SECRET}" in said

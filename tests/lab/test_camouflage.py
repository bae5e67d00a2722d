"""Camouflage in the operator's own ocserv.conf, with the ocserv of this machine.

client1 --- inet --- router --- gw (ocgate run on the operator's files)   see lab.topology

The image's tests do the same with its ocserv wherever they run.
"""

from __future__ import annotations

import sys

import pytest

from lab import gateway
from lab.client import connect
from lab.topology import SERVICE
from lab.traffic import ask_udp
from ocgate.ocserv.dryrun import version
from support.serving import LabFactory, operators, serve, with_services

pytestmark = pytest.mark.lab

KNOWS = version() >= (1, 2, 0)
SECRET = "a-Long_secret.1"
SETTINGS: dict[str, str | None] = {"camouflage": "true", "camouflage_secret": SECRET}

# Prints the status that a browser gets from argv[1].
STRANGER = """
import http.client, ssl, sys
connection = http.client.HTTPSConnection(sys.argv[1], context=ssl._create_unverified_context())
connection.request("GET", "/")
print(connection.getresponse().status)
"""


@pytest.mark.releases
@pytest.mark.skipif(not KNOWS, reason="needs ocserv 1.2 or newer: Debian 12 has 1.1.6")
def test_with_the_secret_in_its_url_a_client_gets_its_tunnel_and_without_it_none(
    lab: LabFactory,
) -> None:
    served = serve(with_services(lab()), settings=SETTINGS)
    client = connect(served.lab, served.lab.clients[0], served.login(), path=f"?{SECRET}")
    assert ask_udp(client.netns, SERVICE).seen_as == served.lab.router.address
    client.disconnect()
    probe = [sys.executable, "-I", "-c", STRANGER, str(served.lab.server)]
    assert served.lab.clients[0].netns.run(probe).stdout == "404\n"


@pytest.mark.releases
@pytest.mark.skipif(KNOWS, reason="needs an ocserv without camouflage: Debian 12's 1.1.6")
def test_an_ocserv_that_is_too_old_for_it_is_warned_of(lab: LabFactory) -> None:
    """It passes over the lines, so everybody would see a VPN server behind a secret."""
    built = with_services(lab())
    running = gateway.run(built, None, operators(built, settings=SETTINGS))
    assert "camouflage-unknown" in running.output

"""examples/standalone: ocgate alone on a docker host.

client1 === inet === host1 -- bridge -- ocgate
"""

from __future__ import annotations

import pytest

from lab.example import PASSWORD, join, leaves_by, login, place
from support.example import SiteFactory

pytestmark = pytest.mark.image


def test_the_standalone_example_serves_as_printed(site: SiteFactory) -> None:
    """A client connects to the published port, DTLS included, and leaves by the docker host; a new
    container keeps certificate and user: the client comes back with the same password and pin."""
    built = site()
    project = place(built, "standalone", {"password": PASSWORD})
    project.up()
    client = join(built, project, "ocgate")
    assert leaves_by(client) == built.host.address
    assert project.exec("ocgate", "ocgate", "healthcheck").startswith("healthy")
    before = login(built, project, "ocgate")
    project.up("ocgate", recreate=True)
    client.program.kill()  # its session ended with the container, as openconnect finds out later
    client = join(built, project, "ocgate")
    assert leaves_by(client) == built.host.address
    assert login(built, project, "ocgate") == before

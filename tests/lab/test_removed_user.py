"""A user who was removed is out: by password at once, and by the cookie of the session that he had.

    client1 (keeps the cookie) === gw (ocgate run)           see lab.topology

A browser or an openconnect of one's own keeps a cookie for as long as the server takes it.
"""

from __future__ import annotations

import pytest

from lab.addresses import PORT
from lab.client import Refused
from ocgate.netlab.program import Program
from ocgate.netlab.wait import wait_until
from ocgate.ocserv.dryrun import version
from ocgate.ocserv.releases import TERMINATE
from support.lifecycle import ocgate
from support.serving import PASSWORD, LabFactory, Served, serve, with_services

pytestmark = pytest.mark.lab


def cookie_of(served: Served) -> str:
    """Log in as alice and stop there, as `openconnect --authenticate` does."""
    url, pin = f"https://{served.lab.server}:{PORT}/", served.login().pin
    argv = ["openconnect", "--authenticate", "--non-inter", "--passwd-on-stdin", "--user=alice"]
    made = served.lab.clients[0].netns.run([*argv, f"--servercert={pin}", url], text=PASSWORD)
    (line,) = [line for line in made.stdout.splitlines() if line.startswith("COOKIE=")]
    return line.partition("=")[2].strip("'")


def come(served: Served, cookie: str) -> Program:
    """Connect by the cookie alone."""
    url, pin = f"https://{served.lab.server}:{PORT}/", served.login().pin
    argv = ["openconnect", "--cookie-on-stdin", f"--servercert={pin}", "--no-dtls"]
    argv += ["--script=/bin/true", "--interface=tun7", url]
    return served.lab.spawn(served.lab.clients[0], argv, text=f"{cookie}\n")


@pytest.mark.parametrize("persistent", ["false", "true"])
def test_a_removed_user_does_not_come_back_by_the_cookie(lab: LabFactory, persistent: str) -> None:
    """With `persistent-cookies` an ocserv before 1.4.2 can't hold him, and the command says so."""
    lines = ("route = default", f"persistent-cookies = {persistent}")
    served = serve(with_services(lab()), lines=lines)
    cookie = cookie_of(served)
    first = come(served, cookie)
    wait_until(lambda: len(served.sessions()) == 1, 10, "the session")
    removed = ocgate(served.gateway, "user", "remove", "alice")
    assert removed.returncode == 0, removed.stderr
    wait_until(lambda: not first.running(), 10, "the end of the client")
    served.wait_no_sessions()
    again = come(served, cookie)
    if TERMINATE.holds(version()) or persistent == "false":
        wait_until(lambda: not again.running(), 20, "the refusal")
        assert "Cookie was rejected by server" in again.output
        assert served.sessions() == []
        assert "keeps its cookie" not in removed.stderr
    else:
        wait_until(lambda: len(served.sessions()) == 1, 10, "the session by the cookie")
        assert "keeps its cookie, since persistent-cookies is on" in removed.stderr
    with pytest.raises(Refused):
        served.connect()

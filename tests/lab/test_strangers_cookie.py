"""A cookie that overflows a worker of ocserv before 1.5.0, from a stranger who has not logged in.

    client1 (alice, downloads), client2 (the stranger) === inet === router --- gw

What dies is the stranger's own worker, an unprivileged process of this one connection; from 1.5.0
on it answers. Who else is connected loses nothing, main and control go on, the next one gets in.
"""

from __future__ import annotations

import sys

import pytest
from t1_serving import LabFactory, Served, serve, with_services

from ocgate.lab.streams import TcpDownload
from ocgate.lab.topology import SERVICE, Options
from ocgate.lab.traffic import ask_udp
from ocgate.lab.wait import wait_until
from ocgate.server.dryrun import version

pytestmark = [pytest.mark.lab, pytest.mark.releases]

OVERFLOWS = version() < (1, 5, 0)

# Bytes of the cookie: what fits, and what does not; ocserv's own limit of a line is beyond.
FITTING, SIZES = 20, (200, 800, 4000)

# Prints the status that argv[1] answers to a cookie of argv[2] bytes, or how the connection ends.
STRANGER = """
import http.client, ssl, sys
to = http.client.HTTPSConnection(sys.argv[1], context=ssl._create_unverified_context(), timeout=20)
try:
    to.request("GET", "/", headers={"Cookie": "webvpncontext=" + "A" * int(sys.argv[2])})
    print(to.getresponse().status)
except (OSError, http.client.HTTPException) as error:
    print(type(error).__name__)
"""
# A worker that died has closed without a word; a kernel that still had data of ours says reset.
ENDED = {"RemoteDisconnected", "ConnectionResetError", "SSLEOFError", "BrokenPipeError"}


def asks(served: Served, size: int) -> str:
    stranger = served.lab.clients[1].netns
    words = [sys.executable, "-I", "-c", STRANGER, str(served.lab.server), str(size)]
    return stranger.run(words, timeout=30.0).stdout.strip()


@pytest.mark.parametrize("isolated", ["true", "false"])
def test_it_costs_nobody_else_anything(lab: LabFactory, isolated: str) -> None:
    built = with_services(lab(Options(clients=2)))
    settings: dict[str, str | None] = {"isolate-workers": isolated}
    served = serve(built, ("alice", "bob"), settings=settings)
    alice = served.connect()
    before = state(served)
    with TcpDownload(alice.netns, SERVICE, size=8 << 20, rate=1 << 20) as download:
        wait_until(lambda: download.bytes_received, 10.0, "the download to begin")
        assert asks(served, FITTING).isdecimal(), "positive control"
        said = [asks(served, size) for size in SIZES for _ in range(3)]
        assert download.running(), "it is under way all the time"
        if OVERFLOWS:
            assert set(said) <= ENDED
        else:
            assert all(each.isdecimal() for each in said), said
        download.wait(60.0)
    assert download.bytes_received >= 8 << 20
    assert state(served) == before
    assert asks(served, FITTING).isdecimal()
    bob = served.connect(built.clients[1], "bob")
    assert ask_udp(bob.netns, SERVICE)


def state(served: Served) -> tuple[object, ...]:
    """Who is connected, by which worker; since when main and control run."""
    server = served.gateway.status()["server"]
    workers = [(each["user"], each["worker"]) for each in served.sessions()]
    return workers, server["since"], server["ocserv_since"]

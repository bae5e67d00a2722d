"""What a stranger's request can end: a worker of his own at most, and with ocserv 1.5.0 not that.

    client1 === gw (ocgate run)      client2: the stranger, who has no password

The defect is `releases.COOKIE_OVERFLOW`; whether the ocserv of this machine has it is the table's
word, which this test holds against the program.
"""

from __future__ import annotations

import sys

import pytest

from lab.streams import TcpDownload, UdpStream
from lab.topology import SERVICE, Options
from lab.traffic import ask_udp
from ocgate.netlab.wait import wait_until
from ocgate.ocserv.dryrun import version
from ocgate.ocserv.releases import CAMOUFLAGE, COOKIE_OVERFLOW, shown
from support.serving import LabFactory, Served, serve, with_services

pytestmark = [pytest.mark.lab, pytest.mark.releases]

CRASHES = COOKIE_OVERFLOW.holds(version())
SECRET = "a-Long_secret.1"
TIMES = 6

# Asks argv[1] for / with a cookie of argv[2] bytes, base64; prints the status, or `closed`.
STRANGER = """
import base64, http.client, ssl, sys
cookie = base64.b64encode(b"A" * int(sys.argv[2])).decode()
connection = http.client.HTTPSConnection(
    sys.argv[1], context=ssl._create_unverified_context(), timeout=20
)
try:
    connection.request("GET", "/", headers={"Cookie": "webvpncontext=" + cookie})
    print(connection.getresponse().status)
except (OSError, http.client.HTTPException):
    print("closed")
"""


def asked(served: Served, size: int) -> str:
    argv = [sys.executable, "-I", "-c", STRANGER, str(served.lab.server), str(size)]
    return served.lab.clients[1].netns.run(argv).stdout.strip()


@pytest.mark.parametrize("hidden", [False, True], ids=["plain", "camouflage"])
@pytest.mark.parametrize("isolated", [None, "false"], ids=["isolated", "open"])
def test_a_strangers_cookie_ends_his_own_worker_at_most(
    lab: LabFactory, isolated: str | None, *, hidden: bool
) -> None:
    """Sessions that carry traffic meanwhile lose nothing, ocserv and control go on, and the next
    user gets in. A request with a short cookie is answered: the positive control."""
    if hidden and not CAMOUFLAGE.holds(version()):
        pytest.skip("needs an ocserv with camouflage: 1.2.0")
    settings = {"isolate-workers": isolated}
    if hidden:
        settings |= {"camouflage": "true", "camouflage_secret": SECRET}
    served = serve(with_services(lab(Options(clients=2))), ("alice", "bob"), settings=settings)
    client = served.connect(options=(), path=f"?{SECRET}" * hidden)
    before = served.gateway.status()["server"]
    assert asked(served, 16) in {"200", "404", "401"}
    download = TcpDownload(client.netns, SERVICE, size=64 << 20, rate=1 << 20)
    with download, UdpStream(client.netns, SERVICE, rate=200) as stream:
        stream.wait_for(50)
        answers = {asked(served, size) for size in (200, 400, 3000) for _ in range(TIMES)}
        stream.wait_for(len(stream.tally.received) + 50)
        before_that = download.bytes_received
        wait_until(lambda: download.bytes_received > before_that, 10.0, "the download to go on")
    assert stream.tally.lost == 0
    assert ("closed" in answers) == CRASHES, (shown(version()), answers)
    assert served.gateway.status()["server"]["ocserv_since"] == before["ocserv_since"]
    assert [one["user"] for one in served.sessions()] == ["alice"]
    client.disconnect()
    served.wait_no_sessions()
    again = served.connect(user="bob", path=f"?{SECRET}" * hidden)
    assert ask_udp(again.netns, SERVICE)

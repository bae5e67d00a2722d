"""Behind a proxy that speaks PROXY protocol, a session's peer is who the proxy says it is.

client1 (openconnect -> proxy on 127.0.0.1) === gw (ocgate run)        see lab.topology
"""

from __future__ import annotations

import sys
from ipaddress import ip_address

import pytest

from lab.addresses import PORT
from lab.client import connect
from lab.topology import SERVICE
from lab.traffic import ask_udp
from ocgate.netlab.wait import wait_until
from support.serving import LabFactory, serve, with_services

pytestmark = pytest.mark.lab

BEHIND = "198.51.100.77"

# Hands on what comes to 127.0.0.1 to argv[1], with argv[3]'s word on who it comes from.
PROXY = """
import socket, struct, sys, threading

server, port, version, behind = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
if version == "v1":
    head = f"PROXY TCP4 {behind} {server} 4711 {port}\\r\\n".encode()
else:
    head = b"\\r\\n\\r\\n\\0\\r\\nQUIT\\n" + bytes([0x21, 0x11]) + struct.pack("!H", 12)
    head += socket.inet_aton(behind) + socket.inet_aton(server) + struct.pack("!HH", 4711, port)
listener = socket.create_server(("127.0.0.1", port))
print("ready", flush=True)

def pump(one, other):
    try:
        while data := one.recv(65536):
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)
    except OSError:
        pass

while True:
    client, _ = listener.accept()
    onward = socket.create_connection((server, port))
    onward.sendall(head)
    for pair in ((client, onward), (onward, client)):
        threading.Thread(target=pump, args=pair, daemon=True).start()
"""


@pytest.mark.parametrize("form", ["v1", "v2"])
def test_a_session_behind_a_proxy_has_its_own_peer(lab: LabFactory, form: str) -> None:
    """In both forms of the protocol; its packets leave by the exit as any other's."""
    served = serve(with_services(lab()), settings={"listen-proxy-proto": "true"})
    built = served.lab
    host = built.clients[0]
    argv = [sys.executable, "-I", "-c", PROXY, str(built.server), str(PORT), form, BEHIND]
    proxy = built.spawn(host, argv)
    wait_until(lambda: "ready" in proxy.output, 10, "the proxy")
    # The proxy's own way to the server, past the tunnel that openconnect lays for 127.0.0.1.
    host.netns.ip(f"route replace {built.server} via {host.next_hop} dev eth0")
    client = connect(built, host, served.login(), dtls=False, server=ip_address("127.0.0.1"))
    [session] = served.sessions()
    assert session["peer"] == BEHIND
    assert ask_udp(client.netns, SERVICE).seen_as == built.router.address

"""An exit whose far line can be slowed down and ended, in either role, and somebody who uses it.

Role "exit node"   user ── exit (ocgate exit) ===(OpenVPN)=== [line] === provider ── services
Role "server"      user ==(openconnect)== gw (ocgate run) ── upstream ===(OpenVPN)=== [line] === …

The line is a relay beside the provider (`lab.slow_line`); probes and users share it.
"""

from __future__ import annotations

import contextlib
import json
import random
import select
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import IPv4Address

from lab import client as vpn
from lab import exit_role, gateway
from lab.addresses import PROVIDER, UPSTREAM, UPSTREAM6
from lab.ocserv import write_config_dir
from lab.openvpn import OPENVPN_PORT, run_provider
from lab.slow_line import Line, SlowLine
from lab.streams import TcpDownload
from lab.topology import SERVICE, SERVICE6, Lab, Options
from lab.traffic import read_error, udp_socket
from lab.upstream import run_upstream
from ocgate.netlab.namespace import Namespace
from ocgate.netlab.services import ECHO_PORT, Services
from ocgate.netlab.wait import wait_until

EXIT_NODE, SERVER = "exit node", "server"
ROLES = (EXIT_NODE, SERVER)

_RELAY_PORT = 1195
# What comes to the provider's port goes to the relay, and from there to the port itself.
_REDIRECT = f"""
table ip slow {{
    chain prerouting {{
        type nat hook prerouting priority dstnat;
        udp dport {OPENVPN_PORT} redirect to :{_RELAY_PORT}
    }}
}}
"""
# Of three kinds, as the defaults are; the second is refused each time, for nobody answers DNS.
PROBES = f"{SERVICE}:443, dns:{SERVICE}, icmp:{SERVICE}"

# What an exit node logs when it is called down, is alive again, and has a new tunnel.
_LOST, _BACK, _NEW = "tunnel does not answer", "tunnel answers again", "tunnel is up"
_JSON = {"OCGATE_LOG_FORMAT": "json"}
_USERS = {"bench": "bench"}
# A user's packets while it is measured how long they are lost: 200 a second of 64 bytes.
_BETWEEN = 0.005
_LONGEST = 60.0  # seconds; a verdict that takes longer is no figure
_ALIVE = "up"


@dataclass
class Side:
    """One running exit. state: up or down, or another word of `ocgate status`. verdict: when it was
    called down last, by the log: seconds since the epoch; None where its users are rejected then
    (an exit node rejects them when it gives the tunnel up, ten seconds later)."""

    lab: Lab
    line: Line
    user: Namespace
    state: Callable[[], str]
    verdict: Callable[[], float] | None = None
    chance: random.Random = field(default_factory=lambda: random.Random(1))

    def alive(self) -> bool:
        return self.state() == _ALIVE

    def wait_alive(self) -> None:
        wait_until(self.alive, _LONGEST, "the exit to be alive", interval=0.1)

    def downloads(self, count: int, size: int = 10**9) -> list[TcpDownload]:
        """They end with `close`."""
        return [TcpDownload(self.user, SERVICE, size=size) for _ in range(count)]

    def noticed_after(self) -> float:
        """Let the line end: seconds from a user's first lost packet to the verdict, at a server to
        the first packet that is rejected. The line lives again afterwards, and the exit."""
        sock = udp_socket(self.user, SERVICE, ECHO_PORT, None)
        try:
            self.line.dead = True
            if self.verdict is None:
                return _until_rejected(sock)
            began, before = time.time(), self.verdict()
            _send_until(sock, lambda: self.verdict is not None and self.verdict() > before)
            return self.verdict() - began
        finally:
            sock.close()
            self.line.dead = False
            self.wait_alive()


def _until_rejected(sock: socket.socket) -> float:
    began = time.monotonic()
    _send_until(sock, lambda: read_error(sock) is not None)
    return time.monotonic() - began


def _send_until(sock: socket.socket, done: Callable[[], bool]) -> None:
    due = began = time.monotonic()
    poll = select.poll()
    poll.register(sock, select.POLLERR)
    while not done():
        if time.monotonic() > began + _LONGEST:
            raise AssertionError(f"nobody noticed for {_LONGEST:.0f} s")
        with contextlib.suppress(OSError):  # an error of one before, which is read above
            sock.send(b"?" * 36)
        due += _BETWEEN
        poll.poll(max(due - time.monotonic(), 0.0) * 1000)


def _last(served: exit_role.ExitRole, *events: str) -> tuple[float, str]:
    """When the last of these events was logged, and which it was. (A status takes control tens of
    milliseconds, in which it hears of no answer.)"""
    for line in reversed(served.output.splitlines()):
        if any(f'"{event}"' in line for event in events):
            told = json.loads(line)
            return datetime.fromisoformat(told["timestamp"]).timestamp(), str(told["event"])
    return 0.0, ""


@contextmanager
def exit_node(line: Line, settings: Mapping[str, str]) -> Iterator[Side]:
    """The real `ocgate exit`, healthy."""
    with Lab(Options(upstream=True, neighbours=1, clients=0)) as lab:
        lab.own(Services(lab.inet.netns, (SERVICE, SERVICE6)))
        path = lab.path("vpn.ovpn")
        path.write_text(run_provider(lab).config())
        _slow_down(lab, line)
        user = lab.neighbours[0].netns
        user.ip(f"route replace default via {UPSTREAM}", f"route replace ::/0 via {UPSTREAM6}")
        lab.upstream.netns.sysctl("net/ipv4/conf/all/send_redirects", 0)
        lab.upstream.netns.sysctl("net/ipv4/ping_group_range", "0 2147483647")  # as docker does
        environ = {"OVPN_CONFIG": str(path), "EXIT_PROBE": PROBES, **_JSON, **settings}
        served = exit_role.start(lab, environ)
        served.wait_healthy()

        def state() -> str:
            return "down" if _last(served, _LOST, _BACK, _NEW)[1] == _LOST else _ALIVE

        yield Side(lab, line, user, state, lambda: _last(served, _LOST)[0])


@contextmanager
def server(line: Line, settings: Mapping[str, str]) -> Iterator[Side]:
    """The real `ocgate run` in gateway mode, with a client that is connected."""
    with Lab(Options(upstream=True, clients=1)) as lab:
        lab.own(Services(lab.inet.netns, (SERVICE, SERVICE6)))
        upstream = run_upstream(lab, tunnel=False)
        _slow_down(lab, line)
        upstream.restore_tunnel()
        lab.gw.netns.sysctl("net/ipv4/ping_group_range", "0 2147483647")
        directory = lab.path("etc")
        write_config_dir(lab, directory, _USERS)
        environ = {"VPN_GATEWAY": str(UPSTREAM), "EXIT_PROBE": PROBES, **settings}
        served = gateway.run(lab, environ, directory)

        def state() -> str:
            status = served.status_or_none() or {"exits": []}
            return next((str(e["state"]) for e in status["exits"] if e["family"] == 4), "")

        login = served.login("bench", "bench")
        side = Side(lab, line, lab.clients[0].netns, state)
        side.wait_alive()
        vpn.connect(lab, lab.clients[0], login)
        yield side


MADE = {EXIT_NODE: exit_node, SERVER: server}


def _slow_down(lab: Lab, line: Line) -> None:
    netns = lab.provider.netns
    listen = (IPv4Address("0.0.0.0"), _RELAY_PORT)
    lab.own(SlowLine(netns, listen, (PROVIDER, OPENVPN_PORT), line))
    netns.nft(_REDIRECT)

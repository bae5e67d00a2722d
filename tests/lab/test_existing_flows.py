"""A flow that exists is asked for its next hop alone: it must not outlive what let it begin.

The gateway itself is the destination that shows it: its next hop is right, and it is a network of
this host, which clients may not reach. An echo listens there.
"""

from __future__ import annotations

import socket
import socketserver
from ipaddress import IPv4Address

import pytest

from lab.topology import Lab
from lab.traffic import ask_tcp
from lab.upstream import Upstream
from ocgate.names import NFT_TABLE, NFT_TABLE_GATEWAY
from ocgate.netlab.namespace import Namespace
from ocgate.netlab.services import ECHO_PORT, Services, Tcp, close_servers, serve
from ocgate.netlab.wait import wait_until
from support.gateway_mode import chain, conversation
from support.leak_captures import LabFactory, frozen

pytestmark = pytest.mark.lab


def echo_at_the_gateway(built: Lab, _: Upstream) -> None:
    assert built.upstream.address is not None
    built.own(Services(built.upstream.netns, (built.upstream.address,)))


class EchoHere:
    """On the server's own host, where ocserv has the port 443 that `Services` would take."""

    class _Echo(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while data := self.request.recv(100):
                self.request.sendall(data)

    def __init__(self, netns: Namespace, address: IPv4Address) -> None:
        with netns.entered():
            self._server = Tcp((str(address), ECHO_PORT), self._Echo)
        serve([self._server])

    def close(self) -> None:
        close_servers([self._server])


def is_answered(sock: socket.socket) -> bool:
    try:
        sock.sendall(b"more")
        return bool(sock.recv(100))
    except OSError:
        return False


def test_a_flow_that_began_without_the_guard_ends_with_its_return(lab: LabFactory) -> None:
    g = chain(lab, before=echo_at_the_gateway)
    alice, gateway = g.connect(0), g.lab.upstream.address
    assert not ask_tcp(alice.netns, gateway, timeout=1.0)
    with frozen(g.gateway):
        g.gateway.netns.nft(f"delete table inet {NFT_TABLE_GATEWAY}")
        talk = conversation(alice, gateway)
        sock = talk.__enter__()  # positive control: nothing but the guard is in its way
        assert is_answered(sock)
    g.wait_guarded()
    wait_until(lambda: not is_answered(sock), 10.0, "the flow's end")
    assert not ask_tcp(alice.netns, gateway, timeout=1.0)
    talk.__exit__(None, None, None)


def test_a_client_s_connection_to_this_host_that_began_without_tables_ends_too(
    lab: LabFactory,
) -> None:
    """Not its next hop, but who began it, is asked here: only answers to this host come in."""
    g = chain(lab)
    alice, host = g.connect(0), g.lab.gw.address
    g.lab.own(EchoHere(g.lab.gw.netns, host))
    assert not ask_tcp(alice.netns, host, timeout=1.0)
    with frozen(g.gateway):
        for table in (NFT_TABLE, NFT_TABLE_GATEWAY):
            g.gateway.netns.nft(f"delete table inet {table}")
        talk = conversation(alice, host)
        sock = talk.__enter__()  # positive control
        assert is_answered(sock)
    g.wait_guarded()
    assert not is_answered(sock)
    talk.__exit__(None, None, None)

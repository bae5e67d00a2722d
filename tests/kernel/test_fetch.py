"""A fetch against real servers on loopback: what counts as an answer, and by which socket."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import socket
import ssl
import threading
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from lab.certificate import Authority
from ocgate.kernel.fetch import fetch
from ocgate.kernel.probe import ProbeResult
from ocgate.kernel.way import Way
from ocgate.netlab.namespace import Namespace

pytestmark = pytest.mark.kernel

HERE = IPv4Address("127.0.0.1")
PORTS = (20_000, 20_999)


class Page(http.server.BaseHTTPRequestHandler):
    """Answers `/NUMBER` with that status; remembers who asked."""

    seen: list[tuple[str, int, str]] = []  # noqa: RUF012  # of the one server at a time

    def do_GET(self) -> None:
        Page.seen.append((self.client_address[0], self.client_address[1], self.headers["Host"]))
        self.send_response(int(self.path.strip("/").partition("?")[0] or 200))
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Nothing."""


@pytest.fixture
def port(netns: Namespace) -> Iterator[int]:
    Page.seen.clear()
    with http.server.ThreadingHTTPServer((str(HERE), 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def got(url: str, way: Way = Way()) -> ProbeResult:  # noqa: B008  # frozen
    return asyncio.run(fetch(url, HERE, timeout=5.0, way=way))


@pytest.mark.parametrize(
    ("path", "ok"),
    [("", True), ("/204", True), ("/302?a=b", True), ("/403", False), ("/503", False)],
)
def test_an_answer_below_400_is_one(port: int, path: str, ok: bool) -> None:
    result = got(f"http://example.org:{port}{path}")
    assert result.ok is ok
    assert "HTTP status" in result.reason
    assert Page.seen[0][2] == f"example.org:{port}"


def test_mark_and_port_are_the_socket_s(port: int) -> None:
    result = got(f"http://a:{port}", Way(mark=0x0200_0000, ports=PORTS))
    assert result.ok
    assert PORTS[0] <= Page.seen[0][1] <= PORTS[1]


def test_nobody_there_and_no_http(port: int) -> None:
    assert "refused" in got("http://a:9/").reason
    assert not got(f"https://a:{port}/").ok  # speaks no TLS


def test_an_answer_without_end_of_line_is_no_http(netns: Namespace) -> None:
    """Longer than any status line: a result, never an exception."""
    with socket.create_server((str(HERE), 0)) as server:

        def answer() -> None:
            # The other end hangs up.
            with contextlib.suppress(OSError), server.accept()[0] as line:
                line.sendall(b"x" * 65536)
                line.recv(1)

        thread = threading.Thread(target=answer)
        thread.start()
        result = got(f"http://a:{server.getsockname()[1]}/")
        thread.join()
    assert not result.ok
    assert "no HTTP" in result.reason


def test_https_needs_a_certificate_that_is_trusted_and_fits(
    netns: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("good.example", server=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with http.server.ThreadingHTTPServer((str(HERE), 0), Page) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"https://good.example:{server.server_address[1]}/"
        untrusted = got(url)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
        trusted, other = got(url), got(url.replace("good", "bad"))
        server.shutdown()
        thread.join()
    assert "not trusted" in untrusted.reason
    assert not untrusted.ok
    assert (trusted.ok, other.ok) == (True, False)

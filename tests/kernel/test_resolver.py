"""Looking up a gateway's name, with real nameservers in a namespace of the test's own.

127.0.0.x are the nameservers, each with a table of its own; the files are the test's.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from ocgate.netlab.dns import DnsServer
from ocgate.netlab.namespace import Namespace
from ocgate.netlab.wait import wait_until
from ocgate.plan.facts import Address, Family
from ocgate.upstream.resolver import HOSTS_TTL, Answer, Lookup, NotResolved, resolve

pytestmark = pytest.mark.kernel

A, B, SIX, FORGED = map(ip_address, ("172.28.0.3", "172.28.0.4", "fd00:28::3", "198.18.6.6"))
FIRST, SECOND = ip_address("127.0.0.53"), ip_address("127.0.0.54")
Serve = Callable[..., DnsServer]


class Failing(DnsServer):
    """Answers SERVFAIL to everything."""

    def _answer(self, request: bytes, client: str, transport: str) -> bytes:
        super()._answer(request, client, transport)
        return request[:2] + struct.pack("!H", 0x8182) + request[4:]


@pytest.fixture
def serve(netns: Namespace) -> Iterator[Serve]:
    """Start a nameserver: serve({name: addresses}, at=FIRST, kind=DnsServer, ttl=60)."""
    servers: list[DnsServer] = []

    def start(
        table: dict[str, list[Address]],
        at: Address = FIRST,
        kind: type[DnsServer] = DnsServer,
        ttl: int = 60,
    ) -> DnsServer:
        servers.append(kind(netns, [at], table, ttl=ttl))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def files(tmp_path: Path) -> Lookup:
    """No hosts; both nameservers, of which the first is asked first."""
    (tmp_path / "hosts").write_text("127.0.0.1 localhost\n")
    (tmp_path / "resolv.conf").write_text(f"nameserver {FIRST}\nnameserver {SECOND}\n")
    return Lookup((), tmp_path / "hosts", tmp_path / "resolv.conf")


def ask(
    files: Lookup, name: str = "nl.example", family: Family = 4, timeout: float = 5, **more: bool
) -> Answer:
    return asyncio.run(resolve(name, family, timeout, files, **more))


def refused(
    files: Lookup, name: str = "nl.example", timeout: float = 5, **more: bool
) -> NotResolved:
    with pytest.raises(NotResolved) as caught:
        ask(files, name, timeout=timeout, **more)
    return caught.value


def test_addresses_time_to_live_and_source(serve: Serve, files: Lookup) -> None:
    serve({"nl.example": [A, B, SIX]}, ttl=17)
    assert ask(files) == Answer((A, B), 17.0, "127.0.0.53")
    assert ask(files, family=6).addresses == (SIX,)


def test_the_hosts_file_wins_where_it_has_the_family(serve: Serve, files: Lookup) -> None:
    server = serve({"nl.example": [A, SIX]})
    files.hosts.write_text(f"{B} nl.example\n")
    assert ask(files) == Answer((B,), HOSTS_TTL, str(files.hosts), written=True)
    assert server.queries == []
    assert ask(files, family=6).addresses == (SIX,)
    files.hosts.write_text("")  # read anew each time
    assert ask(files).addresses == (A,)


def test_search_list_and_ndots_are_followed(serve: Serve, files: Lookup) -> None:
    server = serve({"nl.vpn.example": [A], "us.nl.vpn.example": [B]})
    lines = f"nameserver {FIRST}\nsearch other.example vpn.example\n"
    files.resolv_conf.write_text(lines)
    assert ask(files, "nl").addresses == (A,)
    assert [query.name for query in server.queries] == ["nl.other.example", "nl.vpn.example"]
    server.queries.clear()
    files.resolv_conf.write_text(f"{lines}options ndots:2\n")
    assert ask(files, "us.nl").addresses == (B,)
    assert [query.name for query in server.queries] == ["us.nl.other.example", "us.nl.vpn.example"]


def test_a_name_that_does_not_exist_is_an_answer(serve: Serve, files: Lookup) -> None:
    serve({})
    problem = refused(files)
    assert problem.said == "127.0.0.53, 127.0.0.54 said NXDOMAIN"
    assert problem.waited < 3
    assert f"nl.example has no IPv4 address after {problem.waited:.1f} s: " in problem.message


def test_a_name_without_the_family_says_so(serve: Serve, files: Lookup) -> None:
    serve({"nl.example": [SIX]})
    assert "said that it has no A record" in refused(files).said


def test_a_start_waits_for_a_name_that_is_about_to_exist(serve: Serve, files: Lookup) -> None:
    """As docker's DNS knows a service only once its container runs."""
    server = serve({})

    async def started_late() -> Answer:
        asking = asyncio.create_task(resolve("nl.example", 4, 20, files, patient=True))
        while not server.queries:
            await asyncio.sleep(0.01)
        server.table["nl.example"] = [A]
        return await asking

    assert asyncio.run(started_late()).addresses == (A,)


def test_a_start_that_waits_in_vain_says_how_long(serve: Serve, files: Lookup) -> None:
    server = serve({})
    problem = refused(files, timeout=1, patient=True)
    assert 0.7 <= problem.waited <= 5
    assert problem.said == "127.0.0.53, 127.0.0.54 said NXDOMAIN"
    assert 2 <= len(server.queries) <= 10


def test_silence_ends_in_time_and_blocks_nobody(netns: Namespace, files: Lookup) -> None:
    """Nobody listens there."""
    ticks = 0

    async def beside() -> NotResolved:
        nonlocal ticks
        asking = asyncio.create_task(resolve("nl.example", 4, 1, files))
        while not asking.done():
            ticks += 1
            await asyncio.sleep(0.01)
        problem = asking.exception()
        assert isinstance(problem, NotResolved)
        return problem

    began = time.monotonic()
    problem = asyncio.run(beside())
    assert "no answer from 127.0.0.53" in problem.said
    assert 0.9 <= problem.waited <= time.monotonic() - began < 10
    assert ticks > 20


def test_a_nameserver_that_fails_gives_way_to_the_next(serve: Serve, files: Lookup) -> None:
    broken = serve({}, kind=Failing)
    serve({"nl.example": [A]}, at=SECOND)
    assert ask(files) == Answer((A,), 60.0, "127.0.0.54")
    assert broken.queries


def test_what_each_nameserver_said_is_told(serve: Serve, files: Lookup) -> None:
    serve({}, kind=Failing)
    serve({}, at=SECOND, kind=Failing)
    assert refused(files).said == "127.0.0.53 said SERVFAIL; 127.0.0.54 said SERVFAIL"


def test_nameservers_among_the_clients_are_not_asked(serve: Serve, files: Lookup) -> None:
    """A client must not say where clients' gateway is."""
    evil = serve({"nl.example": [FORGED]})
    serve({"nl.example": [A]}, at=SECOND)
    clients = ip_network("127.0.0.53/32")
    among = Lookup((clients,), files.hosts, files.resolv_conf)
    assert ask(among).addresses == (A,)
    files.resolv_conf.write_text(f"nameserver {FIRST}\n")
    said = refused(among).said
    assert "(127.0.0.53) lies in a client subnet" in said
    assert evil.queries == []


def test_an_answer_from_elsewhere_or_with_another_id_is_not_taken(
    netns: Namespace, files: Lookup
) -> None:
    """Before the true answer: from another port, from another address, and with a wrong id."""

    server = DnsServer(netns, [SECOND], {"nl.example": [FORGED]})
    port = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    port.bind((str(FIRST), 53))

    def answer_once() -> None:
        request, client = port.recvfrom(4096)
        forged = server._answer(request, "127.0.0.1", "udp")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind((str(FIRST), 5353))
            other.sendto(forged, client)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.66", 53))
            other.sendto(forged, client)
        wrong = struct.unpack("!H", forged[:2])[0] ^ 1
        port.sendto(struct.pack("!H", wrong) + forged[2:], client)
        server.table["nl.example"] = [A]
        port.sendto(server._answer(request, "127.0.0.1", "udp"), client)

    async def asked() -> Answer:
        answering = asyncio.get_running_loop().run_in_executor(None, answer_once)
        found = await resolve("nl.example", 4, 5, files)
        await answering
        return found

    assert asyncio.run(asked()).addresses == (A,)
    server.close()
    port.close()


def test_a_chain_of_names_lives_as_long_as_its_shortest_link(
    netns: Namespace, files: Lookup
) -> None:
    """A CNAME, as dnsmasq serves it."""
    served = subprocess.Popen(
        ["dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
         "--user=root", "--pid-file=", f"--listen-address={FIRST}", "--bind-interfaces",
         "--host-record=nl.example,172.28.0.3,9", "--cname=gateway.example,nl.example,7"],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        found = wait_until(lambda: _tried(files, "gateway.example"), 10, "dnsmasq to answer")
    finally:
        served.kill()
        served.wait()
    assert found == Answer((A,), 7.0, "127.0.0.53")


def _tried(files: Lookup, name: str) -> Answer | None:
    try:
        return ask(files, name, timeout=0.5)
    except NotResolved:
        return None


@pytest.mark.parametrize("content", [None, "", "search example\n", "nameserver nonsense\n", "\xff"])
def test_a_resolv_conf_without_use_is_named(
    netns: Namespace, files: Lookup, content: str | None
) -> None:
    files.resolv_conf.unlink()
    if content is not None:
        files.resolv_conf.write_text(content, encoding="latin-1")
    assert str(files.resolv_conf) in refused(files).said

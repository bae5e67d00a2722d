"""What a connected client reaches, by which way, and what it does not, with real ocserv and
openconnect behind `ocgate run`.

client1 --- inet --- router --- gw (ocgate run, vpns0)        see lab.topology

The router masquerades the docker network alone: a packet that left gw with a client's address
would be seen with it on gw's eth0 and by the services in inet.
"""

from __future__ import annotations

import hashlib
import re
import socket
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from lab.capture import Capture, now
from lab.client import TUN, Refused, connect
from lab.ocserv import VPN_NET
from lab.streams import new_marker
from lab.topology import PORT, RESOLVER, SERVICE, Host, Lab, Options
from lab.traffic import Verdict, ask_tcp, ask_udp, http_get, ping
from ocgate.netlab.dns import DnsServer, resolve
from ocgate.netlab.inject import routed
from ocgate.netlab.packet import ACK, SYN, build_udp, match, touches
from ocgate.netlab.services import Services
from ocgate.netlab.wait import wait_until
from support.serving import PASSWORD, LabFactory, Listeners, Served, mss_of, serve, with_services

pytestmark = pytest.mark.lab

GATEWAY = IPv4Address("10.10.10.1")
METADATA = IPv4Address("169.254.169.254")
ADMIN_PROHIBITED = (3, 13)  # RFC 1812 section 5.2.7.1

# A reject comes back within milliseconds; a client that waits this long has met a silent drop.

# 10 MB: thousands of full-size packets, with both directions' windows at work.
DOWNLOAD_BYTES = 10_000_000

transports = pytest.mark.parametrize("dtls", [True, False], ids=["dtls", "tls"])


def guarded_wan(lab: Lab) -> Capture:
    """A capture of gw's eth0 that has shown, before any lock stands, that it sees a leak."""
    capture = lab.capture(lab.gw, "eth0")
    routed(lab.gw.netns, build_udp("10.10.10.77", SERVICE, 4000, 7, b"a leak"))
    capture.prove_sees(match(src=VPN_NET, marker=b"a leak"), "a client's address in clear")
    return capture


def own_uplink(client: Host, lab: Lab) -> Capture:
    """A capture of the client's own eth0 that has seen its traffic to the services in clear."""
    capture = lab.capture(client, "eth0")
    for service in (SERVICE, RESOLVER):
        assert ask_udp(client.netns, service).seen_as == client.address
        capture.prove_sees(match(dst=service, protocol="udp"), f"{service} in clear")
    return capture


def reaches(host: Host, service: IPv4Address, seen_as: IPv4Address) -> None:
    """TCP, UDP and ping of `service` work, and the service sees `seen_as`."""
    udp, tcp = ask_udp(host.netns, service, data=b"x" * 1200), ask_tcp(host.netns, service)
    assert (udp.verdict, udp.seen_as, len(udp.data)) == (Verdict.REPLY, seen_as, 1200)
    assert (tcp.verdict, tcp.seen_as) == (Verdict.REPLY, seen_as)
    assert ping(host.netns, service, size=1200).verdict is Verdict.REPLY


def downloads_intact(host: Host, service: IPv4Address) -> None:
    marker = new_marker().decode()
    body = http_get(host.netns, service, f"/bytes/{DOWNLOAD_BYTES}?marker={marker}", timeout=10)
    chunk = marker.encode() * (16_384 // len(marker) + 1)
    expected = (chunk[:16_384] * (DOWNLOAD_BYTES // 16_384 + 1))[:DOWNLOAD_BYTES]
    assert len(body) == DOWNLOAD_BYTES
    assert hashlib.sha256(body).digest() == hashlib.sha256(expected).digest()


# --- full and split tunnel ----------------------------------------------------------------------


@transports
def test_full_tunnel_carries_everything(lab: LabFactory, dtls: bool) -> None:
    """With `route = default` all IPv4 goes through the tunnel and leaves masqueraded.

    client1 eth0: TLS or DTLS to the server alone.   gw eth0: no client address, ever.
    """
    built = with_services(lab())
    client = built.clients[0]
    wan = guarded_wan(built)
    served = serve(built)
    own = own_uplink(client, built)
    tunnel = served.connect(dtls=dtls)
    since = now()
    for service in (SERVICE, RESOLVER):
        reaches(client, service, built.router.address)
    downloads_intact(client, SERVICE)
    own.assert_none(touches(SERVICE), "the service past the tunnel", since=since)
    own.assert_none(touches(RESOLVER), "the second host past the tunnel", since=since)
    wan.assert_none(touches(VPN_NET), "a client's address", since=since)
    carried = own.count(match(protocol="udp", sport=PORT), since=since)
    assert carried > DOWNLOAD_BYTES // 1500 if dtls else carried == 0
    assert tunnel.disconnect() == 0
    served.wait_no_sessions()


SPLITS = {
    "route": ("route = 198.51.100.0/255.255.255.224",),
    "no-route": ("route = default", f"no-route = {RESOLVER}/255.255.255.255"),
    "routes": (f"route = {SERVICE}/32", "route = 10.99.0.0/255.255.0.0"),
}


@pytest.mark.parametrize("lines", SPLITS.values(), ids=SPLITS.keys())
def test_split_tunnel_carries_its_routes_only(lab: LabFactory, lines: tuple[str, ...]) -> None:
    """Only `route = …` without `no-route = …` goes through the tunnel, the rest by the client's own
    uplink, over DTLS as over TLS.

    client1 tun0: SERVICE.   client1 eth0: RESOLVER, in clear, with the client's own address.
    """
    built = with_services(lab())
    client = built.clients[0]
    wan = guarded_wan(built)
    served = serve(built, settings={"dns": None}, lines=lines)
    own = own_uplink(client, built)
    for dtls in (True, False):
        tunnel = served.connect(dtls=dtls)
        inside = built.capture(served.gateway.host, "vpns0")
        since = now()
        reaches(client, SERVICE, built.router.address)
        reaches(client, RESOLVER, client.address)
        downloads_intact(client, SERVICE)
        own.assert_none(touches(SERVICE), "what was routed into the tunnel", since=since)
        assert own.count(match(dst=RESOLVER), since=since) >= 3
        inside.prove_sees(match(src=tunnel.address, dst=SERVICE), "the route's traffic")
        inside.assert_none(touches(RESOLVER), "what was to stay outside")
        wan.assert_none(touches(VPN_NET), "a client's address", since=since)
        assert tunnel.disconnect() == 0
        served.wait_no_sessions()


# --- several users, reconnects, wrong passwords -------------------------------------------------


def test_two_users_work_at_once_and_cannot_reach_each_other(lab: LabFactory) -> None:
    """Both clients reach the internet; packets between them are rejected at once and counted.

    client1 (alice, vpns0) -- gw --x-- gw -- (bob, vpns1) client2
    """
    built = with_services(lab(Options(clients=2)))
    served = serve(built, ["alice", "bob"])
    first, second = built.clients
    alice, bob = served.connect(first), served.connect(second, "bob", dtls=False)
    assert alice.address and bob.address and alice.address != bob.address
    for host in (first, second):
        reaches(host, SERVICE, built.router.address)
    built.own(Services(second.netns, [bob.address]))
    arriving = built.capture(second, TUN)
    assert ask_udp(second.netns, SERVICE)
    arriving.prove_sees(match(dst=bob.address, src=SERVICE), "what comes by the tunnel")
    before = served.blocked("between_clients")
    udp, icmp = ask_udp(first.netns, bob.address), ping(first.netns, bob.address)
    tcp = ask_tcp(first.netns, bob.address)
    for answer in (udp, icmp):
        assert (answer.verdict, answer.kind) == (Verdict.REJECTED, ADMIN_PROHIBITED)
        assert answer.by == GATEWAY
    assert tcp.verdict is Verdict.REFUSED
    assert udp.at_once and icmp.at_once and tcp.at_once
    assert served.blocked("between_clients") == before + 3
    arriving.assert_none(match(src=alice.address), "alice at bob's")
    users = {s["user"]: s["address4"] for s in served.sessions()}
    assert users == {"alice": str(alice.address), "bob": str(bob.address)}


@pytest.mark.releases
@transports
def test_reconnect_keeps_the_address_and_works(lab: LabFactory, dtls: bool) -> None:
    """After a dropped connection (SIGUSR2) the same cookie gets the same address, and one session
    is left.

    client1 === gw, broken, client1 === gw
    """
    built = with_services(lab())
    served = serve(built)
    client = served.connect(dtls=dtls)
    before, [old] = client.address, served.sessions()
    reaches(client.host, SERVICE, built.router.address)
    for _ in range(2):
        client.reconnect()
        reaches(client.host, SERVICE, built.router.address)
        assert client.address == before

    def settled() -> bool:
        sessions = served.sessions()
        return len(sessions) == 1 and sessions[0]["worker"] != old["worker"]

    wait_until(settled, 5.0, "one session, the new one")
    [session] = served.sessions()
    assert (session["user"], session["address4"]) == ("alice", str(before))
    reaches(client.host, SERVICE, built.router.address)


def assert_journal(served: Served, count: int) -> None:
    """So many sessions are remembered, once the flows of those that ended are forgotten."""
    directory = served.gateway.run_dir / "sessions"
    wait_until(lambda: len(list(directory.iterdir())) == count, 10.0, f"a journal of {count}")


@pytest.mark.releases
def test_wrong_password_leaves_nothing(lab: LabFactory) -> None:
    """A wrong password and an unknown user are turned away without session or kernel state."""
    built = with_services(lab())
    served = serve(built)
    served.connect(dtls=False).disconnect()  # the positive control: state comes and goes
    served.wait_no_sessions()
    serving = served.gateway.state()
    for user, password in (("alice", "wrong"), ("nobody-here", PASSWORD), ("alice", "")):
        with pytest.raises(Refused) as refused:
            connect(built, built.clients[0], served.login(user, password), dtls=False)
        assert refused.value.returncode == 1
        assert served.sessions() == []
    assert serving.differences(served.gateway.state()) == []
    assert served.gateway.output.count("session admitted") == 1
    assert_journal(served, 0)


# --- to the gateway itself ----------------------------------------------------------------------


def test_gateway_answers_ping_and_nothing_else(lab: LabFactory) -> None:
    """The server's tunnel address answers ping; all other ports of it and of gw's docker address
    are rejected at once, and counted, though something listens there.

    client1 -- tun -- gw: 10.10.10.1, 172.28.0.10, ports 7, 22, 53; ocserv on 443
    """
    built = with_services(lab())
    served = serve(built)
    client = served.connect().host
    for address in (GATEWAY, built.gw.address):
        built.own(Listeners(built.gw.netns, address, (7, 22, 53)))
        for port in (7, 22, 53):
            assert ask_tcp(built.gw.netns, address, port), "the positive control"
            assert ask_udp(built.gw.netns, address, port), "the positive control"
    assert ping(client.netns, GATEWAY).verdict is Verdict.REPLY
    before, asked = served.blocked("input_closed"), 0
    for address in (GATEWAY, built.gw.address):
        for port in (7, 22, 53, PORT):
            tcp, udp = ask_tcp(client.netns, address, port), ask_udp(client.netns, address, port)
            assert tcp.verdict is Verdict.REFUSED, (address, port, tcp)
            assert (udp.verdict, udp.kind) == (Verdict.REJECTED, ADMIN_PROHIBITED), (address, port)
            assert tcp.at_once and udp.at_once
            asked += 2
    answer = ping(client.netns, built.gw.address)
    assert (answer.verdict, answer.kind) == (Verdict.REJECTED, ADMIN_PROHIBITED)
    assert served.blocked("input_closed") == before + asked + 1


def test_tunnel_address_is_not_there_for_the_outside(lab: LabFactory) -> None:
    """The server's tunnel address answers by the tunnel only: a neighbour on the docker network
    that routes the client subnet to gw gets nothing.

    neighbour1 -- docker -- gw (10.10.10.1)
    """
    built = with_services(lab(Options(neighbours=1)))
    served = serve(built)
    served.connect(dtls=False)
    built.own(Listeners(built.gw.netns, GATEWAY, (7,)))
    neighbour = built.neighbours[0]
    neighbour.netns.ip(f"route add {VPN_NET} via {built.gw.address}")
    at = built.capture(built.gw, "eth0")
    assert ping(neighbour.netns, GATEWAY, timeout=0.3).verdict is Verdict.SILENT
    assert ask_udp(neighbour.netns, GATEWAY, timeout=0.3).verdict is Verdict.SILENT
    at.prove_sees(match(src=neighbour.address, dst=GATEWAY, protocol="udp"), "the question")
    at.assert_none(match(src=GATEWAY), "an answer")
    assert served.blocked("client_address") == 2


@transports
def test_resolver_in_the_container_answers_by_the_tunnel(lab: LabFactory, dtls: bool) -> None:
    """With `dns = 10.10.10.1` a resolver on the gateway's address is reached through the tunnel, by
    UDP and TCP; its other ports are not.

    client1 -- tun -- gw: 10.10.10.1 port 53
    """
    built = with_services(lab())
    served = serve(built, settings={"dns": str(GATEWAY)})
    client = served.connect(dtls=dtls)
    table = {"example.test": [SERVICE]}
    dns = built.own(DnsServer(built.gw.netns, [GATEWAY], table))
    assert client.dns == [str(GATEWAY)]
    tunnel = built.capture(built.gw, "vpns0")
    assert resolve(client.netns, GATEWAY, "example.test").addresses == (SERVICE,)
    tunnel.prove_sees(match(src=client.address, dst=GATEWAY, dport=53), "the query")
    with client.netns.entered(), socket.create_connection((str(GATEWAY), 53), 2.0):
        pass
    assert [query.client for query in dns.queries] == [client.address]
    built.own(Listeners(built.gw.netns, GATEWAY, (54, 8053)))
    assert ask_udp(built.gw.netns, GATEWAY, 54) and ask_tcp(built.gw.netns, GATEWAY, 8053)
    before = served.blocked("input_closed")
    assert ask_udp(client.netns, GATEWAY, 54).kind == ADMIN_PROHIBITED
    assert ask_tcp(client.netns, GATEWAY, 8053).verdict is Verdict.REFUSED
    assert served.blocked("input_closed") >= before + 2


def test_cloud_metadata_is_rejected(lab: LabFactory) -> None:
    """A client that asks 169.254.169.254 is rejected at once: the cloud's credentials are not for
    it. gw itself reaches it, by a host route to its router.

    client1 -- tun -- gw --x-- router (169.254.169.254)
    """
    built = with_services(lab())
    built.router.netns.ip(f"address add {METADATA}/32 dev lo")
    built.gw.netns.ip(f"route add {METADATA} via {built.gw.next_hop}")
    built.own(Services(built.router.netns, [METADATA]))
    served = serve(built)
    client = served.connect()
    wan = built.capture(built.gw, "eth0")
    assert ask_tcp(built.gw.netns, METADATA, 7)  # gw itself may: the positive control
    wan.prove_sees(match(dst=METADATA), "gw's own question")
    since = now()
    answer, tcp = ask_udp(client.netns, METADATA), ask_tcp(client.netns, METADATA, 80)
    assert (answer.verdict, answer.kind) == (Verdict.REJECTED, ADMIN_PROHIBITED)
    assert tcp.verdict is Verdict.REFUSED
    assert answer.at_once and tcp.at_once
    wan.assert_none(touches(METADATA), "the metadata service", since=since)
    assert served.blocked("link_local_destination") == 2


# --- MSS of the listener's connections ----------------------------------------------------------


def announced(lab: Lab, *, six: bool) -> tuple[int, int]:
    """(MSS in gw's SYN-ACK as the client sees it, MSS that gw's socket sends with).

    The client's SYN is lowered in gw's input hook, behind any capture; what came of it shows in
    ocserv's own socket (`ss -i`, which has the 12 bytes of the timestamp option taken off).
    """
    client, server = lab.clients[0], lab.server6 if six else lab.server
    seen = lab.capture(client, "eth0")
    family = socket.AF_INET6 if six else socket.AF_INET
    with client.netns.entered():
        connection = socket.socket(family, socket.SOCK_STREAM)
    with connection:
        connection.settimeout(5.0)
        connection.connect((str(server), PORT))
        port = connection.getsockname()[1]
        reply = seen.wait_for(match(dport=port, flags=SYN | ACK), "the SYN-ACK")
        offer = seen.wait_for(match(sport=port, flags=SYN), "the SYN")
        assert mss_of(offer) == (1440 if six else 1460)
        shown = lab.gw.netns.run(["ss", "-Htino", "sport", "=", f":{PORT}"]).stdout
        [sending] = [
            re.search(r"\bmss:(\d+)", after)
            for before, after in zip(shown.splitlines(), shown.splitlines()[1:], strict=False)
            if re.search(rf":{port}\b", before)
        ]
    mss = mss_of(reply)
    assert mss is not None and sending is not None
    return mss, int(sending[1]) + 12


@pytest.mark.parametrize(
    ("mss", "mtu", "expected4", "expected6"),
    [("1200", 1500, 1200, 1200), ("9000", 1500, 1460, 1440), ("", 1400, 1360, 1340)],
    ids=["lowered", "never-raised", "unset"],
)
def test_mss_of_the_listener_is_only_ever_lowered(
    lab: LabFactory, mss: str, mtu: int, expected4: int, expected6: int
) -> None:
    """MSS caps the listener's connections in both directions and both families, a large one raises
    nothing, and unset it stays within gw's MTU.

    client1 -SYN-> gw:443, gw:443 -SYN,ACK-> client1
    """
    built = lab(Options(mtu=mtu))
    served = serve(built, environ={"MSS": mss} if mss else {})
    assert announced(built, six=False) == (expected4, expected4)
    assert announced(built, six=True) == (expected6, expected6)
    assert served.connect(dtls=False).address


# --- user names are data ------------------------------------------------------------------------


def hostile_names(trap: Path) -> list[str]:
    return [
        "two words",
        f"$(touch {trap})",
        f"`touch {trap}`",
        f"x;touch {trap}",
        "*",
        "back\\slash\\n",
        "-rf",
        "--help",
        "../../etc",
        "quo\"te's",
        "жанна ü 日本",
        "%s%n{user}",
        "u" * 63,
    ]


@pytest.mark.releases
@pytest.mark.long
def test_user_names_are_data(lab: LabFactory) -> None:
    """Whatever a user is called, it connects, stands in the status as it is called, and its name
    makes nothing happen.
    """
    built = with_services(lab())
    trap = built.work / "trap"
    names = hostile_names(trap)
    served = serve(built, names)
    client = built.clients[0]
    for name in names:
        session = served.connect(client, name, dtls=False)
        assert [s["user"] for s in served.sessions()] == [name]
        assert ask_udp(client.netns, SERVICE).seen_as == built.router.address
        assert_journal(served, 1)
        session.disconnect()
        served.wait_no_sessions()
    assert not trap.exists()
    admitted = [line for line in served.gateway.lines() if "session admitted" in line]
    assert len(admitted) == len(names)
    assert_journal(served, 0)


def test_user_name_beyond_ocservs_limit_is_turned_away(lab: LabFactory) -> None:
    """ocserv 1.1.6 cuts names to 63 bytes: a longer one finds no such user, and leaves nothing."""
    built = lab()
    name = "u" * 100
    served = serve(built, [name, "alice"])
    with pytest.raises(Refused) as refused:
        served.connect(user=name, dtls=False)
    assert refused.value.returncode == 1
    assert served.sessions() == []
    assert served.connect(dtls=False).address

"""The ground of gateway mode's tests: real ocserv, openconnect, and an OpenVPN upstream.

    client1..N ==== inet ==== router -- uplink, docker -- gw (ocgate)      see lab.topology
                     |          |                          |               and lab.upstream
                  provider ===========(OpenVPN)======== upstream

What gw hands to the ISP is captured at the router's `docker` (coming in) and `uplink` (going out).
Nothing may pass there but what the drawing shows: the clients' tunnels to port 443, the upstream's
to its provider, neighbour discovery, and what a test itself allows. All else is a leak, whoever
made it: a client's packet, translated or not, an answer to a client's server, a stray reset.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from lab import client as vpn
from lab import gateway as gateways
from lab.addresses import CLIENT_NET, CLIENT_NET6, PROVIDER
from lab.capture import Capture, now
from lab.client import Client
from lab.gateway import Gateway
from lab.ocserv import write_config_dir
from lab.openvpn import OPENVPN_PORT
from lab.streams import TcpDownload, UdpDownload, UdpStream, new_marker
from lab.topology import PORT, SERVICE, SERVICE6, Lab, Options
from lab.traffic import Answer, Verdict, ask_tcp, ask_udp, ping
from lab.upstream import Upstream, run_upstream
from ocgate.names import NFT_TABLE, NFT_TABLE_GATEWAY, ROUTE_PROTOCOL
from ocgate.netlab.inject import into_tun
from ocgate.netlab.packet import ETH_ARP, Packet, Predicate, any_of, build_udp, match
from ocgate.netlab.services import ECHO_PORT, Services
from ocgate.netlab.wait import wait_until
from support.leak_captures import IPV6_SERVED, USERS, Ground, LabFactory, frozen
from support.lifecycle import ocgate

# Ten looks a second: up is said after 0.2 s, and down after 0.3 s where something answers for the
# dead exit, after three times a probe's own second where nothing does.
PROBES = {
    "EXIT_PROBE": f"{SERVICE}:443, [{SERVICE6}]:443",
    "EXIT_PROBE_INTERVAL": "0.1",
}

# The rest is for busy cores. Where the time itself is the point it is measured.
NOTICE_SECONDS = 10.0

# Link-local chatter of the kernel: router and neighbour discovery, listener reports.
_CHATTER6 = {133, 134, 135, 136, 137, 143}


def _expected(packet: Packet) -> bool:
    """Is this what the drawing shows between gw's network and the internet?"""
    if packet.ethertype == ETH_ARP:
        return True
    if packet.protocol == "icmp6" and packet.kind is not None and packet.kind[0] in _CHATTER6:
        return True
    tunnel = match(dst=PROVIDER, protocol="udp", dport=OPENVPN_PORT)
    served = any_of(match(sport=PORT, dst=CLIENT_NET), match(sport=PORT, dst=CLIENT_NET6))
    return tunnel(packet) or served(packet)


# The router itself has nothing to say to the internet: what it answers to servers whose flow it has
# forgotten (that of a positive control, say) would look as if gw had sent it.
_MUTE = """
table inet mute {
    chain output {
        type filter hook output priority filter;
        oifname "uplink" meta l4proto { tcp, udp, icmp } drop
        oifname "uplink" icmpv6 type < 128 drop
    }
}
"""


@dataclass
class Chain(Ground):
    """A ground whose clients leave through `upstream`.

    exit: what leaves the provider's network in clear, at the internet's side of it.
    allowed: what else may pass by the ISP, for a test that says why.
    """

    upstream: Upstream
    exit: Capture
    allowed: list[Predicate] = field(default_factory=list)

    def by_isp(self, packet: Packet) -> bool:
        """Does this packet leave by the ISP though the drawing has no such traffic?"""
        return not _expected(packet) and not any_of(*self.allowed)(packet)

    def assert_nothing_by_isp(self, since: float) -> None:
        """Nothing unexpected went to the ISP, and no client's address out of gw at all."""
        leaving = lambda packet: packet.outgoing and self.by_isp(packet)  # noqa: E731
        handed = lambda packet: not packet.outgoing and self.by_isp(packet)  # noqa: E731
        self.uplink.assert_none(leaving, "what the ISP must not see", since=since)
        self.docker.assert_none(handed, "what the ISP must not see", since=since)
        self.assert_no_client_address(since)

    def prove_leaks_are_seen(self, client: Client) -> None:
        """Positive control: without tables, rules and routes of ours the client's packets go by
        the ISP, and both captures call that a leak."""
        with frozen(self.gateway):
            take_everything_away(self.gateway)
            started, marker, source = now(), new_marker(), client.address
            assert source is not None
            into_tun(client.netns, vpn.TUN, build_udp(source, SERVICE, 4000, 9, marker))
            for capture in self.captures:
                leak = match(marker=marker)
                seen = capture.prove_sees(leak, "a client's packet", since=started)
                assert capture is self.wan or self.by_isp(seen)
        self.wait_guarded()

    def exits(self) -> dict[str, Any]:
        """The exits of `status`, by family: {"4": {...}, "6": {...}}."""
        return {str(exit["family"]): exit for exit in self.gateway.status()["exits"]}

    def state(self, family: int = 4) -> str:
        """Of that family's exit: up, down, unknown, direct or block; empty while nobody answers."""
        status = self.gateway.status_or_none()
        states = {exit["family"]: exit["state"] for exit in status["exits"]} if status else {}
        return str(states.get(family, ""))

    def wait_up(self, family: int = 4, timeout: float = NOTICE_SECONDS) -> None:
        wait_until(lambda: self.state(family) == "up", timeout, f"IPv{family}'s exit to be up")

    def wait_down(self, family: int = 4, timeout: float = NOTICE_SECONDS) -> None:
        wait_until(lambda: self.state(family) == "down", timeout, f"IPv{family}'s exit to be down")

    def wait_control(self) -> None:
        """Wait until the control plane answers, after it was killed."""
        wait_until(lambda: self.gateway.status_or_none(), NOTICE_SECONDS, "control to answer")

    def reload(self, **settings: str) -> None:
        """Write these settings (VPN_GATEWAY="block") into ocgate.toml and reload."""
        write_toml(self.gateway, settings)
        done = ocgate(self.gateway, "reload")
        assert done.returncode == 0, done.stderr


def chain(
    lab: LabFactory,
    options: Options | None = None,
    *,
    environ: Mapping[str, str | None] | None = None,
    toml: Mapping[str, str] | None = None,
    tunnel: bool = True,
    before: Callable[[Lab, Upstream], None] | None = None,
    resolv_conf: str = "",
    settings: Mapping[str, str | None] | None = None,
) -> Chain:
    """Build a lab with upstream and gateway, and wait until the exit is up (unless the upstream has
    no tunnel, or VPN_GATEWAY is another one).

    environ: on top of VPN_GATEWAY=172.28.0.3 and PROBES; None takes one out.
    toml:    settings for ocgate.toml, which a reload can change.
    before:  done to lab and upstream before the gateway starts.
    """
    built = lab(options or Options(upstream=True))
    built.own(Services(built.inet.netns, (SERVICE, SERVICE6)))
    built.router.netns.nft(_MUTE)
    upstream = run_upstream(built, tunnel=tunnel)
    if before is not None:
        before(built, upstream)
    wan, docker = built.capture(built.gw, "eth0"), built.capture(built.router, "docker")
    uplink = built.capture(built.router, "uplink")
    exit = built.capture(built.inet, "provider")
    served = start(built, environ, toml, resolv_conf, settings)
    g = Chain(built, served, wan, docker, uplink, upstream, exit)
    served.wait_ready()
    built.own(_Crash(served))
    if tunnel and "VPN_GATEWAY" not in (toml or {}) and "VPN_GATEWAY" not in (environ or {}):
        g.wait_up()
    return g


def start(
    lab: Lab,
    environ: Mapping[str, str | None] | None = None,
    toml: Mapping[str, str] | None = None,
    resolv_conf: str = "",
    settings: Mapping[str, str | None] | None = None,
) -> Gateway:
    """Start `ocgate run` in gateway mode; see `chain` for the arguments."""
    directory = lab.path("etc")
    write_config_dir(lab, directory, USERS, settings=settings)
    if toml:
        (directory / "ocgate.toml").write_text(_toml(toml))
    given: dict[str, str | None] = {**IPV6_SERVED, **PROBES}
    if "VPN_GATEWAY" not in (toml or {}):
        given["VPN_GATEWAY"] = str(lab.upstream.address)
    given |= environ or {}
    kept = {key: value for key, value in given.items() if value is not None}
    return gateways.start(lab, kept, directory, resolv_conf=resolv_conf)


def write_toml(gateway: Gateway, settings: Mapping[str, str]) -> None:
    (gateway.config_dir / "ocgate.toml").write_text(_toml(settings))


def _toml(settings: Mapping[str, str]) -> str:
    return "".join(f'{key.lower()} = "{value}"\n' for key, value in settings.items())


@dataclass
class _Crash:
    """Ends the gateway at once: a clean stop takes 1.6 s, and other tests hold that one."""

    gateway: Gateway

    def close(self) -> None:
        if self.gateway.program.running():
            self.gateway.crash()


def take_everything_away(gateway: Gateway) -> None:
    """Remove all three locks: tables, policy rules, routes."""
    for table in (NFT_TABLE, NFT_TABLE_GATEWAY):
        gateway.netns.run(["nft", "delete", "table", "inet", table], check=False)
    for family in ("-4", "-6"):
        for kind in (["rule", "flush"], ["route", "flush", "table", "all"]):
            argv = ["ip", family, *kind, "protocol", str(ROUTE_PROTOCOL)]
            gateway.netns.run(argv, check=False)


# --- traffic -------------------------------------------------------------------------------------


def answers(client: Client, to: Any = SERVICE, *, timeout: float = 2.0) -> list[Answer]:
    """One question each over UDP, TCP and ICMP."""
    return [
        ask_udp(client.netns, to, timeout=timeout),
        ask_tcp(client.netns, to, timeout=timeout),
        ping(client.netns, to, timeout=timeout),
    ]


def seen_as(client: Client, to: Any = SERVICE) -> set[Any]:
    """As whom the service sees the client over UDP and TCP; None stands for no answer."""
    return {ask_udp(client.netns, to).seen_as, ask_tcp(client.netns, to).seen_as}


def leaves_by_the_provider(client: Client) -> bool:
    """Does a service see the client as the provider, for IPv4?"""
    return seen_as(client) == {PROVIDER}


def rejected_at_once(client: Client, to: Any = SERVICE) -> bool:
    """Is each kind of question answered by an error, at once and without a reply?"""
    heard = answers(client, to)
    at_once = [not a and a.verdict.value in _ERRORS and a.at_once for a in heard]
    if not all(at_once):
        print("not rejected at once:", *heard, sep="\n  ")
    return all(at_once)


def rejected(client: Client) -> bool:
    """Is a new flow rejected by an ICMP error (and not lost)?"""
    return ask_udp(client.netns, SERVICE, timeout=0.1).verdict is Verdict.REJECTED


_ERRORS = ("rejected", "refused")


@contextmanager
def downloads(
    client: Client, *, rate: int = 1000, count: int = 8000, size: int = 40_000_000
) -> Iterator[tuple[UdpDownload, TcpDownload]]:
    """A UDP and a TCP download of the client, both flowing."""
    with (
        UdpDownload(client.netns, SERVICE, rate=rate, count=count) as udp,
        TcpDownload(client.netns, SERVICE, size=size, rate=2_000_000) as tcp,
    ):
        udp.wait_for(100)
        wait_until(lambda: tcp.bytes_received > 100_000, 5.0, "the TCP download")
        yield udp, tcp


def goes_on(download: UdpStream | UdpDownload | TcpDownload, timeout: float = 10.0) -> float:
    """Wait until another twenty packets or reads have come; returns seconds waited."""
    started, had = now(), len(download.tally.received)
    wait_until(lambda: len(download.tally.received) >= had + 20, timeout, "the download to go on")
    return now() - started


@contextmanager
def conversation(client: Client, to: Any = SERVICE) -> Iterator[socket.socket]:
    """An established TCP connection of the client's to the echo service."""
    with client.netns.entered():
        sock = socket.create_connection((str(to), ECHO_PORT), 5.0)
    with sock:
        sock.sendall(b"hello")
        heard = b""
        while not heard.endswith(b"hello"):  # nothing is in flight, so what is said next is sent
            heard += sock.recv(100)
        sock.settimeout(0.1)
        yield sock


def is_reset(sock: socket.socket) -> bool:
    """Say something: does a reset come back?"""
    try:
        sock.sendall(b"still there?")
        while sock.recv(65536):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return False


def is_settled(sock: socket.socket) -> bool:
    """Say something: does anything come back, an answer or a reset?"""
    try:
        sock.sendall(b"?")
        return bool(sock.recv(65536))
    except TimeoutError:
        return False
    except ConnectionError:
        return True

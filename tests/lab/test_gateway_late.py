"""What comes late for flows of an exit, at a stop and at a reload out of gateway mode: answered by
that exit or by nobody, never by this host's own way.

client1 === inet === router -- gw (ocgate) -- upstream === OpenVPN === provider --- services
                                  ^               |
                                  +---------------+ SYN/ACKs of probes, held back, see `Late`
"""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import threading
import time
from types import TracebackType

import pytest

from lab import gateway
from lab.addresses import PROVIDER, UPSTREAM, UPSTREAM6
from lab.capture import now
from lab.streams import TcpDownload, UdpDownload
from lab.topology import SERVICE, SERVICE6, Options
from ocgate.netlab.namespace import Namespace
from ocgate.netlab.packet import ACK, RST, SYN, Packet, build_tcp, match, parse
from ocgate.netlab.wait import wait_until
from support.gateway_mode import Chain, LabFactory, chain

pytestmark = pytest.mark.lab

HELD_SECONDS = 0.5  # a probe waits a second for its answer
RESENT_SECONDS, RESENT_EVERY = 3.0, 0.03
PORTS = (10240, 32767)  # of translated flows and of probes
BOTH = {"VPN_GATEWAY": str(UPSTREAM), "VPN_GATEWAY6": str(UPSTREAM6)}

_HELD_BACK = """
table inet held_back {
    chain forward {
        type filter hook forward priority -20;
        iifname "tun0" tcp sport 443 tcp flags & (syn | ack) == syn | ack drop
    }
}
"""


class Late:
    """An upstream that holds the answers to probes back for HELD_SECONDS, and then says them again
    and again, as TCP does, until gw has sent something back to it, RESENT_SECONDS at the most. A
    context manager; `said` are the answers that were given, as frames."""

    def __init__(self, upstream: Namespace) -> None:
        self.said: list[bytes] = []
        self._upstream = upstream
        self._waiting: dict[tuple[int, int], tuple[float, bytes]] = {}  # by version and gw's port
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        with upstream.entered():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            self._socket.bind(("eth0", 3))

    def __enter__(self) -> Late:
        self._upstream.nft(_HELD_BACK)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.set()
        self._thread.join()
        self._socket.close()
        self._upstream.run(["nft", "delete", "table", "inet", "held_back"], check=False)

    def say(self, frame: bytes) -> None:
        """An answer on the wire to gw."""
        self._socket.send(frame)
        self.said.append(frame)

    @property
    def open(self) -> int:
        """How many answers are held back, or were not heard."""
        return len(self._waiting)

    def _work(self) -> None:
        spoke = time.monotonic()
        while not self._closing.is_set():
            if select.select([self._socket], [], [], 0.02)[0]:
                with contextlib.suppress(OSError):
                    frame, origin = self._socket.recvfrom(2048)
                    if origin[2] != socket.PACKET_OUTGOING:
                        self._hear(frame)
            if time.monotonic() > spoke + RESENT_EVERY:
                spoke = time.monotonic()
                self._say_due(spoke)

    def _say_due(self, at: float) -> None:
        for key, (due, answer) in tuple(self._waiting.items()):
            if at > due + RESENT_SECONDS:
                del self._waiting[key]
            elif at > due:
                self.say(answer)

    def _hear(self, frame: bytes) -> None:
        ethertype = int.from_bytes(frame[12:14], "big")
        seen = parse(Packet(0.0, "", outgoing=False, ethertype=ethertype, raw=frame[14:]))
        if seen.protocol != "tcp" or seen.dport != 443:
            return
        assert seen.src and seen.sport
        key = (seen.src.version, seen.sport)
        if seen.flags != SYN:
            self._waiting.pop(key, None)
        elif key not in self._waiting:
            self._waiting[key] = (time.monotonic() + HELD_SECONDS, _answer(frame, seen))


def _answer(frame: bytes, syn: Packet) -> bytes:
    """The SYN/ACK to a SYN, as a frame to where it came from."""
    assert syn.src and syn.dst and syn.sport
    at = 20 if syn.src.version == 4 else 40
    sequence = int.from_bytes(syn.raw[at + 4 : at + 8], "big")
    made = build_tcp(syn.dst, syn.src, 443, syn.sport, flags=SYN | ACK, seq=1, ack=sequence + 1)
    return frame[6:12] + frame[:6] + frame[12:14] + made


def said_by_host(packet: Packet) -> bool:
    """Is this gw's own word to one of the services: a reset, or an ICMP error?"""
    error = packet.protocol == "icmp" and packet.kind is not None and packet.kind[0] == 3
    error6 = packet.protocol == "icmp6" and packet.kind is not None and packet.kind[0] == 1
    # From other ports it is a probe of this host's own egress, which goes by the ISP as it should.
    translated = packet.sport is not None and PORTS[0] <= packet.sport <= PORTS[1]
    reset = packet.protocol == "tcp" and bool(packet.flags & RST) and translated
    return (reset or error or error6) and packet.dst in (SERVICE, SERVICE6)


def assert_not_said(g: Chain, since: float) -> None:
    """Nothing of the kind went to the ISP."""
    for capture in (g.docker, g.uplink):
        capture.assert_none(
            lambda p: said_by_host(p) and p.src != PROVIDER and g.by_isp(p),
            "an answer of this host's own to a flow of the exit",
            since=since,
        )


def prove_answers_are_seen(g: Chain, late: Late, frames: list[bytes]) -> None:
    """Positive control, when nothing of ours is left: the same late packet is answered by the
    ISP, and both captures call it what it is."""
    started = now()
    late.say(frames[0])
    for capture in (g.docker, g.uplink):
        seen = capture.wait_for(said_by_host, "an answer by the ISP", since=started)
        assert g.by_isp(seen)


def test_a_stop_answers_late_packets_by_their_exit_or_not_at_all(lab: LabFactory) -> None:
    """Probes of both families are under way and a client downloads while everything is stopped:
    what the exit still sends is answered by it, and nothing by the ISP."""
    g = chain(lab, Options(upstream=True), toml=BOTH)
    g.wait_up()
    g.wait_up(6)
    client = g.connect(0)
    g.prove_leaks_are_seen(client)
    since = now()
    with TcpDownload(client.netns, SERVICE, size=40_000_000, rate=2_000_000) as download:
        wait_until(lambda: download.bytes_received > 100_000, 5.0, "the download")
        with Late(g.upstream.netns) as late:
            for version in (4, 6):
                wait_until(
                    lambda v=version: any(_version(f) == v for f in late.said),  # type: ignore[misc]
                    5.0,
                    f"late answers of IPv{version}",
                )
            print(f"measured stop: {g.gateway.stop():.2f} s")
            wait_until(lambda: not late.open, 5.0, "the last answers")
            assert_not_said(g, since)
            g.assert_nothing_by_isp(since)
            assert g.exit.count(said_by_host, since=since), "nobody told the exit"
            assert g.gateway.left_behind() == []
            for version in (4, 6):
                prove_answers_are_seen(g, late, [f for f in late.said if _version(f) == version])


def _version(frame: bytes) -> int:
    return frame[14] >> 4


def test_a_reload_to_the_standalone_server_leaves_late_packets_unanswered(lab: LabFactory) -> None:
    """VPN_GATEWAY is taken out by a reload while probes are under way and a client only receives:
    this host has no word for what comes late, for as long as this run lasts."""
    g = chain(lab, Options(upstream=True), toml=BOTH)
    g.wait_up()
    client = g.connect(0)
    g.prove_leaks_are_seen(client)
    since = now()
    with (
        UdpDownload(client.netns, SERVICE, rate=500, count=100_000) as download,
        Late(g.upstream.netns) as late,
    ):
        download.wait_for(100)
        wait_until(lambda: late.said, 5.0, "a late answer")
        g.reload(IPV6_NAT="auto")
        reloaded = now()
        flow = match(marker=download.marker)
        wait_until(lambda: g.wan.count(flow, since=reloaded) > 500, 10.0, "late packets")
        wait_until(lambda: not late.open, 5.0, "the last answers to probes")
        g.gateway.kill()
        g.wait_control()
        again = now()
        wait_until(lambda: g.wan.count(flow, since=again) > 500, 10.0, "late packets")
        assert_not_said(g, since)
        g.gateway.crash()
        for table in ("ocserv", "ocserv_gw"):
            g.gateway.netns.run(["nft", "delete", "table", "inet", table], check=False)
        for family in ("-4", "-6"):
            g.gateway.netns.run(["ip", family, "rule", "flush", "protocol", "143"], check=False)
        prove_answers_are_seen(g, late, late.said)


def test_a_stop_that_is_killed_has_its_sysctls_put_back_by_the_next_start(lab: LabFactory) -> None:
    """While it waits for late packets the kernel reflects marks; then everything is killed."""
    g = chain(lab, Options(upstream=True), toml=BOTH)
    g.wait_up()
    keys = ("net.ipv4.fwmark_reflect", "net.ipv6.fwmark_reflect")

    def reflects() -> list[str]:
        return [g.gateway.netns.sysctl(key) for key in keys]

    assert reflects() == ["0", "0"]
    g.gateway.program.send(signal.SIGTERM)
    wait_until(lambda: reflects() == ["1", "1"], 10.0, "the stop to wait for late packets")
    g.gateway.crash()
    assert reflects() == ["1", "1"]
    run_dir = g.gateway.run_dir
    again = gateway.start(g.lab, {"OCGATE_RUN_DIR": str(run_dir)}, g.gateway.config_dir)
    again.run_dir = run_dir
    again.wait_ready()
    assert reflects() == ["0", "0"]
    assert "sysctl net.ipv4.fwmark_reflect" in again.output
    again.stop()
    assert reflects() == ["0", "0"]

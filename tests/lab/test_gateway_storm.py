"""One thing after another goes wrong while a client floods its tunnel: nothing leaves by the ISP.

    client1 === inet === router -- gw (ocgate) -- upstream === OpenVPN === provider --- services
                                                 see lab.upstream, support.gateway_mode

The leak matrix (`ocgate prove`) takes each fault by itself from a state of rest; here the next one
comes before all has settled, in an order that a seed decides.
"""

from __future__ import annotations

import random
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType

import pytest

from lab import client as vpn
from lab.addresses import DOCKER_NET, EXIT_UPSTREAM, EXIT_UPSTREAM6, UPSTREAM, UPSTREAM6
from lab.capture import now
from lab.client import Client
from lab.streams import UdpDownload
from lab.topology import SERVICE, SERVICE6, Lab, Options
from lab.traffic import ask_udp
from lab.upstream import Upstream
from ocgate.netlab.inject import into_tun
from ocgate.netlab.packet import ACK, SYN, build_icmp, build_tcp, build_udp
from ocgate.netlab.wait import wait_until
from support.gateway_mode import Chain, LabFactory, chain

pytestmark = [pytest.mark.lab, pytest.mark.long]

OTHER = DOCKER_NET[5]  # the same upstream by a second address
FAULTS_A_STORM = 10
BUNCH = 60  # packets at once; some 1,500 a second with the pause
PAUSE_SECONDS = 0.03
PACKETS_A_FAULT = 600  # so half a second between two faults


class Flood:
    """Packets of ever new flows from the client's own addresses, past its own system; a context
    manager that counts them in `sent`."""

    def __init__(self, client: Client) -> None:
        assert client.address and client.address6
        self.sent = 0
        self._client, self._four, self._six = client, client.address, client.address6
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Flood:
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

    def _work(self) -> None:
        number = 0
        while not self._closing.wait(PAUSE_SECONDS):
            made: list[bytes] = []
            while len(made) < BUNCH:
                number += 1
                made += self._packets(1024 + number % 60000, number.to_bytes(4, "big"))
            into_tun(self._client.netns, vpn.TUN, *made)
            self.sent += len(made)

    def _packets(self, port: int, mark: bytes) -> list[bytes]:
        """Of new flows over each protocol, and a segment of a TCP flow that nobody knows."""
        return [
            build_udp(self._four, SERVICE, port, 7, mark),
            build_tcp(self._four, SERVICE, port, 80, flags=SYN),
            build_tcp(self._four, SERVICE, port, 80, flags=ACK, seq=port, data=mark),
            build_icmp(self._four, SERVICE, (8, 0), mark),
            build_udp(self._six, SERVICE6, port, 7, mark),
            build_tcp(self._six, SERVICE6, port, 80, flags=SYN),
        ]


Act = Callable[[Chain, Client], object]


def shell(script: str) -> Act:
    """What somebody types into gw; no error counts, since what it is about may be gone already."""

    def act(g: Chain, _: Client) -> None:
        with g.gateway.netns.entered():
            subprocess.run(["sh", "-c", script], check=False, capture_output=True)

    return act


def gateways(four: object, six: object = "block") -> Act:
    """A reload to these."""

    def act(g: Chain, _: Client) -> None:
        g.wait_control()
        g.reload(VPN_GATEWAY=str(four), VPN_GATEWAY6=str(six))

    return act


def reconnects(g: Chain, client: Client) -> None:
    g.wait_control()
    client.reconnect()


def tunnel_bounces(g: Chain, _: Client) -> None:
    g.upstream.drop_tunnel()
    g.upstream.restore_tunnel()


def upstream_is_made_anew(g: Chain, _: Client) -> None:
    g.upstream.stop()
    g.upstream.start()
    second_address(g.lab, g.upstream)


def second_address(_: Lab, upstream: Upstream) -> None:
    upstream.netns.ip(f"address replace {OTHER}/24 dev eth0")


_BACK = (
    "ip route replace default via 172.28.0.1 dev eth0;"
    "ip -6 address replace 2001:db8:28::10/64 dev eth0 nodad;"
    "ip -6 route replace default via 2001:db8:28::1 dev eth0"
)
ACTS: Mapping[str, Act] = {
    "another gateway": gateways(OTHER, UPSTREAM6),
    "the first gateway": gateways(UPSTREAM, UPSTREAM6),
    "a gateway elsewhere": gateways(EXIT_UPSTREAM, EXIT_UPSTREAM6),
    "block": gateways("block"),
    "control killed": lambda g, _: g.gateway.kill(),
    "eth0 bounces": shell(f"ip link set eth0 down; ip link set eth0 up; {_BACK}"),
    "exit0 bounces": shell(
        "ip link set exit0 down; ip link set exit0 up;"
        "ip -6 address replace 2001:db8:30::10/64 dev exit0 nodad"
    ),
    "an address comes": shell("ip address replace 172.28.0.12/24 dev eth0"),
    "rules flushed": shell(
        "for f in -4 -6; do ip $f rule flush; ip $f rule add pref 32766 lookup main; done"
    ),
    "table 100 flushed": shell("ip route flush table 100; ip -6 route flush table 100"),
    "table 100 to the ISP": shell(
        "ip route replace default via 172.28.0.1 table 100;"
        "ip -6 route replace default via 2001:db8:28::1 table 100"
    ),
    "inet ocserv deleted": shell("nft delete table inet ocserv"),
    "inet ocserv_gw deleted": shell("nft delete table inet ocserv_gw"),
    "inet ocserv_gw flushed": shell("nft flush table inet ocserv_gw"),
    "ruleset flushed": shell("nft flush ruleset"),
    "flows forgotten": shell("conntrack -F"),
    "forwarding off": shell("echo 0 > /proc/sys/net/ipv4/ip_forward"),
    "tunnel bounces": tunnel_bounces,
    "upstream made anew": upstream_is_made_anew,
    "client reconnects": reconnects,
}


def order(seed: int) -> list[str]:
    """The acts of one storm. Where the rules go the next act leaves the tables alone, and the other
    way round: two locks at once are more than is promised."""
    chance, chosen = random.Random(seed), ["the first gateway"]
    while len(chosen) < FAULTS_A_STORM:
        act = chance.choice(sorted(ACTS))
        if not {_lock(act), _lock(chosen[-1])} >= {"rules", "tables"}:
            chosen.append(act)
    return chosen


def _lock(act: str) -> str:
    if act.startswith("rules"):
        return "rules"
    return "tables" if act.startswith(("inet", "ruleset")) else ""


def storm(g: Chain, client: Client, acts: list[str]) -> int:
    """Run them under the flood; how many packets the client sent."""
    with Flood(client) as flood, UdpDownload(client.netns, SERVICE, rate=500, count=10_000):
        for act in acts:
            print(f"{time.monotonic():.3f} {act}")
            ACTS[act](g, client)
            goal = flood.sent + PACKETS_A_FAULT
            wait_until(lambda goal=goal: flood.sent >= goal, 10.0, "the flood")  # type: ignore[misc]
        return flood.sent


@pytest.mark.parametrize("seed", [1, 2])
def test_a_storm_of_faults_leaks_nothing(lab: LabFactory, seed: int) -> None:
    """Whatever comes after whatever: no packet by the ISP; when it is over clients are served."""
    g = chain(
        lab,
        Options(upstream=True, exit_net=True),
        before=second_address,
        toml={"VPN_GATEWAY": str(UPSTREAM), "VPN_GATEWAY6": str(UPSTREAM6)},
    )
    g.wait_up()
    client = g.connect(0)
    g.prove_leaks_are_seen(client)
    since = now()
    sent = storm(g, client, [*order(seed), "the first gateway"])
    print(f"measured storm {seed}: {sent} packets of the client")
    g.wait_up()
    wait_until(lambda: ask_udp(client.netns, SERVICE, timeout=0.2), 10.0, "the client to be served")
    g.assert_nothing_by_isp(since)

"""A server whose upstream is behind a slow line that clients fill: its exit is up while it carries.

    client1 ==== gw (ocgate) -- upstream ===(OpenVPN)=== [a slow line] === provider

As test_slow_line for the exit role; here the tunnel is somebody else's, and its clients ocserv's.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping
from ipaddress import IPv4Address

import pytest

from lab import client as vpn
from lab.addresses import DOCKER_NET, UPSTREAM
from lab.capture import now
from lab.client import Client
from lab.slow_line import Line
from lab.streams import TcpDownload, UdpStream
from lab.topology import RESOLVER, SERVICE, Lab, Options
from lab.traffic import ask_tcp, ask_udp
from lab.upstream import Upstream
from ocgate.names import NFT_TABLE
from ocgate.netlab.inject import into_tun
from ocgate.netlab.packet import SYN, build_tcp
from ocgate.netlab.services import ECHO_PORT, Services
from ocgate.netlab.wait import wait_until
from ocgate.plan.carried import CAME_BACK, SENT
from support.gateway_mode import Chain, LabFactory, chain, leaves_by_the_provider, rejected
from support.leak_captures import frozen
from support.slow_tunnel import FILLED, TWO_MBIT, dropped, slowed

pytestmark = pytest.mark.lab

# Of these nobody answers DNS: that is refused each time, and no outage.
PROBES = {
    "EXIT_PROBE": f"{SERVICE}:443, dns:{SERVICE}, icmp:{SERVICE}",
    "EXIT_PROBE_INTERVAL": "1",
}

NEAR = DOCKER_NET[20]  # another container on the network of gateway and upstream


def behind(lab: LabFactory, line: Line, **environ: str) -> tuple[Chain, Client]:
    """The server whose upstream's provider is reached by that line, and a client."""
    given: Mapping[str, str] = PROBES | environ

    def tunnelled(built: Lab, upstream: Upstream) -> None:
        slowed(built, line)
        upstream.restore_tunnel()

    g = chain(lab, environ=given, tunnel=False, before=tunnelled)
    client = g.connect(0)
    g.wait_up()
    wait_until(lambda: leaves_by_the_provider(client), 15.0, "the line")
    return g, client


def downloads(g: Chain, client: Client, count: int) -> list[TcpDownload]:
    return [g.lab.own(TcpDownload(client.netns, SERVICE, size=10**8)) for _ in range(count)]


def watched(g: Chain, seconds: float) -> set[str]:
    """The exit's states in that time."""
    states, until = set(), time.monotonic() + seconds
    while time.monotonic() < until:
        exit = g.exits()["4"]
        if exit["state"] not in states:
            print(exit["state"], exit["why"])
        states.add(exit["state"])
        time.sleep(0.5)
    return states


@pytest.mark.parametrize("count", [1, 6, 16])
def test_downloads_that_fill_the_line_are_no_outage(lab: LabFactory, count: int) -> None:
    """No change of state, each download goes on, and nothing is rejected or leaks."""
    g, client = behind(lab, Line(TWO_MBIT, loss=0.02))
    g.prove_leaks_are_seen(client)
    g.wait_up()
    since, transitions = now(), g.exits()["4"]["transitions"]
    running = downloads(g, client, count)
    assert watched(g, FILLED) == {"up"}
    before = [each.bytes_received for each in running]
    assert watched(g, FILLED / 2) == {"up"}
    went_on = sum(each.bytes_received > got for each, got in zip(running, before, strict=True))
    print(f"{went_on} of {count} went on; {sum(before)} bytes in {FILLED} s")
    assert went_on >= count * 0.75  # 2 Mbit/s for 16 of them: one of them may stand for 10 s
    assert g.exits()["4"]["transitions"] == transitions
    g.assert_nothing_by_isp(since)


def test_a_stream_sent_into_a_full_line_is_no_outage(lab: LabFactory) -> None:
    """Nothing comes back of it, and probes are late or lost: twice what the line carries."""
    g, client = behind(lab, Line(TWO_MBIT, loss=0.02))
    g.upstream.provider.host.netns.nft(dropped("udp dport 9"))
    stream = g.lab.own(UdpStream(client.netns, SERVICE, rate=400, size=1200, port=9))
    assert watched(g, FILLED) == {"up"}
    assert stream.tally.sent > 1000


@pytest.mark.parametrize("interval", ["1", "0.1"])
@pytest.mark.parametrize("count", [0, 6], ids=["idle", "under 6 downloads"])
def test_a_line_that_ends_is_noticed(lab: LabFactory, count: int, interval: str) -> None:
    line = Line(TWO_MBIT)
    g, client = behind(lab, line, EXIT_PROBE_INTERVAL=interval)
    running = downloads(g, client, count)
    if running:
        wait_until(lambda: sum(each.bytes_received for each in running) > 10**6, 15.0, "their load")
    began = time.monotonic()
    line.dead = True
    wait_until(lambda: rejected(client), 15.0, "the first reject")
    seconds, why = time.monotonic() - began, g.exits()["4"]["why"]
    print(f"rejected after {seconds:.2f} s, {count} downloads, interval {interval}: {why}")
    line.dead = False
    g.wait_up(timeout=15.0)
    wait_until(lambda: leaves_by_the_provider(client), 10.0, "the client's traffic")


def test_a_target_that_is_blocked_behind_the_upstream_is_no_outage(lab: LabFactory) -> None:
    g, client = behind(lab, Line(TWO_MBIT * 10))
    g.upstream.provider.host.netns.nft(dropped("tcp dport 443"))
    assert watched(g, FILLED / 2) == {"up"}
    assert leaves_by_the_provider(client)


def test_clients_traffic_speaks_for_an_exit_whose_every_target_is_blocked(lab: LabFactory) -> None:
    """`EXIT_PROBE` names what is blocked: while clients' traffic comes back the exit is up, and
    when it ends the verdict names the targets."""
    g, client = behind(lab, Line(TWO_MBIT * 10), EXIT_PROBE=f"{SERVICE}:443")
    running = downloads(g, client, 1)
    wait_until(lambda: running[0].bytes_received > 10**6, 15.0, "its load")
    g.upstream.provider.host.netns.nft(dropped("tcp dport 443"))
    assert watched(g, FILLED / 2) == {"up"}
    assert "came back in the last" in g.exits()["4"]["why"]
    running[0].close()
    g.wait_down(timeout=15.0)
    assert f"no answer from {SERVICE}:443" in g.exits()["4"]["why"]


def test_resets_of_a_closed_upstream_are_no_traffic_that_came_back(lab: LabFactory) -> None:
    """Its kill switch resets clients' connections and drops the probes, which are answered by
    nobody; what it says to them belongs to their flows, and carries nothing."""
    g, client = behind(lab, Line(TWO_MBIT * 10))
    ours = f"ip saddr {g.lab.gw.address}"
    hook = "type filter hook forward priority -10"
    closed = f"{ours} tcp dport {ECHO_PORT} reject with tcp reset; {ours} drop"
    g.upstream.netns.nft(f"table inet closed {{ chain forward {{ {hook}; {closed}; }}; }}")

    def tries_on_and_is_down() -> bool:
        assert not ask_tcp(client.netns, SERVICE, timeout=0.5)
        return g.state() == "down"

    wait_until(tries_on_and_is_down, 15.0, "the verdict")


def test_a_closed_upstream_that_resets_probes_is_down(lab: LabFactory) -> None:
    """Its firewall rejects TCP by a reset in the target's name, which is no target's answer; that
    of a target whose port is closed is one."""
    target = f"{SERVICE}:444"
    g, _ = behind(lab, Line(TWO_MBIT * 10), EXIT_PROBE=target)
    wait_until(lambda: f"{target} answered" in g.exits()["4"]["why"], 15.0, "a probe's answer")
    ours = f"ip saddr {g.lab.gw.address}"
    hook = "type filter hook forward priority -10"
    closed = f"{ours} meta l4proto tcp reject with tcp reset; {ours} drop"
    g.upstream.netns.nft(f"table inet closed {{ chain forward {{ {hook}; {closed}; }}; }}")
    g.wait_down(timeout=15.0)
    assert f"no answer from {target}" in g.exits()["4"]["why"]
    g.wait_guarded()


@pytest.mark.parametrize("to", [UPSTREAM, NEAR], ids=["pushed resolver", "permitted network"])
def test_what_comes_from_no_further_than_the_gateways_link_is_no_evidence(
    lab: LabFactory, to: IPv4Address
) -> None:
    """The gateway's own resolver, which clients are told to ask, and a permitted network on its
    interface answer, whether its tunnel stands or not. Nor is what they are sent counted: it would
    look like what fills a line, and put the verdict off."""

    def served(built: Lab, upstream: Upstream) -> None:
        built.own(Services(upstream.netns, (UPSTREAM,)))
        built.own(Services(built.neighbours[0].netns, (NEAR,)))

    environ = PROBES | {"OCGATE_NETWORKS": f"{NEAR}/32 dev eth0"}
    options, settings = Options(upstream=True, neighbours=1), {"dns": str(UPSTREAM)}
    g = chain(lab, options, environ=environ, before=served, settings=settings)
    client = g.connect(0)
    assert leaves_by_the_provider(client)
    before = settled(g)
    assert min(before) > 0
    assert ask_tcp(client.netns, to, 53)
    assert counted(g) == before
    g.upstream.provider.host.netns.nft(dropped("meta nfproto ipv4"))

    def is_answered_and_down() -> bool:
        answer = ask_tcp(client.netns, to, 53)
        return g.state() == "down" or not answer

    wait_until(is_answered_and_down, 15.0, "the verdict")
    assert g.state() == "down"


# What asks any resolver is answered by the gateway, as some routers do it.
REDIRECTS = f"""
table ip redirects {{
    chain prerouting {{
        type nat hook prerouting priority dstnat;
        ip saddr {DOCKER_NET[10]} udp dport 53 redirect to :{ECHO_PORT}
    }}
}}
"""


def test_dns_that_the_gateway_answers_in_others_place_is_no_evidence(lab: LabFactory) -> None:
    """Clients ask a resolver beyond the tunnel, and hear of the gateway in any case."""

    def served(built: Lab, upstream: Upstream) -> None:
        built.own(Services(upstream.netns, (UPSTREAM,)))
        upstream.netns.nft(REDIRECTS)

    probes = PROBES | {"EXIT_PROBE": f"{SERVICE}:443, icmp:{SERVICE}"}
    g = chain(lab, Options(upstream=True), environ=probes, before=served)
    client = g.connect(0)
    assert leaves_by_the_provider(client)
    _, before = settled(g)
    assert ask_udp(client.netns, RESOLVER, port=53)
    assert counted(g)[1] == before
    g.upstream.provider.host.netns.nft(dropped("meta nfproto ipv4"))

    def asks_and_is_down() -> bool:
        return not ask_udp(client.netns, RESOLVER, port=53, timeout=0.2) or g.state() == "down"

    wait_until(asks_and_is_down, 15.0, "the verdict")
    assert g.state() == "down"


def settled(g: Chain) -> tuple[int, int]:
    """`counted`, once a connection that has just been closed has sent its last."""
    read = [counted(g)]

    def is_quiet() -> bool:
        read.append(counted(g))
        return read[-1] == read[-2]

    wait_until(is_quiet, 10.0, "the counters to stand still", interval=0.5)
    return read[-1]


def counted(g: Chain) -> tuple[int, int]:
    """Bytes of clients to IPv4's exit, and from it."""
    told = g.gateway.netns.run(["nft", "-j", "list", "counters", "table", "inet", NFT_TABLE])
    listed = (each.get("counter", {}) for each in json.loads(told.stdout)["nftables"])
    found = {each["name"]: int(each["bytes"]) for each in listed if each}
    return found[SENT[4]], found[CAME_BACK[4]]


def test_a_control_that_gets_no_processor_is_no_outage(lab: LabFactory) -> None:
    """It stands still for 3 s, twice, under downloads: its own late wake-ups are no lost probes."""
    g, client = behind(lab, Line(TWO_MBIT), EXIT_PROBE_INTERVAL="0.1")
    transitions = g.exits()["4"]["transitions"]
    downloads(g, client, 3)
    for _ in range(2):
        with frozen(g.gateway):
            time.sleep(3.0)
        assert watched(g, 2.0) == {"up"}
    assert g.exits()["4"]["transitions"] == transitions


def test_a_flood_of_syns_by_a_client_is_no_outage(lab: LabFactory) -> None:
    """More than the line carries, and nobody answers them: probes have to pass it."""
    g, client = behind(lab, Line(TWO_MBIT))
    g.upstream.provider.host.netns.nft(dropped(f"ip daddr {SERVICE} tcp dport 1024-65535"))
    assert client.address is not None
    for _ in range(int(FILLED)):
        syns = [
            build_tcp(client.address, SERVICE, random.randint(1024, 65535), port, flags=SYN)
            for port in random.sample(range(1024, 65535), 3000)
        ]
        into_tun(client.netns, vpn.TUN, *syns)
        assert watched(g, 0.5) == {"up"}

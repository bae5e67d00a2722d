"""The upstream fails, in every way a container does: no packet by the ISP, clients learn it at
once, and all heals by itself. Times are printed; docs/gateway-mode.md quotes them.

    client1 === inet === router -- gw (ocgate) -- upstream === OpenVPN === provider --- services
                                                 see lab.upstream, support.gateway_mode
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable
from ipaddress import IPv4Address

import pytest

from lab.addresses import DOCKER_NET, EXIT_UPSTREAM, PROVIDER
from lab.capture import now
from lab.client import Client
from lab.streams import TcpDownload, UdpDownload, UdpStream
from lab.topology import SERVICE, Lab, Options
from lab.traffic import Verdict, ask_udp
from lab.upstream import Upstream
from ocgate.netlab.dns import DnsServer
from ocgate.netlab.packet import match
from ocgate.netlab.wait import wait_until
from support.gateway_mode import (
    Chain,
    LabFactory,
    chain,
    conversation,
    downloads,
    goes_on,
    is_reset,
    is_settled,
    leaves_by_the_provider,
    rejected,
    rejected_at_once,
)
from support.leak_captures import frozen
from support.lifecycle import sessions

pytestmark = pytest.mark.lab

Fault = Callable[[Upstream], None]


def answered(client: Client) -> bool:
    return bool(ask_udp(client.netns, SERVICE, timeout=0.1))


def seconds_until(condition: Callable[[], object], what: str, timeout: float = 10.0) -> float:
    started = time.monotonic()
    wait_until(condition, timeout, what)
    return time.monotonic() - started


def told(name: str, **seconds: float) -> None:
    """Print measured times in a form that can be found: `measured NAME: key 0.123 s`."""
    shown = ", ".join(f"{key} {value:.3f} s" for key, value in seconds.items())
    print(f"measured {name}: {shown}")


# --- fails while clients download ---------------------------------------------------------------

# What breaks, and how it is undone.
FAULTS: dict[str, tuple[Fault, Fault]] = {
    "tunnel down": (Upstream.drop_tunnel, Upstream.restore_tunnel),
    "tunnel choked": (Upstream.choke_tunnel, Upstream.release_tunnel),
    "host gone": (Upstream.stop, Upstream.start),
    "host frozen": (Upstream.freeze, Upstream.thaw),
    "host rebooted": (Upstream.stop, functools.partial(Upstream.start, new_mac=True)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failing_upstream_leaks_nothing_and_is_noticed(lab: LabFactory, fault: str) -> None:
    """While a client downloads over UDP and TCP: nothing by the ISP; new flows are rejected as soon
    as health notices, and those that exist wait; status, log and reasons name the exit, since when
    and why; when it is back downloads work again, by the provider and no other way, and who waited
    is answered or told."""
    g = chain(lab)
    client = g.connect(0)
    g.prove_leaks_are_seen(client)
    breaks, heals = FAULTS[fault]
    since = now()
    with downloads(client), conversation(client) as talk:
        breaks(g.upstream)
        noticed = seconds_until(lambda: rejected(client), "the first reject")
        assert not is_reset(talk)
        assert rejected_at_once(client)
        names_the_exit(g)
        heals(g.upstream)
        back = seconds_until(lambda: answered(client), "traffic to pass again", timeout=20.0)
        g.wait_up()
        with TcpDownload(client.netns, SERVICE, size=200_000) as again:
            again.wait(5.0)
        assert again.bytes_received > 200_000
        wait_until(lambda: is_settled(talk), 20.0, "an answer or a reset for who waited")
        assert leaves_by_the_provider(client)
    told(fault, rejected_after=noticed, back_after=back)
    g.assert_nothing_by_isp(since)
    assert [session["user"] for session in sessions(g.gateway)] == ["alice"]


def names_the_exit(g: Chain) -> None:
    """Status, log and metrics say which exit is down, since when and why."""
    exit = g.exits()["4"]
    assert exit["state"] == "down"
    assert str(g.upstream.address) in str(exit["address"])
    assert exit["why"]
    assert exit["since"]
    told = [line for line in g.gateway.output.splitlines() if "exit is down" in line]
    assert str(g.upstream.address) in told[-1]
    assert "why=" in told[-1]  # of that moment; the status knows by now whether the host is gone
    metrics = g.gateway.ask("metrics").decode()
    assert 'ocgate_exit_up{exit="default",family="4"} 0.0' in metrics
    assert 'ocgate_exit_since_seconds{exit="default",family="4"}' in metrics


def test_a_glitch_that_health_does_not_notice_keeps_flows(lab: LabFactory) -> None:
    """The tunnel is choked for a moment: downloads wait for it and go on, none is reset."""
    g = chain(lab, environ={"EXIT_PROBE_INTERVAL": "1", "EXIT_PROBE_FAILURES": "5"})
    client = g.connect(0)
    g.prove_leaks_are_seen(client)
    since = now()
    with downloads(client) as (udp, tcp):
        g.upstream.choke_tunnel()
        lost = ask_udp(client.netns, SERVICE, timeout=0.5)
        g.upstream.release_tunnel()
        assert lost.verdict is Verdict.SILENT
        told("glitch", udp_on_after=goes_on(udp), tcp_on_after=goes_on(tcp))
    assert g.state() == "up"
    g.assert_nothing_by_isp(since)


# --- is not there at first ----------------------------------------------------------------------


def gone(_: Lab, upstream: Upstream) -> None:
    upstream.stop()


def test_an_upstream_that_is_not_there_at_boot_is_no_error(lab: LabFactory) -> None:
    """The server starts and serves; clients are rejected with the reason; when the upstream comes
    up all heals without anyone's help."""
    g = chain(lab, tunnel=False, before=gone)
    g.wait_down()
    client = g.connect(0)
    g.prove_leaks_are_seen(client)
    since = now()
    assert rejected_at_once(client)
    names_the_exit(g)
    g.upstream.start()
    told("upstream appears", back_after=seconds_until(lambda: answered(client), "the exit"))
    assert leaves_by_the_provider(client)
    g.assert_nothing_by_isp(since)


# --- gw's own interface -------------------------------------------------------------------------


def passes_steadily(client: Client) -> bool:
    """Does all come back of a stream that lasts longer than a probe (1 s)?"""
    with UdpStream(client.netns, SERVICE, rate=200, count=300) as stream:
        return stream.wait(5.0).lost == 0


def both_begin(running: contextlib.ExitStack, client: Client) -> bool:
    """Do a UDP and a TCP download begin that end with `running`, now that all comes back?"""
    if not passes_steadily(client):
        return False
    with contextlib.suppress(ConnectionRefusedError):  # called down between the two
        running.enter_context(downloads(client))
        return True
    return False


@pytest.mark.long
def test_a_bounced_exit_interface_heals_by_itself(lab: LabFactory) -> None:
    """`exit0` goes down and up, several times, with which the kernel forgets the exit's routes and
    the flows that were translated to its address: what still comes for these is answered by nobody
    and by the ISP least of all."""
    options = Options(upstream=True, exit_net=True)
    g = chain(lab, options, environ={"VPN_GATEWAY": str(EXIT_UPSTREAM)})
    g.wait_up()
    client = g.connect(0)
    g.prove_leaks_are_seen(client)
    since = now()
    for _ in range(4):
        # A probe that was under way during the bounce before may call the exit down once more.
        with contextlib.ExitStack() as running:
            wait_until(lambda: both_begin(running, client), 15.0, "traffic to outlast a probe")
            g.gateway.netns.ip("link set exit0 down")
            noticed = seconds_until(lambda: rejected(client), "the first reject")
            g.gateway.netns.ip("link set exit0 up")
            back = seconds_until(lambda: answered(client), "traffic to pass again")
        told("exit interface bounced", rejected_after=noticed, back_after=back)
    wait_until(lambda: passes_steadily(client), 15.0, "traffic to outlast a probe")
    assert leaves_by_the_provider(client)
    g.assert_nothing_by_isp(since)


def test_a_bounced_wan_heals_by_itself(lab: LabFactory) -> None:
    """eth0, which holds both the WAN and the exit, goes down and up, and its default route comes
    back as a container's or a DHCP client's does; ours follow by themselves."""
    g = chain(lab)
    client = g.connect(0)
    g.prove_leaks_are_seen(client)
    since = now()
    g.gateway.netns.ip(
        "link set eth0 down", "link set eth0 up", "route replace default via 172.28.0.1 dev eth0"
    )
    back = seconds_until(lambda: answered(client), "traffic to pass again", timeout=20.0)
    told("wan bounced", back_after=back)
    assert leaves_by_the_provider(client)
    g.assert_nothing_by_isp(since)


EMPTIED = {
    "one table": "flush table inet ocserv",
    "both tables": "flush table inet ocserv; flush table inet ocserv_gw",
    "ruleset": "flush ruleset",
}


@pytest.mark.parametrize("emptied", EMPTIED)
def test_flows_begun_while_tables_are_gone_are_translated_afterwards(
    lab: LabFactory, emptied: str
) -> None:
    """A client's flow whose first packets found no NAT, and that never pauses since: once all is
    repaired it passes, translated, and isn't held for ever as one that was not."""
    # The exit never counts as down, or it would be that which cuts the flows.
    g = chain(lab, environ={"EXIT_PROBE_FAILURES": "100"})
    client = g.connect(0)
    g.prove_leaks_are_seen(client)
    since = now()
    with frozen(g.gateway):
        g.gateway.netns.nft(EMPTIED[emptied])
        stream = g.lab.own(UdpStream(client.netns, SERVICE, rate=200))
        wait_until(lambda: stream.tally.sent > 50, 5.0, "the stream to begin")
        assert not stream.tally.received
    g.wait_guarded()
    told(f"flow begun without {emptied}", on_after=goes_on(stream))
    g.assert_nothing_by_isp(since)


# --- moves --------------------------------------------------------------------------------------

DOCKER_DNS = IPv4Address("127.0.0.11")  # where docker's own resolver listens, inside the container
NAME = "upstream.lab"


def named(lab: Lab, addresses: tuple[IPv4Address, ...], ttl: int = 60) -> DnsServer:
    """A resolver like docker's that knows the upstream."""
    return lab.own(DnsServer(lab.gw.netns, (DOCKER_DNS,), {NAME: addresses}, ttl=ttl))


def test_an_upstream_back_at_another_address_is_followed_by_name(lab: LabFactory) -> None:
    """The container is made anew and gets another address: its failing makes the name be looked up
    again, long before the TTL ends; sessions stay, flows go the new way, none the old."""
    resolvers: list[DnsServer] = []

    def before(built: Lab, upstream: Upstream) -> None:
        resolvers.append(named(built, (upstream.address,), ttl=600))

    g = chain(
        lab, before=before, environ={"VPN_GATEWAY": NAME}, resolv_conf=f"nameserver {DOCKER_DNS}"
    )
    g.wait_up()
    client = g.connect(0)
    g.prove_leaks_are_seen(client)
    before_move = sessions(g.gateway)
    since = now()
    with downloads(client):
        g.upstream.stop()
        new = DOCKER_NET[5]
        resolvers[0].table[NAME] = (new,)
        g.upstream.start(new, new_mac=True)
        back = seconds_until(lambda: answered(client), "traffic by the new address", timeout=20.0)
    told("back at another address", back_after=back)
    assert leaves_by_the_provider(client)
    assert sessions(g.gateway) == before_move
    assert g.exits()["4"]["address"] == str(new)
    routes = g.gateway.netns.run(["ip", "route", "show", "table", "100"]).stdout
    assert f"default via {new} dev eth0" in routes
    g.assert_nothing_by_isp(since)


def test_a_name_that_moves_is_followed_when_its_ttl_ends(lab: LabFactory) -> None:
    """Both addresses work (one host, two addresses), so nothing fails and only the TTL tells: new
    flows go to the new one, a stream of the client is not interrupted for longer than a blink."""
    resolvers: list[DnsServer] = []
    new = DOCKER_NET[5]

    def before(built: Lab, upstream: Upstream) -> None:
        built.upstream.netns.ip(f"address add {new}/24 dev eth0")
        resolvers.append(named(built, (upstream.address,), ttl=1))

    environ = {"VPN_GATEWAY": NAME, "VPN_GATEWAYS_RESOLVE_INTERVAL": "1"}
    g = chain(lab, before=before, environ=environ, resolv_conf=f"nameserver {DOCKER_DNS}")
    g.wait_up()
    client = g.connect(0)
    g.prove_leaks_are_seen(client)
    since = now()
    with downloads(client) as (udp, _):
        resolvers[0].table[NAME] = (new,)
        moved = seconds_until(lambda: g.exits()["4"]["address"] == str(new), "the move")
        goes_on_elsewhere(g, client, udp)
    told("name moves", noticed_after=moved)
    g.assert_nothing_by_isp(since)


def goes_on_elsewhere(g: Chain, client: Client, udp: UdpDownload) -> None:
    """New flows are answered, and by the provider; the old one is done with."""
    wait_until(lambda: answered(client), 5.0, "new flows")
    assert leaves_by_the_provider(client)
    assert ask_udp(client.netns, SERVICE).seen_as == PROVIDER
    assert udp.tally.received
    g.wait_up()


def test_a_dns_outage_keeps_the_last_address(lab: LabFactory) -> None:
    """The resolver forgets the name and then goes silent: clients go on by the last known good."""
    resolvers: list[DnsServer] = []

    def before(built: Lab, upstream: Upstream) -> None:
        resolvers.append(named(built, (upstream.address,)))

    environ = {"VPN_GATEWAY": NAME, "VPN_GATEWAYS_RESOLVE_INTERVAL": "1"}
    g = chain(lab, before=before, environ=environ, resolv_conf=f"nameserver {DOCKER_DNS}")
    g.wait_up()
    client = g.connect(0)
    asked = len(resolvers[0].queries)
    resolvers[0].table.clear()
    wait_until(lambda: len(resolvers[0].queries) > asked, 5.0, "another look-up")
    assert leaves_by_the_provider(client)
    resolvers[0].close()
    assert leaves_by_the_provider(client)
    g.upstream.drop_tunnel()
    g.wait_down()
    g.upstream.restore_tunnel()
    g.wait_up()
    assert leaves_by_the_provider(client)


def test_clients_cannot_steer_what_the_name_resolves_to(lab: LabFactory) -> None:
    """The resolver's answers come over gw's loopback; a client's forged answer, sent into its
    tunnel to gw's address, is dropped, and look-ups never leave by the clients' exit."""
    resolvers: list[DnsServer] = []

    def before(built: Lab, upstream: Upstream) -> None:
        resolvers.append(named(built, (upstream.address,)))

    environ = {"VPN_GATEWAY": NAME, "VPN_GATEWAYS_RESOLVE_INTERVAL": "1"}
    g = chain(lab, before=before, environ=environ, resolv_conf=f"nameserver {DOCKER_DNS}")
    g.wait_up()
    client = g.connect(0)
    since, asked = now(), len(resolvers[0].queries)
    wait_until(lambda: len(resolvers[0].queries) > asked, 5.0, "another look-up")
    assert not ask_udp(client.netns, g.lab.gw.address, 53, timeout=0.2)
    g.exit.prove_sees(match(src=PROVIDER), "the client's or a probe's traffic", since=since)
    g.exit.assert_none(match(dport=53), "a look-up by the exit", since=since)

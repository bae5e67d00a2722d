"""DNS at the kill switch: clients' goes to the tunnel's resolver, this host's own nowhere, but for
the addresses and the time of a bootstrap."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from lab.capture import now
from ocgate.names import TUNNEL_UID
from ocgate.netlab.packet import match
from ocgate.tunnel.model import Bootstrap, Endpoint, GatewayDns
from support import killswitch_site as k

pytestmark = pytest.mark.kernel

API = Endpoint(ip_address(k.SERVICE), 443, ("tcp",))
BOOTSTRAP = Bootstrap((ip_address(k.RESOLVER), ip_address(k.RESOLVER6)), (API,))
BOOTSTRAPPING = replace(k.CLOSED, bootstrap=BOOTSTRAP)
DOCKER = "127.0.0.11"


@pytest.fixture(params=[1, 2], ids=["one interface", "two interfaces"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[k.Site]:
    made = k.build(tmp_path, interfaces=request.param)
    yield made
    made.close()


# --- clients ------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [k.RESOLVER, k.EXIT, "172.28.0.77"])
def test_whichever_resolver_a_client_asks_the_tunnel_s_answers(site: k.Site, asked: str) -> None:
    """An ISP's, the exit's own address, one that is not there; by UDP and TCP; the answer comes
    from whom it asked."""
    end = site.connect(k.UP)
    site.peer.ip(f"route replace 172.28.0.77 via {k.EXIT}")
    assert k.ask(site.peer, asked, 53) == asked
    assert k.ask(site.peer, asked, 53, tcp=True) == asked
    seen = end.packets(match(dport=53))
    assert {packet.protocol for packet in seen} == {"udp", "tcp"}
    assert {str(packet.dst) for packet in seen} == {k.TUNNEL_RESOLVER}


def test_ipv6_goes_to_the_tunnel_s_ipv6_resolver(site: k.Site) -> None:
    end = site.connect(k.UP_BOTH)
    assert k.ask(site.peer, k.RESOLVER6, 53) == k.RESOLVER6
    assert {str(p.dst) for p in end.packets(match(dport=53))} == {k.TUNNEL_RESOLVER6}


def test_gateway_dns_off_leaves_questions_as_they_are(site: k.Site) -> None:
    end = site.connect(replace(k.UP, dns=GatewayDns.OFF))
    assert k.ask(site.peer, k.RESOLVER, 53) == k.RESOLVER
    assert {str(p.dst) for p in end.packets(match(dport=53))} == {k.RESOLVER}


def test_without_a_resolver_of_the_tunnel_questions_are_rejected(site: k.Site) -> None:
    """... those to the exit itself, too; and those of a family that has none."""
    bare = replace(k.CARRIED_BOTH, resolvers=(ip_address(k.TUNNEL_RESOLVER),))
    end = site.connect(replace(k.UP, carried=bare))
    assert k.ask(site.peer, k.RESOLVER, 53) == k.RESOLVER
    assert k.ask(site.peer, k.RESOLVER6, 53, tcp=True) == "Connection refused"
    site.apply(replace(k.UP, carried=replace(bare, resolvers=())))
    for asked in (k.RESOLVER, k.EXIT):
        assert k.ask(site.peer, asked, 53, tcp=True) == "Connection refused"
        assert k.ask(site.peer, asked, 53) in ("No route to host", "Permission denied")
    assert site.counted("no_resolver") == 5
    assert k.ask(site.peer, k.SERVICE, 80, tcp=True) == k.SERVICE
    assert len(end.packets(match(dport=53, protocol="udp"))) == 1


def test_a_flow_of_dns_does_not_outlive_its_tunnel(site: k.Site) -> None:
    """The same socket asks again after the exit has moved: the new tunnel's resolver is asked."""
    end = site.connect(k.UP)
    with k.Asker(site.peer, k.RESOLVER, 53) as asker:
        assert asker.ask()
        site.apply(k.CONNECTING)
        assert not asker.ask()
        carried = replace(
            k.CARRIED,
            addresses=(k.ip_interface("10.9.0.7/32"),),
            resolvers=(ip_address("10.9.0.1"),),
        )
        site.apply(replace(k.UP, carried=carried))
        asker.say()
        k.wait_until(
            lambda: end.packets(match(dst="10.9.0.1", dport=53)), 5.0, "the new resolver asked"
        )


# --- this host ----------------------------------------------------------------------------------


def test_a_bootstrap_opens_its_addresses_to_root_and_nothing_else(site: k.Site) -> None:
    site.apply(BOOTSTRAPPING)
    with k.Echo(site.host, k.RESOLVER, 53), k.Echo(site.host, k.RESOLVER6, 53):
        for resolver in (k.RESOLVER, k.RESOLVER6):
            assert k.ask(site.exit, resolver, 53) == resolver
    k.say(site.exit, k.SERVICE, 443, tcp=True)
    site.capture.prove_sees(match(dst=k.RESOLVER, dport=53, outgoing=True), "the resolver asked")
    site.capture.prove_sees(match(dst=k.SERVICE, dport=443, outgoing=True), "the API asked")
    since = now()
    for uid in (TUNNEL_UID, k.SOMEBODY):
        for to in (k.RESOLVER, k.RESOLVER6):
            k.say(site.exit, to, 53, uid=uid)
            k.say(site.exit, to, 53, uid=uid, tcp=True)
        k.say(site.exit, k.SERVICE, 443, uid=uid, tcp=True)
    k.say(site.exit, k.RESOLVER, 853, tcp=True)
    k.say(site.exit, k.OTHER_SERVER, 53)
    k.say(site.exit, k.SERVICE, 53)
    k.say(site.exit, k.SERVICE, 443)
    k.say(site.peer, k.RESOLVER, 53)
    k.say(site.peer, k.SERVICE, 443, tcp=True)
    site.fence()
    site.capture.assert_none(k.beyond, "all but root to the given ones", since=since)


@pytest.mark.parametrize("after", [k.CLOSED, k.CONNECTING, k.UP], ids=["closed", "next", "up"])
def test_what_a_bootstrap_opened_is_closed_again(site: k.Site, after: k.ExitIntent) -> None:
    """... for a socket that was used meanwhile, too."""
    site.connect(BOOTSTRAPPING)
    with k.Echo(site.host, k.RESOLVER, 53), k.Asker(site.exit, k.RESOLVER, 53) as asker:
        assert asker.ask()
        site.capture.prove_sees(match(dst=k.RESOLVER, outgoing=True), "the resolver asked")
        site.apply(after)
        since = now()
        asker.say()
        k.say(site.exit, k.RESOLVER, 53)
        k.say(site.exit, k.SERVICE, 443, tcp=True)
        site.fence()
        site.capture.assert_none(k.beyond, "what the bootstrap had opened", since=since)


def test_docker_s_resolver_is_root_s_while_bootstrapping_and_nobody_s_after(site: k.Site) -> None:
    """It asks beside the tunnel, so nothing may ask it; docker's own redirect to its port stands in
    this namespace, as there."""
    site.exit.nft(
        f"table ip nat {{ chain OUTPUT {{ type nat hook output priority -100;"
        f" ip daddr {DOCKER} udp dport 53 dnat to {DOCKER}:40053; }}; }}"
    )
    with k.Echo(site.exit, DOCKER, 40053):
        assert k.ask(site.exit, DOCKER, 53) == DOCKER  # as docker has it
        site.apply(replace(BOOTSTRAPPING, bootstrap=Bootstrap((ip_address(DOCKER),))))
        assert k.ask(site.exit, DOCKER, 53) == DOCKER
        assert k.ask(site.exit, DOCKER, 53, uid=k.SOMEBODY) != DOCKER
        assert k.ask(site.exit, DOCKER, 40053) != DOCKER
        for state in (k.CLOSED, k.CONNECTING, k.UP):
            site.apply(state)
            for uid in (0, k.SOMEBODY, TUNNEL_UID):
                for port in (53, 40053):
                    assert k.ask(site.exit, DOCKER, port, uid=uid) != DOCKER
    assert site.counted("resolver_closed") >= 18


def test_this_host_s_own_questions_go_through_the_tunnel_when_it_is_up(site: k.Site) -> None:
    """To whatever resolver: only a client's is redirected."""
    end = site.connect(k.UP)
    assert k.ask(site.exit, k.TUNNEL_RESOLVER, 53) == k.TUNNEL_RESOLVER
    assert k.ask(site.exit, k.RESOLVER, 53) == k.RESOLVER
    assert len(end.packets(match(dport=53))) == 2

"""What the exit carries: DNS, IPv6, and the clients of a VPN server in front."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from lab import client as vpn
from lab import gateway as gateways
from lab.addresses import PROVIDER, PROVIDER6, UPSTREAM
from lab.capture import now
from lab.ocserv import write_config_dir
from lab.topology import RESOLVER, SERVICE, SERVICE6, Options
from lab.traffic import Verdict, ask_tcp, ask_udp, ping
from ocgate.netlab.dns import DnsServer, resolve
from ocgate.netlab.wait import wait_until
from support.exit_node import BOTH_FAMILIES, Crash, LabFactory, ground

pytestmark = pytest.mark.lab

TUNNEL_RESOLVER = IPv4Address("10.8.0.1")
PUSHED_DNS = ("--push", f"dhcp-option DNS {TUNNEL_RESOLVER}")
WITHOUT_IPV6 = "pull-filter ignore ifconfig-ipv6\n"
USERS = {"alice": "a secret"}


def test_dns_goes_to_the_tunnels_resolver_whoever_was_asked(lab: LabFactory) -> None:
    g = ground(lab, server=PUSHED_DNS)
    g.prove_leaks_are_seen()
    table = {"www.example": (SERVICE,)}
    inside = g.lab.own(DnsServer(g.lab.provider.netns, (TUNNEL_RESOLVER,), table))
    outside = g.lab.own(DnsServer(g.lab.inet.netns, (RESOLVER,), table))
    since = now()
    assert resolve(g.user.netns, RESOLVER, "www.example").addresses == (SERVICE,)
    assert resolve(g.user.netns, UPSTREAM, "www.example").addresses == (SERVICE,)
    assert len(inside.queries) == 2
    assert not outside.queries
    g.assert_nothing_by_isp(since)


def test_dns_without_a_resolver_in_the_tunnel_is_rejected_with_its_reason(lab: LabFactory) -> None:
    g = ground(lab, environ={"GATEWAY_DNS": "redirect"})
    answer = ask_udp(g.user.netns, RESOLVER, port=53, timeout=1.0)
    assert answer.verdict is Verdict.REJECTED
    assert g.blocked("no_resolver") >= 1


@pytest.mark.parametrize(
    ("environ", "server"), [({"GATEWAY_DNS": "off"}, PUSHED_DNS), ({}, ())], ids=["off", "auto"]
)
def test_dns_off_or_unoffered_leaves_queries_alone(
    environ: dict[str, str], server: tuple[str, ...], lab: LabFactory
) -> None:
    """They go through the tunnel like everything else; so they do by default where the tunnel
    offers no resolver."""
    g = ground(lab, environ=environ, server=server)
    table = {"www.example": (SERVICE,)}
    outside = g.lab.own(DnsServer(g.lab.inet.netns, (RESOLVER,), table))
    assert resolve(g.user.netns, RESOLVER, "www.example").addresses == (SERVICE,)
    assert [query.client for query in outside.queries] == [PROVIDER]


def test_ipv6_goes_by_a_tunnel_that_carries_it(lab: LabFactory) -> None:
    g = ground(lab, environ=BOTH_FAMILIES)
    g.prove_leaks_are_seen()
    since = now()
    assert g.exit.status()["tunnel"]["ipv6"]
    asked = [ask(g.user.netns, SERVICE6) for ask in (ask_udp, ask_tcp, ping)]
    assert all(asked)
    assert {answer.seen_as for answer in asked} <= {PROVIDER6, None}
    g.assert_nothing_by_isp(since)


def test_ipv6_that_the_tunnel_does_not_carry_is_rejected_at_once(lab: LabFactory) -> None:
    g = ground(lab, environ=BOTH_FAMILIES, wait=False)
    g.exit.wait_healthy()
    g.exit.stop()
    path = next(g.lab.work.glob("*vpn.ovpn"))
    path.write_text(WITHOUT_IPV6 + g.provider.config())
    from lab import exit_role

    g.exit = exit_role.start(g.lab, {"OVPN_CONFIG": str(path), **BOTH_FAMILIES})
    g.exit.wait_healthy()
    g.prove_leaks_are_seen()
    since = now()
    assert not g.exit.status()["tunnel"]["ipv6"]
    answers = [ask(g.user.netns, SERVICE6, timeout=1.0) for ask in (ask_udp, ask_tcp, ping)]
    told = (Verdict.REJECTED, Verdict.REFUSED)
    assert all(answer.verdict in told and answer.at_once for answer in answers)
    assert g.blocked("ipv6_not_carried") >= 3
    assert g.leaves_by_the_provider()
    g.assert_nothing_by_isp(since)


def test_a_vpn_server_in_front_notices_at_once_and_comes_back_by_itself(lab: LabFactory) -> None:
    """`ocgate run` with VPN_GATEWAY=exit: both roles of one product, and a client of the server."""
    g = ground(lab, options=Options(upstream=True, neighbours=1, clients=1))
    directory = g.lab.path("etc")
    write_config_dir(g.lab, directory, USERS)
    probes = {"EXIT_PROBE": f"{SERVICE}:443", "EXIT_PROBE_INTERVAL": "0.1", "IPV6_SINK": "true"}
    node = gateways.run(g.lab, {"VPN_GATEWAY": str(UPSTREAM), **probes}, directory)
    g.lab.own(Crash(node))

    def state() -> str:
        status = node.status_or_none()
        return str(status["exits"][0]["state"]) if status and status["exits"] else ""

    wait_until(lambda: state() == "up", 15.0, "the exit to be up")
    login = node.login("alice", USERS["alice"])
    client = vpn.connect(g.lab, g.lab.clients[0], login)
    assert {ask(client.netns, SERVICE).seen_as for ask in (ask_udp, ask_tcp)} == {PROVIDER}
    g.provider.close()
    g.exit.kill_client()
    began = now()
    wait_until(lambda: state() == "down", 10.0, "the server to notice")
    noticed = now() - began
    assert noticed < 8.0
    answer = ask_tcp(client.netns, SERVICE, timeout=1.0)
    assert answer.verdict in (Verdict.REFUSED, Verdict.REJECTED)
    g.provider.start()
    g.exit.wait_healthy(60.0)
    wait_until(lambda: state() == "up", 15.0, "the exit to be up again")
    wait_until(lambda: ask_udp(client.netns, SERVICE).seen_as == PROVIDER, 10.0, "the client's way")
    assert ask_tcp(client.netns, SERVICE).seen_as == PROVIDER

"""The exits that are no IPv4 upstream: IPv6 ones, `direct` and `block`, end to end.

client1 === inet === router -- gw (ocgate) -- upstream === OpenVPN === provider --- services
                                                 see lab.upstream, support.gateway_mode
"""

from __future__ import annotations

import struct

import pytest

from lab.addresses import EXIT_UPSTREAM, EXIT_UPSTREAM6, PROVIDER6, UPSTREAM6
from lab.capture import now
from lab.client import Client
from lab.streams import TcpDownload, UdpDownload, UdpStream
from lab.topology import PORT, RESOLVER6, SERVICE, SERVICE6, Options
from ocgate.netlab.dns import DnsServer, resolve
from ocgate.netlab.packet import match
from ocgate.netlab.wait import wait_until
from support.gateway_mode import (
    Chain,
    LabFactory,
    answers,
    chain,
    conversation,
    is_reset,
    is_settled,
    leaves_by_the_provider,
    rejected_at_once,
    seen_as,
)
from support.lifecycle import sessions

pytestmark = pytest.mark.lab

TRANSLATED = {"VPN_GATEWAY6": str(UPSTREAM6)}


def six_by_the_provider(client: Client) -> bool:
    return seen_as(client, SERVICE6) == {PROVIDER6}


def prove_six(g: Chain, client: Client) -> None:
    """The controls of both captures, with a laptop whose own IPv6 works."""
    assert client.address6, "no IPv6 in the tunnel"
    g.prove_leaks_are_seen(client)


# --- an IPv6 gateway ----------------------------------------------------------------------------


@pytest.mark.parametrize("exit_net", [False, True], ids=["same interface", "own interface"])
def test_ipv6_leaves_by_its_own_gateway(lab: LabFactory, exit_net: bool) -> None:
    """VPN_GATEWAY6: both families by the upstream, translated, over UDP, TCP, ICMP and DNS."""
    environ = {"VPN_GATEWAY": str(EXIT_UPSTREAM), "VPN_GATEWAY6": str(EXIT_UPSTREAM6)}
    options = Options(upstream=True, exit_net=exit_net)
    g = chain(lab, options, environ=environ if exit_net else TRANSLATED)
    g.wait_up(4)
    g.wait_up(6)
    dns = g.lab.own(DnsServer(g.lab.inet.netns, (RESOLVER6,), {"www.example": (SERVICE6,)}))
    client = g.connect(0)
    prove_six(g, client)
    since = now()
    assert all(answers(client, SERVICE6))
    assert six_by_the_provider(client)
    assert leaves_by_the_provider(client)
    assert resolve(client.netns, RESOLVER6, "www.example", "AAAA").addresses == (SERVICE6,)
    assert [query.client for query in dns.queries] == [PROVIDER6]
    with UdpStream(client.netns, SERVICE6, rate=500, count=300, size=1200) as stream:
        assert stream.wait(10.0).lost == 0
    g.exit.prove_sees(match(src=PROVIDER6, protocol="icmp6"), "its ping", since=since)
    g.assert_nothing_by_isp(since)


def test_ipv6_is_rejected_while_its_gateway_is_down(lab: LabFactory) -> None:
    """The tunnel goes with downloads of both families in flight: neither leaves by the ISP, what is
    new of both is rejected, both are back afterwards, and who waited is answered or told."""
    g = chain(lab, environ=TRANSLATED)
    g.wait_up(6)
    client = g.connect(0)
    prove_six(g, client)
    since = now()
    with (
        UdpDownload(client.netns, SERVICE6, rate=1000, count=8000) as udp,
        TcpDownload(client.netns, SERVICE6, size=40_000_000, rate=2_000_000) as tcp,
        conversation(client, SERVICE6) as talk,
    ):
        udp.wait_for(100)
        wait_until(lambda: tcp.bytes_received, 5.0, "the TCP download")
        g.upstream.drop_tunnel()
        g.wait_down(6)
        g.wait_down(4)
        assert rejected_at_once(client, SERVICE6)
        assert rejected_at_once(client, SERVICE)
        assert not is_reset(talk)
        g.upstream.restore_tunnel()
        g.wait_up(6)
        g.wait_up(4)
        wait_until(lambda: is_settled(talk), 20.0, "an answer or a reset for who waited")
        assert six_by_the_provider(client)
        assert leaves_by_the_provider(client)
    g.assert_nothing_by_isp(since)


def test_ipv6_learns_the_path_mtu_by_the_exit(lab: LabFactory) -> None:
    """A server's datagram that is too large for the client's tunnel: packet too big, through the
    upstream and not by the ISP."""
    g = chain(lab, environ=TRANSLATED)
    g.wait_up(6)
    client = g.connect(0, options=("--base-mtu=1400",))
    prove_six(g, client)
    since = now()
    mtu = int(client.pushed["INTERNAL_IP4_MTU"])
    # The download's datagrams are larger than the tunnel's, and smaller than the provider's.
    with UdpDownload(client.netns, SERVICE6, rate=20, count=20, size=mtu - 48 + 8):
        told = g.exit.wait_for(match(src=PROVIDER6, kind=(2, 0)), "packet too big", since=since)
    assert struct.unpack_from("!I", told.raw, 44)[0] == mtu
    g.assert_nothing_by_isp(since)


def test_each_family_has_its_own_exit(lab: LabFactory) -> None:
    """VPN_GATEWAY=block beside VPN_GATEWAY6: IPv4 is rejected at once, IPv6 by the upstream."""
    g = chain(lab, environ={"VPN_GATEWAY": "block", **TRANSLATED})
    g.wait_up(6)
    client = g.connect(0)
    prove_six(g, client)
    since = now()
    assert rejected_at_once(client, SERVICE)
    assert six_by_the_provider(client)
    assert g.exits()["4"]["state"] == "block"
    g.assert_nothing_by_isp(since)


# --- direct and block ---------------------------------------------------------------------------


def test_ipv6_direct_beside_a_gateway_is_named_for_what_it_exposes(lab: LabFactory) -> None:
    """VPN_GATEWAY6=direct: IPv6 leaves by the host, IPv4 by the upstream and never by the host;
    start and status say what that exposes."""
    g = chain(lab, environ={"VPN_GATEWAY6": "direct"})
    client = g.connect(0)
    prove_six(g, client)
    by_host6 = match(src=g.lab.gw.address6, dst=SERVICE6)
    g.allowed += [by_host6]
    since = now()
    assert leaves_by_the_provider(client)
    assert seen_as(client, SERVICE6) == {g.lab.gw.address6}
    g.uplink.prove_sees(by_host6, "the client's IPv6 by the host", since=since)
    g.assert_nothing_by_isp(since)
    assert g.exits()["6"]["state"] == "direct"
    warned = [line for line in g.gateway.output.splitlines() if "VPN_GATEWAY6" in line]
    assert any("direct" in line for line in warned), g.gateway.output


def test_block_rejects_at_once(lab: LabFactory) -> None:
    """VPN_GATEWAY=block: sessions are served, both families are rejected, nothing leaves."""
    g = chain(lab, environ={"VPN_GATEWAY": "block"})
    client = g.connect(0)
    g.prove_leaks_are_seen(client)
    since = now()
    assert rejected_at_once(client, SERVICE)
    assert rejected_at_once(client, SERVICE6)
    assert g.exits()["4"]["state"] == "block"
    assert [session["user"] for session in sessions(g.gateway)] == ["alice"]
    g.assert_nothing_by_isp(since)
    g.wan.assert_none(match(dst=SERVICE), "anything to the service", since=since)


def test_direct_works_with_all_locks(lab: LabFactory) -> None:
    """VPN_GATEWAY=direct: by this host, as without gateway mode; no client's address ever."""
    g = chain(lab, environ={"VPN_GATEWAY": "direct"})
    client = g.connect(0)
    g.prove_leaks_are_seen(client)
    by_host = match(dst=SERVICE)
    g.allowed += [by_host, match(dst=SERVICE6)]
    since = now()
    assert all(answers(client))
    assert seen_as(client) == {g.lab.router.address}
    g.docker.prove_sees(match(src=g.lab.gw.address, dst=SERVICE), "translated", since=since)
    g.docker.prove_sees(match(sport=PORT), "the client's tunnel", since=since)
    g.assert_nothing_by_isp(since)
    assert g.exits()["4"]["state"] == "direct"

"""The lab's upstream VPN container does what it claims to, without ocgate in front of it.

neighbour1 --- docker network --- upstream === OpenVPN === provider --- services
                                              see lab.upstream
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address

import pytest

from lab.addresses import EXIT_UPSTREAM, EXIT_UPSTREAM6, PROVIDER, PROVIDER6
from lab.capture import Capture, now
from lab.streams import UdpStream, new_marker
from lab.topology import SERVICE, SERVICE6, Lab, Options
from lab.traffic import Verdict, ask_tcp, ask_udp, http_get, ping
from lab.upstream import Upstream, run_upstream
from ocgate.netlab.namespace import Namespace
from ocgate.netlab.packet import any_of, match
from ocgate.netlab.services import Services
from ocgate.netlab.wait import wait_until

pytestmark = pytest.mark.lab

LabFactory = Callable[..., Lab]
SHORT = 0.2  # seconds until silence is believed: a reply takes a millisecond


def chained(lab: LabFactory, *, exit_net: bool = False) -> tuple[Upstream, Namespace, Capture]:
    """A lab with an upstream, a neighbour that is routed through it, and the ISP's capture."""
    built = lab(Options(clients=0, neighbours=1, upstream=True, exit_net=exit_net))
    built.own(Services(built.inet.netns, (SERVICE, SERVICE6)))
    upstream = run_upstream(built)
    neighbour = built.neighbours[0].netns
    route(neighbour, upstream.address)
    return upstream, neighbour, built.capture(built.router, "uplink")


def route(netns: Namespace, via: IPv4Address) -> None:
    """Send what is for the services by the upstream at `via`, and its one IPv6 address."""
    netns.ip(f"route replace {SERVICE} via {via}", f"route replace {SERVICE6} via 2001:db8:28::3")


def silent(netns: Namespace, data: bytes = b"?") -> bool:
    """Does nothing come back, for either family, over UDP, TCP and ICMP?"""
    answers = []
    for to in (SERVICE, SERVICE6):
        answers += [ask_udp(netns, to, data=data, timeout=SHORT), ping(netns, to, timeout=SHORT)]
        answers.append(ask_tcp(netns, to, data=data, timeout=SHORT))
    return {answer.verdict for answer in answers} == {Verdict.SILENT}


def test_who_is_routed_through_it_is_seen_as_the_provider(lab: LabFactory) -> None:
    upstream, neighbour, isp = chained(lab)
    marker = new_marker()
    for to, seen_as in ((SERVICE, PROVIDER), (SERVICE6, PROVIDER6)):
        assert ask_udp(neighbour, to, data=marker).seen_as == seen_as
        assert ask_tcp(neighbour, to, data=marker).seen_as == seen_as
        assert ping(neighbour, to, size=1400)
    assert http_get(neighbour, SERVICE, "/whoami").startswith(f"{PROVIDER} ".encode())
    isp.prove_sees(match(dst=PROVIDER, dport=1194), "the upstream's tunnel")
    isp.assert_none(match(marker=marker), "clear text")
    assert ask_udp(upstream.netns, SERVICE).seen_as == PROVIDER


def test_nothing_passes_without_its_tunnel(lab: LabFactory) -> None:
    upstream, neighbour, isp = chained(lab)
    neighbour.ip(f"route del {SERVICE}", f"route del {SERVICE6}")
    for to in (SERVICE, SERVICE6):
        assert ask_udp(neighbour, to)
        isp.prove_sees(match(dst=to, dport=7), "a neighbour that goes by the ISP itself")
    route(neighbour, upstream.address)
    assert ask_udp(neighbour, SERVICE).seen_as == PROVIDER
    since, marker = now(), new_marker()
    leak = any_of(match(marker=marker), match(dst=SERVICE), match(dst=SERVICE6))
    with UdpStream(neighbour, SERVICE, rate=200) as established:
        established.wait_for(20)
        upstream.drop_tunnel()
        assert silent(neighbour, marker)
    assert not ask_tcp(upstream.netns, SERVICE, data=marker, timeout=SHORT)
    isp.assert_none(leak, "what was for the tunnel", since=since)
    upstream.restore_tunnel()
    wait_until(lambda: ask_udp(neighbour, SERVICE).seen_as == PROVIDER, 10.0, "IPv4 again")
    wait_until(lambda: ask_udp(neighbour, SERVICE6).seen_as == PROVIDER6, 10.0, "IPv6 again")


def test_a_choked_tunnel_stands_and_carries_nothing(lab: LabFactory) -> None:
    upstream, neighbour, _ = chained(lab)
    upstream.choke_tunnel()
    assert silent(neighbour)
    assert ping(neighbour, upstream.address)
    upstream.release_tunnel()
    assert ask_udp(neighbour, SERVICE).seen_as == PROVIDER


def test_a_frozen_one_hears_nothing(lab: LabFactory) -> None:
    upstream, neighbour, _ = chained(lab)
    upstream.freeze()
    assert silent(neighbour)
    assert ping(neighbour, upstream.address, timeout=SHORT).verdict is Verdict.SILENT
    upstream.thaw()
    assert ask_udp(neighbour, SERVICE).seen_as == PROVIDER


def test_it_comes_back_after_a_stop_and_elsewhere(lab: LabFactory) -> None:
    upstream, neighbour, _ = chained(lab)
    upstream.stop()
    assert silent(neighbour)
    upstream.start_without_tunnel()
    assert silent(neighbour)
    assert ping(neighbour, upstream.address)
    upstream.restore_tunnel()
    assert ask_udp(neighbour, SERVICE).seen_as == PROVIDER
    upstream.stop()
    upstream.start(IPv4Address("172.28.0.5"), new_mac=True)
    assert ask_udp(neighbour, SERVICE, timeout=SHORT).verdict is Verdict.SILENT
    route(neighbour, upstream.address)
    assert ask_udp(neighbour, SERVICE).seen_as == PROVIDER


def test_gw_reaches_it_by_a_network_of_their_own(lab: LabFactory) -> None:
    upstream, _, _ = chained(lab, exit_net=True)
    gw = upstream.lab.gw.netns
    gw.ip(f"route add {SERVICE} via {EXIT_UPSTREAM}", f"route add {SERVICE6} via {EXIT_UPSTREAM6}")
    between = upstream.lab.capture(upstream.lab.router, "exit-gw")
    assert ask_udp(gw, SERVICE).seen_as == PROVIDER
    assert ask_udp(gw, SERVICE6).seen_as == PROVIDER6
    assert between.count(match(dst=SERVICE))
    upstream.stop()
    assert silent(gw)
    upstream.start()
    assert ask_udp(gw, SERVICE).seen_as == PROVIDER
    wait_until(lambda: ask_udp(gw, SERVICE6, timeout=SHORT), 5.0, "IPv6 to be back")

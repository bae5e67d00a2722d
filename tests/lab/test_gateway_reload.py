"""Exits that change under a running server: reload under load, restarts, roaming, the end.

client1 === inet === router -- gw (ocgate) -- upstream === OpenVPN === provider --- services
                                                 see lab.upstream, support.gateway_mode
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from lab.addresses import DOCKER_NET, EXIT_UPSTREAM, UPSTREAM
from lab.capture import now
from lab.client import Client
from lab.streams import UdpStream
from lab.topology import SERVICE, Lab, Options
from lab.traffic import Verdict, ask_udp
from lab.upstream import Upstream
from ocgate.names import CONTROL_PID, OCSERV_PID
from ocgate.netlab.packet import any_of, match
from ocgate.netlab.wait import wait_until
from support.gateway_mode import (
    Chain,
    LabFactory,
    chain,
    downloads,
    goes_on,
    leaves_by_the_provider,
    rejected_at_once,
    write_toml,
)
from support.lifecycle import ocgate, sessions

pytestmark = pytest.mark.lab

OTHER = DOCKER_NET[5]  # the same upstream by a second address
GATEWAY, ANOTHER, BLOCK = str(UPSTREAM), str(OTHER), "block"


def second_address(lab: Lab, _: Upstream) -> None:
    lab.upstream.netns.ip(f"address add {OTHER}/24 dev eth0")


@contextlib.contextmanager
def under_load(g: Chain, client: Client) -> Iterator[None]:
    """500 datagrams a second of the client, which never stop whatever becomes of them; all the
    while nothing by the ISP."""
    since = now()
    with UdpStream(client.netns, SERVICE, rate=500) as stream:
        wait_until(lambda: stream.tally.sent > 20, 5.0, "the load")
        yield
    g.assert_nothing_by_isp(since)


def test_reload_moves_to_another_gateway_and_to_block_and_back(lab: LabFactory) -> None:
    """From one gateway to another, to block, and back, under load: sessions stay, no packet leaks
    at any instant, and new flows go the new way at once."""
    g = chain(lab, before=second_address, toml={"VPN_GATEWAY": GATEWAY})
    g.wait_up()
    client = g.connect(0)
    g.prove_leaks_are_seen(client)
    before = sessions(g.gateway)
    with under_load(g, client):
        for target in (ANOTHER, BLOCK, GATEWAY, BLOCK, ANOTHER, GATEWAY):
            g.reload(VPN_GATEWAY=target)
            if target == BLOCK:
                assert rejected_at_once(client)
                continue
            g.wait_up()
            wait_until(lambda: ask_udp(client.netns, SERVICE, timeout=0.2), 5.0, f"by {target}")
            assert leaves_by_the_provider(client)
            routes = g.gateway.netns.run(["ip", "route", "show", "table", "100"]).stdout
            assert f"default via {target} dev eth0" in routes
    assert sessions(g.gateway) == before


def test_reload_into_gateway_mode_and_out_of_it(lab: LabFactory) -> None:
    """A standalone server is given a gateway and loses it again: what is with the gateway set goes
    by the upstream only; after it was taken away clients leave by this host, and of the mode only
    the guard stays, for the rest of this run (test_gateway_late)."""
    g = chain(lab, toml={"VPN_GATEWAY": GATEWAY})
    g.wait_up()
    client = g.connect(0)
    g.prove_leaks_are_seen(client)
    g.reload(IPV6_NAT="auto")
    assert ask_udp(client.netns, SERVICE).seen_as == g.lab.router.address
    assert "lookup 100" not in g.gateway.netns.run(["ip", "rule"]).stdout
    g.reload(VPN_GATEWAY=GATEWAY)
    since = now()
    g.wait_up()
    assert leaves_by_the_provider(client)
    g.assert_nothing_by_isp(since)


# --- roaming and the end ------------------------------------------------------------------------


def test_a_reload_while_the_gateway_s_interface_is_down_takes_the_rest(lab: LabFactory) -> None:
    """What it does not change stays as it is, closed; another gateway there is refused as ever, and
    changes nothing."""
    limits = ["nft", "list", "table", "inet", "ocserv_limits"]
    there, beside = str(EXIT_UPSTREAM), str(EXIT_UPSTREAM + 1)
    options = Options(upstream=True, exit_net=True)
    g = chain(lab, options, toml={"VPN_GATEWAY": there, "OCGATE_SESSION_FLOWS": "200"})
    g.wait_up()
    client = g.connect(0)
    g.prove_leaks_are_seen(client)
    since = now()
    g.gateway.netns.ip("link set exit0 down")
    wait_until(lambda: rejected_at_once(client), 10.0, "clients to be rejected")

    g.reload(VPN_GATEWAY=there, OCGATE_SESSION_FLOWS="300")
    assert "ct count over 300" in g.gateway.netns.run(limits).stdout
    assert "attached networks" in g.gateway.output
    assert rejected_at_once(client)

    write_toml(g.gateway, {"VPN_GATEWAY": beside, "OCGATE_SESSION_FLOWS": "400"})
    done = ocgate(g.gateway, "reload")
    assert done.returncode != 0
    assert f"{beside} is on none of the attached networks" in done.stdout + done.stderr
    assert "ct count over 300" in g.gateway.netns.run(limits).stdout
    assert rejected_at_once(client)

    g.gateway.netns.ip("link set exit0 up")
    wait_until(lambda: leaves_by_the_provider(client), 20.0, "the exit to be back")
    g.assert_nothing_by_isp(since)


def test_roaming_keeps_the_download_and_leaks_nothing(lab: LabFactory) -> None:
    """The client comes back from another address with its cookie, downloads in flight: they go on
    in the new session, and no packet of them leaves anywhere else."""
    g = chain(lab)
    client = g.connect(0)
    g.prove_leaks_are_seen(client)
    since = now()
    with downloads(client) as (udp, tcp):
        client.roam()
        print(f"measured roaming: udp on after {goes_on(udp):.3f} s, tcp {goes_on(tcp):.3f} s")
        client.roam_back()
        goes_on(udp)
        goes_on(tcp)
    assert leaves_by_the_provider(client)
    g.assert_nothing_by_isp(since)


def test_nothing_for_an_ended_session_leaves(lab: LabFactory) -> None:
    """The user logs off with downloads in flight, which the servers don't hear of: nothing of them
    goes anywhere but to gw, and gw answers nobody by the ISP."""
    g = chain(lab)
    client = g.connect(0)
    g.prove_leaks_are_seen(client)
    since = now()
    with downloads(client) as (udp, tcp):
        flow = any_of(match(marker=udp.marker), match(marker=tcp.marker))
        client.disconnect()
        wait_until(lambda: not sessions(g.gateway), 5.0, "the end of the session")
        ended = now()
        wait_until(lambda: g.wan.count(flow, since=ended) > 1000, 20.0, "late packets")
    g.assert_nothing_by_isp(since)
    g.wan.assert_none(lambda p: p.outgoing and flow(p), "what came for the client", since=ended)


# --- the server itself --------------------------------------------------------------------------


def test_a_killed_control_plane_leaks_nothing_and_loses_nobody(lab: LabFactory) -> None:
    """Control is killed while a client downloads: the downloads go on, by the provider."""
    g = chain(lab)
    client = g.connect(0)
    g.prove_leaks_are_seen(client)
    since = now()
    with downloads(client) as (udp, tcp):
        g.gateway.wait_replaced(CONTROL_PID, g.gateway.kill(CONTROL_PID))
        g.wait_up()
        goes_on(udp)
        goes_on(tcp)
    assert leaves_by_the_provider(client)
    g.assert_nothing_by_isp(since)


def test_a_killed_ocserv_leaks_nothing(lab: LabFactory) -> None:
    """ocserv is killed while a client downloads: what still comes for the client goes nowhere."""
    g = chain(lab)
    client = g.connect(0)
    g.prove_leaks_are_seen(client)
    since = now()
    with downloads(client):
        g.gateway.wait_replaced(OCSERV_PID, g.gateway.kill(OCSERV_PID))
        wait_until(lambda: not sessions(g.gateway), 5.0, "the session to be ended")
    client.program.kill()
    g.gateway.wait_ready()
    assert leaves_by_the_provider(g.connect(0))
    g.assert_nothing_by_isp(since)


def test_a_stop_closes_clients_all_the_way_and_leaves_nothing(lab: LabFactory) -> None:
    """SIGTERM with a client that sends without pause: no packet by the ISP, and afterwards the
    kernel is as before the start."""
    g = chain(lab)
    client = g.connect(0)
    g.prove_leaks_are_seen(client)
    with under_load(g, client):
        g.gateway.stop()
    assert g.gateway.left_behind() == []


def test_a_client_of_a_blocked_server_gets_an_answer_and_not_silence(lab: LabFactory) -> None:
    """While control is dead (SIGKILL) and the upstream goes down, nobody notices health: clients
    get silence or an error, the ISP gets nothing."""
    g = chain(lab)
    client = g.connect(0)
    g.prove_leaks_are_seen(client)
    with under_load(g, client):
        g.gateway.kill()
        g.upstream.drop_tunnel()
        verdict = ask_udp(client.netns, SERVICE, timeout=0.5).verdict
        assert verdict in (Verdict.SILENT, Verdict.REJECTED)
        g.wait_down(timeout=10.0)
        wait_until(lambda: rejected_at_once(client), 5.0, "rejects")

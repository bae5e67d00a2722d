"""After an outage: flows whose way is the same go on, what was cut is told to both ends, no leak.

    client1 === inet === router -- gw (ocgate) -- upstream === OpenVPN === provider --- far end
                                    neighbour1 -- exit     === OpenVPN === provider --- far end

Flows and far end are `support.outage`'s. What each kind did after 0.5 to 90 s, before and after
this was built, is in docs/gateway-mode.md.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, closing

import pytest

from lab import exit_role
from lab.addresses import DOCKER_NET, UPSTREAM, UPSTREAM6
from lab.capture import now
from lab.exit_role import ExitRole
from lab.openvpn import Provider
from lab.streams import UdpStream, select_in
from lab.topology import SERVICE, SERVICE6, Lab
from lab.traffic import read_error, udp_socket
from lab.upstream import Upstream
from ocgate.netlab.namespace import Namespace
from ocgate.netlab.services import ECHO_PORT
from ocgate.netlab.wait import wait_until
from support.exit_node import Ground, LabFactory, ground, write_config
from support.gateway_mode import Chain, chain, rejected, rejected_at_once
from support.outage import KINDS, FarEnd, Flow, flows

pytestmark = pytest.mark.lab

# A sender's pause grows to as long as the outage has lasted (RFC 6298); those here last for the
# seconds in which a verdict falls.
GOES_ON = 30.0
TOLD = 15.0


def held(stack: ExitStack, netns: Namespace, to: object = SERVICE) -> dict[str, Flow]:
    """A flow of each kind that ends with the test."""
    made = flows(netns, to)  # type: ignore[arg-type]
    for flow in made.values():
        stack.enter_context(closing(flow))
    return made


def all_go_on(running: dict[str, Flow]) -> None:
    """Each of them, the idle one when it says something again."""
    since = {kind: flow.heard for kind, flow in running.items()}
    running["idle"].ask()
    took = {kind: flow.wait_heard(since[kind], GOES_ON) for kind, flow in running.items()}
    print("measured goes on:", {kind: round(seconds, 1) for kind, seconds in took.items()})
    assert not any(flow.end for flow in running.values())


# --- the server, by a gateway -------------------------------------------------------------------


FAULTS: dict[str, tuple[Callable[[Upstream], None], Callable[[Upstream], None]]] = {
    "frozen": (Upstream.freeze, Upstream.thaw),
    "its line is cut": (Upstream.choke_tunnel, Upstream.release_tunnel),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_flows_outlast_a_gateway_that_is_down(lab: LabFactory, fault: str) -> None:
    """Streams of both families wait and go on, on the same connections; what is new is rejected at
    once meanwhile; and nothing takes another way."""
    g = chain(lab, environ={"VPN_GATEWAY6": str(UPSTREAM6)})
    g.wait_up(6)
    g.lab.own(FarEnd(g.lab.inet.netns, SERVICE, SERVICE6))
    client = g.connect(0)
    g.prove_leaks_are_seen(client)
    since = now()
    breaks, heals = FAULTS[fault]
    with ExitStack() as stack:
        four, six = (held(stack, client.netns, to) for to in (SERVICE, SERVICE6))
        stream = stack.enter_context(UdpStream(client.netns, SERVICE, rate=100))
        wait_until(lambda: len(stream.tally.received) > 300, 10.0, "datagrams for 3 s: a stream")
        breaks(g.upstream)
        g.wait_down(4)
        g.wait_down(6)
        assert rejected_at_once(client)
        assert rejected_at_once(client, SERVICE6)
        heals(g.upstream)
        g.wait_up(4)
        g.wait_up(6)
        all_go_on(four)
        all_go_on(six)
        assert not stream.tally.rejected
        had = len(stream.tally.received)
        wait_until(lambda: len(stream.tally.received) > had, 5.0, "the stream")
    g.assert_nothing_by_isp(since)


def test_a_question_is_no_stream_and_is_refused_at_once(lab: LabFactory) -> None:
    """A socket that asks now and then, as a resolver's may, learns of a dead exit when it asks."""
    g = chain(lab)
    client = g.connect(0)
    with udp_socket(client.netns, SERVICE, ECHO_PORT, None) as sock:
        sock.send(b"a question")
        assert select_in(sock, 5.0)
        assert sock.recv(100)
        g.upstream.choke_tunnel()
        wait_until(lambda: rejected(client), 15.0, "the first reject")
        sock.send(b"another question")
        assert select_in(sock, 5.0)
        assert read_error(sock)


def another_address(upstream: Upstream) -> None:
    """Its tunnel comes back as another one's: what it had translated is forgotten."""
    upstream.provider.close()
    _other_pool(upstream.provider)
    upstream.provider.start()
    upstream.restore_tunnel()


def _other_pool(provider: Provider) -> None:
    """The next tunnel gets another address. (Options that OpenVPN takes beside its macro.)"""
    argv = provider._argv
    v6, v4 = argv.index("--server-ipv6"), argv.index("--server")
    pool = ["nopool", "--ifconfig-pool", "10.8.0.50", "10.8.0.99", "255.255.255.0"]
    provider._argv = [*argv[: v4 + 3], *pool, *argv[v4 + 3 : v6], *argv[v6 + 2 :]]


def test_who_waits_behind_a_gateway_that_has_forgotten_its_flows_is_told(lab: LabFactory) -> None:
    """Also a download, whose client says nothing of its own and would wait for ever."""
    g = chain(lab)
    g.lab.own(FarEnd(g.lab.inet.netns, SERVICE))
    client = g.connect(0)
    with ExitStack() as stack:
        running = held(stack, client.netns)
        g.upstream.drop_tunnel()
        g.wait_down()
        assert not running["download"].end
        another_address(g.upstream)
        g.wait_up()
        for kind in KINDS:
            wait_until(lambda kind=kind: running[kind].end, TOLD, f"{kind} to be told")


OTHER = DOCKER_NET[5]


def second_address(lab: Lab, _: Upstream) -> None:
    lab.upstream.netns.ip(f"address add {OTHER}/24 dev eth0")


def test_who_waits_is_told_when_its_way_is_another(lab: LabFactory) -> None:
    """The gateway is another one after a reload: all connections are reset, those that are silent,
    too; and not by their far ends, which hear nothing of a flow of theirs from the new address."""
    g = chain(lab, before=second_address, toml={"VPN_GATEWAY": str(UPSTREAM)})
    g.wait_up()
    g.lab.own(FarEnd(g.lab.inet.netns, SERVICE))
    client = g.connect(0)
    g.prove_leaks_are_seen(client)
    since = now()
    with ExitStack() as stack:
        running = held(stack, client.netns)
        g.upstream.choke_tunnel()
        g.reload(VPN_GATEWAY=str(OTHER))
        for kind in KINDS:
            wait_until(lambda kind=kind: running[kind].end, TOLD, f"{kind} to be told")
        assert {flow.end.why for flow in running.values() if flow.end} == {
            "Connection reset by peer"
        }
        g.upstream.release_tunnel()
    g.assert_nothing_by_isp(since)


# --- the exit role ------------------------------------------------------------------------------


def is_remade(
    g: Ground | Chain, exit: ExitRole, provider: Provider, *, other: bool = False
) -> None:
    """The tunnel goes with its server, and is made anew when that is back."""
    provider.close()
    exit.kill_client()
    wait_until(lambda: exit.state() not in ("up", ""), 10.0, "the tunnel's end")
    if other:
        _other_pool(provider)
    provider.start()
    exit.wait_healthy(60.0)


def test_flows_outlast_a_tunnel_that_is_made_anew_with_its_address(lab: LabFactory) -> None:
    g = ground(lab)
    g.lab.own(FarEnd(g.lab.inet.netns, SERVICE))
    g.prove_leaks_are_seen()
    since = now()
    with ExitStack() as stack:
        running = held(stack, g.user.netns)
        g.provider.close()
        g.exit.kill_client()
        wait_until(lambda: g.exit.state() not in ("up", ""), 10.0, "the tunnel's end")
        wait_until(g.rejected_at_once, 10.0, "what is new to be refused")  # the state is first
        running["idle"].ask()  # and is told, which is no end
        g.provider.start()
        g.exit.wait_healthy(60.0)
        all_go_on(running)
    g.assert_nothing_by_isp(since)


def test_flows_of_a_tunnel_with_another_address_are_reset_when_they_send(lab: LabFactory) -> None:
    """And do not reach their far ends as somebody else's. (A download is told by the server in
    front, if that is ocgate: `test_who_waits_behind_both_roles_is_told`.)"""
    g = ground(lab)
    g.lab.own(FarEnd(g.lab.inet.netns, SERVICE))
    g.prove_leaks_are_seen()
    since = now()
    with ExitStack() as stack:
        running = held(stack, g.user.netns)
        is_remade(g, g.exit, g.provider, other=True)
        running["idle"].ask()
        for kind in ("upload", "idle"):
            wait_until(lambda kind=kind: running[kind].end, TOLD, f"{kind} to be told")
        assert g.blocked("invalid")
    g.assert_nothing_by_isp(since)


# --- both roles ---------------------------------------------------------------------------------


def both(lab: LabFactory) -> tuple[Chain, ExitRole, AbstractContextManager[FarEnd]]:
    """The server, and behind it our exit in the place of the lab's upstream."""
    started: list[ExitRole] = []

    def ours(built: Lab, upstream: Upstream) -> None:
        upstream.netns.nft("delete table inet kill_switch")
        path = write_config(built, upstream.provider.config())
        started.append(exit_role.start(built, {"OVPN_CONFIG": str(path)}))
        started[0].wait_healthy()

    g = chain(lab, tunnel=False, before=ours)
    g.wait_up()
    return g, started[0], closing(g.lab.own(FarEnd(g.lab.inet.netns, SERVICE)))


def test_flows_outlast_a_tunnel_that_is_made_anew_behind_both_roles(lab: LabFactory) -> None:
    g, exit, _ = both(lab)
    client = g.connect(0)
    g.prove_leaks_are_seen(client)
    since = now()
    with ExitStack() as stack:
        running = held(stack, client.netns)
        is_remade(g, exit, g.upstream.provider)
        g.wait_up()
        all_go_on(running)
    g.assert_nothing_by_isp(since)


def test_who_waits_behind_both_roles_is_told(lab: LabFactory) -> None:
    """The tunnel has another address: the exit resets what belongs to no flow, and the server makes
    the silent ones speak."""
    g, exit, _ = both(lab)
    client = g.connect(0)
    with ExitStack() as stack:
        running = held(stack, client.netns)
        is_remade(g, exit, g.upstream.provider, other=True)
        g.wait_up()
        for kind in KINDS:
            wait_until(lambda kind=kind: running[kind].end, TOLD, f"{kind} to be told")

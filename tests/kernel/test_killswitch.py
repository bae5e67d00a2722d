"""The kill switch in a kernel: nothing leaves by the uplink, whichever lock is gone.

`support.killswitch_site` draws the site. Each test that says "nothing leaves" captures the uplink
and has seen the very same packets there before, without the kill switch.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

import support.killswitch_site as k
from lab.capture import now
from ocgate.kernel import tun
from ocgate.kernel.apply import drift
from ocgate.names import NFT_TABLE_EXIT, TUNNEL_UID
from ocgate.netlab import inject
from ocgate.netlab.packet import ACK, RST, SYN, Packet, Predicate, build_tcp, build_udp, match
from ocgate.netlab.wait import wait_until
from ocgate.tunnel.model import Endpoint, ExitIntent

pytestmark = pytest.mark.kernel

# What the positive control must have seen on the uplink, so that its absence says something.
CONTROLS = {
    "a client's datagram": match(src=k.PEER, dst=k.SERVICE, protocol="udp"),
    "a client's SYN": match(src=k.PEER, dst=k.SERVICE, protocol="tcp", flags=0x02),
    "a client's ACK of no flow": match(src=k.PEER, dst=k.SERVICE, protocol="tcp", flags=0x10),
    "a client's ping": match(src=k.PEER, dst=k.SERVICE, protocol="icmp"),
    "a client's packet to the endpoint": match(src=k.PEER, dst=k.SERVER),
    "a client's DNS": match(src=k.PEER, dst=k.RESOLVER, dport=53),
    "a client's IPv6": match(src=k.PEER6, dst=k.SERVICE6, protocol="udp"),
    "a stranger's datagram": match(src=k.STRANGER, dst=k.SERVICE, protocol="udp"),
    "a forged source": match(src=k.FORGED[0], dst=k.SERVICE),
    "a forged IPv6 source": match(src=k.FORGED6[0], dst=k.SERVICE6),
    "this host's DNS": match(dst=k.RESOLVER, dport=53, protocol="udp"),
    "this host's IPv6": match(dst=k.SERVICE6, dport=53, protocol="udp"),
    "this host's connection": match(dst=k.SERVICE, dport=443, protocol="tcp"),
    "this host to another port of the endpoint": match(dst=k.SERVER, dport=53),
    "this host to another server": match(dst=k.OTHER_SERVER, dport=53),
}
STATES = {"closed": k.CLOSED, "connecting": k.CONNECTING, "up": k.UP, "up, IPv6 too": k.UP_BOTH}
each_state = pytest.mark.parametrize("state", STATES)
each_opposite = pytest.mark.parametrize("state", ["closed", "up, IPv6 too"])


@pytest.fixture(params=[1, 2], ids=["one interface", "two interfaces"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[k.Site]:
    made = k.build(tmp_path, interfaces=request.param)
    yield made
    made.close()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[k.Site]:
    """One interface, for what does not depend on their number."""
    made = k.build(tmp_path)
    yield made
    made.close()


def control(site: k.Site) -> None:
    """Without the kill switch all of it is seen on the uplink."""
    k.everything(site)
    for what, predicate in CONTROLS.items():
        site.capture.prove_sees(lambda p, like=predicate: p.outgoing and like(p), what)


def nothing_leaves(site: k.Site, what: str, *, but: Predicate = k.never) -> None:
    """`everything` is sent again, and none of it is seen there."""
    since = now()
    k.everything(site)
    site.capture.assert_none(
        lambda p: k.beyond(p) and not but(p), f"what leaves by the uplink: {what}", since=since
    )


def to_the_endpoint(packet: Packet) -> bool:
    """This host's own, to the endpoint's address: lock 2 knows no ports and uids."""
    return packet.dst == ip_address(k.SERVER) and str(packet.src) in (k.EXIT, "172.29.0.2")


def run(site: k.Site, commands: str) -> None:
    site.exit.run(["/bin/sh", "-ec", commands])


# --- as applied ---------------------------------------------------------------------------------


@each_state
def test_nothing_leaves_by_the_uplink(site: k.Site, state: str) -> None:
    control(site)
    site.connect(STATES[state])
    nothing_leaves(site, state)


def test_clients_are_told_that_the_tunnel_is_down(site: k.Site) -> None:
    """Before anything times out, by TCP and UDP, IPv4 and IPv6, and whether this host forwards."""
    site.apply(k.CONNECTING)
    for forwarding in ("1", "0"):
        site.exit.sysctl("net/ipv4/ip_forward", forwarding)
        site.exit.sysctl("net/ipv6/conf/all/forwarding", forwarding)
        for to in (k.SERVICE, k.SERVICE6):
            for tcp in (True, False):  # no RST: a probe would take it for the other end's answer
                told = k.ask(site.peer, to, 80 if tcp else 7, tcp=tcp)
                assert told in ("No route to host", "Permission denied"), (to, told)
    # More than 8 where an error came while its socket was still in connect(2): such a SYN is sent
    # once more (tcp_v6_err, sk_err_soft).
    assert site.counted("tunnel_down") >= 8


def test_a_connection_that_exists_is_reset_when_the_tunnel_is_down(small: k.Site) -> None:
    """At once, while one that would begin is told by ICMP: a RST would look like the far end's, and
    so like a way that works, to the probes of a server in front."""
    small.apply(k.CONNECTING)
    seen = k.Capture(small.peer, "eth0")
    for source, to in ((k.PEER, k.SERVICE), (k.PEER6, k.SERVICE6)):
        inject.routed(small.peer, build_tcp(source, to, 4001, 80, flags=SYN))
        inject.routed(small.peer, build_tcp(source, to, 4002, 80, flags=ACK, ack=1))
        reset = match(src=to, protocol="tcp", flags=RST, outgoing=False)
        seen.wait_for(match(src=to, dport=4002, flags=RST), "the reset of what existed")
        assert [packet.dport for packet in seen.packets(reset)] == [4002]
    seen.close()


def test_what_may_use_the_tunnel_uses_it_and_hears_the_answers(site: k.Site) -> None:
    """UDP, TCP and ping of clients and of this host, both families, from the tunnel's address."""
    end = site.connect(k.UP_BOTH)
    for to, inner in (
        (k.SERVICE, "10.8.0.2"),
        (k.SERVICE6, "fd9c:41d7:58a2:8::2"),
        (k.SERVER, "10.8.0.2"),  # to a client the endpoint is an address like any other
    ):
        assert k.ask(site.peer, to, 7) == to
        assert k.ask(site.peer, to, 80, tcp=True) == to
        assert k.pings(site.peer, to)
        seen = end.packets(match(dst=to))
        assert {str(packet.src) for packet in seen} == {inner}
    for to in (k.SERVICE, k.SERVICE6):
        assert k.ask(site.exit, to, 7) == to
    assert site.capture.packets(k.beyond) == []


def test_ipv6_that_the_tunnel_does_not_carry_is_rejected(site: k.Site) -> None:
    site.connect(k.UP)
    assert k.ask(site.peer, k.SERVICE6, 80, tcp=True) == "Connection refused"
    assert k.ask(site.peer, k.SERVICE, 80, tcp=True) == k.SERVICE
    assert site.counted("ipv6_not_carried") >= 1
    assert site.counted("tunnel_down") == 0


def test_each_block_is_counted_by_its_reason(small: k.Site) -> None:
    end = small.connect(k.UP)
    k.everything(small)
    assert small.counted("not_allowed") >= 4
    assert small.counted("local_destination") >= 1  # cloud metadata
    assert small.counted("output_closed") >= 0
    end.send(build_udp(k.SERVICE, k.PEER, 7, 4999, b"unsolicited"))
    wait_until(lambda: small.counted("unsolicited") == 1, 5.0, "the drop to be counted")
    end.send(build_udp(k.SERVICE, "10.8.0.2", 7, 22, b"to the exit"))
    wait_until(lambda: small.counted("input_closed") == 1, 5.0, "the drop to be counted")


# --- each lock alone ----------------------------------------------------------------------------

FAULTS = {
    "the tunnel's device is deleted": "ip link delete tun0",
    "... and made anew by somebody else": (
        "ip link delete tun0; ip tuntap add tun0 mode tun; ip link set tun0 up"
    ),
    "the tunnel's device is down": "ip link set tun0 down",
    "the ruleset is flushed": "nft flush ruleset",
    "the table is emptied": f"nft flush table inet {NFT_TABLE_EXIT}",
    "all policy rules are flushed": "ip rule flush; ip -6 rule flush;"
    "ip rule add pref 32766 lookup main; ip -6 rule add pref 32766 lookup main",
    "the tunnel's table is flushed": "ip route flush table 101; ip -6 route flush table 101",
    "another default route is added": (
        "ip route prepend default via {second}; ip -6 route add default via {second6} metric 1"
    ),
    "the default route goes and comes back": (
        "ip route del default; ip -6 route del default;"
        "ip route add default via {gateway}; ip -6 route add default via {gateway6}"
    ),
    "both halves of the internet by the uplink": (
        "ip route add 0.0.0.0/1 via {gateway}; ip route add 128.0.0.0/1 via {gateway};"
        "ip -6 route add ::/1 via {gateway6}; ip -6 route add 8000::/1 via {gateway6}"
    ),
    "... with the ruleset flushed, too": (
        "ip route add 0.0.0.0/1 via {gateway}; ip route add 128.0.0.0/1 via {gateway};"
        "ip -6 route add ::/1 via {gateway6}; nft flush ruleset"
    ),
    "... with the rules flushed, too": (
        "ip rule flush; ip -6 rule flush;"
        "ip rule add pref 32766 lookup main; ip -6 rule add pref 32766 lookup main;"
        "ip route add 0.0.0.0/1 via {gateway}; ip route add 128.0.0.0/1 via {gateway}"
    ),
    "the uplink stands in the tunnel's table": (
        "ip route replace default via {gateway} table 101;"
        "ip -6 route add default via {gateway6} dev {uplink} onlink metric 1 table 101"
    ),
}
"""Each leaves one lock at least."""


# Of both states where the exit has one interface, which most have; of the one that is open also
# where it has two.
@pytest.mark.parametrize(
    ("interfaces", "state"), [(1, "closed"), (1, "up, IPv6 too"), (2, "up, IPv6 too")]
)
@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_leaves_where_one_lock_is_broken(
    fault: str, interfaces: int, state: str, tmp_path: Path
) -> None:
    site = k.build(tmp_path, interfaces=interfaces)
    try:
        control(site)
        site.connect(STATES[state])
        run(site, FAULTS[fault].format(**site.ways()))
        nothing_leaves(site, fault, but=to_the_endpoint if "nft" in FAULTS[fault] else k.never)
    finally:
        site.close()


def test_both_locks_gone_it_would_be_seen(site: k.Site) -> None:
    """So what holds above is the locks, and nothing that the site does by itself."""
    site.connect(k.UP_BOTH)
    run(site, FAULTS["the ruleset is flushed"])
    run(site, FAULTS["all policy rules are flushed"])
    control(site)


@each_opposite
def test_lock_2_alone_holds_without_any_one_of_its_rules(small: k.Site, state: str) -> None:
    """The ruleset flushed, and each policy rule deleted in its turn."""
    control(small)
    small.connect(STATES[state])
    plan = small.apply(STATES[state]).plan
    small.exit.nft("flush ruleset")
    for rule in plan.rules:
        family = "-6" if rule.family == 6 else "-4"
        small.exit.ip(f"rule del {rule.text} pref {rule.priority}", v6=rule.family == 6)
        nothing_leaves(small, f"without {rule}", but=to_the_endpoint)
        small.exit.run(["ip", family, *str(rule).removeprefix("ip -6").removeprefix("ip").split()])


@each_opposite
def test_lock_1_alone_holds_without_any_one_of_its_rules(small: k.Site, state: str) -> None:
    """All policy rules flushed, and each nft rule deleted in its turn."""
    control(small)
    small.connect(STATES[state])
    chains = small.apply(STATES[state]).plan.tables[0].chains
    for chain in chains:
        for number, rule in enumerate(chain.rules):
            small.apply(STATES[state])
            run(small, FAULTS["all policy rules are flushed"])
            handle = _handles(small, chain.name)[number]
            small.exit.nft(f"delete rule inet {NFT_TABLE_EXIT} {chain.name} handle {handle}")
            nothing_leaves(small, f"without {chain.name}: {rule}")


def _handles(site: k.Site, chain: str) -> list[int]:
    with site.exit.entered():
        listed = site.nft.list_json(f"list chain inet {NFT_TABLE_EXIT} {chain}")["nftables"]
    return [item["rule"]["handle"] for item in listed if "rule" in item]


def test_nothing_leaves_while_states_follow_each_other(small: k.Site) -> None:
    """Each change is one transaction: no packet meets a moment between two states."""
    control(small)
    small.connect(k.UP_BOTH)
    others = replace(k.UP, endpoint=Endpoint(ip_address(k.OTHER_SERVER), 1443, ("tcp",)))
    since = now()
    for intent in (*STATES.values(), others, *reversed(STATES.values())):
        small.apply(intent)
        k.everything(small)
    small.capture.assert_none(k.beyond, "what leaves between two states", since=since)


# --- the endpoint -------------------------------------------------------------------------------


def test_the_endpoint_is_reached_by_the_client_s_uid_alone(site: k.Site) -> None:
    """... by its protocol and port alone, with the tunnel up or not, and its answers come in."""
    for state in (k.CONNECTING, k.UP):
        site.apply(state)
        with k.Echo(site.host, k.SERVER, 1194):
            assert k.ask(site.exit, k.SERVER, 1194, uid=TUNNEL_UID) == k.SERVER
        site.capture.prove_sees(match(dst=k.SERVER, dport=1194, outgoing=True), "the client's own")
        since = now()
        for uid in (0, k.SOMEBODY):
            assert k.say(site.exit, k.SERVER, 1194, uid=uid) != ""
        k.say(site.exit, k.SERVER, 1195, uid=TUNNEL_UID)
        k.say(site.exit, k.SERVER, 1194, uid=TUNNEL_UID, tcp=True)
        k.say(site.exit, k.OTHER_SERVER, 1194, uid=TUNNEL_UID)
        site.fence()
        site.capture.assert_none(k.beyond, "all but the client to the endpoint", since=since)


def test_nobody_takes_what_the_endpoint_sends_to_the_client(site: k.Site) -> None:
    """Port shadow: a neighbour asks the endpoint itself, from the client's own port and from each
    low one. That leaves by the tunnel and is answered there; what the endpoint sends to the client
    by the uplink stays the client's, whether its flow is older or not."""
    end, ports, since = site.connect(k.UP), (40000, 40001), now()
    with k.Echo(site.host, k.SERVER, 1194):
        assert client_asks(site, ports[0]) == CLIENTS
        for own in (*range(1, 512), *ports):
            k.inject.routed(site.peer, k.build_udp(k.PEER, k.SERVER, own, 1194, b"taken?"))
        site.fence()
        assert [client_asks(site, port) for port in ports] == [CLIENTS, CLIENTS]
    assert len(end.packets(match(dst=k.SERVER, dport=1194))) > 256
    site.inside.prove_sees(match(src=k.SERVER, dst=k.PEER), "the tunnel's answers")
    site.inside.assert_none(match(dst=k.PEER, marker=CLIENTS), "what is the client's", since=since)
    taken = match(dst=k.SERVER, marker=b"taken?", interface=site.uplink, outgoing=True)
    site.capture.prove_sees(match(dst=k.SERVER, marker=CLIENTS, outgoing=True), "the client's own")
    site.capture.assert_none(taken, "a neighbour's packet by the uplink", since=since)


CLIENTS = b"of the tunnel's client"


def client_asks(site: k.Site, port: int) -> bytes:
    """What the endpoint answers to the client's uid, which asks from that port."""
    with site.exit.entered(), k.as_uid(TUNNEL_UID):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sock:
        sock.settimeout(5.0)
        sock.bind(("", port))
        sock.sendto(CLIENTS, (k.SERVER, 1194))
        return sock.recv(100)


def test_another_endpoint_closes_the_one_before(site: k.Site) -> None:
    site.apply(k.CONNECTING)
    k.say(site.exit, k.SERVER, 1194, uid=TUNNEL_UID)
    site.capture.prove_sees(match(dst=k.SERVER, dport=1194, outgoing=True), "the first endpoint")
    other = Endpoint(ip_address(k.OTHER_SERVER), 443, ("tcp",))
    site.apply(replace(k.CONNECTING, endpoint=other))
    since = now()
    k.say(site.exit, k.SERVER, 1194, uid=TUNNEL_UID)
    k.say(site.exit, k.OTHER_SERVER, 443, uid=TUNNEL_UID, tcp=True)
    site.capture.wait_for(
        match(dst=k.OTHER_SERVER, dport=443, outgoing=True), "the second endpoint", since=since
    )
    site.capture.assert_none(match(dst=k.SERVER), "what goes to the first one", since=since)
    site.apply(k.CLOSED)
    since = now()
    k.say(site.exit, k.OTHER_SERVER, 443, uid=TUNNEL_UID, tcp=True)
    site.fence()
    site.capture.assert_none(k.beyond, "what goes to any endpoint when closed", since=since)


def test_an_ipv6_endpoint_is_reached_as_an_ipv4_one(site: k.Site) -> None:
    endpoint = Endpoint(ip_address(k.SERVER6), 1194, ("udp",))
    site.apply(replace(k.CONNECTING, endpoint=endpoint))
    with k.Echo(site.host, k.SERVER6, 1194):
        assert k.ask(site.exit, k.SERVER6, 1194, uid=TUNNEL_UID) == k.SERVER6
    assert k.say(site.exit, k.SERVER6, 1194, uid=0) != ""
    assert k.say(site.exit, k.SERVICE6, 1194, uid=TUNNEL_UID) != ""


def test_an_endpoint_on_the_docker_network_is_reached_there(site: k.Site) -> None:
    """Two exits in cascade on one network: the next one is a neighbour."""
    site.apply(replace(k.CONNECTING, endpoint=Endpoint(ip_address(k.HOST), 1194, ("udp",))))
    with k.Echo(site.host, k.HOST, 1194):
        assert k.ask(site.exit, k.HOST, 1194, uid=TUNNEL_UID) == k.HOST


def test_without_a_way_to_the_endpoint_the_tunnel_does_not_carry_itself(small: k.Site) -> None:
    """The uplink's default route is gone: an error, and nothing of the client in its own tun."""
    end = small.connect(k.UP)
    small.exit.ip("route del default")
    assert k.say(small.exit, k.SERVER, 1194, uid=TUNNEL_UID) == "Network is unreachable"
    assert end.packets(match(dst=k.SERVER)) == []


@pytest.mark.parametrize("strictness", [0, 1, 2])
def test_any_reverse_path_filter_lets_answers_in(site: k.Site, strictness: int) -> None:
    for name in ("all", "eth0", site.uplink):
        site.exit.sysctl(f"net/ipv4/conf/{name}/rp_filter", strictness)
    site.connect(k.UP)
    site.exit.sysctl("net/ipv4/conf/tun0/rp_filter", strictness)
    assert k.ask(site.peer, k.SERVICE, 7) == k.SERVICE
    assert k.ask(site.exit, k.SERVICE, 7) == k.SERVICE
    assert k.pings(site.peer, k.EXIT)
    with k.Echo(site.host, k.SERVER, 1194):
        assert k.ask(site.exit, k.SERVER, 1194, uid=TUNNEL_UID) == k.SERVER


def test_an_established_flow_ends_with_its_tunnel(small: k.Site) -> None:
    """What went through the tunnel is not sent on by the uplink when it is down, nor by a new one
    from an address that is not the new one's."""
    control(small)
    end = small.connect(k.UP)
    like = match(dst=k.SERVICE, dport=7)
    flow = build_udp(k.PEER, k.SERVICE, 4444, 7, b"of a long flow")
    inject.routed(small.peer, flow)
    wait_until(lambda: end.packets(like), 5.0, "the flow in the tunnel")
    small.apply(k.CONNECTING)
    since = now()
    inject.routed(small.peer, flow)
    small.fence()
    small.capture.assert_none(k.beyond, "the flow, by the uplink", since=since)
    assert len(end.packets(like)) == 1
    carried = replace(k.CARRIED, addresses=(k.ip_interface("10.9.0.7/32"),))
    small.apply(replace(k.UP, carried=carried))
    inject.routed(small.peer, flow)
    wait_until(lambda: len(end.packets(like)) == 2, 5.0, "the flow once more")
    assert str(end.packets(like)[1].src) == "10.9.0.7"


# --- neighbours, this host, local networks -------------------------------------------------------


def test_neighbours_may_ping_the_exit_and_nothing_else(small: k.Site) -> None:
    """In every state, and nothing listens for who is in no list."""
    for intent in STATES.values():
        small.connect(intent)
        assert k.pings(small.peer, k.EXIT) and k.pings(small.peer, k.EXIT6)
        assert k.ask(small.peer, k.EXIT, 22, tcp=True) == "Connection refused"
        assert small.stranger.run(["ping", "-c1", "-W1", k.EXIT], check=False).returncode == 1
    assert small.counted("input_closed") >= 8


def test_a_listener_of_the_exit_is_not_reached_from_the_tunnel(small: k.Site) -> None:
    """A connection from the far end would be answered through the tunnel."""
    end = small.connect(k.UP)
    with k.Echo(small.exit, "0.0.0.0", 2222):
        end.send(build_udp(k.SERVICE, "10.8.0.2", 4000, 2222, b"hello"))
        wait_until(lambda: small.counted("input_closed") == 1, 5.0, "the drop to be counted")
    assert end.packets(match(sport=2222)) == []


def test_nothing_comes_in_from_the_tunnel_unasked(small: k.Site) -> None:
    """To clients, whatever the source; without the kill switch it would arrive."""
    arriving = match(dst=k.PEER, dport=4999, outgoing=False)
    seen = k.Capture(small.peer, "eth0")
    end = small.connect(k.UP)
    packets = [build_udp(src, k.PEER, 7, 4999, b"x") for src in (k.SERVICE, k.STRANGER, k.HOST)]
    end.send(*packets)
    wait_until(lambda: small.counted("unsolicited") == 3, 5.0, "the drops to be counted")
    small.exit.nft("flush ruleset")
    since = now()
    end.send(packets[0])
    seen.prove_sees(arriving, "an unasked packet, without the table")
    assert seen.packets(arriving)[0].at >= since
    seen.close()


@pytest.mark.parametrize("state", ["closed", "up"])
def test_local_networks_are_reached_without_the_tunnel(site: k.Site, state: str) -> None:
    """NETWORK, on the link and behind the docker host, by this host itself; clients don't get there
    through it, nor anybody where it isn't asked for."""
    nets = (k.ip_network("192.168.1.0/24"), k.ip_network("172.28.0.128/25"))
    site.apply(STATES[state])
    assert k.ask(site.exit, k.LAN, 7, seconds=0.2) != k.LAN
    site.connect(replace(STATES[state], networks=nets))
    if site.end is not None:
        site.end.answering = False
    with k.Echo(site.host, k.LAN, 7), k.Echo(site.stranger, k.STRANGER, 7):
        assert k.ask(site.exit, k.LAN, 7) == k.LAN
        assert k.ask(site.exit, k.STRANGER, 7, uid=k.SOMEBODY) == k.STRANGER
        assert k.ask(site.peer, k.LAN, 7) in ("No route to host", "Permission denied")
    assert k.pings(site.stranger, k.EXIT)  # NETWORK may ping, too


PUSHED = {
    "the docker network": "172.28.0.9/16",
    "a part of the docker network": "172.28.0.9/30",
    "half of the internet": "10.8.0.2/1",
    "the endpoint's network": "198.51.100.9/24",
    "the exit's own address": "172.28.0.2/24",
}


@pytest.mark.parametrize("what", PUSHED)
def test_a_network_that_the_other_end_makes_up_moves_nothing_local(site: k.Site, what: str) -> None:
    """Neighbours, clients, the endpoint: reached as before, whatever address the tunnel is given;
    clients' packets go into it, and nothing of theirs by the uplink."""
    control(site)
    end = site.connect(k.CONNECTING)
    carried = replace(k.CARRIED, addresses=(k.ip_interface(PUSHED[what]),))
    site.apply(replace(k.UP, carried=carried))
    assert k.pings(site.peer, k.EXIT)
    with k.Echo(site.host, k.SERVER, 1194):
        assert k.ask(site.exit, k.SERVER, 1194, uid=TUNNEL_UID) == k.SERVER
    assert k.ask(site.peer, k.SERVICE, 7) == k.SERVICE
    assert end.packets(match(dst=k.SERVICE, dport=7)) != []
    since = now()
    k.everything(site)
    site.capture.assert_none(k.beyond, "what leaves by the uplink", since=since)


# --- TCP and path MTU ----------------------------------------------------------------------------


def test_tcp_is_told_the_tunnel_s_size_in_both_directions(small: k.Site) -> None:
    """MTU 1400: an MSS of 1360 for IPv4, 1340 for IPv6, whatever the ends announced."""
    end = small.connect(k.UP_BOTH)
    seen = k.Capture(small.peer, "eth0")
    for to, mss in ((k.SERVICE, 1360), (k.SERVICE6, 1340)):
        assert k.ask(small.peer, to, 80, tcp=True) == to
        (syn, *_) = end.packets(match(dst=to, protocol="tcp", flags=0x02))
        answer = seen.wait_for(match(src=to, protocol="tcp", flags=0x12), "the SYN-ACK")
        assert (k.mss_of(syn), k.mss_of(answer)) == (mss, mss)
    seen.close()


def test_a_packet_that_is_too_big_for_the_tunnel_says_so(small: k.Site) -> None:
    """Path MTU discovery: the ICMP error reaches the client, and carries the tunnel's MTU."""
    small.connect(k.UP)
    done = small.peer.run(["ping", "-c1", "-W5", "-M", "do", "-s", "1450", k.SERVICE], check=False)
    assert "mtu = 1400" in done.stdout + done.stderr


# --- drift and repair -----------------------------------------------------------------------------

DAMAGE = {
    **{fault: FAULTS[fault] for fault in FAULTS if "default route" not in fault},
    "an address is taken": "ip address flush dev tun0 scope global",
    "an address is added": "ip address add 10.9.9.9/24 dev tun0",
    "another mtu": "ip link set tun0 mtu 1280",
}
# Routes of main are not ours: another default is no drift, and asked for nothing.
DAMAGE.pop("both halves of the internet by the uplink")


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_told_and_undone(small: k.Site, kind: str) -> None:
    made = small.apply(k.UP_BOTH)
    with small.exit.entered():
        assert drift(small.nft, made, {}) == ()
        run(small, DAMAGE[kind].format(**small.ways()))
        assert drift(small.nft, made, {}) != ()
        again = small.apply(k.UP_BOTH)
        assert drift(small.nft, again, {}) == ()
    assert again == made


def test_each_state_follows_each_other_one(small: k.Site) -> None:
    """A move leaves nothing of the state before; the same state twice changes nothing."""
    order: list[ExitIntent] = [*STATES.values(), *reversed(STATES.values())]
    for intent in order:
        made = small.apply(intent)
        with small.exit.entered():
            assert drift(small.nft, made, {}) == ()
            assert tun.missing(made.plan.tunnel) == [] if made.plan.tunnel else True
        assert small.apply(intent) == made

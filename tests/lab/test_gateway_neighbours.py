"""What others on the gateway's network, or on this host, do to routes and rules of gateway mode.

client1 === inet === router -- gw (ocgate) -- upstream === OpenVPN === provider --- services
                         |                        see lab.upstream, support.gateway_mode
                         +---- neighbour1, a container that is hostile
"""

from __future__ import annotations

import re
import socket
from ipaddress import IPv6Address, IPv6Network, ip_network
from typing import Any

import pytest

from lab import client as vpn
from lab.addresses import UPSTREAM6
from lab.capture import now
from lab.streams import UdpDownload, UdpStream, new_marker
from lab.topology import SERVICE, SERVICE6, Lab, Options
from lab.traffic import ask_udp
from lab.upstream import NEW_MAC, Upstream
from ocgate.names import CONTROL_PID
from ocgate.netlab.inject import into_tun, mac_of, onto_link
from ocgate.netlab.odd_packets import arp_claim, ndp_claim, redirect4, rogue_advertisement
from ocgate.netlab.packet import any_of, build_udp, match
from ocgate.netlab.wait import wait_until
from support.gateway_mode import Chain, LabFactory, chain, goes_on, leaves_by_the_provider
from support.leak_captures import frozen
from support.lifecycle import ocgate

pytestmark = pytest.mark.lab

BOTH = {"VPN_GATEWAY6": str(UPSTREAM6)}
HOSTILE = Options(upstream=True, neighbours=1)
ALL_NODES = "33:33:00:00:00:01"
ROGUE = "fe80::bad"


# --- router advertisements ------------------------------------------------------------------------


def heeding(built: Lab, _: Upstream) -> None:
    """gw's eth0 as a kernel has it: advertisements are heeded as long as it does not forward."""
    for key in ("accept_ra", "autoconf"):
        built.gw.netns.sysctl(f"net/ipv6/conf/eth0/{key}", 1)


def subnet6(g: Chain) -> IPv6Network:
    net = ip_network(g.gateway.status()["network"]["subnets6"][0])
    assert isinstance(net, IPv6Network)
    return net


def advertise(g: Chain) -> None:
    """One advertisement that wants all: default route, the client network, one client's address;
    returns when gw's interface has had it."""
    net, since = subnet6(g), now()
    packet = rogue_advertisement(ROGUE, net, IPv6Network((net.network_address + 0x77, 128)))
    onto_link(g.lab.neighbours[0].netns, "eth0", ALL_NODES, packet)
    seen = match(src=ROGUE, kind=(134, 0))
    g.wan.wait_for(seen, "the neighbour's advertisement", since=since)


def believed(g: Chain) -> str:
    """What gw's kernel has taken from it: routes to anybody, routes and addresses of clients."""
    netns, inside = g.gateway.netns, str(subnet6(g).network_address).rstrip(":")
    text = netns.run(["ip", "-6", "route", "show", "dev", "eth0"]).stdout
    text += netns.run(["ip", "-6", "-o", "addr", "show", "dev", "eth0"]).stdout
    return "\n".join(line for line in text.splitlines() if inside in line or "proto ra" in line)


def test_a_rogue_router_advertisement_is_not_heeded(lab: LabFactory) -> None:
    """The default route was written, so that nobody's advertisement is: no route, no address, no
    exit down, no flow cut."""
    g = chain(lab, HOSTILE, environ=BOTH, before=heeding)
    g.wait_up(6)
    client = g.connect(0)
    g.prove_leaks_are_seen(client)
    before, since = believed(g), now()
    with UdpDownload(client.netns, SERVICE6, rate=500, count=5000) as download:
        download.wait_for(50)
        for _ in range(5):
            advertise(g)
            goes_on(download)
            assert believed(g) == before == ""
    assert [exit["state"] for exit in g.exits().values()] == ["up", "up"]
    assert [exit["transitions"] for exit in g.exits().values()] == [0, 0]
    g.assert_nothing_by_isp(since)


def test_a_rogue_router_advertisement_that_is_heeded_is_repaired_and_told(lab: LabFactory) -> None:
    """Where somebody has set accept_ra=2: what it puts into the client network is gone within a
    reconcile pass, the log says what it was, no exit goes down and nothing leaks. The control:
    with the control plane frozen the kernel believes it."""
    g = chain(lab, HOSTILE, environ=BOTH, before=heeding)
    g.wait_up(6)
    client = g.connect(0)
    g.prove_leaks_are_seen(client)
    g.gateway.netns.sysctl("net/ipv6/conf/eth0/accept_ra", 2)
    net, since = str(subnet6(g)), now()

    def in_subnet() -> list[str]:
        inside = str(subnet6(g).network_address).rstrip(":")
        return [line for line in believed(g).splitlines() if inside in line]

    repairs = g.gateway.status()["network"]["repairs"]
    with UdpDownload(client.netns, SERVICE6, rate=500, count=8000) as download:
        download.wait_for(50)
        netns, packet = g.lab.neighbours[0].netns, rogue_advertisement(ROGUE, subnet6(g))
        with frozen(g.gateway):
            onto_link(netns, "eth0", ALL_NODES, packet)
            wait_until(lambda: net in _routes(g), 5.0, "the kernel to believe it")
        wait_until(lambda: not in_subnet(), 5.0, "the repair")
        for _ in range(3):
            advertise(g)
            wait_until(lambda: not in_subnet(), 5.0, "the repair")
        goes_on(download)
    assert f"route {net} dev eth0 proto kernel lies in a client subnet" in g.gateway.output
    assert re.search(r"address \S+ on eth0 lies in a client subnet", g.gateway.output)
    status = g.gateway.status()["network"]
    assert status["repairs"] > repairs
    assert "lies in a client subnet" in status["last_repair"]
    assert [exit["state"] for exit in g.exits().values()] == ["up", "up"]
    assert [exit["transitions"] for exit in g.exits().values()] == [0, 0]
    g.assert_nothing_by_isp(since)


def _routes(g: Chain) -> str:
    return g.gateway.netns.run(["ip", "-6", "route", "show", "dev", "eth0"]).stdout


# --- policy rules of other programs ---------------------------------------------------------------

# Before the block from 996 to 1101, among its rules, and between the last two of them.
PLACES = (990, 996, 998, 1000, 1002, 1003, 1005, 1006, 1101)


def late(g: Chain, marker: bytes) -> None:
    """A packet of a client's flow that gw has forgotten, by the upstream; one of the client's."""
    gw = g.lab.gw
    onto_link(
        g.upstream.netns,
        "eth0",
        mac_of(gw.netns, "eth0"),
        build_udp(SERVICE, gw.address, 9, 20000, marker),
    )


def settled(g: Chain, priority: int) -> bool:
    """Whether all rules of ours stand before that priority."""
    rules = g.gateway.netns.run(["ip", "rule"]).stdout.splitlines()
    ours = [int(line.split(":")[0]) for line in rules if "proto 143" in line]
    return bool(ours) and max(ours) < priority


def test_a_rule_of_another_program_steers_nothing_wherever_it_is_put(lab: LabFactory) -> None:
    """`from OWN_ADDRESS lookup 77` before or among ours while ocgate runs: ours move before it, and
    it is named. Then, ruleset flushed and control frozen: nothing of a client and no answer about
    its flows by the ISP. The control: put there when control is frozen already, they go."""
    g = chain(lab)
    netns, own = g.gateway.netns, g.lab.gw.address
    client = g.connect(0)
    source = client.address
    assert source is not None
    g.prove_leaks_are_seen(client)
    netns.ip(f"route add default via {g.lab.gw.next_hop} dev eth0 table 77")
    foreign = f"from {own} lookup 77"

    def attacked(since: float) -> None:
        netns.nft("flush ruleset")
        marker = new_marker()
        late(g, marker)
        into_tun(client.netns, vpn.TUN, build_udp(source, SERVICE, 4000, 9, marker))
        g.wan.wait_for(match(marker=marker, dst=own), "the late packet", since=since)

    with frozen(g.gateway):
        since = now()
        netns.ip(f"rule add pref 1003 {foreign}")
        attacked(since)
        g.uplink.prove_sees(match(kind=(3, 3), dst=SERVICE), "gw's own answer", since=since)
    netns.ip(f"rule del pref 1003 {foreign}")  # and not ours of that priority
    g.wait_guarded()
    for place in PLACES:
        netns.ip(f"rule add pref {place} {foreign}")
        wait_until(lambda place=place: settled(g, place), 10.0, f"ours before {place}")
        reasons = "\n".join(g.gateway.status()["reasons"])
        assert f"`{place}: from {own}/32 lookup 77`" in reasons
        assert f"VPN_GATEWAY_RULE_PRIO to {place - 102} or less" in reasons
        with frozen(g.gateway):
            since = now()
            attacked(since)
            g.assert_nothing_by_isp(since)
        netns.ip(f"rule del pref {place} {foreign}")
        wait_until(lambda: not g.gateway.status()["reasons"], 10.0, "all to be as it was")
    assert not settled(g, 1000)


def test_without_room_before_a_rule_of_another_program_clients_are_rejected(
    lab: LabFactory,
) -> None:
    """A rule at 5: the family of that rule is closed and says why, until the rule is gone."""
    g = chain(lab)
    client = g.connect(0)
    g.prove_leaks_are_seen(client)
    since = now()
    g.gateway.netns.ip("rule add pref 5 from 172.28.0.10 lookup 77")
    closed = g.blocked().get("exit_closed", 0)

    def rejected() -> bool:
        into_tun(client.netns, vpn.TUN, build_udp(client.address, SERVICE, 4000, 9, b"?"))
        return g.blocked()["exit_closed"] > closed

    wait_until(rejected, 5.0, "clients to be rejected")
    assert "`5: from 172.28.0.10/32 lookup 77`" in "\n".join(g.gateway.status()["reasons"])
    g.gateway.netns.ip("rule del pref 5")
    g.wait_guarded()
    g.settle(client)
    g.assert_nothing_by_isp(since)


# --- redirects ------------------------------------------------------------------------------------


def test_a_forged_redirect_moves_no_way_of_this_host(lab: LabFactory) -> None:
    """A neighbour that says, as the router, that it is the better way to where a socket of this
    host just talks to. The control: without what refuses it the kernel believes it."""
    g = chain(lab, HOSTILE)
    gw, neighbour = g.lab.gw, g.lab.neighbours[0]
    netns, mac = gw.netns, mac_of(gw.netns, "eth0")
    assert netns.sysctl("net/ipv4/conf/all/accept_redirects") == "0"

    def redirected() -> bool:
        netns.ip("route flush cache")
        with netns.entered():
            talk = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with talk:  # as the forged one quotes it
            talk.bind((str(gw.address), 40000))
            talk.connect((str(SERVICE), 7))
            forged = redirect4(str(neighbour.address), str(gw.address), router=str(gw.next_hop))
            for _ in range(3):
                onto_link(neighbour.netns, "eth0", mac, forged)
            late(g, new_marker())
        return "cache <redirected>" in netns.run(["ip", "route", "get", str(SERVICE)]).stdout

    assert not redirected()
    with frozen(g.gateway):
        netns.nft("flush ruleset")
        assert not redirected()  # by the sysctl alone
        netns.sysctl("net/ipv4/conf/all/accept_redirects", 1)
        netns.sysctl("net/ipv4/conf/eth0/accept_redirects", 1)
        assert redirected()
        netns.ip("route flush cache")


# --- the gateway's address ------------------------------------------------------------------------


def claimed(g: Chain) -> None:
    """The neighbour says that it has the gateway's addresses, a few times as attackers do."""
    gw, neighbour = g.lab.gw, g.lab.neighbours[0]
    assert isinstance(gw.address6, IPv6Address)
    to = mac_of(gw.netns, "eth0")
    mine, its = (bytes.fromhex(m.replace(":", "")) for m in (mac_of(neighbour.netns, "eth0"), to))
    for _ in range(3):
        arp = arp_claim(g.upstream.address, mine, gw.address, its)
        onto_link(neighbour.netns, "eth0", to, arp, ndp_claim(UPSTREAM6, mine, gw.address6))


def permanent(g: Chain) -> dict[str, str]:
    """Pinned address -> MAC address, as gw's kernel has them."""
    lines = g.gateway.netns.run(["ip", "neigh", "show", "nud", "permanent", "dev", "eth0"]).stdout
    return {words[0]: words[2] for words in map(str.split, lines.splitlines()) if words}


def test_a_neighbour_takes_the_gateway_s_address_unless_it_is_pinned(lab: LabFactory) -> None:
    """It answers ARP and neighbour discovery for the gateway. The control: clients' packets of
    both families come to it. Pinned, as written or as learned: none; nothing by the ISP in either.
    The pin is kept against `ip neigh`, says who answers instead when the gateway changes its own,
    and goes at a stop."""
    g = chain(lab, HOSTILE, environ=BOTH)
    netns = g.gateway.netns
    netns.sysctl("net/ipv4/neigh/eth0/locktime", 0)  # else for a second a new answer is ignored
    g.wait_up(6)
    client = g.connect(0)
    g.prove_leaks_are_seen(client)
    taken = g.lab.capture(g.lab.neighbours[0], "eth0")
    since = now()

    def sent_to_the_neighbour(to: Any) -> bool:
        claimed(g)
        ask_udp(client.netns, to, timeout=0.2)
        return bool(taken.packets(match(dst=to), since=since))

    for to in (SERVICE, SERVICE6):
        wait_until(lambda to=to: sent_to_the_neighbour(to), 10.0, f"{to} to be stolen")
        taken.prove_sees(match(dst=to), "what a client sends", since=since)
    mac = mac_of(g.upstream.netns, "eth0")
    for pin in (mac, "learn"):
        g.reload(VPN_GATEWAY_MAC=pin, VPN_GATEWAY6_MAC=pin)
        pinned = {str(g.upstream.address): mac, str(UPSTREAM6): mac}
        if pin == "learn":  # of who leads out, so the neighbour is not learned
            assert permanent(g).items() <= pinned.items()
        wait_until(lambda pinned=pinned: permanent(g) == pinned, 10.0, "the pins")
        g.wait_up(4)
        g.wait_up(6)
        started = now()
        for to in (SERVICE, SERVICE6):
            with UdpStream(client.netns, to, rate=200, count=200) as stream:
                claimed(g)
                lost = stream.wait(10.0).lost
                stolen = taken.packets(match(dst=to), since=started)
                assert not lost, f"{len(stolen)} of {lost} stolen; pinned: {permanent(g)}"
                claimed(g)
        taken.assert_none(any_of(*(match(dst=to) for to in (SERVICE, SERVICE6))), "a client's",
                          since=started)  # fmt: skip
    netns.ip(f"neigh del {g.upstream.address} dev eth0")
    wait_until(lambda: permanent(g) == pinned, 5.0, "the repair")
    repair = "neighbour 172.28.0.3 dev eth0"
    wait_until(
        lambda: repair in g.gateway.status()["network"]["last_repair"], 5.0, "the repair in status"
    )
    old = g.gateway.kill()
    g.gateway.wait_replaced(CONTROL_PID, old)
    g.wait_control()
    assert permanent(g) == pinned  # a control plane that is restarted has not learned anew
    g.upstream.netns.ip(f"link set eth0 address {NEW_MAC}")
    g.wait_down(4)
    why = g.exits()["4"]["why"]
    assert f"172.28.0.3 answers with another MAC address on eth0, {NEW_MAC}, than the {mac}" in why
    g.reload(VPN_GATEWAY_MAC="learn", VPN_GATEWAY6_MAC="learn")  # a renewal hook's, perhaps
    assert permanent(g) == pinned
    assert ocgate(g.gateway, "reload", "--learn-mac").returncode == 0
    anew = dict.fromkeys(pinned, NEW_MAC)
    wait_until(lambda: permanent(g) == anew, 10.0, "the new MAC address to be learned")
    g.wait_up(4)
    g.assert_nothing_by_isp(since)
    g.gateway.stop()
    assert permanent(g) == {}


# --- more specific routes (TunnelVision, TunnelCrack) -------------------------------------------


def test_more_specific_routes_of_this_host_move_no_client_of_a_gateway(lab: LabFactory) -> None:
    """As DHCP's classless routes or a router's advertisement would make them on the server's own
    network. The control: what this host itself sends goes by them."""
    g = chain(lab, HOSTILE)
    netns, neighbour = g.gateway.netns, g.lab.neighbours[0]
    client = g.connect(0)
    g.prove_leaks_are_seen(client)
    taken = g.lab.capture(neighbour, "eth0")
    netns.ip(f"route add {SERVICE}/32 via {neighbour.address} dev eth0 proto dhcp")
    since = now()
    ask_udp(netns, SERVICE, timeout=0.2)
    taken.prove_sees(match(dst=SERVICE), "this host's own question", since=since)
    since = now()
    assert leaves_by_the_provider(client)
    taken.assert_none(match(dst=SERVICE), "a client's packets", since=since)
    g.assert_nothing_by_isp(since)


def test_routes_on_the_client_s_side_go_around_the_tunnel(lab: LabFactory) -> None:
    """What no server can hold (docs/known-issues.md): the client's own network gives it a route to
    a part of the internet, or calls that part its own. A full tunnel does not get those packets."""
    g = chain(lab)
    client = g.connect(0)
    assert leaves_by_the_provider(client)
    host = client.host
    client.netns.ip(f"route add {SERVICE}/32 via {host.next_hop} dev eth0")
    assert ask_udp(client.netns, SERVICE).seen_as in (host.address, host.second)
    client.netns.ip(f"route del {SERVICE}/32")
    assert leaves_by_the_provider(client)

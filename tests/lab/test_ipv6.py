"""IPv6 in every mode: it works, or it is rejected at once; it never disappears and never leaks.

    client1 --- inet (SERVICE6) --- router --- gw (ocgate, vpns0)        see lab.topology

Clients have working IPv6 of their own, which is what leaks past a tunnel that has none.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from ipaddress import IPv6Address, IPv6Network

import pytest

from lab import gateway
from lab.capture import now
from lab.client import TUN
from lab.gateway import Gateway
from lab.ocserv import write_config_dir
from lab.streams import TcpDownload, UdpStream
from lab.topology import RESOLVER, RESOLVER6, SERVICE, SERVICE6, Ipv6, Lab, Options
from lab.traffic import Verdict, ask_tcp, ask_udp, ping
from ocgate.netlab.inject import into_tun, routed
from ocgate.netlab.packet import any_of, build_udp, match, touches
from ocgate.netlab.wait import wait_until
from support.dual_stack import (
    FULL,
    GLOBAL,
    REREAD,
    ULA,
    USERS,
    assert_rejected_at_once,
    blocked,
    connect_dual_stack,
    goes_by,
    ipv6_mode,
    join,
    serve,
    start,
    with_services,
)

pytestmark = pytest.mark.lab

LabFactory = Callable[..., Lab]

OUTSIDER = IPv6Address("fda9:4efe:7e3b:3ea::66")  # of the client subnet, nobody's


def run_ocgate(made: Lab, *arguments: str, **environ: str) -> tuple[int, str]:
    """`ocgate ARGUMENTS` to its end, in gw; exit code and all its words."""
    program = made.spawn(made.gw, gateway.command(*arguments), environ=environ)
    return program.wait(20.0), program.output


def reason(made: Gateway) -> str:
    """What status says of why IPv6 is as it is."""
    return str(made.status()["network"]["ipv6_reason"])


def check(made: Gateway, **environ: str) -> tuple[int, str]:
    """`ocgate check` beside a running gateway, of the same config dir."""
    return run_ocgate(made.lab, "check", OCGATE_CONFIG_DIR=str(made.config_dir), **environ)


# --- it works -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtls", "over"),
    [
        pytest.param(True, 4, id="dtls"),
        pytest.param(False, 4, id="tls"),
        pytest.param(True, 6, id="dtls-over-ipv6"),
    ],
)
def test_auto_with_egress_translates(lab: LabFactory, dtls: bool, over: int) -> None:
    """IPV6_NAT=auto where IPv6 gets out: address, ::/0 and IPv6 resolver are pushed; UDP, TCP and
    ping work, and the router (client --- gw [docker] router) sees them from gw's address only."""
    built = with_services(lab())
    host, gw = built.clients[0], built.gw
    wan, own = built.capture(built.router, "docker"), built.capture(host, "eth0")
    routed(gw.netns, build_udp(OUTSIDER, SERVICE6, 4000, 9, b"a client's source"))
    wan.prove_sees(touches(ULA), "a client's IPv6 source in clear")
    assert ask_udp(host.netns, SERVICE6)
    own.prove_sees(match(dst=SERVICE6), "the client's own IPv6 outside of the tunnel")
    since = now()
    made = serve(built, IPV6_NAT="auto")
    joined = join(made, host, dtls=dtls, server=built.server6 if over == 6 else built.server)
    assert joined.address6 in ULA
    assert joined.dns == [str(RESOLVER), str(RESOLVER6)]
    assert goes_by(host.netns, SERVICE6) == TUN
    for answer in (ask_udp(host.netns, SERVICE6), ask_tcp(host.netns, SERVICE6)):
        assert answer.seen_as == gw.address6
    # 1232: with the headers IPv6's least MTU of 1280, which every link must carry (RFC 8200).
    assert ping(host.netns, SERVICE6, size=1232)
    largest = int(joined.pushed["INTERNAL_IP4_MTU"]) - 48
    assert largest > 1232
    assert ping(host.netns, SERVICE6, size=largest)
    assert ping(host.netns, ULA[1])
    wan.wait_for(match(src=gw.address6, dst=SERVICE6), "the translated packets", since=since)
    wan.assert_none(touches(ULA), "clients' own IPv6 addresses", since=since)
    own.assert_none(match(dst=SERVICE6), "clients' IPv6 past the tunnel", since=since)
    assert ipv6_mode(made) == "nat66"


def test_split_tunnel_stays_split(lab: LabFactory) -> None:
    """With NAT66 and routes of the operator's, clients get those IPv6 routes and no other: what is
    not among them goes on using the client's own IPv6."""
    built = with_services(lab())
    host = built.clients[0]
    lines = ["route = 198.51.100.0/255.255.255.0", "route = 2001:db8:51::/64"]
    made = serve(built, lines=lines, IPV6_NAT="auto")
    joined = join(made, host)
    pushed = joined.pushed
    assert pushed["CISCO_IPV6_SPLIT_INC"] == "1"
    assert pushed["CISCO_IPV6_SPLIT_INC_0_ADDR"] == "2001:db8:51::"
    assert pushed["CISCO_IPV6_SPLIT_INC_0_MASKLEN"] == "64"
    assert ask_tcp(host.netns, SERVICE6).seen_as == built.gw.address6
    assert goes_by(host.netns, built.router.address6) == "eth0"


def test_split_tunnel_without_ipv6_routes_takes_no_ipv6(lab: LabFactory) -> None:
    """IPv4 routes alone: IPv6 is advertised, but only its own subnet goes into the tunnel."""
    built = with_services(lab())
    host = built.clients[0]
    made = serve(built, lines=["route = 198.51.100.0/255.255.255.0"], IPV6_NAT="auto")
    pushed = join(made, host).pushed
    count = int(pushed["CISCO_IPV6_SPLIT_INC"])
    places = [pushed[f"CISCO_IPV6_SPLIT_INC_{i}_ADDR"] for i in range(count)]
    assert places == [str(ULA.network_address)]
    assert ask_tcp(host.netns, SERVICE6).seen_as == host.address6
    assert ask_tcp(host.netns, SERVICE).seen_as == built.router.address


def test_routed_prefix(lab: LabFactory) -> None:
    """A global prefix that is routed to gw, IPV6_NAT=0: the internet sees the client's own address
    (inet --- router --- gw --- client), only flows that the client began come back, and packets to
    an address without a session end at gw: they are neither bounced nor answered."""
    built = with_services(lab())
    built.route_to_gw(GLOBAL)
    host = built.clients[0]
    wan, inside = built.capture(built.router, "docker"), built.capture(host, None)
    made = serve(built, settings={"ipv6-network": str(GLOBAL)}, IPV6_NAT="0")
    joined = join(made, host)
    address = joined.address6
    assert address is not None and address in GLOBAL
    assert ipv6_mode(made) == "routed"
    for answer in (ask_udp(host.netns, SERVICE6), ask_tcp(host.netns, SERVICE6)):
        assert answer.seen_as == address
    assert ping(host.netns, SERVICE6)
    to_client = match(dst=address, interface=TUN)
    inside.prove_sees(to_client, "answers to the client in its tunnel")
    since = now()
    for number in range(3):
        routed(built.inet.netns, build_udp(SERVICE6, address, 9, 4000 + number, b"unsolicited"))
    wait_until(lambda: blocked(made, "unsolicited") == 3, 5.0, "three packets to be counted")
    inside.assert_none(match(marker=b"unsolicited"), "unsolicited packets", since=since)

    joined.disconnect()
    wait_until(lambda: not made.status()["sessions"], 5.0, "the session to end")
    stray, nobody = b"to a session that has ended", GLOBAL[0x77]
    since = now()
    for to in (address, nobody):
        routed(built.inet.netns, build_udp(SERVICE6, to, 9, 5000, stray))
    for to in (address, nobody):
        wan.prove_sees(match(dst=to, marker=stray), "a stray packet on its way to gw", since=since)
    assert ask_udp(built.gw.netns, SERVICE6)  # later than whatever gw would have sent
    # Also inside an ICMP error. `docker` is a bridge: what gw sends comes in by it.
    wan.assert_none(match(marker=stray, outgoing=False), "stray packets sent back", since=since)
    assert wan.count(match(marker=stray), since=since) == 2


def test_a_session_owns_its_prefix_and_not_its_neighbours(lab: LabFactory) -> None:
    """ipv6-subnet-prefix = 112: every source inside the session's own /112 is translated; one of
    the other client's /112 is dropped and counted, and nothing of it gets to gw's WAN."""
    built = with_services(lab(Options(clients=2)))
    wan = built.capture(built.router, "docker")
    made = serve(built, settings={"ipv6-subnet-prefix": "112"}, IPV6_NAT="auto")
    alice, bob = join(made, built.clients[0]), join(made, built.clients[1], "bob")
    assert alice.address6 is not None and bob.address6 is not None
    mine, theirs = (IPv6Network((a, 112), strict=False) for a in (alice.address6, bob.address6))
    assert mine != theirs
    own, foreign = b"my own prefix", b"my neighbour's prefix"
    into_tun(alice.netns, TUN, build_udp(mine[0x4711], SERVICE6, 4000, 9, own))
    seen = wan.prove_sees(match(marker=own), "another address of the session's own prefix")
    assert seen.src == built.gw.address6
    for source in (theirs[0x4711], bob.address6):
        into_tun(alice.netns, TUN, build_udp(source, SERVICE6, 4000, 9, foreign))
    wait_until(lambda: blocked(made, "spoofed") == 2, 5.0, "both spoofed packets to be counted")
    wan.assert_none(match(marker=foreign), "a neighbour's prefix")
    assert ask_udp(bob.netns, SERVICE6)


@pytest.mark.parametrize("nat", ["auto", "0"], ids=["nat66", "routed"])
def test_path_mtu_discovery_works(lab: LabFactory, nat: str) -> None:
    """A link behind gw (router --- inet) carries 1280 bytes only: its Packet Too Big comes through
    to the client, translated or not, and what is sent then arrives, in both directions."""
    built = with_services(lab())
    built.route_to_gw(GLOBAL)
    host = built.clients[0]
    built.router.netns.ip("link set uplink mtu 1280")
    built.inet.netns.ip("link set router mtu 1280")
    network = {"ipv6-network": str(GLOBAL)} if nat == "0" else {}
    made = serve(built, settings=network, IPV6_NAT=nat)
    join(made, host)
    big = b"x" * 1350
    first = ask_udp(host.netns, SERVICE6, data=big)
    assert (first.verdict, first.kind, first.by) == (
        Verdict.REJECTED,
        (2, 0),
        built.router.second6,
    )
    assert ask_udp(host.netns, SERVICE6, data=big).data == big
    much = b"y" * 100_000
    assert ask_tcp(host.netns, SERVICE6, data=much).data == much


# --- it does not work, and says so --------------------------------------------------------------


@pytest.mark.parametrize("ipv6", [Ipv6.NO_EGRESS, Ipv6.NONE])
def test_auto_without_egress_pushes_no_ipv6(lab: LabFactory, ipv6: Ipv6) -> None:
    """IPV6_NAT=auto where IPv6 does not get out (router drops it; no IPv6 at all): no address, no
    resolver, no route of IPv6 is pushed, IPv4 works, and log, status and check say why."""
    built = with_services(lab(Options(ipv6=ipv6)))
    made = serve(built, IPV6_NAT="auto")
    joined = join(made, built.clients[0])
    assert not [name for name in joined.pushed if "IP6" in name or "IPV6" in name]
    assert joined.dns == [str(RESOLVER)]
    assert "IP6" not in joined.pushed["CISCO_CSTP_OPTIONS"]
    assert ask_tcp(joined.netns, SERVICE)
    why = "no IPv6 default route" if ipv6 is Ipv6.NONE else f"[{SERVICE6}]:443: "
    line = next(line for line in made.output.splitlines() if "init-nat: IPv6: off" in line)
    assert why in line
    network = made.status()["network"]
    assert network["ipv6_mode"] == "off"
    assert why in network["ipv6_reason"]
    returncode, said = check(made, IPV6_NAT="auto", IPV6_PROBE=f"[{SERVICE6}]:443")
    assert returncode == 0, said
    assert why in said


def test_nat_without_egress_is_loud_and_rejected(lab: LabFactory) -> None:
    """IPV6_NAT=1 where IPv6 does not get out: the log has an error line, clients get IPv6 as asked
    for and every packet of it is rejected at once; an IPv6 resolver is not pushed."""
    built = with_services(lab(Options(ipv6=Ipv6.NO_EGRESS)))
    made = serve(built, IPV6_NAT="1")
    assert "init-nat: error: IPv6: sink" in made.output
    assert "IPV6_NAT=1 but no IPv6 egress" in made.output
    joined = join(made, built.clients[0])
    assert joined.address6 in ULA
    assert joined.dns == [str(RESOLVER)]
    assert_rejected_at_once(joined.netns)


def test_a_unique_local_network_is_not_routed(lab: LabFactory) -> None:
    """A unique local ipv6-network with IPV6_NAT=0 can't be routed: an error line names the remedy,
    and clients' IPv6 is rejected at once."""
    built = with_services(lab())
    made = serve(built, settings={"ipv6-network": "fd00:1:2:3::/64"}, IPV6_NAT="0")
    line = next(line for line in made.output.splitlines() if "init-nat: error: IPv6:" in line)
    assert "fd00:1:2:3::/64 is unique local" in line
    assert "IPV6_NAT=auto" in line
    joined = join(made, built.clients[0])
    assert joined.address6 in IPv6Network("fd00:1:2:3::/64")
    assert_rejected_at_once(joined.netns)


# --- sink ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ipv6", "environ"),
    [
        pytest.param(Ipv6.NONE, {}, id="docker-network-without-ipv6"),
        pytest.param(Ipv6.WORKS, {"IPV6_FORWARD": "0"}, id="forward-0"),
        pytest.param(Ipv6.NO_EGRESS, {"IPV6_NAT": "auto"}, id="auto-without-egress"),
    ],
)
def test_sink_closes_the_clients_own_ipv6(
    lab: LabFactory, ipv6: Ipv6, environ: dict[str, str]
) -> None:
    """IPV6_SINK=1: clients get an address and ::/0, IPv6 is rejected at once and programs are on
    IPv4 below 300 ms, and no IPv6 of theirs leaves by their own eth0 (--- inet) or by gw's.

    Only the client's own link stays outside, as with every vpnc-script: its route is more special
    than ::/0.
    """
    built = with_services(lab(Options(ipv6=ipv6)))
    host = built.clients[0]
    own, wan = built.capture(host, "eth0"), built.capture(built.gw, "eth0")
    assert connect_dual_stack(host.netns).by == SERVICE6
    assert ask_udp(host.netns, SERVICE6)
    own.prove_sees(match(dst=SERVICE6, protocol="tcp"), "the client's own IPv6 (TCP)")
    own.prove_sees(match(dst=SERVICE6, protocol="udp"), "the client's own IPv6 (UDP)")
    ask_udp(built.gw.netns, SERVICE if ipv6 is Ipv6.NONE else SERVICE6, timeout=0.2)
    to_service = match(dst=SERVICE if ipv6 is Ipv6.NONE else SERVICE6)
    wan.prove_sees(to_service, "what gw itself sends to the service")
    before = built.gw.netns.sysctl("net/ipv6/conf/all/forwarding")

    made = serve(built, IPV6_SINK="1", **environ)
    joined = join(made, host)
    since = now()
    assert ipv6_mode(made) == "sink"
    assert joined.address6 in ULA
    assert joined.dns == [str(RESOLVER)]
    assert goes_by(host.netns, SERVICE6) == TUN
    print("sink", ipv6.value, assert_rejected_at_once(host.netns))
    answer = ping(host.netns, SERVICE6)
    assert (answer.verdict, answer.kind) == (Verdict.REJECTED, (1, 1))
    assert ping(host.netns, ULA[1])  # the gateway answers, so a person sees that the tunnel is up
    assert blocked(made, "ipv6_rejected") >= 4
    own.assert_none(match(dst=SERVICE6), "IPv6 past the tunnel", since=since)
    wan.assert_none(touches(ULA), "a client's IPv6 by gw's WAN", since=since)
    translated = any_of(
        match(dst=SERVICE6, dport=7), match(dst=SERVICE6, protocol="icmp6")
    )  # not the probe's port 443
    wan.assert_none(translated, "a client's IPv6 by gw's WAN, translated", since=since)
    assert built.gw.netns.sysctl("net/ipv6/conf/all/forwarding") == before == "0"
    assert goes_by(host.netns, host.next_hop6 or SERVICE6) == "eth0"


# --- while it runs ------------------------------------------------------------------------------


def test_auto_follows_egress_while_running(lab: LabFactory) -> None:
    """Egress dies and comes back (the router drops gw's IPv6, silently): a live client's IPv6 is
    rejected at once and then works again without a reconnect, new clients get none meanwhile, and
    IPv4 loses no packet over both changes. ocserv is told of each change once."""
    built = with_services(lab(Options(clients=2)))
    host, late = built.clients
    made = serve(built, IPV6_NAT="auto")
    joined = join(made, host)
    ocserv = made.pid("ocserv.pid")
    flow = built.own(UdpStream(host.netns, SERVICE))
    download = built.own(TcpDownload(host.netns, SERVICE, size=1 << 30, rate=2_000_000))
    download.wait_for(5)
    assert ask_tcp(host.netns, SERVICE6)

    built.set_ipv6_egress(works=False)
    died = time.monotonic()
    wait_until(lambda: ipv6_mode(made) == "off", 20.0, "ocgate to notice")
    print("noticed after", time.monotonic() - died)
    print("rejected", assert_rejected_at_once(host.netns))
    wait_until(lambda: made.output.count(REREAD) == 1, 5.0, "ocserv to be told")
    newcomer = join(made, late, "bob")
    assert newcomer.address6 is None
    assert newcomer.dns == [str(RESOLVER)]
    assert f"[{SERVICE6}]:443" in reason(made)

    built.set_ipv6_egress(works=True)
    wait_until(lambda: ipv6_mode(made) == "nat66", 10.0, "ocgate to notice")
    for answer in (ask_udp(host.netns, SERVICE6), ask_tcp(host.netns, SERVICE6)):
        assert answer.seen_as == built.gw.address6
    wait_until(lambda: made.output.count(REREAD) == 2, 5.0, "ocserv to be told")

    received = download.bytes_received
    wait_until(lambda: download.bytes_received > received, 5.0, "the download to go on")
    assert download.running()
    flow.close()
    print("IPv4 meanwhile", flow.tally.sent, "sent; longest gap", flow.tally.longest_gap())
    assert (flow.tally.lost, flow.tally.rejected, flow.tally.failed) == (0, [], [])
    assert joined.program.running()
    assert joined.events() == ["pre-init", "connect"]
    assert made.pid("ocserv.pid") == ocserv


def test_one_lost_probe_changes_nothing(lab: LabFactory) -> None:
    """One whole probe (SYN and its retransmission) is lost between gw and router: nobody's IPv6 is
    touched, ocserv hears nothing. The next probe, whose SYN passes, shows why."""
    built = with_services(lab())
    host = built.clients[0]
    wan = built.capture(built.router, "docker")
    made = serve(built, IPV6_NAT="auto")
    join(made, host)
    flow = built.own(UdpStream(host.netns, SERVICE6, rate=50))
    probe = match(dst=SERVICE6, dport=443, flags=0x02)
    wan.wait_for(probe, "a probe")
    answer = match(src=SERVICE6, sport=443, flags=0x12)
    since = now()
    # Up to 161 bytes: two SYNs of 80.
    built.router.netns.nft(
        "table ip6 fault { chain forward { type filter hook forward priority -10;"
        f"  iifname docker ip6 daddr {SERVICE6} tcp dport 443 quota until 161 bytes drop; }}; }}"
    )
    passed = wan.wait_for(answer, "the next probe's answer", timeout=10.0, since=since)
    # Everything that the lost probe could have set off was set off by now or with the next look.
    wan.wait_for(answer, "one more probe", timeout=10.0, since=passed.at + 0.5)
    lost = [p for p in wan.packets(probe, since=since) if not p.outgoing and p.at < passed.at]
    assert len({p.sport for p in lost}) == 2, "one probe lost, the second passed"
    assert len(lost) == 3
    flow.close()
    assert (flow.tally.lost, flow.tally.rejected, flow.tally.failed) == (0, [], [])
    assert ipv6_mode(made) == "nat66"
    assert REREAD not in made.output
    assert made.output.count("IPv6: ") == 1


def test_a_lost_default_route_turns_into_a_sink_without_a_word_to_ocserv(lab: LabFactory) -> None:
    """IPV6_NAT=auto with IPV6_SINK=1 and no IPv6 resolver: the default route goes, comes back while
    the router drops IPv6, then all works; status tells each reason. Clients keep address and ::/0,
    so ocserv's configuration is the same and it is not told."""
    built = with_services(lab())
    host = built.clients[0]
    made = serve(built, lines=["route = default"], IPV6_NAT="auto", IPV6_SINK="1")
    joined = join(made, host)
    assert ask_tcp(host.netns, SERVICE6)
    built.gw.netns.ip("route del ::/0")
    # No second look is needed for what the kernel itself says.
    wait_until(lambda: ipv6_mode(made) == "sink", 5.0, "ocgate to notice")
    assert "no IPv6 default route" in reason(made)
    assert_rejected_at_once(host.netns)
    built.set_ipv6_egress(works=False)
    built.gw.netns.ip(f"route add ::/0 via {built.gw.next_hop6}")
    target = f"[{SERVICE6}]:443"
    wait_until(lambda: target in reason(made), 10.0, "status to tell the new reason")
    assert ipv6_mode(made) == "sink"
    built.set_ipv6_egress(works=True)
    wait_until(lambda: ipv6_mode(made) == "nat66", 10.0, "ocgate to notice")
    assert ask_tcp(host.netns, SERVICE6)
    assert joined.events() == ["pre-init", "connect"]
    assert REREAD not in made.output


def test_egress_that_appears_is_given_to_new_clients(lab: LabFactory) -> None:
    """IPV6_NAT=auto, no egress at start: once the probe passes, the next client gets IPv6."""
    built = with_services(lab(Options(clients=2, ipv6=Ipv6.NO_EGRESS)))
    made = serve(built, IPV6_NAT="auto")
    early, late = built.clients
    assert join(made, early).address6 is None
    built.set_ipv6_egress(works=True)
    wait_until(lambda: REREAD in made.output, 15.0, "ocserv to be told")

    # The log line comes when ocserv has been signalled; that it has read is seen on a client.
    def given() -> bool:
        joined = join(made, late, "bob")
        if joined.address6 is None:
            joined.disconnect()
        return joined.address6 in ULA

    wait_until(given, 5.0, "a new client to get IPv6")
    assert ask_tcp(late.netns, SERVICE6).seen_as == built.gw.address6


def test_a_reload_that_asks_for_ipv6_probes_first(lab: LabFactory) -> None:
    """ocgate.toml says ipv6_nat = 0, then auto: the reload itself probes, and ends with NAT66 in
    force and one word to ocserv, whatever the probe's interval."""
    built = with_services(lab())
    made = serve(built, IPV6_PROBE_INTERVAL="3600")
    assert ipv6_mode(made) == "off"
    (made.config_dir / "ocgate.toml").write_text('ipv6_nat = "auto"\n')
    assert made.ask("reload") == b"ok\n"
    assert ipv6_mode(made) == "nat66"
    assert made.output.count(REREAD) == 1


# --- the machine --------------------------------------------------------------------------------


def test_ipv6_disabled_by_sysctl(lab: LabFactory) -> None:
    """net.ipv6.conf.all.disable_ipv6 = 1, as docker sets it: with auto IPv6 is not advertised and
    all else works; IPV6_SINK=1 can't hold then and is refused with the docker flag."""
    built = with_services(lab())
    built.gw.netns.sysctl("net/ipv6/conf/all/disable_ipv6", 1)
    refused = start(built, IPV6_SINK="1")
    assert refused.program.wait(20.0) == 2
    assert "IPV6_SINK" in refused.output
    assert "--sysctl net.ipv6.conf.all.disable_ipv6=0" in refused.output
    assert refused.left_behind() == []
    made = serve(built, IPV6_NAT="auto")
    joined = join(made, built.clients[0])
    assert joined.address6 is None
    assert ask_tcp(joined.netns, SERVICE)
    network = made.status()["network"]
    assert (network["ipv6_mode"], network["ipv6_reason"].split()[-3:]) == (
        "off",
        ["net.ipv6.conf.all.disable_ipv6", "is", "1"],
    )


def router_advertisement(made: Lab, *, lifetime: int) -> None:
    """The router tells gw that it is a default router for `lifetime` seconds (RFC 4861, 4.2)."""
    with made.router.netns.entered():
        sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        index = socket.if_nametoindex("docker")
    with sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        message = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, lifetime, 0, 0)
        sock.sendto(message, ("ff02::1", 0, 0, index))


def test_a_default_route_by_router_advertisement_survives_forwarding(lab: LabFactory) -> None:
    """gw learns its IPv6 default route from the router's advertisements (accept_ra = 1), which a
    forwarding host ignores: accept_ra is 2 while ocgate runs, the route stays and is renewed, and
    all sysctls of IPv6 are as before after the stop."""
    built = with_services(lab())
    gw, host = built.gw.netns, built.clients[0]
    gw.sysctl("net/ipv6/conf/eth0/accept_ra", 1)
    gw.ip("route del ::/0")
    rates = gw.sysctl("net/ipv6/icmp/ratemask")

    def learned() -> str:
        return gw.run(["ip", "-6", "route", "show", "default", "proto", "ra"]).stdout

    router_advertisement(built, lifetime=1800)
    wait_until(learned, 5.0, "gw to learn the route")
    made = serve(built, IPV6_NAT="auto")
    assert ipv6_mode(made) == "nat66"
    assert gw.sysctl("net/ipv6/conf/all/forwarding") == "1"
    assert gw.sysctl("net/ipv6/conf/eth0/accept_ra") == "2"
    assert learned()
    join(made, host)
    assert ask_tcp(host.netns, SERVICE6).seen_as == built.gw.address6
    router_advertisement(built, lifetime=0)
    wait_until(lambda: not learned(), 5.0, "gw to heed an advertisement while it forwards")
    wait_until(lambda: ipv6_mode(made) == "off", 5.0, "ocgate to notice")
    assert gw.sysctl("net/ipv6/icmp/ratemask") == "0,3-127"  # rejects without a limit
    router_advertisement(built, lifetime=1800)
    wait_until(lambda: ipv6_mode(made) == "nat66", 10.0, "ocgate to notice")
    made.stop()
    assert gw.sysctl("net/ipv6/conf/all/forwarding") == "0"
    assert gw.sysctl("net/ipv6/conf/eth0/accept_ra") == "1"
    assert gw.sysctl("net/ipv6/icmp/ratemask") == rates
    assert learned()
    lines = [line for line in made.left_behind() if '"protocol": "ra"' not in line]
    assert lines == []


def test_an_mtu_below_ipv6_is_refused(lab: LabFactory) -> None:
    """`mtu = 1300` leaves a tunnel below 1280 bytes, off which Linux silently takes IPv6: refused
    with file and line where IPv6 may be advertised, accepted where not."""
    built = lab()
    directory = built.path("etc")
    conf = write_config_dir(built, directory, USERS, settings={"mtu": "1300"}, lines=FULL[:1])
    line = conf.read_text().splitlines().index("mtu = 1300") + 1
    environ = {"OCGATE_CONFIG_DIR": str(directory), "IPV6_PROBE": f"[{SERVICE6}]:443"}
    returncode, said = run_ocgate(built, "check", **environ, IPV6_NAT="auto")
    assert returncode == 2
    assert f"{conf}:{line}: mtu: got '1300'; expected" in said
    returncode, said = run_ocgate(built, "check", **environ, IPV6_NAT="0")
    assert returncode == 0, said

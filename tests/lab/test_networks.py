"""OCGATE_NETWORKS: an office network behind a second interface, reached by that and nothing else.

    client1 ==== inet ==== router -- docker, eth0 -- gw (ocgate) -- lan0 -- office
                                                     10.77.0.1       10.77.0.9, fd00:77::9
                   and in gateway mode an upstream   fd00:77::1      behind it 10.78.0.5

See support.gateway_mode. The office is the lab's neighbour, off its docker network.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import Any

import pytest

from lab import client as vpn
from lab import gateway as gateways
from lab.addresses import PROVIDER
from lab.capture import Capture, now
from lab.client import Client
from lab.ocserv import VPN_NET, write_config_dir
from lab.streams import UdpStream, new_marker
from lab.topology import SERVICE, Lab, Options
from lab.traffic import ask_tcp, ask_udp, ping
from lab.wiring import veth
from ocgate.names import NFT_TABLE, NFT_TABLE_GATEWAY
from ocgate.netlab.inject import into_tun, routed
from ocgate.netlab.namespace import Namespace
from ocgate.netlab.packet import any_of, build_udp, match
from ocgate.netlab.services import Services
from ocgate.netlab.wait import wait_until
from support.gateway_mode import Chain, chain, rejected_at_once, take_everything_away, write_toml
from support.leak_captures import USERS, Ground, LabFactory, frozen, ground
from support.lifecycle import ocgate

pytestmark = pytest.mark.lab

LAN, LAN6 = IPv4Network("10.77.0.0/24"), IPv6Network("fd00:77::/64")
FAR = IPv4Network("10.78.0.0/16")
CLOSED = IPv4Network("10.79.0.0/24")  # on the same wire, permitted to nobody
OWN, OWN6 = LAN[1], LAN6[1]
OFFICE, OFFICE6, FAR_OFFICE, NOT_FOR_US = LAN[9], LAN6[9], FAR[5], CLOSED[9]
PERMITTED = f"{LAN} dev lan0, {FAR} via {OFFICE} dev lan0, {LAN6} dev lan0"
NETS = any_of(*(match(dst=net) for net in (LAN, LAN6, FAR)))

MODES = ["standalone", "direct", "gateway"]


def wire_office(built: Lab) -> None:
    """lan0 between gw and the office, with addresses on both sides."""
    office = built.neighbours[0]
    built.router.netns.ip(veth("lan0", built.gw, "lan0", office))
    office.netns.ip(
        "link set eth0 down",
        "link set lan0 up",
        *(f"address add {a} dev lan0" for a in (f"{OFFICE}/24", f"{NOT_FOR_US}/24")),
        f"address add {OFFICE6}/64 dev lan0 nodad",
        f"address add {FAR_OFFICE}/32 dev lo",
    )
    built.own(Services(office.netns, (OFFICE, OFFICE6, FAR_OFFICE, NOT_FOR_US)))
    lay_lan(built.gw.netns)


def lay_lan(gw: Namespace) -> None:
    """gw's side; also after the link was down, which takes its IPv6 addresses along."""
    gw.ip(
        "link set lan0 up",
        f"address replace {OWN}/24 dev lan0",
        f"address replace {CLOSED[1]}/24 dev lan0",
        f"address replace {OWN6}/64 dev lan0 nodad",
    )


@dataclass
class Site:
    """A server in one of the modes with its office, and a client that is connected."""

    mode: str
    g: Ground
    client: Client
    outside: list[Capture]  # wherever the networks' packets must never be seen

    @property
    def gw(self) -> Namespace:
        return self.g.gateway.netns

    def network(self, net: Any) -> dict[str, Any]:
        """What status says of it."""
        found = self.g.gateway.status()["networks"]
        return next(dict(one) for one in found if one["network"] == str(net))

    def wait_state(self, state: str) -> None:
        wait_until(
            lambda: {n["state"] for n in self.g.gateway.status()["networks"]} == {state},
            5.0,
            f"the networks to be {state}",
        )

    def assert_none_outside(self, since: float) -> None:
        for capture in self.outside:
            capture.assert_none(NETS, "packets for the office", since=since)


def serve(lab: LabFactory, mode: str, toml: dict[str, str] | None = None) -> Site:
    """The server in `mode`, the office permitted (or as ocgate.toml says), a client connected."""
    given = {} if toml else {"OCGATE_NETWORKS": PERMITTED}
    if mode == "gateway":
        g: Ground = chain(
            lab,
            Options(upstream=True, neighbours=1),
            environ=given,
            toml=toml,
            before=lambda built, _: wire_office(built),
        )
        return Site(mode, g, g.connect(0), [g.docker, g.uplink, g.exit])

    def build(options: Options | None = None) -> Lab:
        made = lab(options)
        wire_office(made)
        return made

    by = {} if mode == "standalone" else {"VPN_GATEWAY": mode}
    g = ground(build, Options(neighbours=1), environ={**given, **by})
    return Site(mode, g, g.connect(0), [g.docker, g.uplink])


def answered(client: Client, to: Any) -> set[Any]:
    """As whom UDP and TCP are seen there; a ping is answered, too."""
    assert ping(client.netns, to)
    return {ask_udp(client.netns, to).seen_as, ask_tcp(client.netns, to).seen_as}


@contextmanager
def streams(client: Client) -> Iterator[list[UdpStream]]:
    """Both families under way."""
    with (
        UdpStream(client.netns, OFFICE, rate=200) as four,
        UdpStream(client.netns, OFFICE6, rate=200) as six,
        UdpStream(client.netns, FAR_OFFICE, rate=200) as far,
    ):
        for stream in (four, six, far):
            stream.wait_for(10)
        yield [four, six, far]


def prove_outside_is_seen(site: Site) -> None:
    """Positive control: with nothing of ours, no lan0, a client's packet for the office goes by the
    ISP, and the captures see it; by the upstream what is permitted nowhere goes."""
    with frozen(site.g.gateway):
        take_everything_away(site.g.gateway)
        site.gw.ip("link set lan0 down")
        since, marker, source = now(), new_marker(), site.client.address
        assert source is not None
        into_tun(site.client.netns, vpn.TUN, build_udp(source, OFFICE, 4000, 9, marker))
        for capture in (site.g.docker, site.g.uplink):
            capture.prove_sees(match(dst=LAN, marker=marker), "a packet for it", since=since)
        lay_lan(site.gw)
    site.g.wait_guarded()
    if site.mode == "gateway":
        since = now()
        ask_udp(site.client.netns, IPv4Address("10.99.0.9"), timeout=0.2)
        site.outside[-1].prove_sees(match(dst="10.99.0.9"), "by the upstream", since=since)


@pytest.mark.parametrize("mode", MODES)
def test_clients_reach_the_office_by_its_interface_alone(lab: LabFactory, mode: str) -> None:
    """Both families, and behind the office's router: seen there as gw's address on lan0, counted in
    status; what is permitted to nobody stays closed; the internet goes as before. The interface
    goes down under traffic: rejected at once with a reason, and not one packet of it leaves by the
    ISP or the upstream; it comes back, and the same session reaches it again."""
    site = serve(lab, mode)
    client = site.client
    prove_outside_is_seen(site)
    site.wait_state("up")
    since = now()
    assert answered(client, OFFICE) == {OWN}
    assert answered(client, FAR_OFFICE) == {OWN}
    assert answered(client, OFFICE6) == {OWN6}
    assert rejected_at_once(client, NOT_FOR_US) or mode == "gateway"
    assert not ask_udp(client.netns, NOT_FOR_US, timeout=0.5)
    expected = PROVIDER if mode == "gateway" else site.g.lab.router.address
    assert ask_udp(client.netns, SERVICE).seen_as == expected
    assert site.network(LAN)["packets"] > 0
    assert site.network(LAN6)["packets"] > 0
    told = ocgate(site.g.gateway, "explain", "alice", str(FAR_OFFICE)).stdout
    assert f"network via {OFFICE} dev lan0" in told

    with streams(client) as under_way:
        site.gw.ip("link set lan0 down")
        site.wait_state("down")
        assert rejected_at_once(client, OFFICE)
        assert rejected_at_once(client, FAR_OFFICE)
        assert rejected_at_once(client, OFFICE6)
        assert "lan0 is down" in ocgate(site.g.gateway, "explain", "alice", str(OFFICE)).stdout
        assert site.g.gateway.status()["healthy"]
        sent = [stream.tally.sent for stream in under_way]
        wait_until(
            lambda: all(s.tally.sent > n + 100 for s, n in zip(under_way, sent, strict=True)),
            5.0,
            "half a second of traffic",
        )
        blocked = {one["reason"]: one["packets"] for one in site.g.gateway.status()["blocked"]}
        assert blocked["network_closed"] > 100
        site.assert_none_outside(since)
        lay_lan(site.gw)
        site.wait_state("up")
        wait_until(lambda: bool(ping(client.netns, OFFICE)), 5.0, "the office again")
        wait_until(lambda: bool(ping(client.netns, OFFICE6)), 5.0, "the office again, IPv6")
    site.assert_none_outside(since)


LAYERS = {
    "tables": [f"nft delete table inet {name}" for name in (NFT_TABLE, NFT_TABLE_GATEWAY)],
    "rules": [f"ip {family} rule flush protocol 143" for family in ("-4", "-6")],
    "routes": [
        f"ip {family} route flush table all protocol 143 root {net}"
        for family, net in (("-4", "10.77.0.0/16"), ("-4", FAR), ("-6", LAN6))
    ],
}


@pytest.mark.parametrize("mode", MODES)
def test_any_layer_can_be_gone_while_the_interface_is_away(lab: LabFactory, mode: str) -> None:
    """Control frozen, lan0 down, and one of tables, policy rules, routes taken away: nothing for
    the office leaves by the ISP or the upstream."""
    site = serve(lab, mode)
    prove_outside_is_seen(site)
    for gone in LAYERS:
        since = now()
        with frozen(site.g.gateway):
            for command in LAYERS[gone]:
                site.gw.run(command.split(), check=False)
            site.gw.ip("link set lan0 down")
            for to in (OFFICE, FAR_OFFICE, OFFICE6):
                source = site.client.address6 if to.version == 6 else site.client.address
                assert source is not None
                packets = [
                    build_udp(source, to, 4000, port, gone.encode()) for port in range(9, 30)
                ]
                into_tun(site.client.netns, vpn.TUN, *packets)
            assert not ask_udp(site.client.netns, OFFICE, timeout=0.5)  # behind all of these
            site.assert_none_outside(since)
            lay_lan(site.gw)
        site.g.wait_guarded()
        wait_until(lambda: bool(ping(site.client.netns, OFFICE)), 5.0, "the office again")


def test_the_office_reaches_no_client_unasked(lab: LabFactory) -> None:
    """It is a network that clients reach, and not one that reaches them: nor by their tunnel's
    addresses, nor this host by them."""
    site = serve(lab, "gateway")
    office = site.g.lab.neighbours[0].netns
    office.ip(f"route add 10.10.10.0/24 via {OWN}")
    inside = site.g.lab.capture(site.client.host, vpn.TUN)
    assert answered(site.client, OFFICE) == {OWN}
    to = site.client.address
    assert to is not None
    inside.prove_sees(match(src=OFFICE, dst=to), "the office's answers")
    since = now()
    routed(office, *(build_udp(OFFICE, to, 7, port, b"unasked") for port in range(4000, 4020)))
    wait_until(lambda: site.g.blocked()["unsolicited"] >= 20, 5.0, "these to be counted")
    inside.assert_none(match(marker=b"unasked"), "unasked packets", since=since)


def test_a_network_is_permitted_and_withdrawn_by_a_reload(lab: LabFactory) -> None:
    """Live: the session that is there reaches it from then on, and no more from then on. What
    somebody takes of its routes and rules is put back."""
    site = serve(lab, "gateway", {"OCGATE_NETWORKS": "off"})
    g, client = site.g, site.client
    assert isinstance(g, Chain)
    assert g.gateway.status()["networks"] == []
    assert not ask_udp(client.netns, OFFICE, timeout=0.5)
    g.reload(OCGATE_NETWORKS=PERMITTED)
    assert answered(client, OFFICE) == {OWN}
    for command in (f"ip route del {LAN} table 100", "nft flush chain inet ocserv networks"):
        site.gw.run(command.split())
        g.wait_guarded()
        wait_until(lambda: bool(ping(client.netns, OFFICE)), 5.0, "the repair")
    refused = write_and_reload(g, OCGATE_NETWORKS="10.77.0.1/24 dev lan0, 10.99.0.0/16")
    assert "Write 10.77.0.0/24" in refused
    assert "10.99.0.0/16 dev lan0" in refused
    assert answered(client, OFFICE) == {OWN}
    g.reload(OCGATE_NETWORKS="off")
    assert not ask_udp(client.netns, OFFICE, timeout=0.5)
    routes = site.gw.run(["ip", "route", "show", "table", "all"]).stdout
    assert f"unreachable {LAN}" not in routes


def write_and_reload(g: Chain, **settings: str) -> str:
    """A reload that is refused; its words."""
    write_toml(g.gateway, settings)
    done = ocgate(g.gateway, "reload")
    assert done.returncode == 1, done.stderr
    return str(done.stderr)


def test_an_exit_that_is_closed_takes_no_network_along(lab: LabFactory) -> None:
    """VPN_GATEWAY=block: the internet is rejected, the office is reached, in both families."""
    site = serve(lab, "block")
    assert rejected_at_once(site.client, SERVICE)
    assert answered(site.client, OFFICE) == {OWN}
    assert answered(site.client, OFFICE6) == {OWN6}


def test_check_names_the_line_that_permits_a_pushed_network(lab: LabFactory) -> None:
    """The office as people set it up, without the setting: connected, and behind a router that
    main has a route by. With the line that check names, check is silent."""
    built = lab(Options(neighbours=1))
    wire_office(built)
    built.gw.netns.ip(f"route add {FAR} via {OFFICE} dev lan0")
    directory = built.path("etc")
    lines = [f"route = {net}" for net in (LAN, FAR, LAN6, VPN_NET)]
    write_config_dir(built, directory, USERS, lines=lines)

    def check(**environ: str) -> str:
        given = {"OCGATE_CONFIG_DIR": str(directory), "OCGATE_RUN_DIR": str(built.path("run"))}
        program = built.spawn(built.gw, gateways.command("check"), environ=given | environ)
        assert program.wait(20.0) == 0, program.output
        return program.output

    said = check()
    for line in (f"{LAN} dev lan0", f"{FAR} via {OFFICE} dev lan0", f"{LAN6} dev lan0"):
        assert f"Permit it: OCGATE_NETWORKS={line};" in said
    assert said.count("route-to-closed-network") == 3
    assert "route-to-closed-network" not in check(OCGATE_NETWORKS=PERMITTED, IPV6_SINK="1")

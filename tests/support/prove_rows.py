"""The rows of a matrix in which an exit's provider and its neighbours are adversaries.

Each is a fault as any other, under the traffic of the server's clients, and the proof's captures
judge it: a packet of a client's, or with the provider's mark, that reaches the neighbour or the ISP
in clear is a leak. What a row asks besides is asserted in it, and fails it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_interface

from ocgate.names import TUNNEL_DEVICE, TUNNEL_UID
from ocgate.netlab.inject import into_tun, mac_of, onto_link
from ocgate.netlab.listening import udp_port_of
from ocgate.netlab.namespace import Namespace
from ocgate.netlab.odd_packets import arp_claim, redirect4
from ocgate.netlab.packet import build_udp
from ocgate.netlab.wait import wait_until
from ocgate.plan.facts import Address, Family
from ocgate.prove.fault import Expect, Fault
from ocgate.prove.marker import Kind
from ocgate.prove.stage import Stage
from support.prove_exit import ISP_END, PORT, PROVIDER
from support.prove_forgeries import AS_USER, FORGED, attack, errors, redirect6
from support.prove_hostile import EXIT6, NOBODYS6, PROVIDER6, PROVIDERS_END, HostileExit, stolen
from support.prove_watch import PROVIDERS, Seen, Watch

GW, NEIGHBOUR, DOCKER_HOST = (IPv4Address(f"172.28.0.{n}") for n in (10, 200, 1))
NOBODYS = IPv4Address("172.28.0.66")
CLIENTS = IPv4Address("10.10.10.9")
ELSEWHERE, ELSEWHERE6 = IPv4Address("203.0.113.7"), IPv6Address("2001:db8:77::7")
OWN6 = ip_interface(EXIT6).ip
_BURST = 3  # of what must arrive once


@dataclass
class Rows:
    """Of one exit. measured: what they have counted."""

    exit: HostileExit
    measured: dict[str, object] = field(default_factory=dict)
    _honest: set[str] = field(default_factory=set)

    @property
    def neighbour(self) -> Namespace:
        return self.exit.world.spaces["neighbour"]

    def all(self) -> tuple[Fault, ...]:
        """Those in which nothing may leak."""
        return (
            self.row("provider pushes what is others'", self.pushes),
            self.row("provider turns the tunnel over at a renewal", self.renewal),
            self.row("provider sends to neighbours and users", self.provider_sends),
            self.row("neighbour forges, and uses the exit as its router", self.neighbour_forges),
            self.row("endpoint redirected to a neighbour", self.redirects),
            self.row("endpoint redirected to a neighbour, IPv6", self.redirects6, self.to_ipv4),
        )

    # --- what the provider pushes ---------------------------------------------------------------

    def pushes(self, _stage: Stage) -> None:
        """One set after the other: what is refused is said, and in the kernel there is nothing of
        it; whoever looks for the address on the docker network does not find the exit."""
        self._honest = self._addresses()
        for address, why in (
            (NOBODYS, f"address {NOBODYS}: it lies in"),
            (GW, f"address {GW}: it lies in"),
            (CLIENTS, "of FORWARD_FROM"),
            (DOCKER_HOST, f"address {DOCKER_HOST}: it lies in"),
            (IPv4Address("127.0.0.1"), "it is a loopback address"),
        ):
            with self.exit.pushing(*stolen(address)):
                self._is_refused(why)
        with self.exit.serving("tun-mtu 400"):
            self._is_refused("MTU 400: it must be 576 to 65535 bytes")
        self._routes_and_resolvers()

    def _is_refused(self, why: str) -> None:
        self.exit.again()
        self.exit.until(lambda: self._failed(why), why)
        assert self._addresses() <= self._honest, (self._honest, self._addresses())
        self._nobody_finds_it()

    def _routes_and_resolvers(self) -> None:
        """The tunnel itself is honest, and is used; nothing of the rest is."""
        networks = ("172.28.0.0 255.255.255.0", "10.10.10.0 255.255.255.0", "0.0.0.0 128.0.0.0")
        resolvers = ("127.0.0.1", NEIGHBOUR, GW, "169.254.169.254", "224.0.0.1", PROVIDER)
        with self.exit.pushing(
            f"ifconfig-ipv6-push {NOBODYS6}/64",
            *(f'push "route {net}"' for net in networks),
            f'push "route {PROVIDER} 255.255.255.255 {PROVIDERS_END}"',
            'push "redirect-gateway def1 ipv6 bypass-dhcp"',
            *(f'push "dhcp-option DNS {resolver}"' for resolver in resolvers),
        ):
            before = self._main()
            self.exit.reconnected()
            refused = " ".join(self.exit.tunnel()["refused"])
            for resolver in ("127.0.0.1", NEIGHBOUR, GW):
                assert f"resolver {resolver}" in refused, refused
            assert f"address {NOBODYS6}" in refused, refused
            assert not self.exit.tunnel()["resolvers"], self.exit.tunnel()
            assert self._main() == before, (before, self._main())
            ruleset = self.exit.netns.run(["nft", "list", "ruleset"]).stdout
            assert "dnat" not in ruleset
            self._nobody_finds_it()

    def renewal(self, _stage: Stage) -> None:
        """It was honest; the server restarts, and the next connection gets a user's address."""
        honest = self._addresses()
        assert honest
        with self.exit.pushing(*stolen(GW)):
            self.exit.kill_tunnel()
            self.exit.until(lambda: self._failed(f"address {GW}: it lies in"), "the refusal")
            assert self._addresses() <= honest, (honest, self._addresses())

    def _failed(self, why: str) -> bool:
        told = self.exit.tunnel()
        return why in str(told.get("last_failure")) and told["state"] == "waiting"

    def _addresses(self) -> set[str]:
        """On the tunnel's device; between two tunnels the former's stay, for its flows."""
        words = ["ip", "-o", "addr", "show", "dev", TUNNEL_DEVICE, "scope", "global"]
        shown = self.exit.netns.run(words, check=False).stdout
        return {line.split()[3] for line in shown.splitlines()}

    def _main(self) -> list[str]:
        """Main's routes, but for the tunnel device's own addresses."""
        lines = [
            line
            for family in ("-4", "-6")
            for line in self.exit.netns.run(["ip", family, "route", "show"]).stdout.splitlines()
        ]
        own = tuple(ip_interface(text).ip for text in self.exit.tunnel()["addresses"])
        return [x for x in lines if x.split()[0] not in ("fe80::/64", *map(str, own))]

    def _nobody_finds_it(self) -> None:
        """Asked by the neighbour, in both families; each address by itself."""
        for address in (NOBODYS, NOBODYS6, GW):
            assert self.found_at(address) != self.exit.mac, f"the exit answers for {address}"

    def found_at(self, address: Address) -> str:
        """Whose MAC address the neighbour gets for it; '' for nobody's."""
        netns, host = self.neighbour, f"{address}/{address.max_prefixlen}"
        netns.run(["ip", "neigh", "flush", "to", str(address)], check=False)
        netns.ip(f"route replace {host} dev seg1")  # also of one that is not of this network
        netns.run(["ping", "-c1", "-W0.2", str(address)], check=False)
        netns.ip(f"route del {host} dev seg1")
        shown = netns.run(["ip", "neigh", "show", "to", str(address)]).stdout
        return shown.split("lladdr ")[1].split()[0] if "lladdr" in shown else ""

    # --- what the provider sends ----------------------------------------------------------------

    def provider_sends(self, stage: Stage) -> None:
        """While the ruleset stands: not one of his reaches anybody, and the exit says nothing."""
        with self.watching(stage) as seen:
            self.send_from_provider(seen)
        assert seen.tunnel, "none of the provider's packets came out of the tunnel"
        self.measured["provider's packets, ruleset there"] = seen.shown
        assert not seen.reached, (seen.shown, seen.watch_server.examples(PROVIDERS))

    def ruleset_gone(self, stage: Stage) -> None:
        """And nobody to put it back: what the policy rules and the devices' settings hold alone."""
        own = [ip_interface(text).ip for text in self.exit.tunnel()["addresses"]]
        self.exit.freeze()
        self.exit.flush_ruleset()
        with self.watching(stage) as seen:
            self.send_from_provider(seen)
        self.measured["provider's packets, ruleset gone"] = seen.shown
        outside = {a for a in seen.uplink if a not in self.on_link}
        assert not outside, f"by the uplink to {outside}"
        beyond = {a for a in seen.server if a not in self.on_link}
        assert not beyond, f"beyond the docker network: {beyond}"
        assert seen.neighbour, "nothing was seen where it is not held: the capture is blind"
        self._nobody_finds_it()
        assert own
        assert not any(map(self.found_at, own)), "the exit answers for the tunnel's address"

    def no_layer(self, stage: Stage) -> None:
        """The control of what is said to be held: without the rules it leaves by the uplink."""
        self.exit.freeze()
        self.exit.flush_ruleset()
        self.exit.flush_rules()
        self.exit.forward_on()
        with self.watching(stage) as seen:
            self.send_from_provider(seen)
        self.measured["provider's packets, no layer"] = seen.shown
        assert any(a not in self.on_link for a in seen.uplink), seen.shown

    def send_from_provider(self, seen: Seen | None = None) -> None:
        """Into the tunnel, with sources of his own and of others, to everybody here."""
        sources = (PROVIDERS_END, ELSEWHERE, NEIGHBOUR, GW, ELSEWHERE6, NOBODYS6)
        targets = (GW, NEIGHBOUR, DOCKER_HOST, IPv4Address("172.28.0.255"), self.exit.up.address,
                   IPv4Address("10.8.0.2"), CLIENTS, ISP_END, IPv4Address("203.0.113.99"),
                   IPv4Address("224.0.0.1"), IPv4Address("169.254.169.254"), OWN6,
                   IPv6Address("2001:db8:28::10"), IPv6Address("2001:db8:113::99"))  # fmt: skip
        packets = attack(Kind.PROVIDER, sources, targets)
        for device in ("tun0", "tun1"):  # whichever is in use: OpenVPN knows of no client by others
            with contextlib.suppress(OSError):
                into_tun(self.exit.provider, device, *packets)
        if seen is not None:
            # The last one, again until it has come out of the tunnel: then all have.
            last = build_udp(PROVIDERS_END, "10.8.0.2", 1, 9, FORGED)

            def arrived() -> bool:
                for device in ("tun0", "tun1"):
                    into_tun(self.exit.provider, device, last)
                return seen.last_has_come()

            wait_until(arrived, 10.0, "the provider's packets at the exit", interval=0.02)

    @contextlib.contextmanager
    def watching(self, stage: Stage) -> Iterator[Seen]:
        """Where the provider's packets come to, while the block runs."""
        with (
            Watch(self.exit.netns, TUNNEL_DEVICE) as tunnel,
            Watch(self.neighbour) as neighbour,
            Watch(stage.world.spaces["isp"], "seg1") as isp,
            Watch(stage.gw) as server,
        ):
            seen = Seen(tunnel, neighbour, isp, server)
            yield seen
            seen.note()

    # --- a neighbour ----------------------------------------------------------------------------

    @property
    def on_link(self) -> set[Address]:
        """Addresses of the docker network."""
        return {a for net in self.exit.up.segment.networks if net.version == 4 for a in net} | {
            IPv6Address("2001:db8:28::10"),
            OWN6,
        }

    def to_exit(self, *packets: bytes) -> None:
        """From the neighbour, whatever their source."""
        onto_link(self.neighbour, "seg1", self.exit.mac, *packets)

    def neighbour_forges(self, stage: Stage) -> None:
        """Who may not use the exit does not; what is forged about the tunnel or in a user's name
        neither ends the tunnel nor gets anything out by the uplink."""
        before = self.exit.blocked("not_allowed")
        attempts = self.exit.tunnel()["attempts"]
        with self.watching(stage) as seen:
            self.send_from_neighbour()
            wait_until(lambda: self.exit.blocked("not_allowed") > before, 5.0, "the counter")
        self.measured["neighbour's in users' names, into the tunnel"] = sum(seen.as_user.values())
        assert seen.as_user, "what is sent as a user was not seen in the tunnel: the watch is blind"
        assert not seen.forged_into_tunnel, seen.forged_into_tunnel
        outside = {a for a in seen.forged_by_uplink if a not in self.on_link}
        assert not outside, f"by the uplink to {outside}"
        told = self.exit.tunnel()
        assert (told["state"], told["attempts"]) == ("up", attempts), told

    def forge(self) -> None:
        """As if it were allowed to use the exit; in users' names; errors about their packets."""
        exit4, port, own6 = self.exit.up.address, self._port(), IPv6Address("2001:db8:28::c8")
        nowhere = [IPv4Address(text) for text in ("127.0.0.1", "224.0.0.1", "0.0.0.0")]
        targets = (ELSEWHERE, ELSEWHERE6, IPv4Address("203.0.113.99"), PROVIDER, ISP_END, GW)
        forged = attack(FORGED, (NEIGHBOUR, own6, PROVIDER, ELSEWHERE, *nowhere), targets)
        # Not of a client behind the server: the judge would take such a packet for that client's.
        forged += attack(AS_USER, (GW, DOCKER_HOST, exit4), targets)
        about = build_udp(exit4, PROVIDER, port, PORT, b"?" * 32)
        for src in (PROVIDER, DOCKER_HOST, NEIGHBOUR):
            forged += errors(FORGED, src, exit4, about)
        user = build_udp(exit4, ELSEWHERE, 40000, 7, b"?" * 32)
        forged += errors(FORGED, ELSEWHERE, exit4, user)
        self.to_exit(*forged)

    def send_from_neighbour(self) -> None:
        """All that, and the ISP's address is said to be the neighbour's."""
        self.forge()
        self._believed(DOCKER_HOST, mac_of(self.neighbour, "seg1"))

    def _claim(self, address: IPv4Address, mac: str, to: Address) -> None:
        """The exit is told that this address is at that MAC address."""
        assert isinstance(to, IPv4Address)
        at, own = (bytes.fromhex(m.replace(":", "")) for m in (mac, self.exit.mac))
        onto_link(self.neighbour, "seg1", self.exit.mac, arp_claim(address, at, to, own))

    def _believed(self, address: IPv4Address, mac: str) -> None:
        """Claim it until the exit believes it: what it has heard for less than a second stays."""

        def believed() -> bool:
            self._claim(address, mac, self.exit.up.address)
            return mac in self.exit.netns.run(["ip", "neigh", "show", "to", str(address)]).stdout

        wait_until(believed, 5.0, f"{address} to be at {mac}", interval=0.1)

    def tell_the_truth(self) -> None:
        """Where ISP and server are; else the exit would ask for them again after some seconds, and
        the tunnel have ended before."""
        self._believed(DOCKER_HOST, mac_of(self.exit.world.spaces["isp"], "seg1"))
        self._believed(GW, mac_of(self.exit.world.gw, "eth0"))

    def takes_the_users_address(self, _stage: Stage) -> None:
        """A control, and what nothing here holds: by ARP the neighbour gets users' answers."""
        self._believed(GW, mac_of(self.neighbour, "seg1"))

    # --- redirects ------------------------------------------------------------------------------

    def _port(self) -> int:
        """Of the tunnel's own flow: conntrack knows no other."""
        return udp_port_of(self.exit.netns, TUNNEL_UID)

    def redirects(self, _stage: Stage) -> None:
        """Where docker's `ip_forward=0` has made the kernel take them: dropped and counted, and
        with the ruleset gone the device's own setting refuses. The control: without both."""
        self.exit.netns.sysctl("net/ipv4/conf/all/accept_redirects", 1)
        setting = "net/ipv4/conf/eth0/accept_redirects"
        self._redirected_only_without_both(self.forge_redirects, 4, setting)

    def forge_redirects(self) -> None:
        """In the ISP's name, about the tunnel's own flow over IPv4."""
        packet = redirect4(
            str(NEIGHBOUR),
            str(self.exit.up.address),
            router=str(DOCKER_HOST),
            about=(str(PROVIDER), PORT),
            port=self._port(),
        )
        self.to_exit(*[packet] * _BURST)

    def redirects6(self, _stage: Stage) -> None:
        """The same, where no IPv6 is forwarded."""
        self.exit.by(6)
        router = self.exit.router6
        shown = self.neighbour.run(["ip", "-6", "-o", "addr", "show", "dev", "seg1"]).stdout
        target = next(w for w in shown.split() if w.startswith("fe80")).partition("/")[0]
        packet = redirect6(router, OWN6, IPv6Address(target), PROVIDER6)  # type: ignore[arg-type]
        setting = "net/ipv6/conf/eth0/accept_redirects"
        self._redirected_only_without_both(lambda: self.to_exit(*[packet] * _BURST), 6, setting)

    def to_ipv4(self) -> None:
        """By the usual way again."""
        self.exit.by(4)

    def _redirected_only_without_both(
        self, forge: Callable[[], None], family: Family, setting: str
    ) -> None:
        netns = self.exit.netns
        before = self.exit.blocked("redirects")
        self.exit.freeze()
        forge()
        wait_until(lambda: self.exit.blocked("redirects") - before >= _BURST, 5.0, "the counter")
        assert not self._redirected(family)
        self.exit.flush_ruleset()
        forge()
        assert not self._redirected(family), "with the ruleset gone"
        netns.sysctl(setting, 1)

        def believed() -> bool:
            forge()
            return self._redirected(family)

        wait_until(believed, 5.0, "the control: a redirect that is believed")
        netns.ip("route flush cache", v6=family == 6)
        netns.sysctl(setting, 0)

    def _redirected(self, family: Family) -> bool:
        """Whether packets to the endpoint go to the neighbour; behind what was sent before."""
        self.neighbour.run(["ping", "-c1", "-W1", str(self.exit.up.address)], check=False)
        provider = PROVIDER if family == 4 else PROVIDER6
        shown = self.exit.netns.run(["ip", "route", "get", str(provider)]).stdout
        return "redirected" in shown or (family == 6 and str(self.exit.router6) not in shown)

    # --- faults ---------------------------------------------------------------------------------

    def honest(self) -> None:
        """Nothing is claimed, forged or pushed any more, and all is as at first."""
        self.exit.thaw()
        for v6 in (False, True):
            self.exit.netns.ip("route flush cache", v6=v6)  # of redirects
        self.exit.leads_to(PROVIDER)
        self.tell_the_truth()

    def row(
        self,
        name: str,
        inject: Callable[[Stage], None],
        undo: Callable[[], None] = lambda: None,
    ) -> Fault:

        def after(_stage: Stage) -> None:
            self.honest()
            undo()
            self.exit.hurry()
            self.exit.wait_ready()

        return Fault(name, "exit role", inject, after, expect=Expect.OUTAGE)

    def controls(self) -> tuple[Fault, ...]:
        """Those in which something leaks, which shows that it is seen, and what is not held."""
        return (
            self.row("ruleset gone, provider sends, frozen", self.ruleset_gone),
            self.row("no layer, provider sends, frozen", self.no_layer),
            self.row("neighbour takes a user's address", self.takes_the_users_address),
        )

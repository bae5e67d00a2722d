"""Everything that a fault may lay hands on, and the repair of what it leaves broken."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from ipaddress import ip_address

from ocgate.names import ROUTE_PROTOCOL
from ocgate.netlab.namespace import Namespace
from ocgate.plan.exits import ExitKind
from ocgate.plan.facts import Address, Family
from ocgate.prove.clients import Clients
from ocgate.prove.internet import Internet
from ocgate.prove.subject import Subject
from ocgate.prove.traffic import Traffic
from ocgate.prove.twin import Segment, Twin
from ocgate.prove.world import World

FAMILIES: tuple[Family, ...] = (4, 6)
MAIN, DEFAULT = 32766, 32767  # the kernel's own rules (fib_rules_default)


@dataclass
class Stage:
    """One subject in its world, with clients that send.

    forwarding: the forwarding sysctls and what they are while the subject serves.
    had: addresses of gw that a fault has taken back before anybody could ask for them.
    stopped_at, unguarded: since when the subject is stopped, 0 if it isn't; when it was before.
    """

    world: World
    subject: Subject
    clients: Clients
    traffic: Traffic
    internet: Internet
    forwarding: dict[str, str] = field(default_factory=dict)
    had: set[Address] = field(default_factory=set)
    stopped_at: float = 0.0
    unguarded: list[tuple[float, float]] = field(default_factory=list)

    def stop(self) -> None:
        """Stop the subject."""
        self.stopped_at = time.time()
        self.subject.stop()

    def start(self) -> None:
        """Start it again; from when it is ready it answers for what the host says."""
        try:
            self.subject.start()
        finally:
            if self.stopped_at:
                self.unguarded.append((self.stopped_at, time.time()))
                self.stopped_at = 0.0

    def note_forwarding(self) -> None:
        """Remember what the forwarding sysctls are while the subject serves."""
        keys = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")
        self.forwarding = {key: self.gw.sysctl(key) for key in keys}

    @property
    def twin(self) -> Twin:
        return self.world.twin

    @property
    def gw(self) -> Namespace:
        return self.world.gw

    @property
    def wan(self) -> Segment:
        """The segment of the host's default route."""
        return next(s for s in self.twin.segments if s.defaults)

    @property
    def exits(self) -> tuple[Segment, ...]:
        """The segments of the gateways; the WAN where there is none."""
        found = dict.fromkeys(up.segment for up in self.twin.upstreams)
        return tuple(found) or (self.wan,)

    def try_ip(self, *words: str, family: Family | None = None) -> bool:
        """An `ip` command in gw that may find nothing to do."""
        version = [f"-{family}"] if family else []
        return self.gw.run(["ip", *version, *words], check=False).returncode == 0

    def try_nft(self, *words: str) -> None:
        """An `nft` command in gw that may find nothing to do."""
        self.gw.run(["nft", *words], check=False)

    def flush_rules(self) -> None:
        """All policy rules gone, but main and default put back, as whoever does that has to."""
        for family in FAMILIES:
            while self.try_ip("rule", "del", "pref", "1-32765", family=family):
                pass
            self.try_ip("rule", "flush", family=family)
            for pref, table in ((MAIN, "main"), (DEFAULT, "default")):
                self.try_ip("rule", "add", "pref", str(pref), "lookup", table, family=family)

    def flush_own_routes(self) -> None:
        """All routes that carry our protocol number, in every table."""
        for family in FAMILIES:
            words = ("route", "flush", "table", "all", "proto", str(ROUTE_PROTOCOL))
            self.try_ip(*words, family=family)

    def expected(self) -> list[tuple[int, Family]]:
        """(session, family) whose traffic is answered while nothing is broken."""
        return [
            (client.me.session, family)
            for client in self.clients.live
            for family in client.me.families
            if family in self.subject.ways.answered
            and self.subject.ways.of(family) is not ExitKind.BLOCK
        ]

    def families(self) -> set[Family]:
        """Those that clients have addresses of."""
        return {4 if net.version == 4 else 6 for net in self.subject.nets.subnets}

    def own_addresses(self) -> list[Address]:
        """gw's now and `had`, but for the tuns': what a translated packet may show."""
        shown = json.loads(self.gw.run(["ip", "-j", "addr"]).stdout)
        device = self.subject.nets.device
        now = [
            ip_address(held["local"])
            for link in shown
            if not link["ifname"].startswith(device)
            for held in link["addr_info"]
        ]
        return [*now, *self.had.difference(now)]

    def mend(self) -> None:
        """The host's own links, addresses and default routes as they are meant to be."""
        self.world.unplug(self.twin.spare)
        for segment in self.twin.segments:
            self.world.lay(segment)

    def mend_upstreams(self) -> None:
        """The upstreams as they were at first."""
        for up in self.twin.upstreams:
            self.world.lay_upstream(up)

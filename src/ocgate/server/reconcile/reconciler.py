"""Keeps the kernel at the plan while the machine around it changes.

Events only say "look again". Each look observes the facts, plans anew, compares with what was
applied and with what the kernel holds, and applies where either differs. The same look follows a
default route that moves, a probe that changes its mind, a reload, and somebody's `nft flush`.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable
from pathlib import Path

from ocgate.errors import OcgateError
from ocgate.kernel import conntrack
from ocgate.kernel.apply import Applied, Drift, apply, compare
from ocgate.kernel.conntrack import TcpFlow
from ocgate.kernel.facts import observe
from ocgate.kernel.nft import Nft
from ocgate.plan.exits import NO_GATEWAYS, Exit, ExitKind, Exits, FormerAddress
from ocgate.plan.facts import Family, Network
from ocgate.plan.guard import not_for_clients
from ocgate.plan.intent import Intent
from ocgate.plan.ipv6 import Ipv6Path
from ocgate.runtime.log import stage
from ocgate.runtime.records import Records
from ocgate.runtime.repairs import Repairs
from ocgate.runtime.shortages import LACKS, words
from ocgate.server.admission.element_writer import ElementWriter
from ocgate.server.desired import rule_placement
from ocgate.server.desired.prepare import Ipv6Egress, Prepared, prepare
from ocgate.server.desired.sources import Sources
from ocgate.server.exits.nudges import Nudges
from ocgate.server.exits.outages import Outages
from ocgate.server.reconcile.effective_conf import EffectiveConf
from ocgate.server.reconcile.former_addresses import STRAYS, read_strays, write_strays
from ocgate.sessions import elements
from ocgate.sessions.table import SessionTable

log = stage("init-nat")


class Reconciler:
    """Owns what was applied. `look` may be called at any time, from one loop."""

    def __init__(
        self,
        nft: Nft,
        run_dir: Path,
        table: SessionTable,
        effective: EffectiveConf,
        egress: Ipv6Egress,
        exits: Exits = NO_GATEWAYS,
        clock: Callable[[], float] = time.monotonic,
        records: Records | None = None,
    ) -> None:
        self._nft = nft
        self._run_dir = run_dir
        self._records = records or Records()
        self._table = table
        self._effective = effective
        self._applied: Applied | None = None
        self._prepared: Prepared | None = None
        self._egress = egress
        self._exits = exits
        self._strays = read_strays(run_dir)
        self._outages = Outages(clock)
        self._nudges = Nudges()
        self._former: dict[Family, tuple[object, ...]] = {}  # the way that flows were made for last
        self._uncut: set[Network] = set()
        self._unassured: set[Network] = set()  # whose exit waits: what is no stream is to be cut
        self._unasked = False  # flows may exist that no first packet was asked for
        self._half = False  # the kernel may have taken a part of another plan
        self._busy = asyncio.Lock()
        self.writer = ElementWriter(nft, self.restore)
        self.unsettled = False  # a repair did not succeed, and no event may come to try again
        self.repairs = Repairs(log, clock)

    @property
    def is_started(self) -> bool:
        """Whether anything is in force."""
        return self._prepared is not None

    @property
    def is_due(self) -> bool:
        """Whether a look would change something though nothing has happened."""
        return self._outages.is_due

    @property
    def prepared(self) -> Prepared:
        """What is in force now; `start` must have run."""
        assert self._prepared is not None
        return self._prepared

    @property
    def egress(self) -> Ipv6Egress:
        """What the last probe that counted found."""
        return self._egress

    @property
    def exits(self) -> Exits:
        """The gateways as they are in force."""
        return self._exits

    @property
    def strays(self) -> tuple[FormerAddress, ...]:
        """Addresses that clients have been translated to until now."""
        return self._strays

    async def start(self, prepared: Prepared) -> None:
        """Apply and verify; raises OcgateError where the kernel refuses."""
        async with self._busy:
            await self._apply(prepared)
            await self._forget_wrong()
            self._note_removed()

    async def look(
        self,
        *,
        sources: Sources | None = None,
        egress: Ipv6Egress | None = None,
        exits: Exits | None = None,
        by: str = "",
    ) -> None:
        """Observe, plan, compare, apply where needed. New sources, egress, exits replace the old.

        by: names of programs that have just changed nftables, for the log.
        """
        async with self._busy:
            self.unsettled = False
            old = self.prepared
            facts = await asyncio.to_thread(observe, session_prefix=old.intent.device)
            new = prepare(
                sources or old.sources,
                facts,
                egress or self._egress,
                self._outages.seen(exits or self._exits),
                strays=self._strays,
            )
            _tell_rules_before(old, new)
            if new.plan != old.plan or self.writer.unsettled or self._half:
                await self._apply(new)
                self._note_removed()
                await self._after_change(old, new)
            else:
                self._in_force(new)
                await self._repair(by)
                await self._cut()
            await self._effective.follow(new)

    async def restore(self) -> None:
        """Put the whole table right from the session table."""
        async with self._busy:
            await self._apply(self.prepared)
            await self._forget_wrong()

    async def drift(self) -> tuple[str, ...]:
        """What in the kernel differs from the plan just now."""
        return (await self._compared()).words

    async def _compared(self) -> Drift:
        async with self.writer.lock:
            assert self._applied is not None
            return await asyncio.to_thread(compare, self._nft, self._applied, self.writer.held())

    async def _repair(self, by: str) -> None:
        found = await self._compared()
        again = functools.partial(self._again, found)
        if found.words and not await self.repairs.make(found.words, again, by=by):
            self.unsettled = True

    def _note_removed(self) -> None:
        if self._applied is not None:
            self.repairs.made(self._applied.removed)

    async def _again(self, found: Drift) -> None:
        await self._apply(self.prepared, after=found)
        await self._forget_wrong()

    async def _forget_wrong(self) -> None:
        """Our tables may have been gone: flows that began meanwhile began unasked."""
        self._unasked = True
        await self._cut()

    async def _apply(self, prepared: Prepared, *, after: Drift | None = None) -> None:
        self._half = True  # drift does not see all that a refused plan may have left
        async with self.writer.lock:
            wanted = elements.wanted(self._table, prepared.intent.marks)
            self._applied = await asyncio.to_thread(
                apply, self._nft, prepared.plan, wanted, run_dir=self._run_dir, after=after
            )
            self.writer.now_holds(wanted, prepared.intent.marks)
        self._half = False
        self._in_force(prepared)
        self._keep_strays(prepared)

    def _in_force(self, prepared: Prepared) -> None:
        """Whatever fails from here on, the next look must not plan for what was before."""
        self._prepared = prepared
        self._egress, self._exits = prepared.egress, prepared.exits

    def _keep_strays(self, prepared: Prepared) -> None:
        """For the next plan, and for a control plane that is restarted."""
        steering = prepared.intent.steering
        if steering is not None and steering.strays != self._strays:
            self._strays = steering.strays
            write = functools.partial(write_strays, self._run_dir, self._strays)
            self._records.keep(STRAYS, write)

    async def _cut(self) -> None:
        """Flows that a former way was made for; what can't be cut now is tried at the next look."""
        if not (self._uncut or self._unassured or self._unasked):
            return
        try:
            cut = await asyncio.to_thread(self._cut_now)
        except (OcgateError, *LACKS):
            self.unsettled = True
            raise
        self._uncut.clear()
        self._unassured.clear()
        self._unasked = False
        if cut:
            self._nudges.of_flows(cut, tunnels=self.prepared.intent.device)

    def _cut_now(self) -> list[TcpFlow]:
        """The connections whose clients are to learn of it."""
        cut: list[TcpFlow] = []
        if self._uncut:
            networks = tuple(self._uncut)
            cut = conntrack.tcp_of_networks(networks)
            conntrack.delete_of_networks(networks)
        if self._unassured:
            conntrack.delete_unassured(tuple(self._unassured))
        if self._unasked:
            self._cut_unasked(self.prepared.intent)
        return cut

    def _cut_unasked(self, intent: Intent) -> None:
        """Flows that would never be translated, and so dropped for as long as the client goes on;
        and those to destinations that are closed to clients, which the guard asks of a first packet
        alone. DNS to a gateway that is the resolver is asked again by the client."""
        translated6 = intent.ipv6 is Ipv6Path.NAT66
        conntrack.delete_untranslated(intent.all_subnets if translated6 else intent.subnets(4))
        conntrack.delete_towards(intent.all_subnets, not_for_clients(intent))

    async def _after_change(self, old: Prepared, new: Prepared) -> None:
        """Say what moved; flows that were translated for another way are cut. By a way that is down
        and stands, streams go on (`plan.first_packets`); what only begins, or asks again, is new.
        """
        pairs = tuple(zip(old.intent.exits, new.intent.exits, strict=True))
        moved = {after.family for before, after in pairs if self._has_moved(before, after)}
        waits = {a.family for b, a in pairs if b.usable and a.waits}
        back = {a.family for b, a in pairs if a.usable and not b.usable} - moved
        self._uncut.update(net for net in new.subnets if net.version in moved)
        self._unassured.update(net for net in new.subnets if net.version in waits)
        self._unasked = True  # others may have taken a table while the plan changed
        try:  # after the new guard stands, so that nothing of the former way is born
            await self._cut()
        except (OcgateError, *LACKS) as error:  # what is new is in force all the same
            log.error("flows of before can't be cut yet", why=words(error))
        returned = [net for net in new.subnets if net.version in back]
        if returned:
            self._nudges.of_networks(returned, tunnels=new.intent.device)
        _tell_moved(old, new)
        _tell_networks(old, new)
        if old.decision != new.decision:
            tell = log.error if new.decision.loud else log.info
            tell(f"IPv6: {new.decision.word}", why=new.decision.why)

    def _has_moved(self, before: Exit, after: Exit) -> bool:
        """Whether flows may exist that were translated for another way than the one that is there
        now. While there is none, nothing is cut: the same one may come back."""
        if _is_there(before):
            self._former[before.family] = _way(before)
        if not _is_there(after):
            return False
        return self._former.get(after.family, _way(after)) != _way(after)


def _way(way: Exit) -> tuple[object, ...]:
    """What flows are translated for: of a gateway also this host's addresses, their source. Not
    whether it answers: it mostly knows its flows when it does again, and one that was made anew
    tells the far ends, or passes on what they say."""
    if way.kind is ExitKind.GATEWAY:
        return (way.kind, way.device, way.gateway, way.own)
    return (way.kind, way.device)


def _is_there(way: Exit) -> bool:
    """Without a next hop a gateway is not, nor is `direct` without a default route: nothing begins,
    and what began before has no other way."""
    if way.kind is ExitKind.GATEWAY:
        return way.gateway is not None
    return way.kind is ExitKind.BLOCK or way.device is not None


def _tell_rules_before(old: Prepared, new: Prepared) -> None:
    said = rule_placement.said_of(new.sources, new.facts)
    if said and said != rule_placement.said_of(old.sources, old.facts):
        log.error(said)
    lost = rule_placement.main_lost(new.facts)
    if lost and lost != rule_placement.main_lost(old.facts):
        log.error(lost)


def _tell_moved(old: Prepared, new: Prepared) -> None:
    before, after = _ways(old), _ways(new)
    if before != after:
        log.warning("WAN_IF moved", before=before, after=after)


def _tell_networks(old: Prepared, new: Prepared) -> None:
    """A permitted network that went away, or came."""
    before = {net.network: net for net in old.intent.networks}
    for net in new.intent.networks:
        former = before.get(net.network)
        if net.missing and (former is None or former.missing != net.missing):
            log.warning("network is away, clients are rejected", network=net, why=net.missing)
        elif not net.missing and former is not None and former.missing:
            log.info("network is back", network=net)


def _ways(prepared: Prepared) -> str:
    """Interfaces of the exit direct."""
    ways = [way.device for way in prepared.intent.exits if way.kind is ExitKind.DIRECT]
    return ",".join(dict.fromkeys(name for name in ways if name)) or "none"

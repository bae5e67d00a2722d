"""Runs the matrix: each fault under traffic, until it is over and every client is answered again.

    positive control     all locks away: every kind that can leak must be seen to leak
    each fault           break, a number of packets, undo, wait for answers, judge what was seen

Nothing here sleeps: each step ends when a number of packets was sent or a condition came true.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from ocgate.errors import OcgateError
from ocgate.netlab.wait import TimedOut, wait_until
from ocgate.plan.facts import Address
from ocgate.prove import lock_faults
from ocgate.prove.clients import USERS, Refused
from ocgate.prove.evidence import save
from ocgate.prove.fault import Fault, Lock
from ocgate.prove.marker import Kind
from ocgate.prove.outcome import Cell, Guarded, Outcome, Proof
from ocgate.prove.ring import Captures
from ocgate.prove.stage import Stage
from ocgate.prove.subject import Unsupported
from ocgate.prove.verdict import Judge, Leak, Limit, Seen

# Packets of clients during each fault, half a second of them.
PACKETS = 1300
RECOVERY_SECONDS = 15.0
CONTROL_SECONDS = 30.0  # tenths of one on an idle machine; a busy one was seen to need 10
IN_FLIGHT_SECONDS = 0.02  # a packet passes in microseconds; its processor may be taken away
NOTICE_SECONDS = 10.0  # three probes of a second each, and a busy machine

# What must be seen to leak when nothing holds it, by family. DOCKER leaks to neighbours, the rest
# to the ISP; what a client sends to groups, peers or the metadata address the kernel itself drops.
_CAN_LEAK = (
    Kind.UDP,
    Kind.TCP_NEW,
    Kind.TCP,
    Kind.ICMP,
    Kind.DNS,
    Kind.SPOOF,
    Kind.DOCKER,
    Kind.FRAGMENT,
)
_DOWN = (Kind.DOWNLOAD, Kind.TCP_DOWNLOAD)


class Broken(OcgateError):
    """The proof itself does not work here: what it would say means nothing."""


@dataclass
class Engine:
    """One run on one stage. tell: called with each outcome as it comes; pcap: keeps captures."""

    stage: Stage
    captures: Captures
    judge: Judge
    packets: int = PACKETS
    pcap: Path | None = None
    guarded: Guarded = field(default_factory=Guarded)
    tell: Callable[[Outcome], None] = lambda _outcome: None
    begun: Callable[[Fault], None] = lambda _fault: None
    _number: int = field(default=0, init=False)
    _noticed: float | None = field(default=None, init=False)
    _own: tuple[Address, ...] = field(default=(), init=False)
    _sights: int = field(default=0, init=False)
    _injected: tuple[float, float] = field(default=(0.0, 0.0), init=False)

    def prove(self, faults: Iterable[Fault]) -> Proof:
        """Start the subject, show that leaks are seen, run all faults; raises Broken."""
        started = time.monotonic()
        self.stage.subject.start()
        self._ground()
        controls = self._positive_control()
        outcomes = []
        for fault in faults:
            self.begun(fault)
            outcomes.append(self._run(fault))
            self.tell(outcomes[-1])
        self._require_complete_captures()
        sent = sum(self.stage.traffic.sent.values())
        seconds = time.monotonic() - started
        name = self.stage.subject.name
        return Proof(name, tuple(outcomes), controls, sent, self._sights, seconds, self.guarded)

    # --- one fault ----------------------------------------------------------------------------

    def _run(self, fault: Fault) -> Outcome:
        stage, number = self.stage, self._begin(fault)
        self._noticed = None
        started, skipped, failed, recovery = time.monotonic(), "", "", None
        try:
            recovery = self._break(fault)
        except Unsupported as why:
            skipped = str(why)
        except (TimedOut, Refused, OcgateError, OSError, AssertionError) as why:
            failed = f"{type(why).__name__}: {why}"
            self._rescue()
        stage.traffic.focus = frozenset()
        seen = self._look(fault, number)
        return Outcome(
            fault,
            number,
            self._cells(seen, number),
            self._leaks(seen, number, fault),
            seen.examples,
            recovery,
            time.monotonic() - started,
            skipped,
            failed,
            self._noticed,
        )

    def _begin(self, fault: Fault) -> int:
        self._number += 1
        self.stage.traffic.fault = self.stage.internet.fault = self._number
        self.stage.traffic.focus = fault.focus
        return self._number

    def _break(self, fault: Fault) -> float | None:
        """Inject, traffic, undo, recovery; the seconds that this took from when it could begin."""
        stage, subject = self.stage, self.stage.subject
        since, began = 0.0, time.time()
        if fault.frozen:
            subject.freeze()
        try:
            fault.inject(stage)
            self._injected = (began, time.time())
            self._note_own()
            self._noticed = self._notice(fault)
            if fault.repaired_by_subject:
                since = stage.traffic.ask()
            self._traffic()
        finally:
            if not fault.repaired_by_subject:
                since = stage.traffic.ask()
            fault.undo(stage)
            if fault.frozen:
                subject.thaw()
                if not subject.repairs:
                    subject.restore()
        recovery = self._recover(since)
        fault.after(stage)
        return recovery

    def _traffic(self) -> None:
        """As many packets as a fault is worth; where all clients are gone, what is pushed to them
        until the services give up."""
        traffic, internet = self.stage.traffic, self.stage.internet
        if not self.stage.clients.live:
            wait_until(lambda: not internet.pushing, 30.0, "the end of downloads in flight")
            return

        def enough() -> bool:
            traffic.check()
            return traffic.total(traffic.fault) >= goal

        goal = traffic.total(traffic.fault) + self.packets
        wait_until(enough, 30.0, "the traffic of a fault")

    def _notice(self, fault: Fault) -> float | None:
        """Wait until clients are rejected, family by family; seconds since now, None if they need
        not be."""
        stage, traffic = self.stage, self.stage.traffic
        families = {family for _, family in stage.expected() if stage.twin.upstream(family)}
        if not (fault.noticed and stage.subject.repairs and families):
            return None
        started, number = time.monotonic(), traffic.fault

        def told() -> bool:
            traffic.check()
            return all(traffic.rejected[number, Kind.UDP, family] for family in families)

        wait_until(told, NOTICE_SECONDS, "clients to be rejected")
        return time.monotonic() - started

    def _recover(self, since: float) -> float | None:
        """Wait until all is as before; how long clients were without answers."""
        self._top_up()
        wait_until(self._recovered, RECOVERY_SECONDS, "every client to be answered again")
        answered = self.stage.traffic.answered()
        wanted = self.stage.expected()
        return max(answered[key] for key in wanted) - since if wanted else None

    def _recovered(self) -> bool:
        answered = self.stage.traffic.answered()
        return all(key in answered for key in self.stage.expected()) and self._whole()

    def _whole(self) -> bool:
        return not self.stage.subject.ready()

    def _top_up(self) -> None:
        """The usual number of sessions, once the subject serves."""
        if len(self.stage.clients.live) < len(USERS):
            wait_until(self._whole, RECOVERY_SECONDS, "the subject to serve again")
            self.stage.clients.connect_all()

    def _ground(self) -> None:
        """Sessions are there and answered."""
        self._top_up()
        self.stage.traffic.ask()
        try:
            wait_until(self._recovered, RECOVERY_SECONDS, "the clients' first answers")
        except TimedOut as error:
            raise Broken(
                f"the replica doesn't work before anything is broken: {error}; "
                f"{self.stage.subject.ready()}",
                hint=self.stage.subject.evidence(),
            ) from None

    def _rescue(self) -> None:
        """Whatever it takes: everything anew, so that the next fault means something."""
        stage = self.stage
        stage.subject.thaw()
        stage.mend()
        stage.mend_upstreams()
        lock_faults.translate_no_more(stage)
        if stage.subject.running():
            stage.stop()
        for client in tuple(stage.clients.live):
            stage.clients.vanish(client)
        stage.start()
        self._ground()

    # --- what was seen ------------------------------------------------------------------------

    def _look(self, fault: Fault, number: int) -> Seen:
        drained = self.captures.drain()
        if self.pcap is not None:
            save(self.pcap, f"{number:03d}-{fault.name}", drained)
        self._note_own()
        self.judge.unguarded = self.stage.unguarded
        attached = (net for s in self.stage.twin.segments for net in s.networks)
        bare = Lock.TABLES in fault.locks
        self.judge.open_to = tuple(attached) if bare else ()
        # IPv6 has no reverse path filter, and on a shared host whatever is no client's is others'.
        self.judge.forged_pass = frozenset({6} if bare and self.guarded.shared else ())
        seen = self.judge.judge(drained, self._own, number)
        self._sights += seen.sights
        self._require_complete_captures()
        return seen

    def _note_own(self) -> None:
        """gw's addresses, also former ones: what left before it lost them is translated, too."""
        self._own = tuple(dict.fromkeys((*self._own, *self.stage.own_addresses())))

    def _cells(self, seen: Seen, number: int) -> tuple[Cell, ...]:
        traffic = self.stage.traffic
        leaked: dict[tuple[Kind, int], int] = {}
        for leak, count in seen.leaked().items():
            leaked[leak.kind, leak.family] = leaked.get((leak.kind, leak.family), 0) + count
        return tuple(
            Cell(
                kind,
                family,
                traffic.sent[number, kind, family],
                seen.right[number, kind, family],
                traffic.rejected[number, kind, family],
                leaked.get((kind, family), 0),
            )
            for kind in Kind
            for family in (4, 6)
            if traffic.sent[number, kind, family] or leaked.get((kind, family))
        )

    def _leaks(self, seen: Seen, number: int, broken: Fault) -> dict[Leak, int]:
        """With those of sessions that got another's packets. What one client sends to another's
        address is held back by nftables alone; where a fault takes that away, it is no leak. The
        same of what the host says itself, where rules are gone as well."""
        found, locks = seen.leaked(), broken.locks
        held = {leak: count for leak, count in found.items() if leak.limit is None}
        if held and self._in_flight(seen, held, broken):
            found = {
                replace(leak, limit=leak.limit or Limit.IN_FLIGHT): count
                for leak, count in found.items()
            }
        if locks.issuperset({Lock.TABLES, Lock.RULES}):
            found = {leak: count for leak, count in found.items() if leak.kind is not Kind.HOST}
        for (fault, kind, family), count in tuple(self.stage.traffic.crossed.items()):
            if fault == number and not (kind == Kind.PEER and Lock.TABLES in locks):
                found[Leak("another session", Kind(kind), 4 if family == 4 else 6, fault)] = count
        return found

    def _in_flight(self, seen: Seen, found: dict[Leak, int], fault: Fault) -> bool:
        """Whether these are but packets that had our mark already, and were not translated yet, at
        the moment in which the ruleset went: one a processor, and none later."""
        if Lock.TABLES not in fault.locks or Lock.RULES in fault.locks:
            return False
        if not self.guarded.policy_routing:
            return False
        first, last = self._injected
        spans = [seen.spans[leak] for leak in found if leak in seen.spans]
        return sum(found.values()) <= (os.cpu_count() or 1) and all(
            first <= begin and end <= last + IN_FLIGHT_SECONDS for begin, end in spans
        )

    def _require_complete_captures(self) -> None:
        if self.captures.dropped:
            raise Broken(
                f"the captures missed {self.captures.dropped} packets, so nothing can be concluded",
                hint="Run it again while this machine has less to do",
            )

    # --- the positive control -----------------------------------------------------------------

    def _positive_control(self) -> dict[str, int]:
        """Leaks of each kind that can leak, seen with every lock taken away; raises Broken."""
        self.stage.note_forwarding()
        stage, fault = self.stage, lock_faults.POSITIVE_CONTROL
        self.begun(fault)
        self._begin(fault)
        found: dict[tuple[Kind, int], int] = {}
        stage.subject.freeze()
        try:
            fault.inject(stage)
            self._see(fault, found, _CAN_LEAK, "client packets")
            lock_faults.translate_anew(stage)
            self._downloads()
            for client in tuple(stage.clients.live):
                stage.clients.vanish(client)
            self._see(fault, found, _DOWN, "downloads for ended sessions")
        finally:
            fault.undo(stage)
            stage.subject.thaw()
            if not stage.subject.repairs:
                stage.subject.restore()
        self._ground()
        # Pushed to the flows that the harness has translated: the host's word on them is no leak.
        stage.internet.forget()
        self._look(fault, self._number)
        return {f"{kind.word} IPv{family}": count for (kind, family), count in found.items()}

    def _see(
        self, fault: Fault, found: dict[tuple[Kind, int], int], kinds: tuple[Kind, ...], what: str
    ) -> None:
        """Wait until each of these kinds was seen to leak, in every family that clients have."""
        networks = {n.version for s in self.stage.twin.segments for n in s.networks}
        wanted = {
            (kind, family)
            for kind in kinds
            for family in self.stage.families()
            if kind is not Kind.DOCKER or family in networks  # without one nobody is a neighbour
        }

        def seen_all() -> bool:
            for leak, count in self._look(fault, self._number).leaked().items():
                key = (leak.kind, leak.family)
                found[key] = found.get(key, 0) + count
            return wanted <= found.keys()

        try:
            wait_until(seen_all, CONTROL_SECONDS, f"leaks of {what}", interval=0.1)
        except TimedOut:
            missing = ", ".join(f"{k.word} IPv{f}" for k, f in sorted(wanted - found.keys()))
            raise Broken(
                f"the proof itself is broken: without any layer no leak was seen of: {missing}"
            ) from None

    def _downloads(self) -> None:
        """Wait until the services push to every client, by the harness's own translation."""
        traffic, families = self.stage.traffic, self.stage.families()
        keys = [(self._number, kind, family) for kind in _DOWN for family in families]
        before = {key: traffic.replies[key] for key in keys}

        def got() -> dict[str, int]:
            return {f"{kind.word} IPv{f}": traffic.replies[n, kind, f] - before[n, kind, f]
                    for n, kind, f in keys}  # fmt: skip

        try:
            wait_until(
                lambda: min(got().values()) > 30, CONTROL_SECONDS, "downloads without any layer"
            )
        except TimedOut as error:
            raise TimedOut(f"{error}; came: {got()}") from error

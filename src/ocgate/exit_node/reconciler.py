"""Keeps the kernel at the exit's plan: what the machine around changes, and what somebody undoes.

The runner says what is wanted (`hold`); kernel events say "look again" (`look`). Both observe the
facts, plan, and apply where the plan is another or the kernel holds something else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ocgate.errors import OcgateError
from ocgate.exit_node import ipv6
from ocgate.kernel.apply import Applied, apply, drift
from ocgate.kernel.facts import observe
from ocgate.kernel.nft import Nft
from ocgate.plan.facts import Facts
from ocgate.plan.first_packets import WAIT
from ocgate.plan.model import Plan
from ocgate.runtime.log import stage
from ocgate.runtime.repairs import Repairs
from ocgate.runtime.shortages import LACKS
from ocgate.tunnel import gate, killswitch, routing
from ocgate.tunnel.gate import Reported
from ocgate.tunnel.model import Bootstrap, Carried, Endpoint, ExitIntent

# An exit has no tunnels of clients, whose events are left out: no device is named so.
NO_SESSIONS = "/"

log = stage("init-killswitch")


@dataclass(frozen=True)
class Open:
    """What the switch is open for: nothing, an endpoint, or an endpoint and the tunnel through it;
    bootstrap: for this host's own look-ups, before that."""

    endpoint: Endpoint | None = None
    carried: Carried | None = None
    bootstrap: Bootstrap | None = None
    # The reconciler's: of a tunnel that is away, whose flows the kernel keeps for the next one, and
    # whether that is too long in coming.
    former: Carried | None = None
    given_up: bool = False


CLOSED = Open()


def intent_now(base: ExitIntent, wanted: Open, facts: Facts) -> ExitIntent:
    """`base` (what the settings say) in the state `wanted`, on this machine."""
    defaults = (*facts.routes4, *facts.routes6)
    uplinks = dict.fromkeys(r.device for r in defaults if r.device != base.device)
    local = dict.fromkeys(c.network for c in facts.connected if c.device != base.device)
    others = (i for i in facts.interfaces if i.name != base.device)
    rule_prio = routing.first_priority(facts.rules)
    if rule_prio is None:  # another program's rule would be asked before ours, whatever we do
        wanted = CLOSED
    return replace(
        base,
        uplinks=tuple(uplinks),
        local=tuple(local),
        own=tuple(dict.fromkeys(a.ip for each in others for a in each.addresses)),
        endpoint=wanted.endpoint,
        carried=wanted.carried,
        bootstrap=wanted.bootstrap,
        former=wanted.former,
        given_up=wanted.given_up,
        ipv6="net.ipv6.conf.all.disable_ipv6" in facts.sysctls,
        rule_prio=rule_prio or base.rule_prio,
        advertised_on=_advertised_on(facts, base.device),
    )


def _advertised_on(facts: Facts, tunnel: str) -> tuple[str, ...]:
    """Where advertisements are heeded and a default route came by one: where it was written, or
    another program heeds them, nobody's advertisement is to be heeded by the kernel."""
    key = "net.ipv6.conf.{}.accept_ra"
    found = {
        route.device
        for route in facts.routes6
        if route.advertised
        and route.device != tunnel
        and facts.sysctls.get(key.format(route.device.replace(".", "/")), "0") != "0"
    }
    return tuple(sorted(found))


class Reconciler:
    """Owns what was applied. `hold` and `look` may be called at any time, from one loop."""

    def __init__(
        self,
        nft: Nft,
        run_dir: Path,
        base: ExitIntent,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """base: what the settings say; the state in it does not count."""
        self._nft = nft
        self._run_dir = run_dir
        self._base = base
        self._clock = clock
        self._wanted = CLOSED
        self._former: tuple[Carried, float] | None = None  # and since when it is away
        self._applied: Applied | None = None
        self._plan: Plan | None = None
        self._busy = asyncio.Lock()
        self.intent = base
        self.unsettled = False  # a repair did not succeed, and no event may come to try again
        self.repairs = Repairs(log, clock)
        self.ipv6_obstacle = ""
        self._unusable = ""  # of the last plan that was made
        self.unusable = ""  # why nothing of what the tunnel carries may be used, which closes
        self.foreign_rules = ""  # what is told of other programs' policy rules before ours

    async def hold(
        self, wanted: Open, *, base: ExitIntent | None = None, insist: bool = False
    ) -> None:
        """Make the kernel hold this; raises OcgateError where it refuses. What was held before then
        stays wanted, but for closing, which is tried again, as is what is insisted on. base: new
        settings."""
        async with self._busy:
            before = self._wanted, self._base, self._former
            self._former = self._after(wanted, base or self._base)
            self._wanted, self._base = wanted, base or self._base
            try:
                plan = await self._planned()
                if wanted.carried is not None and self._unusable:
                    raise gate.Unusable(self._unusable)
                await self._apply(plan)
            except (OcgateError, *LACKS) as error:
                insist = insist and not isinstance(error, gate.Unusable)
                if wanted == CLOSED or insist:
                    self.unsettled = True
                else:
                    self._wanted, self._base, self._former = before
                raise

    def _after(self, wanted: Open, base: ExitIntent) -> tuple[Carried, float] | None:
        """The former tunnel, once this is wanted."""
        if wanted.carried is not None or base.device != self._base.device:
            return None
        if self._wanted.carried is None:
            return self._former
        lost = self.intent.carried  # as much of it as was in force
        return None if lost is None else (lost, self._clock())

    @property
    def is_due(self) -> bool:
        """Whether a look would change something though nothing has happened."""
        return self._with_former(self._wanted).given_up and not self.intent.given_up

    def _with_former(self, wanted: Open) -> Open:
        if self._former is None:
            return wanted
        former, since = self._former
        return replace(wanted, former=former, given_up=self._clock() >= since + WAIT)

    async def look(self, *, by: str = "") -> None:
        """Observe, plan, compare, apply where needed; raises OcgateError.

        by: names of programs that have just changed nftables, for the log.
        """
        async with self._busy:
            self.unsettled = False
            uplinks = self.intent.uplinks
            plan = await self._planned()
            if plan != self._plan:
                await self._apply(plan)
                if uplinks != self.intent.uplinks:
                    log.warning("uplink moved", before=_named(uplinks),
                                after=_named(self.intent.uplinks))  # fmt: skip
            else:
                await self._repair(by)

    def taken(self, given: Reported | Carried) -> Carried:
        """What of a report, or of a file, may be used beside the networks that are here now; raises
        Unusable where that is nothing."""
        if isinstance(given, Reported):
            taken = gate.read(given, self.intent)
        else:
            taken = gate.fitting(given, self.intent)
        if taken.carried is None:
            raise gate.Unusable(taken.said)
        return taken.carried

    async def drift(self) -> tuple[str, ...]:
        """What in the kernel differs from the plan just now."""
        if self._applied is None:
            return ("nothing was applied yet",)
        return await asyncio.to_thread(drift, self._nft, self._applied, {})

    async def _planned(self) -> Plan:
        facts = await asyncio.to_thread(observe)
        said = routing.said_of(facts.rules)
        if said and said != self.foreign_rules:
            log.error(said)
        self.foreign_rules = said
        intent = intent_now(self._base, self._with_former(self._wanted), facts)
        why = await asyncio.to_thread(ipv6.obstacle, intent, run_dir=self._run_dir)
        if why and why != self.ipv6_obstacle:
            log.warning("the tunnel's IPv6 is of no use here", why=why)
        self.ipv6_obstacle = why
        self.intent = self._fitting(ipv6.without(intent) if why else intent)
        return killswitch.plan(self.intent)

    def _fitting(self, intent: ExitIntent) -> ExitIntent:
        """With what may still be used of what the tunnel carries."""
        self._unusable = ""
        if intent.carried is None:
            former = intent.former and gate.fitting(intent.former, intent).carried
            return replace(intent, former=former)
        taken = gate.fitting(intent.carried, intent)
        if taken.carried is None:
            self._unusable = taken.said
        return replace(intent, carried=taken.carried)

    async def _apply(self, plan: Plan) -> None:
        self._applied = await asyncio.to_thread(apply, self._nft, plan, {}, run_dir=self._run_dir)
        self._plan, self.unusable = plan, self._unusable

    async def _repair(self, by: str) -> None:
        found = await self.drift()
        plan = self._plan
        if found and plan and not await self.repairs.make(found, lambda: self._apply(plan), by=by):
            self.unsettled = True


def _named(devices: tuple[str, ...]) -> str:
    return ",".join(devices) or "none"

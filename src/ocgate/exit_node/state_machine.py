"""The exit's state machine: which server, since when, what next. Pure; time is an argument.

                 Resolved                Configured
    RESOLVING ────────────> CONNECTING ─────────────> UP <───────────┐ Answered
     ^  ^  │ NotResolved       │ Ended                 │  Silent      │
     │  │  │                   │ CONNECT_LIMIT         ├─────────> DEGRADED
     │  │  v                   v                       │ Ended        │ Ended, patience
     │  └─ WAITING <───────────┴───────────────────────┴──────────────┘
     │  pause                        (at once, if it had been well for HEALTHY)
     └── rotation, Next: the next server, at once, from any state

`step` takes a machine and an event and returns the next machine and what is to be done for it, in
order. The doing, and what comes of it as further events, is `runner`'s. Moments are seconds of a
clock that goes on over a restart of control (CLOCK_MONOTONIC).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from ocgate.tunnel.model import Carried, Endpoint, Remote

# From the start of a client until its tunnel stands. OpenVPN takes 0.3 s to a near server and gives
# up by itself after 60 (--hand-window); OpenConnect logs in by several requests of a second each
# over a satellite. Beyond this another server is the better chance.
CONNECT_LIMIT = 30.0  # seconds

# After a failure: 1 s doubling to a minute, per round over all servers. A tunnel that was well for
# a minute has earned an attempt at once, and the shortest pauses again.
LONGEST_PAUSE = 60.0  # seconds
HEALTHY = 60.0  # seconds

# How long a tunnel may stand without an answer to probes before the next server is tried. A probe's
# target may be dead itself, and a new tunnel then does not help: each one that was never answered
# doubles it, so that clients are interrupted every ten minutes at most. After so many of them in a
# row the target is what is wrong: of an only server the tunnel stays, and says so.
PATIENCE, LONGEST_PATIENCE = 10.0, 600.0  # seconds
FRESH_TUNNELS = 3

# Powers of two beyond this are cut off by both limits anyway.
_LARGEST_POWER = 16


class Phase(Enum):
    """Where the exit is; the value is the word in `ocgate status`."""

    RESOLVING = "resolving"  # the server's name is looked up, the switch is closed
    CONNECTING = "connecting"  # the client runs, the switch is open for its server alone
    UP = "up"  # the tunnel stands, clients are let into it
    DEGRADED = "degraded"  # it stands, but nothing comes back through it
    WAITING = "waiting"  # until the next attempt; the switch is closed


# --- what happens -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Listed:
    """Which servers there are, or are now; at least one."""

    remotes: tuple[Remote, ...]


@dataclass(frozen=True)
class Resolved:
    """The server's address is known."""

    endpoint: Endpoint


@dataclass(frozen=True)
class NotResolved:
    """It is not, or there is no list of servers; why: one clause."""

    why: str


@dataclass(frozen=True)
class Configured:
    """The client's hook says that the tunnel stands, or stands anew with other addresses."""

    carried: Carried


@dataclass(frozen=True)
class Ended:
    """The client ended, or could not be started. why: one clause. everywhere: another server would
    say the same (a wrong password), so there is no point in asking it soon."""

    why: str
    everywhere: bool = False


@dataclass(frozen=True)
class Answered:
    """Probes through the tunnel are answered (after hysteresis)."""


@dataclass(frozen=True)
class Silent:
    """They are not; why: one clause."""

    why: str


@dataclass(frozen=True)
class Next:
    """The operator asks for the next server, or for these instead of the known ones."""

    remotes: tuple[Remote, ...] = ()


@dataclass(frozen=True)
class Tick:
    """The moment in `Machine.until` has come."""


Event = Listed | Resolved | NotResolved | Configured | Ended | Answered | Silent | Next | Tick


# --- what is to be done -------------------------------------------------------------------------


@dataclass(frozen=True)
class Close:
    """End the client, where one runs, and close the switch."""


@dataclass(frozen=True)
class List:
    """Find out which servers there are."""


@dataclass(frozen=True)
class Resolve:
    """Look `remote` up. nth: how often every server was tried before; of several addresses the
    nth is the one to take."""

    remote: Remote
    nth: int


@dataclass(frozen=True)
class Start:
    """Open the switch for this endpoint of the machine's remote, and start the client."""

    endpoint: Endpoint


@dataclass(frozen=True)
class Carry:
    """Configure the device and let clients into the tunnel."""

    carried: Carried


Effect = Close | List | Resolve | Start | Carry


# --- the machine --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Machine:
    """One exit.

    remotes:    servers in the order in which they are tried; none before they are listed.
    rotate:     seconds after which a tunnel that is up is left for the next server, where there is
                one; 0: never.
    index:      of the server that is tried or used now.
    since:      when it came into this phase.
    until:      when Tick is due, None for never.
    endpoint:   from CONNECTING on. carried: from UP on.
    attempts:   tunnels that were begun, so far. failures: in a row, since it was well last.
    why:        why the last attempt or tunnel failed; '' before the first.
    answered:   this tunnel has answered a probe. unanswered: tunnels in a row that never did.
    """

    remotes: tuple[Remote, ...]
    rotate: float = 0.0
    index: int = 0
    phase: Phase = Phase.RESOLVING
    since: float = 0.0
    until: float | None = None
    endpoint: Endpoint | None = None
    carried: Carried | None = None
    attempts: int = 0
    failures: int = 0
    why: str = ""
    answered: bool = False
    unanswered: int = 0

    @property
    def remote(self) -> Remote | None:
        """The server that is tried or used now; None while none is known."""
        return self.remotes[self.index % len(self.remotes)] if self.remotes else None

    @property
    def stands(self) -> bool:
        """Whether the tunnel does."""
        return self.phase in (Phase.UP, Phase.DEGRADED)


Step = tuple[Machine, tuple[Effect, ...]]


def begin(remotes: tuple[Remote, ...], *, rotate: float, now: float) -> Step:
    """A new exit, and what it does first."""
    return _resolve(Machine(remotes, rotate), now)


def step(machine: Machine, event: Event, now: float) -> Step:
    """What this event makes of it. One that means nothing in this phase (the end of a client that
    was ended, a late probe) changes nothing."""
    match machine.phase, event:
        case _, Next(remotes=remotes):
            return _next(machine, remotes, now)
        case Phase.RESOLVING, Listed(remotes=remotes) if not machine.remotes:
            return _look_up(replace(machine, remotes=remotes))
        case _, Listed(remotes=remotes):
            return _relisted(machine, remotes), ()
        case Phase.RESOLVING, Resolved(endpoint=endpoint):
            return _connect(machine, endpoint, now)
        case Phase.RESOLVING, NotResolved(why=why):
            return _fail(machine, why, now)
        case ((Phase.CONNECTING | Phase.UP | Phase.DEGRADED), Configured(carried=carried)):
            return _carry(machine, carried, now)
        case (
            (Phase.CONNECTING | Phase.UP | Phase.DEGRADED),
            Ended(why=why, everywhere=everywhere),
        ):
            return _fail(machine, why, now, everywhere=everywhere)
        case Phase.UP, Answered() if not machine.answered:
            return replace(machine, answered=True, unanswered=0), ()
        case Phase.UP, Silent(why=why):
            return _degrade(machine, why, now)
        case Phase.DEGRADED, Answered():
            return _up(replace(machine, answered=True, unanswered=0), now), ()
        case _, Tick() if machine.until is not None and now >= machine.until:
            return _due(machine, now)
    return machine, ()


def pause(failures: int, servers: int) -> float:
    """Seconds to wait after so many failures in a row, with so many servers to try."""
    if not failures:
        return 0.0
    return min(2.0 ** min((failures - 1) // servers, _LARGEST_POWER), LONGEST_PAUSE)


def patience(unanswered: int) -> float:
    """Seconds to bear a silent tunnel, after so many that never were answered."""
    return min(PATIENCE * 2.0 ** min(unanswered, _LARGEST_POWER), LONGEST_PATIENCE)


def _due(machine: Machine, now: float) -> Step:
    match machine.phase:
        case Phase.WAITING:
            return _resolve(machine, now)
        case Phase.CONNECTING:
            return _fail(machine, f"no tunnel within {CONNECT_LIMIT:.0f} s", now)
        case Phase.DEGRADED:
            return _fail(machine, machine.why, now)
        case _:
            return _next(machine, (), now)


def _resolve(machine: Machine, now: float) -> Step:
    begun = replace(
        machine,
        phase=Phase.RESOLVING,
        since=now,
        until=None,
        endpoint=None,
        carried=None,
        answered=False,
        attempts=machine.attempts + 1,
    )
    return _look_up(begun)


def _look_up(machine: Machine) -> Step:
    """What RESOLVING begins with."""
    if machine.remote is None:
        return machine, (List(),)
    nth = (machine.attempts - 1) // len(machine.remotes)
    return machine, (Resolve(machine.remote, nth),)


def _relisted(machine: Machine, remotes: tuple[Remote, ...]) -> Machine:
    """A newer list, for the next attempt; the server that is tried or used now stays."""
    if machine.remote is None:
        return replace(machine, remotes=remotes)
    others = tuple(remote for remote in remotes if remote != machine.remote)
    return replace(machine, remotes=(machine.remote, *others), index=0)


def _connect(machine: Machine, endpoint: Endpoint, now: float) -> Step:
    connecting = replace(
        machine,
        phase=Phase.CONNECTING,
        since=now,
        until=now + CONNECT_LIMIT,
        endpoint=endpoint,
    )
    return connecting, (Start(endpoint),)


def _carry(machine: Machine, carried: Carried, now: float) -> Step:
    held = replace(machine, carried=carried)
    return held if machine.stands else _up(held, now), (Carry(carried),)


def _up(machine: Machine, now: float) -> Machine:
    until = now + machine.rotate if machine.rotate and len(machine.remotes) > 1 else None
    return replace(machine, phase=Phase.UP, since=now, until=until)


def _degrade(machine: Machine, why: str, now: float) -> Step:
    until: float | None = now + patience(machine.unanswered)
    tunnels = machine.unanswered + 1
    if not machine.answered and tunnels >= FRESH_TUNNELS:
        why = f"{why}; {tunnels} fresh tunnels did not help: look at EXIT_PROBE"
        until = until if len(machine.remotes) > 1 else None
    return replace(machine, phase=Phase.DEGRADED, since=now, until=until, why=why), ()


def _fail(machine: Machine, why: str, now: float, *, everywhere: bool = False) -> Step:
    """Close, and try the next server after a pause."""
    servers = max(1, len(machine.remotes))
    healed = machine.phase is Phase.UP and now - machine.since >= HEALTHY
    failures = 0 if healed else machine.failures + (servers if everywhere else 1)
    silent = machine.stands and not machine.answered
    failed = replace(
        machine,
        phase=Phase.WAITING,
        index=(machine.index + 1) % servers,
        since=now,
        until=now + pause(failures, servers),
        endpoint=None,
        carried=None,
        failures=failures,
        why=why,
        answered=False,
        unanswered=machine.unanswered + silent,
    )
    if failures:
        return failed, (Close(),)
    again, effects = _resolve(failed, now)
    return again, (Close(), *effects)


def _next(machine: Machine, remotes: tuple[Remote, ...], now: float) -> Step:
    """The next server at once; of new ones the first that is not the one used now."""
    known = remotes or machine.remotes
    index = (machine.index + 1) % max(1, len(known))
    if remotes:
        index = 1 % len(known) if known[0] == machine.remote and machine.stands else 0
    turned = replace(machine, remotes=known, index=index, failures=0, unanswered=0)
    again, effects = _resolve(turned, now)
    return again, (Close(), *effects)

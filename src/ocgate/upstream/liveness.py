"""Whether an exit leads out: what is known of it, and what follows. Pure; time is an argument.

    UNKNOWN ── anything came back ──> ALIVE <──────> SUSPECT ── nothing does ──> DOWN
     ^ └──────── refused, or silent too often ────────────────────────────────────^ │
     │                               ALIVE <── `successes` answers in a row ────────┘
     └─ this host could not ask ─ ALIVE, SUSPECT

Both roles ask this one model; whoever sends the probes and reads the counters tells it what he did
and saw. Four thoughts make it quick with a dead line and patient with a full one:

- *Anything that came back is an answer*: a probe's, however late, and clients' own traffic. What
  was asked before it says nothing any more. So an exit is never called down while it carries.
- *The limit of a probe follows the line*: the measured round trip and how it varies, as TCP's own
  timer does (RFC 6298). A line with 3 s of buffer is as healthy as one with 3 ms.
- *Doubt is not a verdict*: the first probe that is late makes the exit suspect, and then all
  targets are asked, many times a second. Rounds overlap: none waits for the one before it.
- *A refusal needs no waiting*: where every target is refused, or the next hop is gone, it is down.

What this host itself lacks (descriptors, memory, a permission) says nothing of the exit: such a
question was never asked. An exit of which nothing is known for BLIND seconds by that is not called
alive any more, and not down either, since rejecting clients would take the last witness away: what
comes back for them. One that was down stays it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ocgate.upstream.evidence import seconds, silence, traffic
from ocgate.upstream.line import (
    BLIND,
    FIRST_LIMIT,
    FULL_LIMIT,
    Counters,
    Line,
    Pace,
    Round,
    State,
    Target,
)

# Bytes a second, sent by clients, from which on they may be what fills a line: 256 kbit/s.
FILLING = 32_000.0

# Seconds for which they do, at the least: acknowledgements of what came last, and what TCP repeats,
# are single bursts.
_FILLS_FOR = 0.2

# Looks in a row that saw traffic come back, after which its end is worth a question.
STEADY = 3

# So many round trips clients wait for an answer before somebody else is asked.
_PATIENCE = 1.5

# What clients miss makes the exit suspect at most once in so many intervals.
DOUBTS_APART = 2

# Where clients fill a line, most packets may be lost in it: so many rounds of all targets, at the
# least, have to be. (Of four targets at 75% loss each way one in 90,000 times.)
FULL_ROUNDS = 10

# A target that was silent so often while others answered is left alone for so long (seconds).
MUTE_AFTER, MUTE_FOR = 3, 30.0

# How far back "came back in the last 2 s" looks, in seconds.
WINDOW = 2.0

# At most so many rounds are remembered. They are spaced so that a limit holds an eighth of them in
# doubt and half of them otherwise: a round that is forgotten before it is lost proves nothing.
_MOST_ROUNDS = 64
_ROUNDS_IN_A_LIMIT = 8
_PROBES_IN_A_LIMIT = 32


def begin(
    pace: Pace,
    targets: Iterable[str],
    now: float,
    *,
    state: State = State.UNKNOWN,
    why: str = "not asked yet",
) -> Line:
    """An exit of which nothing is known but, perhaps, how a former process left it.
    targets: names of what can be asked, without doubles."""
    named = tuple(Target(name) for name in targets)
    return Line(pace, named, state=state, since=now, why=why, due=now)


def taken_over(line: Line, pace: Pace, targets: Iterable[str], now: float) -> Line:
    """The same exit, asked in another way from now on: what was measured stays, what was under way
    is not waited for."""
    fresh = begin(pace, targets, now, state=line.state, why=line.why)
    return replace(
        fresh,
        since=line.since,
        number=line.number,
        heard=line.heard,
        answered=line.answered,
        trip=line.trip,
        variation=line.variation,
    )


# --- what to do ---------------------------------------------------------------------------------


def asks(line: Line, now: float) -> tuple[str, ...]:
    """Whom to ask now: nobody, the next target in turn, or, in doubt, all of them."""
    if now < line.due or not line.targets:
        return ()
    if line.state is not State.ALIVE:
        return tuple(target.name for target in line.targets)
    mute = [t for t in line.targets if max(t.row, t.unable) >= MUTE_AFTER]
    fit = [target for target in line.targets if target not in mute] or line.targets
    again = [target.name for target in mute if now - target.asked >= MUTE_FOR]
    return (min(fit, key=lambda target: target.asked).name, *again)


def wakes(line: Line, now: float) -> float:
    """The moment of the next `asks` or `looked`, if nothing comes before it; never before `now`."""
    limit = _limit(line, now)
    moments = [line.due] if line.targets else []
    moments += [one.sent + limit for one in line.rounds if one.sent + limit > now]
    if line.looks:
        moments.append(line.looks[-1][0] + _look_after(line))
    if line.blind is not None and now < (knows := line.blind + _blind_after(line)):
        moments.append(knows)
    return max(min(moments, default=now + line.pace.interval), now)


def _look_after(line: Line) -> float:
    """Seconds between two looks at what clients send and get."""
    return line.pace.glance if line.state is not State.DOWN else line.pace.interval / 2


# --- what happens -------------------------------------------------------------------------------


def asked(line: Line, names: Iterable[str], now: float, *, jitter: float = 1.0) -> Line:
    """A probe has been sent to each of these targets. jitter: factor of the time until the next."""
    whom = frozenset(names)
    one = Round(line.number + 1, now, len(whom) == len(line.targets), whom, asked=whom)
    targets = tuple(_asked(t, now, line.limit) if t.name in whom else t for t in line.targets)
    return replace(
        line,
        targets=targets,
        number=one.number,
        rounds=(*line.rounds, one)[-_MOST_ROUNDS:],
        late=(*line.late, now)[-_MOST_ROUNDS:],
        due=now + _spacing(line, now) * jitter,
    )


def _asked(target: Target, now: float, limit: float) -> Target:
    if target.settled < target.asked and now >= target.asked + limit:
        return replace(target, asked=now, row=target.row + 1, unable=0)
    return replace(target, asked=now)


def answered(line: Line, number: int, name: str, trip: float | None, now: float) -> Line:
    """A target has answered, in or out of time. number: of the round. trip: seconds, None where
    they can't be told (a repeated packet: Karn's algorithm)."""
    targets = tuple(
        replace(t, row=0, unable=0, settled=now) if t.name == name else t for t in line.targets
    )
    line = replace(line.measured(trip), targets=targets, answered=now, late=())
    fresh = number != line.counted
    took = "" if trip is None else f" in {seconds(trip)}"
    return _heard(replace(line, counted=number), f"{name} answered{took}", now, fresh=fresh)


def refused(line: Line, number: int, name: str, why: str, now: float) -> Line:
    """A probe was refused: an ICMP error came, or nothing could be sent. why: one clause."""
    rounds = tuple(
        replace(one, open=one.open - {name}, refused=(*one.refused, why))
        if one.number == number and name in one.open
        else one
        for one in line.rounds
    )
    targets = tuple(
        replace(t, row=t.row + 1, unable=0, settled=now) if t.name == name else t
        for t in line.targets
    )
    return _judged(replace(line, rounds=rounds, targets=targets, blind=None), now)


def unasked(line: Line, number: int, name: str, why: str, now: float) -> Line:
    """A probe was not sent, for want of something of this host: as if it had never been tried, and
    no evidence of the exit. why: what it lacks, one clause."""
    # The silence of who is silent anyway does not stand for what was not asked.
    fit = {t.name for t in line.targets if t.row < MUTE_AFTER} or {t.name for t in line.targets}
    rounds = (_without(one, name) if one.number == number else one for one in line.rounds)
    targets = tuple(
        replace(t, unable=t.unable + 1, settled=now) if t.name == name else t for t in line.targets
    )
    blind = now if line.blind is None else line.blind
    line = replace(
        line,
        rounds=tuple(one for one in rounds if one.number != number or one.asked & fit),
        targets=targets,
        blind=blind,
        lacks=why,
    )
    return _judged(line, now)


def _without(one: Round, name: str) -> Round:
    return replace(one, open=one.open - {name}, asked=one.asked - {name})


def cut_off(line: Line, why: str, now: float) -> Line:
    """The next hop does not answer, or there is none: nobody needs to be asked."""
    line = replace(line, hop=why)
    return _down(line, why, now) if line.state is not State.DOWN else replace(line, why=why, good=0)


def doubted(line: Line, why: str, now: float) -> Line:
    """Something happened that may be its end (a network went, the tunnel's client complains): ask
    all targets now. No verdict in itself."""
    if line.state is State.ALIVE:
        return _suspect(line, why, now)
    return replace(line, due=min(line.due, now))


def next_hop_answers(line: Line, why: str, now: float) -> Line:
    """It does. All that is to know where there are no targets."""
    line = replace(line, hop="")
    return line if line.targets else _heard(line, why, now, fresh=True)


def next_hop_silent(line: Line, why: str) -> Line:
    """It has not answered yet. No verdict in itself, but the reason of one that follows."""
    line = replace(line, hop=why)
    return replace(line, why=why) if line.state is State.DOWN else line


def looked(line: Line, counters: Counters, now: float) -> Line:
    """The counters have been read. They may begin anew (a device that was made again)."""
    before = line.looks[-1] if line.looks else None
    near = len(line.looks) > 1 and now - line.looks[-2][0] < line.pace.glance
    looks = (*(line.looks[:-1] if near else line.looks), (now, counters))
    while len(looks) > 2 and looks[1][0] <= now - WINDOW:
        looks = looks[1:]
    line = replace(line, looks=looks)
    if before is None:
        return _judged(line, now)
    sent, back = counters.sent - before[1].sent, counters.back - before[1].back
    if sent < 0 or back < 0:
        return _judged(replace(line, looks=((now, counters),), steady=0), now)
    if back:
        line = replace(line, steady=line.steady + 1, back=now)
        return _heard(line, "", now, fresh=True)
    if sent and line.waiting is None:
        line = replace(line, waiting=now)
    if _fills(line, now):
        line = replace(line, filling=now)
    line = _judged(line, now)
    if now - line.back > line.limit:
        line = replace(line, steady=0)  # it has ended; what is sent now may be what fills the line
    return line


def _fills(line: Line, now: float) -> bool:
    """Have clients lately sent enough to fill a line, and nothing came back?"""
    last = line.looks[-1][1]
    apart = max(2 * line.pace.glance, _FILLS_FOR)
    before = next((one for one in reversed(line.looks) if one[0] <= now - apart), None)
    if before is None or last.back > before[1].back:
        return False
    return last.sent - before[1].sent > FILLING * (now - before[0])


def passed(line: Line, now: float) -> Line:
    """Time has passed in which somebody would have noticed an answer."""
    return _judged(line, now)


# --- what follows -------------------------------------------------------------------------------


def _heard(line: Line, why: str, now: float, *, fresh: bool) -> Line:
    """Something came back; fresh: not counted yet. why: '' for clients' traffic."""
    line = replace(line, heard=now, rounds=(), waiting=None, blind=None, hop="")
    if line.state is State.DOWN:
        good = line.good + fresh
        if good < line.pace.successes:
            return replace(line, good=good, due=min(line.due, now + line.pace.hurried))
    if line.state is State.ALIVE:
        return replace(line, why=why or traffic(line, now))
    return replace(
        line,
        state=State.ALIVE,
        since=line.since if line.state is State.SUSPECT else now,
        why=why or traffic(line, now),
        good=0,
        steady=0 if why else line.steady,  # traffic that ended, of which probes know better
        due=now + line.pace.interval,
    )


def _judged(line: Line, now: float) -> Line:
    if line.blind is not None and _knows_nothing(line, line.blind, now):
        return _blinded(line, line.blind, now)
    limit, needed = _limit(line, now), line.pace.failures
    lost = [one for one in line.rounds if not one.open or now >= one.sent + limit]
    if line.state is State.DOWN:
        return replace(line, good=0, why=line.hop or silence(line, lost, now)) if lost else line
    against = lost
    if _full(line, now):
        against = [one for one in lost if one.whole]
        needed = max(needed, FULL_ROUNDS)
    refused = any(one.whole and not one.open for one in lost)
    if len(against) >= needed or (refused and not _carries(line, now)):
        return _down(line, silence(line, lost, now), now)
    if line.state is State.ALIVE and lost:
        return _suspect(line, f"{silence(line, lost, now)}; all are asked", now)
    if line.state is State.ALIVE and (since := _missed(line, now)) is not None:
        why = f"nothing has come back for clients for {seconds(now - since)}; all are asked"
        return _suspect(replace(line, doubted=now, steady=0), why, now)
    return line


def _carries(line: Line, now: float) -> bool:
    """Has anything come back for clients just now? Then a refusal is the targets' own."""
    return now - line.back <= max(2 * line.pace.glance, min(line.limit, 1.0))


def _blind_after(line: Line) -> float:
    return max(BLIND, line.pace.failures * line.pace.interval)


def _knows_nothing(line: Line, since: float, now: float) -> bool:
    """Has no question gone out for so long?"""
    return now >= since + _blind_after(line) and all(one.sent < since for one in line.rounds)


def _blinded(line: Line, since: float, now: float) -> Line:
    """Nothing is known any more; of one that is down, nothing else."""
    why = f"this host could not ask for {seconds(now - since)}: {line.lacks}"
    if line.state is State.DOWN:
        return replace(line, why=why, good=0)
    began = line.since if line.state is State.UNKNOWN else now
    return replace(line, state=State.UNKNOWN, since=began, why=why, steady=0)


def _suspect(line: Line, why: str, now: float) -> Line:
    return replace(line, state=State.SUSPECT, why=why, due=now)


def _missed(line: Line, now: float) -> float | None:
    """Since when clients miss something: what came back steadily has ended, or what they sent is
    not answered. Either may be well (a download is complete, somebody sends who is never answered),
    so it is a doubt at the most, and not one after the other."""
    if now < line.doubted + DOUBTS_APART * line.pace.interval or _full(line, now):
        return None
    if line.steady >= STEADY and now - line.back >= 2 * line.pace.glance:
        return line.back
    patience = max(_PATIENCE * line.trip if line.trip else FIRST_LIMIT, line.pace.glance)
    if line.waiting is not None and now - line.waiting >= patience:
        return line.waiting
    return None


def _down(line: Line, why: str, now: float) -> Line:
    targets = tuple(replace(target, row=0) for target in line.targets)  # of one that answers anew
    return replace(
        line,
        targets=targets,
        state=State.DOWN,
        since=now,
        why=line.hop or why,
        good=0,
        steady=0,
        rounds=line.rounds[: line.pace.failures],  # what its reason speaks of
        due=min(line.due, now + line.pace.interval),
    )


def _full(line: Line, now: float) -> bool:
    """Do clients fill the line with what nobody answers? Then a full one looks like a dead one."""
    return now - line.filling <= FULL_LIMIT and line.steady < STEADY


def _limit(line: Line, now: float) -> float:
    """The limit of the probes that are on their way."""
    return max(line.limit, FULL_LIMIT) if _full(line, now) else line.limit


def _spacing(line: Line, now: float) -> float:
    if line.state is State.SUSPECT or line.good:
        return max(line.pace.hurried, _limit(line, now) / _ROUNDS_IN_A_LIMIT)
    return max(line.pace.interval, _limit(line, now) / _PROBES_IN_A_LIMIT)

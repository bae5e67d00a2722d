"""One gateway followed over time: how it is and where, and what the log is told of it.

No waiting here and no clock: `exit_watch` feeds it with what it found and when.
"""

from __future__ import annotations

from ocgate.config.gateways import VARIABLES, Upstream
from ocgate.plan.facts import Address, Family
from ocgate.runtime.log import stage
from ocgate.runtime.probing import UNSEEN, Probing, Seen, seen, word
from ocgate.server.exits.record import Known
from ocgate.upstream import address_book, liveness
from ocgate.upstream.address_book import AddressBook, Refuse
from ocgate.upstream.line import Line, Pace, State
from ocgate.upstream.resolver import Answer

# A reason that changes to and fro (SERVFAIL, no answer, SERVFAIL, …) is told once a minute.
QUIET = 60.0  # seconds

_STATES = {"up": State.ALIVE, "down": State.DOWN, "unknown": State.UNKNOWN}

log = stage("init-vpngw")


class Track:
    """family, upstream: as the settings say. transitions: up to down and back, so far. mac: that
    the gateway was learned to have, '' while it was not. probing: who asks it now.
    line: what was known when nobody did."""

    def __init__(
        self,
        family: Family,
        upstream: Upstream,
        address: Address | None,
        seen: Seen = UNSEEN,
        mac: str = "",
        *,
        clock: float,
    ) -> None:
        """address: the last good one; seen, mac: what a former control plane knew of it."""
        self.family = family
        self.upstream = upstream
        self.transitions = 0
        self.mac = mac
        self.probing: Probing | None = None
        self.line = _unasked(seen, clock)
        self._seen = seen
        self._book = AddressBook(upstream.name or "", address)
        self._down_since = None if seen.usable else seen.since
        self._state = seen.state  # the last known one; a gateway that moves keeps it
        self._trouble_told = ("", -QUIET)

    @property
    def address(self) -> Address | None:
        """The last good one."""
        return self._book.address

    @property
    def due(self) -> float | None:
        """When its name is to be looked up; None for a literal."""
        return None if self.upstream.name is None else self._book.ask_at

    @property
    def trouble(self) -> str:
        """Why the last look-up gave nothing usable, '' if it did."""
        return self._book.trouble

    @property
    def known(self) -> Known:
        """What a restarted control plane has to know."""
        return Known(str(self.upstream), self.address, self._seen, self.mac)

    def seen(self, clock: float) -> Seen:
        """How it is, with what that rests on just now."""
        line = self.line if self.probing is None else self.probing.line
        return seen(self._seen.state, self._seen.since, line, clock)

    def news(self, clock: float) -> None:
        """The networks around changed."""
        self._book = address_book.news(self._book, now=clock)

    def take(self, line: Line, now: float) -> bool:
        """What is known of it is this; whether that is another state. now: since the epoch."""
        self.line = line
        state = word(line.state)
        if state == self._seen.state:
            return False
        self._seen = Seen(state, now, line.why, line.trip)
        self._turned(now)
        return True

    def answered(self) -> None:
        """It did: the next failure may ask its nameserver soon again."""
        if self.upstream.name is not None:
            self._book = address_book.reset_backoff(self._book)

    def failed(self, clock: float) -> bool:
        """It did not; whether the name is to be looked up out of turn."""
        if self.upstream.name is None:
            return False
        due = self._book.ask_at
        self._book = address_book.request_lookup(self._book, now=clock)
        return self._book.ask_at != due

    def resolved(self, answer: Answer, *, refuse: Refuse, clock: float, interval: float) -> bool:
        """Take an answer in; whether the gateway is at another address now."""
        before = self._book
        self._book = address_book.answered(
            before, answer.addresses, answer.ttl, refuse=refuse, now=clock, interval=interval
        )
        if self._book.trouble:
            self._troubled(f"{answer.source}: {self._book.trouble}", clock)
        elif before.trouble:
            log.info("gateway resolved again", **self._words())
            self._trouble_told = ("", self._trouble_told[1])
        if self.address == before.address:
            return False
        if before.address is not None:
            log.warning("gateway moved", gateway=self._name(), before=str(before.address),
                        after=str(self.address))  # fmt: skip
        self.mac = ""  # another host, perhaps
        self._seen = UNSEEN  # what the old address did says nothing about the new one
        self.line = _unasked(self._seen, clock)
        return True

    def learned(self, mac: str) -> None:
        """The gateway has this MAC address, and is held to it from now on."""
        self.mac = mac
        log.info("the gateway's MAC address is learned", **self._words(), mac=mac)

    def not_resolved(self, said: str, clock: float) -> None:
        """Take a failed look-up in."""
        self._book = address_book.failed(self._book, said, now=clock)
        self._troubled(said, clock)

    def _turned(self, now: float) -> None:
        """Count and log what the state became."""
        seen = self._seen
        if seen.state == "unknown":  # this host can't ask any more
            log.warning("whether the exit leads out is not known", **self._words(), why=seen.why)
            return
        if self._state not in ("unknown", seen.state):
            self.transitions += 1
        self._state = seen.state
        if not seen.usable:
            self._down_since = self._down_since or now
            log.error(
                "exit is down",
                **self._words(),
                why=seen.why,
                clients=f"IPv{self.family} is rejected until it answers again",
            )
        elif self._down_since is not None:
            seconds = round(now - self._down_since, 3)
            self._down_since = None
            log.info("exit is up again", **self._words(), after_seconds=seconds)
        else:
            log.info("exit is up", **self._words(), why=seen.why)

    def _troubled(self, said: str, clock: float) -> None:
        words, at = self._trouble_told
        if said == words or clock - at < QUIET:
            return
        self._trouble_told = (said, clock)
        kept = f"{self.address} is kept" if self.address else "clients are rejected until it does"
        log.warning("gateway not resolved", gateway=self._name(), why=said, meanwhile=kept)

    def _name(self) -> str:
        return f"{VARIABLES[self.family]}={self.upstream}"

    def _words(self) -> dict[str, str]:
        found = {"gateway": self._name()}
        if self.upstream.name is not None and self.address is not None:
            found["address"] = str(self.address)
        return found


def _unasked(seen: Seen, clock: float) -> Line:
    """Nobody is asked yet."""
    return liveness.begin(Pace(), (), clock, state=_STATES[seen.state], why=seen.why)

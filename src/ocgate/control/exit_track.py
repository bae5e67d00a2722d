"""One gateway followed over time: health and address book joined, and what the log is told of it.

No waiting here and no clock: `exit_watch` feeds it with what it found and when.
"""

from __future__ import annotations

from ocgate.config.gateways import VARIABLES, Upstream
from ocgate.control.exit_record import Known
from ocgate.control.log import stage
from ocgate.exits import names
from ocgate.exits.health import UNKNOWN, Health, State, Thresholds, Verdict, step
from ocgate.exits.names import Book, Refuse
from ocgate.exits.resolver import Answer
from ocgate.plan.facts import Address, Family

# A reason that changes to and fro (SERVFAIL, no answer, SERVFAIL, …) is told once a minute.
QUIET = 60.0  # seconds

log = stage("init-vpngw")


class Track:
    """family, upstream: as the settings say. transitions: UP to DOWN and back, so far."""

    def __init__(
        self,
        family: Family,
        upstream: Upstream,
        address: Address | None,
        health: Health | None,
        mac: str = "",
    ) -> None:
        """address: the last good one; health, mac: what a former control plane knew of it."""
        self.family = family
        self.upstream = upstream
        self.transitions = 0
        self.mac = mac  # that the gateway was learned to have; '' while it was not
        self.health = health or UNKNOWN
        self._book = Book(upstream.name or "", address)
        self._down_since = self.health.since if self.health.state is State.DOWN else None
        self._state = self.health.state  # the last known one; a gateway that moves keeps it
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
        return Known(str(self.upstream), self.address, self.health, self.mac)

    def news(self, clock: float) -> None:
        """The networks around changed."""
        self._book = names.news(self._book, now=clock)

    def examined(self, verdict: Verdict, thresholds: Thresholds, clock: float) -> bool:
        """Take a verdict in; whether the name is to be looked up out of turn."""
        before, self.health = self.health, step(self.health, verdict, thresholds)
        if self.health.state is not before.state:
            self._turned()
        if self.upstream.name is None:
            return False
        if verdict.ok:
            self._book = names.calm(self._book)
            return False
        due = self._book.ask_at
        self._book = names.hurry(self._book, now=clock)
        return self._book.ask_at != due

    def resolved(self, answer: Answer, *, refuse: Refuse, clock: float, interval: float) -> bool:
        """Take an answer in; whether the gateway is at another address now."""
        before = self._book
        self._book = names.answered(
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
        self.health = UNKNOWN  # what the old address did says nothing about the new one
        return True

    def learned(self, mac: str) -> None:
        """The gateway has this MAC address, and is held to it from now on."""
        self.mac = mac
        log.info("the gateway's MAC address is learned", **self._words(), mac=mac)

    def not_resolved(self, said: str, clock: float) -> None:
        """Take a failed look-up in."""
        self._book = names.failed(self._book, said, now=clock)
        self._troubled(said, clock)

    def _turned(self) -> None:
        """Count and log what the state became."""
        if self._state not in (State.UNKNOWN, self.health.state):
            self.transitions += 1
        self._state = self.health.state
        if self.health.state is State.DOWN:
            self._down_since = self._down_since or self.health.since
            log.error(
                "exit is down",
                **self._words(),
                why=self.health.why,
                clients=f"IPv{self.family} is rejected until it answers again",
            )
        elif self._down_since is not None:
            seconds = round(self.health.since - self._down_since, 3)
            self._down_since = None
            log.info("exit is up again", **self._words(), after_seconds=seconds)
        else:
            log.info("exit is up", **self._words(), why=self.health.why)

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

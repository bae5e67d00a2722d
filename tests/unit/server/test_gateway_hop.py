"""Whether a gateway answers on its link: what is asked, and what its silence amounts to."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

import pytest

from ocgate.kernel.neighbours import Neighbour
from ocgate.plan.facts import Address
from ocgate.runtime.probing import Hop
from ocgate.server.exits.next_hop import SILENT, NextHop

A = ip_address("172.28.0.3")
MINE, OTHER = "02:42:ac:1c:00:03", "02:42:ac:1c:00:14"


class Link:
    """entry: the kernel's. holders: who answers; None: nobody can be asked."""

    def __init__(self, entry: Neighbour, holders: frozenset[str] | None) -> None:
        self.entry, self.holders = entry, holders
        self.solicited = self.suspected = self.questions = 0

    def hop(self, pin: str = "", *, probed: bool = True, address: Address = A) -> NextHop:
        return NextHop(
            address,
            "eth0",
            pin,
            probed=probed,
            neighbour=lambda _address, _device: self.entry,
            solicit=self._solicit,
            suspect=self._suspect,
            holders=self._answers,
            clock=lambda: self.questions * 0.6,  # each takes so long
        )

    def _solicit(self, _address: Address, _device: str) -> None:
        self.solicited += 1

    def _suspect(self, _address: Address, _device: str) -> None:
        self.suspected += 1

    async def _answers(self, _a: Address, _d: str, *, wait: float) -> frozenset[str] | None:
        self.questions += 1
        return self.holders


def ask(hop: NextHop, times: int = 1) -> Hop | None:
    async def asked() -> Hop | None:
        for _ in range(times - 1):
            await hop.ask()
        return await hop.ask()

    return asyncio.run(asked())


def test_one_that_answers_is_there_and_its_entry_asked_anew() -> None:
    """It may have come back with another MAC address, which the kernel would not ask for yet."""
    link = Link(Neighbour.ANSWERED, frozenset({OTHER}))
    assert ask(link.hop()) == Hop(answers=True, why="172.28.0.3 answers on eth0")
    assert (link.suspected, link.solicited) == (1, 0)


@pytest.mark.parametrize("pin", ["", MINE])
def test_silence_is_a_verdict_when_it_lasts(pin: str) -> None:
    link = Link(Neighbour.ANSWERED, frozenset())
    silent = Hop(answers=False, why="no answer to ARP from 172.28.0.3 on eth0")
    hop = link.hop(pin)
    assert [ask(hop) == silent for _ in range(SILENT - 1)] == [True] * (SILENT - 1)
    assert ask(hop) == Hop(answers=False, why=silent.why, gone=True)
    link.holders = frozenset({MINE})
    ask(hop)
    link.holders = frozenset()
    assert ask(hop) == silent


def test_what_the_kernel_calls_failed_needs_no_question() -> None:
    link = Link(Neighbour.FAILED, frozenset())
    found = ask(link.hop(address=ip_address("fd00:28::3")))
    assert found == Hop(False, "no answer to NDP from fd00:28::3 on eth0", gone=True)
    assert link.questions == 0


def test_where_nobody_can_be_asked_the_kernel_s_own_question_counts() -> None:
    found = ask(Link(Neighbour.ASKED, None).hop())
    assert found == Hop(answers=False, why="no answer to ARP from 172.28.0.3 on eth0")
    assert ask(Link(Neighbour.ANSWERED, None).hop()) is None
    assert ask(Link(Neighbour.FAILED, None).hop(MINE)) is None


def test_another_that_answers_for_a_pinned_one_is_named() -> None:
    """... and the kernel's entry, which it must not doubt, is left alone."""
    link = Link(Neighbour.ANSWERED, frozenset({OTHER}))
    hop = link.hop(MINE)
    found = ask(hop)
    assert found is not None
    assert (found.answers, found.gone) == (False, False)
    assert f"172.28.0.3 answers with another MAC address on eth0, {OTHER}, than" in found.why
    assert "reload --learn-mac" in found.why
    assert (ask(hop, SILENT - 1) or found).gone
    link.holders = frozenset({OTHER, MINE})
    assert ask(hop) == Hop(answers=True, why="172.28.0.3 answers on eth0")
    assert (link.suspected, link.solicited) == (0, 0)


@pytest.mark.parametrize(
    ("entry", "answers"),
    [(Neighbour.ANSWERED, True), (Neighbour.FAILED, False), (Neighbour.ASKED, None)],
)
def test_without_probes_the_kernel_s_entry_speaks(entry: Neighbour, answers: bool | None) -> None:
    """... and is kept fresh: while it is down nothing else is sent there."""
    link = Link(entry, frozenset())
    found = ask(link.hop(probed=False))
    assert (None if found is None else found.answers) == answers
    assert (link.solicited, link.questions) == (1, 0)

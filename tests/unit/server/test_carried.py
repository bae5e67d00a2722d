"""What counts as carried by an exit, from the counters of our tables."""

from __future__ import annotations

import pytest

from ocgate.kernel.nft_counters import Counted
from ocgate.runtime import carried
from ocgate.runtime.carried import Carried
from ocgate.upstream.line import Counters

NAMES = {4: "came_back4", 6: "came_back6"}


class Table:
    """The kernel's counters."""

    def __init__(self) -> None:
        self.held: dict[str, Counted] = {}

    def has(self, sent: int, *back: tuple[int, int]) -> None:
        """back: packets and bytes, of IPv4 and then of IPv6."""
        named = zip(NAMES.values(), back, strict=False)
        self.held = {"sent": Counted(1, sent)} | {n: Counted(*counted) for n, counted in named}


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Table:
    made = Table()
    monkeypatch.setattr(carried, "Netlink", lambda _protocol: None)
    monkeypatch.setattr(carried.nft_counters, "read", lambda _door, _table: made.held)
    return made


def test_where_nothing_is_counted_nothing_is_known(table: Table) -> None:
    assert Carried("ocserv", sent="sent", came_back=NAMES).look() is None


def test_both_families_count_from_the_first_look_on(table: Table) -> None:
    found = Carried("ocserv", sent="sent", came_back=NAMES)
    table.has(500, (10, 9000), (10, 9000))
    assert found.look() == Counters(500, 0)
    table.has(700, (11, 10500), (12, 12000))
    assert found.look() == Counters(700, 1500 - 40 + 3000 - 120)


def test_resets_prove_nothing(table: Table) -> None:
    """A gateway that is closed says so within the client's own flow."""
    found = Carried("ocserv", sent="sent", came_back=NAMES)
    table.has(0, (0, 0), (0, 0))
    found.look()
    for count in range(1, 100):
        table.has(count * 1500, (count, count * 40), (count, count * 60))
        assert found.look() == Counters(count * 1500, 0)
    table.has(200_000, (100, 99 * 40 + 52), (99, 99 * 60))  # an acknowledgement with a time stamp
    assert found.look() == Counters(200_000, 12)


def test_a_table_that_was_made_anew_takes_nothing_away(table: Table) -> None:
    found = Carried("ocserv", sent="sent", came_back=NAMES)
    table.has(0, (0, 0))
    found.look()
    table.has(9000, (10, 15000))
    assert found.look() == Counters(9000, 14600)
    table.has(100, (1, 140))
    assert found.look() == Counters(100, 14700)

"""AddressBook-keeping of a gateway's DNS name: its last good address, and when to ask again. Pure.

A look-up that fails or answers nonsense keeps the last good address: a DNS outage is no reason to
cut clients off, and no answer may send them to something that is no gateway. Moments are seconds of
any clock that only goes forward; the caller passes them in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ocgate.plan.facts import Address

# Docker's DNS answers with 600 s, a load balancer's with 0. Below 5 s every client of that server
# would be asked for a gateway that moves once a month; above an hour a move waits for the
# neighbour's failure to be noticed.
SHORTEST_TTL, LONGEST_TTL = 5.0, 3600.0

# Between two look-ups that a failure asks for: the first soon, because a container that was
# replaced is back under another address within a second; then doubling, so that a dead name or a
# dead gateway costs its nameserver one question a minute.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0

# Why an address can't be a gateway, one clause; '' if it can.
Refuse = Callable[[Address], str]


@dataclass(frozen=True)
class AddressBook:
    """What is known of one name.

    address: the last good one, None before the first.
    trouble: why the last look-up gave nothing usable, '' if it did.
    asked:   when it was looked up last; ask_at: when to do so again.
    pause:   seconds that a look-up out of turn keeps from the one before.
    hurried: the next look-up is one out of turn.
    """

    name: str
    address: Address | None = None
    trouble: str = ""
    asked: float = 0.0
    ask_at: float = 0.0
    pause: float = FIRST_PAUSE
    hurried: bool = False


def answered(
    book: AddressBook,
    addresses: Sequence[Address],
    ttl: float,
    *,
    refuse: Refuse,
    now: float,
    interval: float = 0,
) -> AddressBook:
    """After an answer with `ttl` seconds to live; interval: seconds between look-ups, 0 by TTL.

    Nothing acceptable in it counts as a failed look-up, with the reasons as its trouble.
    """
    reasons = {address: refuse(address) for address in addresses}
    good = [address for address in addresses if not reasons[address]]
    if not good:
        said = "; ".join(dict.fromkeys(reasons.values())) or "it has no address"
        return failed(book, said, now=now)
    address = book.address if book.address in good else good[0]
    same = address == book.address
    return AddressBook(
        name=book.name,
        address=address,
        asked=now,
        ask_at=now + (interval or min(max(ttl, SHORTEST_TTL), LONGEST_TTL)),
        # Asked out of turn without news: the gateway is dead under its right address.
        pause=_longer(book.pause) if book.hurried and same else FIRST_PAUSE,
    )


def failed(book: AddressBook, why: str, *, now: float) -> AddressBook:
    """After a look-up that gave nothing usable: keep the address, ask again after a pause."""
    return replace(
        book,
        trouble=why,
        asked=now,
        ask_at=now + book.pause,
        pause=_longer(book.pause),
        hurried=False,
    )


def request_lookup(book: AddressBook, *, now: float) -> AddressBook:
    """The gateway does not answer: ask out of turn, a pause after the last look-up at the
    earliest, and never later than planned."""
    soon = max(now, book.asked + book.pause)
    return replace(book, ask_at=soon, hurried=True) if soon < book.ask_at else book


def reset_backoff(book: AddressBook) -> AddressBook:
    """The gateway answers: the next failure may ask soon again."""
    return book if book.trouble else replace(book, pause=FIRST_PAUSE)


def news(book: AddressBook, *, now: float) -> AddressBook:
    """Links or addresses changed: what was refused may be right now, so ask soon again."""
    return request_lookup(replace(book, pause=FIRST_PAUSE), now=now) if book.trouble else book


def _longer(pause: float) -> float:
    return min(pause * 2, LONGEST_PAUSE)

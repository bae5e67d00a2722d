"""A gateway's name: the last good address is kept, and a dead name is not asked in a tight loop."""

from __future__ import annotations

from ipaddress import ip_address
from itertools import pairwise

from ocgate.plan.facts import Address
from ocgate.upstream import address_book
from ocgate.upstream.address_book import LONGEST_PAUSE, LONGEST_TTL, SHORTEST_TTL, AddressBook

A, B, ROUTER = (ip_address(f"172.28.0.{host}") for host in (3, 4, 1))


def refuse(address: Address) -> str:
    return f"{address} is the router" if address == ROUTER else ""


def after(
    book: AddressBook, *addresses: Address, ttl: float = 60, now: float, **more: float
) -> AddressBook:
    return address_book.answered(book, addresses, ttl, refuse=refuse, now=now, **more)


def test_the_first_acceptable_address_is_taken() -> None:
    book = after(AddressBook("gw"), ROUTER, B, A, now=100)
    assert (book.address, book.trouble) == (B, "")
    assert book.ask_at == 160


def test_an_address_that_is_still_in_the_answer_is_kept() -> None:
    book = after(AddressBook("gw", address=A), B, A, now=100)
    assert book.address == A
    assert after(book, B, now=200).address == B


def test_an_answer_that_can_be_no_gateway_is_refused_with_its_reason() -> None:
    book = after(AddressBook("gw", address=A), ROUTER, now=100)
    assert (book.address, book.trouble) == (A, f"{ROUTER} is the router")
    assert after(AddressBook("gw"), now=0).trouble == "it has no address"


def test_a_failed_look_up_keeps_the_last_address() -> None:
    book = address_book.failed(after(AddressBook("gw"), A, now=0), "SERVFAIL", now=60)
    assert (book.address, book.trouble) == (A, "SERVFAIL")
    assert after(book, A, now=70).trouble == ""


def test_the_time_to_live_is_clamped_and_the_interval_takes_its_place() -> None:
    assert after(AddressBook("gw"), A, ttl=0, now=100).ask_at == 100 + SHORTEST_TTL
    assert after(AddressBook("gw"), A, ttl=1e9, now=100).ask_at == 100 + LONGEST_TTL
    assert after(AddressBook("gw"), A, ttl=600, now=100, interval=30).ask_at == 130


def test_a_dead_name_is_asked_ever_more_rarely() -> None:
    book, moments = AddressBook("gw"), [0.0]
    for _ in range(10):
        book = address_book.failed(book, "NXDOMAIN", now=moments[-1])
        moments.append(book.ask_at)
    waits = [after - before for before, after in pairwise(moments)]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]


def test_a_dead_gateway_asks_out_of_turn_and_then_ever_more_rarely() -> None:
    """Hurried at every probe, as the wiring does, for ten minutes with a right address."""
    book, asked = after(AddressBook("gw"), A, ttl=600, now=0), []
    for now in range(1, 601):
        book = address_book.request_lookup(book, now=now)
        if book.ask_at <= now:
            asked.append(now)
            book = after(book, A, ttl=600, now=now)
    assert asked[:6] == [1, 3, 7, 15, 31, 63]
    assert max(b - a for a, b in pairwise(asked)) == LONGEST_PAUSE


def test_news_for_a_dead_gateway_makes_the_next_look_up_prompt() -> None:
    book = AddressBook("gw", address=A, pause=60, asked=100, ask_at=700)
    book = after(address_book.request_lookup(book, now=160), B, now=160)
    assert address_book.request_lookup(book, now=162).ask_at == 162


def test_hurry_is_never_later_than_planned() -> None:
    book = after(AddressBook("gw"), A, ttl=5, now=0)
    assert address_book.request_lookup(book, now=4.9).ask_at == 4.9
    assert (
        address_book.request_lookup(AddressBook("gw", pause=60, asked=0, ask_at=5), now=1).ask_at
        == 5
    )


def test_a_gateway_that_answers_again_makes_the_next_failure_prompt() -> None:
    book = address_book.reset_backoff(AddressBook("gw", address=A, pause=32, asked=100, ask_at=700))
    assert address_book.request_lookup(book, now=101).ask_at == 101
    # A name in trouble keeps its pause: the gateway's health says nothing about DNS.
    assert (
        address_book.reset_backoff(AddressBook("gw", address=A, trouble="SERVFAIL", pause=32)).pause
        == 32
    )


def test_a_network_that_changed_gives_a_refused_name_another_chance() -> None:
    refused = AddressBook("gw", trouble="on none of the networks", pause=60, asked=100, ask_at=160)
    assert address_book.news(refused, now=110).ask_at == 110
    assert address_book.news(AddressBook("gw", address=A, ask_at=160), now=110).ask_at == 160

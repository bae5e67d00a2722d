"""Who is admitted, who is refused, and who owns what afterwards."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocgate.sessions import elements
from ocgate.sessions.session import BadHook, Session, from_hook
from ocgate.sessions.table import (
    Admit,
    Contested,
    Ending,
    Refuse,
    SessionTable,
    ended_by,
)


def aged(session: Session) -> float:
    """As at 2010 s."""
    return 2010.0 - session.connected_at


SUBNETS = (IPv4Network("10.10.10.0/24"), IPv6Network("fd00::/64"))
ANN = Session(100, 7, "vpns0", "ann", "", IPv4Address("10.10.10.5"), None, "198.51.100.9", 1000.0)


def judged(table: SessionTable, session: Session) -> object:
    return table.judge(session, device="vpns", subnets=SUBNETS)


def test_an_empty_table_admits() -> None:
    assert judged(SessionTable(), ANN) == Admit()


@pytest.mark.parametrize(
    "odd",
    [
        replace(ANN, device="tun0"),
        replace(ANN, address4=IPv4Address("10.10.11.5")),
        replace(ANN, prefix6=IPv6Network("fd01::1/128")),
    ],
)
def test_what_the_rules_do_not_guard_is_refused(odd: Session) -> None:
    assert isinstance(judged(SessionTable(), odd), Refuse)


def test_an_address_in_use_is_contested() -> None:
    table = SessionTable()
    table.add(ANN)
    new = replace(ANN, worker=101, device="vpns1")
    assert judged(table, new) == Contested((ANN,))


def test_a_device_given_away_displaces_its_old_session_even_with_the_same_address() -> None:
    table = SessionTable()
    table.add(ANN)
    assert judged(table, replace(ANN, worker=101, user="bob")) == Admit((ANN,))


def test_a_late_end_leaves_what_a_successor_took_over() -> None:
    table = SessionTable()
    table.add(ANN)
    successor = replace(ANN, worker=101)
    table.add(successor)
    assert table.end(ANN)
    assert table.on_device("vpns0") == successor
    assert table.owner_of(IPv4Network("10.10.10.5")) == successor
    assert not table.end(ANN)


def test_a_reused_worker_id_is_told_apart_by_age_device_and_user() -> None:
    young = replace(ANN, started=9, connected_at=2000.0)
    late = Ending("ann", "vpns0", None, 9)
    assert ended_by((young,), late, age=aged) == young
    assert ended_by((young,), replace(late, duration=None), age=aged) == young
    assert ended_by((young,), replace(late, duration=500), age=aged) is None
    assert ended_by((young,), replace(late, user="bob"), age=aged) is None
    assert ended_by((young,), replace(late, started=7), age=aged) is None
    assert ended_by((young,), replace(late, started=9, duration=500), age=aged) == young


FIELDS = {
    "ID": b"100", "DEVICE": b"vpns0", "USERNAME": b"ann", "VHOST": b"", "IP_REMOTE": b"10.10.10.5",
    "IPV6_REMOTE": b"fd00::5%junk", "IP_REAL": b"198.51.100.9",
}  # fmt: skip


def described(**changes: bytes) -> Session:
    return from_hook({**FIELDS, **changes}, started=7, now=1.0, prefix6_bits=128)


def test_hook_fields_become_a_session() -> None:
    assert described().networks == (IPv4Network("10.10.10.5"), IPv6Network("fd00::5"))


@pytest.mark.parametrize(
    "changes",
    [
        {"ID": b""}, {"ID": b"-1"}, {"ID": b"99999999999"},
        {"DEVICE": b'vpns0" }'}, {"DEVICE": b""},
        {"IP_REMOTE": b"banana"}, {"IP_REMOTE": b"fd00::1"}, {"IPV6_REMOTE": b"10.0.0.1"},
        {"IP_REMOTE": b"", "IPV6_REMOTE": b""},
    ],
)  # fmt: skip
def test_garbled_fields_are_refused(changes: dict[str, bytes]) -> None:
    with pytest.raises(BadHook):
        described(**changes)


def test_a_session_never_owns_more_ipv6_than_configured() -> None:
    fields = {**FIELDS, "IPV6_PREFIX": b"fd00::/16"}
    session = from_hook(fields, started=7, now=1.0, prefix6_bits=64)
    assert session.prefix6 == IPv6Network("fd00::/64")


@given(st.binary(max_size=200).filter(lambda raw: b"\0" not in raw))
def test_any_bytes_are_a_user_name_and_never_reach_nft(name: bytes) -> None:
    session = described(USERNAME=name)
    assert session.user.encode("utf-8", "surrogateescape") == name
    plain = replace(session, user="")
    assert elements.keys(session) == elements.keys(plain)


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 3), st.booleans()), max_size=40))
def test_indexes_agree_with_the_sessions(steps: list[tuple[int, int, bool]]) -> None:
    """After any history, whoever is indexed by device or network is live."""
    table = SessionTable()
    for worker, slot, add in steps:
        address = IPv4Address("10.10.10.0") + slot
        session = replace(ANN, worker=worker, device=f"vpns{slot}", address4=address)
        if add:
            table.add(session)
        else:
            table.end(session)
        for live_slot in range(4):
            on_device = table.on_device(f"vpns{live_slot}")
            assert on_device is None or table.owns(on_device)
    assert len(table) == len(list(table))

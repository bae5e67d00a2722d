"""What is known of gateways outlives a control plane, and never that of another gateway."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

from ocgate.plan.exits import Exits, ExitState
from ocgate.runtime.probing import Seen
from ocgate.server.exits.record import (
    EXITS,
    Known,
    exits_of,
    gateways,
    read_exits,
    read_known,
    write_exits,
    write_known,
)
from support.sources import sources

A4, A6 = ip_address("172.28.0.3"), ip_address("fd00:28::3")
DOWN = Seen("down", 1000.5, "no answer to ARP")


def test_gateways_are_the_families_that_have_one() -> None:
    for environ, families in (
        ({}, []),
        ({"VPN_GATEWAY": "direct"}, []),
        ({"VPN_GATEWAY": "block"}, []),
        ({"VPN_GATEWAY": "172.28.0.3"}, [4]),
        ({"VPN_GATEWAY6": "nl.example"}, [6]),
        ({"VPN_GATEWAY": "nl", "VPN_GATEWAY6": "fd00:28::3"}, [4, 6]),
    ):
        assert list(gateways(sources(**environ).settings)) == families


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    known = {4: Known("nl", A4, DOWN), 6: Known("nl", None)}
    write_known(tmp_path, known)
    assert read_known(tmp_path) == known
    assert (tmp_path / EXITS).stat().st_mode & 0o777 == 0o644
    assert exits_of(known) == Exits(
        ExitState(A4, "no answer to ARP"), ExitState(None, "nl has not resolved")
    )


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b'{"4": {}}', b'{"4": []}', b"\xff"])
def test_a_record_that_makes_no_sense_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / EXITS).write_bytes(content)
    assert read_known(tmp_path) == {}


def test_a_restart_has_the_exits_of_before(tmp_path: Path) -> None:
    settings = sources(VPN_GATEWAY="nl", VPN_GATEWAY6="fd00:28::3").settings
    write_exits(tmp_path, settings, Exits(ExitState(A4), ExitState(A6)))
    assert read_exits(tmp_path, settings) == Exits(ExitState(A4), ExitState(A6))
    write_known(tmp_path, {4: Known("nl", A4, DOWN)})
    assert read_exits(tmp_path, settings).exit4 == ExitState(A4, "no answer to ARP")


def test_the_record_of_another_gateway_counts_for_nothing(tmp_path: Path) -> None:
    write_known(tmp_path, {4: Known("nl", A4, DOWN), 6: Known("nl", A6, DOWN)})
    settings = sources(VPN_GATEWAY="us", VPN_GATEWAY6="fd00:28::9").settings
    assert read_exits(tmp_path, settings) == Exits(
        ExitState(None, "us has not resolved"), ExitState(ip_address("fd00:28::9"))
    )
    assert read_exits(tmp_path, sources().settings) == Exits()
    assert read_exits(tmp_path / "nowhere", settings).exit4 == ExitState(
        None, "us has not resolved"
    )

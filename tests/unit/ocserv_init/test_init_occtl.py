"""occtl's answers as real servers gave them, and the ways they are broken."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from ocgate.errors import ServerRefused
from ocgate.ocserv import connect_card, occtl

DATA = Path(__file__).parent / "occtl"


def test_users_of_1_1_6() -> None:
    """Three sessions, one with a name that the JSON mangles; no time to the second."""
    rows = occtl.parse_users((DATA / "users-1.1.6.json").read_text())
    assert [row.id for row in rows] == [25320, 25312, 25304]
    first = rows[0]
    assert (first.user, first.group, first.device) == ("a b", None, "vpns2")
    assert first.address4 == IPv4Address("10.66.0.143") and first.address6 is None
    assert first.connected_at is None and first.state == "connected"
    assert rows[1].user == occtl.mangled('üñ "q" \\ $(id)')


def test_users_of_1_3_0() -> None:
    """The time of connecting is there."""
    (row,) = occtl.parse_users((DATA / "users-1.3.0.json").read_text())
    assert row.connected_at == datetime.fromtimestamp(1795382868, UTC)


def test_status_of_1_1_6() -> None:
    """Numbers come as numbers, the start as an instant."""
    status = occtl.parse_status((DATA / "status-1.1.6.json").read_text())
    assert (status.state, status.pid, status.active_sessions) == ("online", 25293, 3)
    assert status.up_since == datetime.fromtimestamp(1795382801, UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("[\n]", []),
        ('[{"a": 1,\n  },\n]', [{"a": 1}]),
        ('[{"a": ",}", "b": "\\",]"}, ]', [{"a": ",}", "b": '",]'}]),
        ('{"a": "raw\ttab"}', {"a": "raw\ttab"}),
    ],
)
def test_broken_json_is_repaired(text: str, expected: object) -> None:
    """Commas inside of strings are a client's, and stay."""
    assert occtl.parse_json(text) == expected


def test_garbage_is_an_error_of_the_server() -> None:
    """Neither a traceback nor an empty list."""
    with pytest.raises(ServerRefused):
        occtl.parse_users("[{")


def test_odd_entries_are_passed_over() -> None:
    """Text for numbers, missing fields, an address with a zone."""
    rows = occtl.parse_users('[{"ID": "7", "IPv6": "fd00::2%vpns0"}, {"ID": "x"}, {}, 3]')
    assert [(row.id, str(row.address6), row.user) for row in rows] == [(7, "fd00::2", "")]


def test_without_a_server(tmp_path: Path) -> None:
    """occtl's own words."""
    with pytest.raises(ServerRefused, match="No such file"):
        occtl.sessions(tmp_path / "none.sock")


def command_of(password: str | None, user: str = "vpn", url: str = "https://h") -> str:
    return connect_card.command(url, user, password, "pin-sha256:ab+/=")


def test_command_can_be_pasted() -> None:
    """Quoted for a shell, whatever the name and password are."""
    assert command_of("abc-def") == (
        "echo 'abc-def' | sudo openconnect --non-inter --passwd-on-stdin --user=vpn "
        "--servercert=pin-sha256:ab+/= https://h"
    )
    assert command_of("it's \\n") == (
        "printf '%s\\n' 'it'\"'\"'s \\n' | sudo openconnect --non-inter --passwd-on-stdin "
        "--user=vpn --servercert=pin-sha256:ab+/= https://h"
    )
    assert "'--user=$(id) -x'" in command_of("abc", user="$(id) -x")
    assert command_of("abc", url="https://h/?secret").endswith("'https://h/?secret'")


def test_card_is_whole_lines_without_colour(capsys: pytest.CaptureFixture[str]) -> None:
    """Piped: no escape codes; the command on one line however narrow."""
    from rich.console import Console

    card = connect_card.Card("https://vpn.example.org", "v[red]n", "abc", "pin-sha256:x")
    connect_card.show(card, Console(width=20))
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert card.command in printed.splitlines()
    assert "v[red]n" in printed

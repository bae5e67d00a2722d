"""The line that people paste leads past the camouflage of their own ocserv.conf."""

from __future__ import annotations

import pytest

from ocgate.ocserv.connect_card import with_secret
from ocgate.ocserv.ini_parser import parse
from ocgate.ocserv.reading import read_view
from ocgate.ocserv.releases import DEBIAN_13


def secret_of(text: str) -> str | None:
    return read_view(parse(text.encode(), "conf"), [], release=DEBIAN_13).camouflage_secret


def test_the_secret_is_read_where_camouflage_is_on() -> None:
    assert secret_of('camouflage = true\ncamouflage_secret = "abc"\n') == "abc"


def test_a_secret_without_camouflage_is_none() -> None:
    assert secret_of('camouflage_secret = "abc"\n') is None


@pytest.mark.parametrize(
    ("url", "secret", "expected"),
    [
        ("https://vpn.example.org", "abc", "https://vpn.example.org/?abc"),
        ("https://vpn.example.org/", "abc", "https://vpn.example.org/?abc"),
        ("https://[2001:db8::1]:8443", "abc", "https://[2001:db8::1]:8443/?abc"),
        ("https://vpn.example.org/?mine", "abc", "https://vpn.example.org/?mine"),
        ("https://vpn.example.org", None, "https://vpn.example.org"),
        ("https://vpn.example.org", "", "https://vpn.example.org"),
    ],
)
def test_the_secret_is_the_query_of_the_url(url: str, secret: str | None, expected: str) -> None:
    assert with_secret(url, secret) == expected

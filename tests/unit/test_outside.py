"""Names and addresses from outside: what is one, and what no host of the internet has."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocgate import outside


@pytest.mark.parametrize(
    "text",
    [
        "vpn.example.org",
        "vpn.example.org.",
        "node-b",
        "_srv.example",
        "1and1.example",
        "xn--bcher-kva.example",
        "203.0.113.7",
        "2001:db8::7",
    ],
)
def test_a_host(text: str) -> None:
    assert outside.is_host(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "..", "a..b", "-oProxyCommand=x", "--config", "a b", "a\n", "a\tb", "a\0b"),
        *(
            "vpn.example\nremote 192.0.2.1",
            "a/b",
            "a;b",
            "a'b",
            'a"b',
            "b\u00fccher.example",
            "a%eth0",
        ),
        *("a" * 64, "a." * 127 + "ab"),
        *("fe80::1%eth0", "fe80::1%eth0\nup /bin/sh", "2001:db8::1%-x", "[2001:db8::1]", "::1/128"),
        *("127.1", "0x7f000001", "010.0.0.1", "2130706433", "1.2.3.4.", "1.2.3.256"),
        *(" 1.2.3.4", "1.2.3.4\n", "1.2.3.4 ", "\u0661.2.3.4"),
    ],
)
def test_no_host(text: str) -> None:
    assert not outside.is_host(text)
    assert outside.address(text) is None


@pytest.mark.parametrize("value", [None, 1, True, 3232235777, 1.5, b"1.2.3.4", ["1.2.3.4"], {}])
def test_what_is_no_text_is_no_address(value: object) -> None:
    """ipaddress takes numbers and bytes; JSON has the first."""
    assert outside.address(value) is None


@given(st.text(max_size=60))
def test_whatever_passes_is_printable_and_no_option(text: str) -> None:
    if outside.is_host(text):
        assert text.isascii()
        assert text.isprintable()
        assert not set(text) & set(" %/\\\"'`$;#|&<>")
        assert not text.startswith("-")


@pytest.mark.parametrize(
    "text",
    [
        *("0.0.0.0", "0.1.2.3", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.0.0.11"),
        *("169.254.169.254", "172.16.0.1", "172.28.0.2", "192.0.0.1", "192.168.1.1", "198.18.0.1"),
        *("224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "fe80::1", "febf::1"),
        *(
            "fc00::1",
            "fd00::1",
            "fec0::1",
            "ff02::1",
            "ff0e::1",
            "100::1",
            "4000::1",
            "64:ff9b:1::1",
        ),
        *(
            "64:ff9b::7f00:1",
            "64:ff9b::10.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "2002:a00:1::1",
        ),
    ],
)
def test_nobody_on_the_internet_has_it(text: str) -> None:
    assert outside.not_public(ip_address(text))


@pytest.mark.parametrize(
    "text",
    ["1.1.1.1", "8.8.8.8", "198.51.100.200", "223.255.255.254", "2606:4700::1111", "2001:db8::1",
     "64:ff9b::8.8.8.8", "2002:808:808::1"],
)  # fmt: skip
def test_somebody_may_have_it(text: str) -> None:
    assert outside.not_public(ip_address(text)) == ""


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_what_python_calls_no_hosts_address_is_not_public(where: outside.Address) -> None:
    """The library's own view, as a second witness."""
    odd = where.is_multicast or where.is_loopback or where.is_link_local or where.is_unspecified
    if odd:
        assert outside.not_public(where)

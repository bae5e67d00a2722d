"""What `ocgate check` warns of: each case once, and silence where all is well."""

from __future__ import annotations

from ipaddress import IPv4Network, ip_address, ip_network

import pytest

from ocgate.server.inih import parse
from ocgate.server.reading import Supplement, read_view
from ocgate.server.view import ScopeKind
from ocgate.server.warnings import Surroundings, warnings

FULL = "ipv4-network = 10.10.10.0/24\nroute = default\ndns = 9.9.9.9\ntunnel-all-dns = true\n"
SECRET = 'camouflage = true\ncamouflage_secret = "a-Long_secret.1"\n'
SPLIT = "ipv4-network = 10.10.10.0/24\nroute = 10.0.0.0/8\n"
AROUND = Surroundings(
    frozenset([ip_address("192.0.2.2"), ip_address("172.17.0.2")]),
    ((ip_network("192.0.2.0/24"), "eth0"), (ip_network("172.17.0.0/16"), "docker0")),
)


def codes(
    text: str, *, ipv6: bool = True, pool: str = "10.10.10.0/24", user: str = ""
) -> list[str]:
    document = parse(text.encode(), "conf")
    users = [Supplement(ScopeKind.USER, parse(user.encode(), "user"))]
    found = warnings(
        read_view(document, users),
        document,
        AROUND,
        client_networks=[IPv4Network(pool)],
        ipv6_advertised=ipv6,
    )
    return [warning.code for warning in found]


@pytest.mark.parametrize("text", [FULL, SPLIT, FULL + SECRET])
def test_silence(text: str) -> None:
    """Full and split tunnel as they should be."""
    assert codes(text) == []


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (FULL.replace("true", "false"), "full-tunnel-without-tunnel-all-dns"),
        (FULL.replace("dns = 9.9.9.9\n", ""), "full-tunnel-without-dns"),
        (FULL + "dns = 192.0.2.2\n", "resolver-outside-tunnel"),
        (FULL + "dns = 192.0.2.1\n", "resolver-outside-tunnel"),
        (FULL + "dns = 10.10.10.1\n", "resolver-outside-tunnel"),
        (FULL + "dns = 127.0.0.53\n", "resolver-outside-tunnel"),
        (FULL.replace("default", "fd00::/8"), "ipv6-outside-tunnel"),
        (FULL + "mtu = 1400\nmtu = 1401\n", "repeated-key"),
        (FULL + 'banner = ""\n', "ignored-line"),
        (FULL + "camouflage = true\n", "camouflage-without-secret"),
        (FULL + "camouflage_secret = abc\n", "camouflage-off"),
        (
            FULL + 'camouflage = true\ncamouflage_secret = "a b&c"\n',
            "camouflage-secret-not-for-urls",
        ),
        (FULL + "[vhost:a]\n" + FULL + "connect-script = /x\n", "ignored-in-vhost"),
        (FULL + "[vhost:a]\nipv4-network = 10.1.0.0/24\n", "full-tunnel-without-dns"),
    ],
)
def test_text(text: str, code: str) -> None:
    """One cause, one warning."""
    assert codes(text) == [code]


def test_collision() -> None:
    """A client subnet that is also the WAN's or docker's."""
    assert codes(SPLIT, pool="172.17.5.0/24") == ["client-subnet-collides"]


def test_ipv6_goes_by_another_way() -> None:
    """A full tunnel of IPv4 alone; a split tunnel promises nothing."""
    assert codes(FULL, ipv6=False) == ["ipv6-outside-tunnel"]
    assert codes(SPLIT, ipv6=False) == []


def test_user_with_ipv6_that_is_off() -> None:
    """Per-user files are ocserv's; we can only say it."""
    assert codes(SPLIT, ipv6=False, user="explicit-ipv6 = fd00::9\n") == ["ipv6-of-user-rejected"]
    assert codes(SPLIT, user="explicit-ipv6 = fd00::9\n") == []

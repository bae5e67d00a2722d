"""What `ocgate check` warns of: each case once, and silence where all is well."""

from __future__ import annotations

from ipaddress import IPv4Network, ip_address, ip_network

import pytest

from ocgate.ocserv.ini_parser import parse
from ocgate.ocserv.reading import Supplement, read_view
from ocgate.ocserv.releases import DEBIAN_12
from ocgate.ocserv.view import ScopeKind
from ocgate.ocserv.warnings import ServerWarning, Surroundings, warnings

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
    return [warning.code for warning in told(text, ipv6=ipv6, pool=pool, user=user)]


def told(
    text: str, *, ipv6: bool = True, pool: str = "10.10.10.0/24", user: str = ""
) -> tuple[ServerWarning, ...]:
    document = parse(text.encode(), "conf")
    users = [Supplement(ScopeKind.USER, parse(user.encode(), "user"))]
    return warnings(
        read_view(document, users, release=DEBIAN_12),
        document,
        AROUND,
        client_networks=[IPv4Network(pool)],
        ipv6_advertised=ipv6,
        release=DEBIAN_12,
    )


def routes(count: int) -> str:
    return "".join(f"route = 10.{n >> 8}.{n & 255}.0/24\n" for n in range(count))


@pytest.mark.parametrize(
    ("text", "user", "said"),
    [
        (routes(2499), "", ""),
        (routes(1999) + "no-route = 10.99.0.0/16\n" * 501, "", "2,501 routes: openconnect on"),
        (routes(5000), "", "5,001 routes: ocserv admits no session"),
        (routes(1), routes(2501), "user gives a session 2,501"),
        (routes(1999), "no-route = 10.99.0.0/16\n" * 501, "user gives a session 2,501"),
    ],
)
def test_more_routes_than_a_client_or_ocserv_takes(text: str, user: str, said: str) -> None:
    """SPLIT has one itself."""
    found = [w for w in told(SPLIT + text, user=user) if w.code == "many-routes"]
    assert [said in warning.text for warning in found] == [True] * bool(said)


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


HALVES = FULL.replace("route = default", "route = 0.0.0.0/1\nroute = 128.0.0.0/1")


def test_a_full_tunnel_in_halves_is_one() -> None:
    """What is said of `default` is said of its other spellings, also of a per-user file's."""
    assert codes(HALVES) == []
    assert codes(HALVES, ipv6=False) == ["ipv6-outside-tunnel"]
    assert codes(SPLIT, ipv6=False, user="route = 0.0.0.0/1\nroute = 128.0.0.0/1\n") == [
        "full-tunnel-without-dns",
        "ipv6-outside-tunnel",
    ]


def test_some_ipv6_of_a_users_full_tunnel() -> None:
    """The file is ocserv's, so `::/0` can't be added to it; append-routes adds main's IPv6 network,
    and then the client's own IPv6 goes on outside of it."""
    user = "route = default\ndns = 9.9.9.9\ntunnel-all-dns = true\n"
    assert codes(SPLIT, user=user) == []
    some = user.replace("default", "0.0.0.0/1\nroute = 128.0.0.0/1\nroute = fd00:5::/64")
    assert codes(SPLIT, user=some) == ["ipv6-outside-tunnel"]


def test_a_users_split_tunnel_that_takes_all_ipv6() -> None:
    """Routes of the file replace main's of both families: without an IPv6 one it is all."""
    assert codes(FULL, user="route = 10.0.0.0/8\n") == ["split-tunnel-takes-ipv6"]
    assert codes(FULL, user="route = 10.0.0.0/8\n", ipv6=False) == ["ipv6-outside-tunnel"]
    assert codes(FULL, user="route = 10.0.0.0/8\nroute = fd00::/8\n") == []


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("no-route = 1.0.1.0/24\n", "but for 1.0.1.0/24 (less than 0.1% of the public IPv4"),
        ("no-route = 8.0.0.0/7\n", "but for 8.0.0.0/7 (0.9% of the public IPv4"),
        ("no-route = 2001:db8::/32\n", "but for 2001:db8::/32 (less than 0.1% of the public IPv6"),
        (
            "".join(f"no-route = {n}.0.0.0/8\n" for n in (1, 3, 5, 7, 9)),
            "but for 1.0.0.0/8, 3.0.0.0/8, 5.0.0.0/8 and 2 more (2.3% of",
        ),
    ],
)
def test_what_a_full_tunnel_leaves_out(lines: str, words: str) -> None:
    (warning,) = told(FULL + lines)
    assert warning.code == "tunnel-leaves-out"
    assert words in warning.text


def test_leaving_out_what_is_not_the_internet_is_silent() -> None:
    """A home network, multicast, and this host's own address, which is outside in any case."""
    for net in ("192.168.0.0/16", "10.0.0.0/255.0.0.0", "224.0.0.0/4", "192.0.2.2/32"):
        assert codes(f"{FULL}no-route = {net}\n") == []

"""What value counts in which scope, and how ocserv's two notations become networks."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest

from ocgate.ocserv.ini_parser import parse
from ocgate.ocserv.reading import Supplement, read_view
from ocgate.ocserv.releases import DEBIAN_12, DEBIAN_13, IN_THE_IMAGE, Release
from ocgate.ocserv.view import PasswdFile, ScopeKind, ServerView


def view(text: str, *supplements: Supplement, release: Release = DEBIAN_12) -> ServerView:
    return read_view(parse(text.encode(), "conf"), supplements, release=release)


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("ipv4-network = 10.1.2.0/24", "10.1.2.0/24"),
        ("ipv4-network = 10.1.2.0\nipv4-netmask = 255.255.255.0", "10.1.2.0/24"),
        ("ipv4-netmask = 255.255.0.0\nipv4-network = 10.1.0.0", "10.1.0.0/16"),
        ("ipv4-network = 10.1.0.0/24\nipv4-netmask = 255.255.0.0", "10.1.0.0/16"),
        ("ipv4-netmask = 255.255.0.0\nipv4-network = 10.1.0.0/24", "10.1.0.0/24"),
        ("ipv4-network = 10.1.2.0/24\nipv4-network = 10.1.3.0", "10.1.3.0/24"),
        ("ipv6-network = fd00::/64", "fd00::/64"),
        ("ipv6-network = fd00::\nipv6-prefix = 56", "fd00::/56"),
        ("ipv6-prefix = 56\nipv6-network = fd00::/64", "fd00::/64"),
    ],
)
def test_network(text: str, network: str) -> None:
    """Both notations, in any order, as ocserv keeps address and mask apart."""
    found = view(text)
    assert [pool.value for pool in (*found.networks4, *found.networks6)] == [ip_network(network)]
    assert not found.problems


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("ipv4-network = banana/24", 1, "an IPv4 network"),
        ("ipv4-network = 10.0.0.0", 1, "its length"),
        ("ipv4-network = 10.0.0.0/33", 1, "1 to 30 bits"),
        ("ipv4-network = 10.0.0.0/24x", 1, "1 to 30 bits"),
        ("ipv4-network = 10.0.0.0/255.255.255.0", 1, "1 to 30 bits"),
        ("ipv4-network = 10.0.0.0\nipv4-netmask = 255.0.255.0", 2, "a netmask"),
        ("ipv4-network = 10.0.0.0\nipv4-netmask = 24", 2, "a netmask"),
        ("ipv4-network = 10.0.0.7/24", 1, "without host bits"),
        ("ipv6-network = fd00::", 1, "shorter than ipv6-subnet-prefix"),
        ("ipv6-network = fd00::/64\nipv6-subnet-prefix = 64", 1, "shorter"),
        ("ipv6-network = fd00::1/64", 1, "without host bits"),
        ("dns = banana", 1, "an IPv4 or IPv6 address"),
    ],
)
def test_untyped_value_is_a_problem(text: str, line: int, words: str) -> None:
    """Each names its line; ocserv takes most of these without a word."""
    (problem,) = view(text).problems
    assert (problem.source, problem.line) == ("conf", line)
    assert words in problem.expected


def test_resolver_keys_are_one_list() -> None:
    """dns, ipv4-dns and ipv6-dns add up."""
    found = view("ipv6-dns = fd00::53\ndns = 9.9.9.9\nipv4-dns = 1.1.1.1\n")
    assert [resolver.value for resolver in found.dns] == [
        IPv6Address("fd00::53"),
        IPv4Address("9.9.9.9"),
        IPv4Address("1.1.1.1"),
    ]


def test_last_scalar_wins_but_the_first_pid_file() -> None:
    """As in ocserv, where `-p` may have set the pid file first."""
    found = view("mtu = 1400\nmtu = 1300\npid-file = /a\npid-file = /b\n")
    assert (found.mtu, found.pid_file) == (1300, "/a")


@pytest.mark.parametrize(
    ("auth", "file"),
    [
        ('"plain[passwd=/a,otp=/b]"', PasswdFile("/a", "/b")),
        ("plain[/a]", PasswdFile("/a", None)),
        ("Plain[passwd=/a]", PasswdFile("/a", None)),
    ],
)
def test_passwd_file(auth: str, file: PasswdFile) -> None:
    """Both forms of plain; other methods have no file."""
    found = view(f"auth = {auth}\nenable-auth = certificate\n")
    assert [passwd.value for passwd in found.passwd_files] == [file]


def test_vhosts_have_values_of_their_own() -> None:
    """Keys that ocserv ignores there are main's alone, and main's scripts serve all."""
    found = view(
        "device = vpns\nconnect-script = /c\nipv4-network = 10.0.0.0/24\nroute = default\n"
        "[vhost:a]\ndevice = tun\nconnect-script = /x\nipv4-network = 10.0.1.0/24\n"
        "route = 10.0.0.0/8\n"
    )
    (vhost,) = found.vhosts
    assert found.device == "vpns"
    assert "device" not in vhost.settings
    assert [pool.value for pool in found.networks4] == [
        ip_network("10.0.0.0/24"),
        ip_network("10.0.1.0/24"),
    ]
    assert found.gateways4 == (IPv4Address("10.0.0.1"), IPv4Address("10.0.1.1"))
    assert found.scripts == {"default": ("/c", None), "a": ("/c", None)}
    assert (found.full_tunnel, vhost.full_tunnel4) == (True, False)


@pytest.mark.parametrize(
    ("routes", "four", "six"),
    [
        ([], True, True),
        (["default"], True, True),
        (["10.0.0.0/8"], False, True),
        (["::/0"], True, True),
        (["fd00::/8"], True, False),
        (["10.0.0.0/8", "fd00::/8"], False, False),
        (["10.0.0.0/8", "fd00::/8", "default"], True, True),
        (["10.0.0.0/8", "::/0"], False, True),
        (["0.0.0.0/0.0.0.0"], True, True),
    ],
)
def test_full_tunnel(routes: list[str], four: bool, six: bool) -> None:
    """What ocserv 1.1.6 and 1.3.0 push and openconnect makes of it, by family."""
    main = view("".join(f"route = {route}\n" for route in routes)).main
    assert (main.full_tunnel4, main.full_tunnel6) == (four, six)


def test_supplements_are_scopes() -> None:
    """Per-user files count, up to a line of garbage."""
    good = parse(b"ipv4-network = 10.5.0.0/24\nexplicit-ipv4 = 10.5.0.7\n", "users/bob")
    bad = parse(b"ipv4-network = 10.6.0.0/24\ngarbage\ndns = 9.9.9.9\n", "users/eve")
    found = view("", Supplement(ScopeKind.USER, good), Supplement(ScopeKind.USER, bad))
    assert [scope.source for scope in found.others] == ["users/bob", "users/eve"]
    assert found.others[1].dns == ()
    assert [str(pool.value) for pool in found.networks4] == ["10.5.0.0/24", "10.6.0.0/24"]
    assert str(found.others[0].explicit4[0].value) == "10.5.0.7"


def test_of_a_broken_file_of_a_users_counts_what_stands_before() -> None:
    """ocserv stops at the line and admits the user; so the address before it is handed out."""
    text = "explicit-ipv4 = 10.10.10.9\nroute = 10.0.0.0/8\ngarbage\nexplicit-ipv4 = 10.10.10.8\n"
    user = Supplement(ScopeKind.USER, parse(text.encode(), "user"))
    (found,) = view("ipv4-network = 10.10.10.0/24\n", user).others
    assert [placed.value for placed in found.explicit4] == [IPv4Address("10.10.10.9")]
    assert [route.value for route in found.routes] == ["10.0.0.0/8"]


# --- virtual hosts, by the release --------------------------------------------------------------

HOSTS = """\
auth = plain[passwd=p]
server-cert = c
server-key = k
device = vpns
ipv4-network = 10.10.10.0
ipv4-netmask = 255.255.255.0
dns = 9.9.9.9
route = 10.0.0.0/8
banner = main
camouflage = true
camouflage_secret = s
[vhost:own.example]
auth = plain[passwd=q]
enable-auth = certificate
ipv4-network = 10.20.0.0
dns = 1.1.1.1
banner = own
[vhost:late.example]
banner = late
[]
no-route = 10.9.0.0/16
banner = main again
ca-cert = ca
"""


def test_virtual_hosts_have_nothing_of_mains_before_1_5_0() -> None:
    for release in (DEBIAN_12, DEBIAN_13):
        own, late = view(HOSTS.replace("10.20.0.0", "10.20.0.0/24"), release=release).vhosts
        assert [r.value for r in own.dns] == [IPv4Address("1.1.1.1")]
        assert (own.routes, own.key_pairs, own.text("camouflage")) == ((), (), None)
        assert (late.networks4, late.passwd_files, dict(late.settings).keys()) == (
            (),
            (),
            {"banner"},
        )


def test_virtual_hosts_inherit_what_stands_before_them() -> None:
    """Lists add up, scalars are replaced, a mask of main's holds; users and certificates are one's
    own or main's, whole; what main sets behind is not inherited, but for certificates' sake."""
    found = view(HOSTS, release=IN_THE_IMAGE)
    own, late = found.vhosts
    assert [str(r.value) for r in own.dns] == ["9.9.9.9", "1.1.1.1"]
    assert [str(n.value) for n in own.networks4] == ["10.20.0.0/24"]
    assert [p.value.path for p in own.passwd_files] == ["q"]
    assert [(p.certificate.value, p.key and p.key.value) for p in own.key_pairs] == [("c", "k")]
    assert (own.text("banner"), late.text("banner")) == ("own", "late")
    assert [p.value.path for p in late.passwd_files] == ["p"]
    assert [str(n.value) for n in late.networks4] == ["10.10.10.0/24"]
    assert (late.flag("camouflage"), late.text("camouflage_secret")) == (True, "s")
    assert (own.no_routes, late.no_routes) == ((), ())
    assert (own.text("ca-cert"), late.text("ca-cert")) == ("ca", "ca")
    assert "device" not in own.settings
    assert [str(n.value) for n in found.networks4] == ["10.10.10.0/24", "10.20.0.0/24"]
    assert len(found.key_pairs) == 1

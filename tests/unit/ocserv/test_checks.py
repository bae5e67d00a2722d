"""What ocserv takes without a word and we do not: texts and files."""

from __future__ import annotations

import pytest

from ocgate.errors import Problem
from ocgate.ocserv.checks import check
from ocgate.ocserv.file_checks import FileFact, FileFacts, check_files, named_paths
from ocgate.ocserv.ini_parser import parse
from ocgate.ocserv.reading import Supplement, read_view
from ocgate.ocserv.releases import DEBIAN_12, DEBIAN_13, IN_THE_IMAGE, Release
from ocgate.ocserv.view import ScopeKind

GOOD = """\
auth = plain[passwd=ocpasswd]
tcp-port = 443
udp-port = 443
server-cert = cert.pem
server-key = key.pem
device = vpns
ipv4-network = 10.10.10.0/24
"""


def problems(
    text: str, *users: str, ipv6: bool = True, release: Release = DEBIAN_12
) -> list[Problem]:
    document = parse(text.encode(), "conf")
    files = [parse(user.encode(), f"user{rank}") for rank, user in enumerate(users)]
    supplements = [Supplement(ScopeKind.USER, file) for file in files]
    view = read_view(document, supplements, release=release)
    return check(document, files, view, ipv6=ipv6, release=release)


def test_good_file_has_no_problem() -> None:
    """Else every other test here proves nothing."""
    assert problems(GOOD) == []


@pytest.mark.parametrize(
    ("line", "key", "words"),
    [
        ("banner = x\n  dns = 1.1.1.1", "banner", "another value of the key above"),
        ("oops", "syntax", "key = value"),
        ("[foo]", "syntax", "not [vhost:NAME]"),
        ("route = banana/8", "route", "a network like"),
        ("route = Default", "route", "or default"),
        ("route = 10.0.0.1/8", "route", "without host bits"),
        ("route = 0.0.0.0/0", "route", "default"),
        ("no-route = default", "no-route", "a network like"),
        ("route = fd00::/200", "route", "a network like"),
        ("tcp-port = 70000", "tcp-port", "1 to 65535"),
        ("tcp-port = 0", "tcp-port", "1 to 65535"),
        ("udp-port = -1", "udp-port", "0 to 65535"),
        ("mtu = 1345", "mtu", "1346 or more"),
        ("mtu = many", "mtu", "a whole number"),
        ("tunnel-all-dns = 1", "tunnel-all-dns", "true or false"),
        ("restrict-user-to-routes = true", "restrict-user-to-routes", "false"),
        ('restrict-user-to-ports = "tcp(443)"', "restrict-user-to-ports", "no such line"),
        ("expose-iroutes = true", "expose-iroutes", "false"),
        ("device = averylongname", "device", "at most 11"),
        ("device = lo", "device", "no other device"),
        ("ipv4-network = 224.0.0.0/24", "ipv4-network", "a unicast network"),
        ("ipv6-network = fe80::/64", "ipv6-network", "a unicast network"),
        ("socket-file = /s\npid-file = /s", "pid-file", "other than socket-file's (conf:8)"),
        ("[vhost:a]\nipv4-network = 10.10.0.0/16", "ipv4-network", "apart from 10.10.10.0/24"),
    ],
)
def test_text(line: str, key: str, words: str) -> None:
    """One slip, one problem, at its line."""
    (problem,) = problems(GOOD + line + "\n")
    assert problem.key == key
    assert words in problem.expected
    assert problem.line >= 8


@pytest.mark.parametrize("key", ["tcp-port", "device"])
def test_missing_key(key: str) -> None:
    """What ocserv can't go without."""
    text = "".join(line for line in GOOD.splitlines(keepends=True) if not line.startswith(key))
    (problem,) = problems(text)
    assert (problem.key, problem.got, problem.line) == (key, None, 0)


def test_low_mtu_without_ipv6() -> None:
    """Only IPv6 needs 1280 bytes inside."""
    assert problems(GOOD + "mtu = 1300\n", ipv6=False) == []


def test_restriction_that_is_off_is_no_problem() -> None:
    """It promises nothing."""
    assert problems(GOOD + "restrict-user-to-routes = false\n") == []


@pytest.mark.parametrize(
    ("user", "key", "words"),
    [
        ("garbage\n", "syntax", "ocserv ignores all from this line on"),
        ("iroute = 10.0.0.0/8\n", "iroute", "no such line"),
        ("explicit-ipv4 = 10.9.9.9\n", "explicit-ipv4", "inside of a client network"),
        ("explicit-ipv4 = 10.10.10.1\n", "explicit-ipv4", "that a client can have"),
        ("restrict-user-to-routes = true\n", "restrict-user-to-routes", "false"),
        ("ipv4-network = 10.10.10.128/25\n", "ipv4-network", "apart from"),
    ],
)
def test_user_file(user: str, key: str, words: str) -> None:
    """Per-user files are held to the same."""
    (problem,) = problems(GOOD, user)
    assert (problem.source, problem.line, problem.key) == ("user0", 1, key)
    assert words in problem.expected


def test_two_users_with_one_address() -> None:
    """ocserv would give it to both."""
    (problem,) = problems(GOOD, "explicit-ipv4 = 10.10.10.9\n", "\nexplicit-ipv4 = 10.10.10.9\n")
    assert (problem.source, problem.line) == ("user1", 2)
    assert "user0:1" in problem.expected


PASSWD = b"alice:*:$5$abc\n\n# note\nbob::$6$x\n"
FINE = {
    "ocpasswd": FileFact(content=PASSWD),
    "cert.pem": FileFact(public_key=b"one"),
    "key.pem": FileFact(public_key=b"one"),
}


def file_problems(changed: dict[str, FileFact], more: str = "") -> list[tuple[str, int, str, str]]:
    view = read_view(parse((GOOD + more).encode(), "conf"), release=DEBIAN_12)
    assert set(changed) <= named_paths(view)
    found = check_files(view, FileFacts({**FINE, **changed}))
    return [(problem.source, problem.line, problem.key, problem.expected) for problem in found]


def test_good_files_have_no_problem() -> None:
    """Else the rest proves nothing."""
    assert file_problems({}) == []


@pytest.mark.parametrize(
    ("changed", "more", "place", "words"),
    [
        ({"key.pem": FileFact(missing="gone")}, "", ("conf", 5, "server-key"), "gone"),
        ({"key.pem": FileFact(public_key=b"two")}, "", ("conf", 5, "server-key"), "key of the"),
        ({"key.pem": FileFact()}, "", ("conf", 5, "server-key"), "unencrypted key"),
        ({"cert.pem": FileFact()}, "", ("conf", 4, "server-cert"), "X.509"),
        ({"ocpasswd": FileFact(missing="gone")}, "", ("conf", 1, "auth"), "gone"),
        ({"ocpasswd": FileFact(content=b"u:*:\n")}, "", ("ocpasswd", 1, "user"), "anyone"),
        ({"ocpasswd": FileFact(content=b"\nu\n")}, "", ("ocpasswd", 2, "user"), "groups"),
        ({"s": FileFact(missing="x")}, "connect-script = s", ("conf", 8, "connect-script"), "x"),
        ({"s": FileFact()}, "connect-script = s", ("conf", 8, "connect-script"), "executable"),
        ({"ca": FileFact(missing="x")}, "ca-cert = ca", ("conf", 8, "ca-cert"), "readable"),
        ({}, "server-cert = pkcs11:x", ("conf", 8, "server-cert"), "a server-key"),
    ],
)
def test_file(
    changed: dict[str, FileFact], more: str, place: tuple[str, int, str], words: str
) -> None:
    """One file wrong, one problem, at the line that names it or at its own line."""
    (problem,) = file_problems(changed, more)
    assert problem[:3] == place
    assert words in problem[3]


def test_hardware_keys_are_not_looked_for() -> None:
    """PKCS #11 URLs name no files."""
    view = read_view(
        parse(b"server-cert = pkcs11:a;b\nserver-key = pkcs11:a\n", "conf"), release=DEBIAN_12
    )
    assert named_paths(view) == frozenset()


@pytest.mark.parametrize("key", ["device", "connect-script", "tcp-port", "ban-time", "use-seccomp"])
def test_a_key_of_mains_in_a_virtual_host_is_an_error_where_ocserv_refuses_it(key: str) -> None:
    """With its own line; an ocserv before 1.4.2 ignores it, and `warnings` tells that."""
    text = f"{GOOD}[vhost:b]\nauth = plain[passwd=p]\nipv4-network = 10.9.0.0/24\n{key} = true\n"
    for release in (DEBIAN_12, DEBIAN_13):
        assert problems(text, release=release) == []
    (found,) = problems(text, release=IN_THE_IMAGE)
    assert (found.source, found.line, found.key, found.got) == ("conf", 11, key, "true")
    assert "[vhost:b]: only main can set it" in found.expected
    assert problems(GOOD + "[other]\ndevice = x\n", release=IN_THE_IMAGE)[0].key != "device"

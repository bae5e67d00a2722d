"""The table of releases, its page, and what it says of one configuration."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ocgate.ocserv import releases, services
from ocgate.ocserv.ini_parser import parse
from ocgate.ocserv.reading import Supplement, read_view
from ocgate.ocserv.release_report import Gravity, Meaning, report
from ocgate.ocserv.releases import DEBIAN_12, DEBIAN_13, IN_THE_IMAGE, Release
from ocgate.ocserv.releases_page import page
from ocgate.ocserv.view import ScopeKind

PAGE = Path(__file__).parents[3] / "docs" / "ocserv-releases.md"

GOOD = """\
auth = plain[passwd=ocpasswd]
tcp-port = 443
run-as-user = nobody
device = vpns
ipv4-network = 10.10.10.0/24
route = default
"""


def meanings(text: str, release: Release, *users: str) -> tuple[Meaning, ...]:
    document = parse(text.encode(), "conf")
    files = [
        Supplement(ScopeKind.USER, parse(user.encode(), f"user{rank}"))
        for rank, user in enumerate(users)
    ]
    return report(document, read_view(document, files, release=release), release)


def codes(text: str, release: Release, *users: str) -> list[str]:
    return [meaning.code for meaning in meanings(text, release, *users)]


# --- the table ----------------------------------------------------------------------------------


def test_the_page_is_what_the_table_says() -> None:
    """docs/ocserv-releases.md; `python -m ocgate.ocserv.releases_page` writes it anew."""
    assert PAGE.read_text() == page()
    argv = [sys.executable, "-m", "ocgate.ocserv.releases_page"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == page()


def test_every_row_has_a_beginning_or_an_end_and_a_name_of_its_own() -> None:
    names = [row.name for row in releases.ROWS]
    assert len(set(names)) == len(names)
    for row in releases.ROWS:
        assert row.since or row.until, row.name
        assert row.since is None or row.until is None or row.since < row.until, row.name
    named = [key for row in releases.KEY_ROWS for key in row.keys]
    assert len(set(named)) == len(named)


@pytest.mark.parametrize(
    ("row", "holding"),
    [
        (releases.COOKIE_OVERFLOW, [True, True, False]),
        (releases.CAMOUFLAGE, [False, True, True]),
        (releases.VHOSTS_INHERIT, [False, False, True]),
        (releases.VHOSTS_NEED_DEVICE, [True, False, False]),
        (releases.BROKEN_USER_FILE, [True, True, True]),
    ],
)
def test_a_row_holds_from_its_first_release_to_before_its_last(
    row: releases.Row, holding: list[bool]
) -> None:
    assert [row.holds(r) for r in (DEBIAN_12, DEBIAN_13, IN_THE_IMAGE)] == holding
    if row.since:
        assert row.holds(row.since)
    if row.until:
        assert not row.holds(row.until)


def test_the_log_goes_to_stderr_with_every_release() -> None:
    assert services.logging_arguments(DEBIAN_12) == ("-d", "1")
    assert services.logging_arguments(DEBIAN_13) == ("-d", "1", "--log-stderr")


# --- what it means for a configuration ----------------------------------------------------------


def test_nothing_is_said_of_a_plain_configuration_with_todays_ocserv() -> None:
    assert meanings(GOOD, IN_THE_IMAGE) == ()


@pytest.mark.parametrize("release", [DEBIAN_12, DEBIAN_13, (1, 4, 2)])
@pytest.mark.parametrize("line", ["", "isolate-workers = true\n", "isolate-workers = yes\n"])
def test_a_crash_by_a_stranger_is_known_and_held_by_the_sandbox(
    release: Release, line: str
) -> None:
    """Also where the file is silent: ocgate writes the line."""
    (found,) = meanings(GOOD + line, release)
    assert (found.gravity, found.code) == (Gravity.HELD, "worker-crashed-by-a-stranger")
    assert "isolate-workers is on, so it stays in the worker's sandbox" in found.text
    assert "1.5.0 or newer: Debian testing, or ocgate's container image" in found.remedy


@pytest.mark.parametrize("key", ["isolate-workers", "use-seccomp"])
def test_without_the_sandbox_it_is_open(key: str) -> None:
    """Whose account that is, and where the line stands."""
    (found,) = meanings(GOOD + f"{key} = false\n", DEBIAN_13)
    assert (found.gravity, found.gravity.to_do) == (Gravity.OPEN, True)
    assert f"{key} = false (conf:7), so what is made of it runs as nobody" in found.text
    (found,) = meanings(GOOD + f"{key} = false\n", IN_THE_IMAGE)
    assert (found.gravity, found.code) == (Gravity.OPEN, "workers-not-isolated")


VHOST = "[vhost:b]\nauth = plain[passwd=p]\nipv4-network = 10.9.0.0/24\n"
SPLIT = GOOD.replace("default", "10.0.0.0/8")
BYPASS = "auth = certificate\ncert-user-oid = SAN(rfc822name)\n"


@pytest.mark.parametrize(
    ("text", "code", "releases_with_it"),
    [
        (GOOD + "session-timeout = 3600\n", "session-timeout-bypass", (DEBIAN_12, DEBIAN_13)),
        (GOOD + BYPASS, "certificate-bypass", (DEBIAN_12, DEBIAN_13)),
        (
            GOOD.replace("plain[passwd=ocpasswd]", "pam") + "config-per-user = users\n",
            "user-name-as-path",
            (DEBIAN_12, DEBIAN_13, IN_THE_IMAGE),
        ),
        (GOOD + "camouflage = true\ncamouflage_secret = s\n", "camouflage-unknown", (DEBIAN_12,)),
        (GOOD + "ban-time = 60\n", "key-unknown", (DEBIAN_12, DEBIAN_13)),
        (GOOD + "cgroup = cpuset:x\n", "key-unknown", (IN_THE_IMAGE,)),
        (GOOD + "persistent-cookies = true\n", "occtl-terminate", (DEBIAN_12, DEBIAN_13)),
        (SPLIT + VHOST, "vhosts-inherit", (IN_THE_IMAGE,)),
        (GOOD + VHOST + "route = 10.0.0.0/8\n", "vhosts-inherit", (IN_THE_IMAGE,)),
        (
            GOOD + "auth = certificate\nlisten-proxy-proto = true\n",
            "proxy-certificate-name",
            (DEBIAN_12, DEBIAN_13),
        ),
    ],
)
def test_what_a_line_meets_is_said_where_the_release_has_it(
    text: str, code: str, releases_with_it: tuple[Release, ...]
) -> None:
    every = (DEBIAN_12, DEBIAN_13, IN_THE_IMAGE)
    assert tuple(release for release in every if code in codes(text, release)) == releases_with_it


@pytest.mark.parametrize(
    "text",
    [
        GOOD + "session-timeout = 0\n",
        GOOD + "config-per-user = users\n",  # names of a password file are the operator's
        GOOD + "camouflage = false\ncamouflage_secret = s\n",
        GOOD + "persistent-cookies = false\n",
        GOOD + VHOST,  # full before and after
        GOOD + VHOST + "route = default\n",
        GOOD.replace("route = default\n", "") + VHOST + "route = 10.0.0.0/8\n",
    ],
)
@pytest.mark.parametrize("release", [DEBIAN_12, DEBIAN_13, IN_THE_IMAGE])
def test_what_does_not_matter_is_not_said(text: str, release: Release) -> None:
    """But what is known of the workers."""
    left = [code for code in codes(text, release) if code != "worker-crashed-by-a-stranger"]
    assert left == []


def test_a_full_tunnel_that_becomes_a_split_one_is_told_with_its_lines() -> None:
    (found,) = meanings(SPLIT + VHOST, IN_THE_IMAGE)
    assert found.gravity is Gravity.DIFFERS
    assert "[vhost:b] of conf has main's route lines (conf:6), too" in found.text
    assert "so it is a split tunnel; up to 1.4.2 it was a full tunnel" in found.text


def test_a_word_about_resolvers_that_is_not_heeded_is_told() -> None:
    """Where it says another thing than main does."""
    user = "tunnel-all-dns = true\n"
    assert "tunnel-all-dns-of-users" in codes(GOOD, DEBIAN_13, user)
    assert codes(GOOD, IN_THE_IMAGE, user) == []
    assert codes(GOOD, IN_THE_IMAGE, "tunnel_all_dns = true\n") == ["tunnel-all-dns-of-users"]
    main = GOOD + "tunnel-all-dns = true\n"
    assert "tunnel-all-dns-of-users" not in codes(main, DEBIAN_13, user)
    assert "tunnel-all-dns-of-users" in codes(main, DEBIAN_13, "tunnel-all-dns = false\n")


def test_the_gravest_comes_first_and_each_once() -> None:
    text = GOOD + "isolate-workers = false\nban-time = 5\npersistent-cookies = true\n"
    found = meanings(text + "session-timeout = 60\n", DEBIAN_12)
    assert [each.gravity for each in found] == sorted(each.gravity for each in found)
    assert len(found) == len(set(found)) == 4

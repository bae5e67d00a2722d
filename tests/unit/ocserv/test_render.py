"""The effective ocserv.conf: exact text for a few files, and the laws that hold for every file."""

from __future__ import annotations

import dataclasses
import os
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ocgate.errors import OcgateError
from ocgate.ocserv.ini_parser import Document, parse
from ocgate.ocserv.reading import ADDED_LISTS, inherited, read_view
from ocgate.ocserv.releases import DEBIAN_12, DEBIAN_13, IN_THE_IMAGE, Release
from ocgate.ocserv.render import EffectiveChoices, render
from ocgate.ocserv.view import Scope, ServerView

GOLDEN = Path(__file__).parent / "golden"
OFF = EffectiveChoices(
    connect_hook="/run/ocgate/hooks/connect",
    disconnect_hook="/run/ocgate/hooks/disconnect",
    socket_file="/run/ocgate/ocserv.sock",
    pid_file="/run/ocgate/ocserv.pid",
    occtl_socket_file="/run/ocgate/occtl.sock",
    directory="/etc/ocserv",
    ipv4_network=IPv4Network("10.10.10.0/24"),
    release=DEBIAN_12,
)
ON = dataclasses.replace(OFF, ipv6_network=IPv6Network("fda9:4efe:7e3b:3ea::/64"))


def viewed(document: Document, release: Release = DEBIAN_12) -> ServerView:
    """As an ocserv of this release reads it."""
    return read_view(document, release=release)


EVERY = [
    dataclasses.replace(choices, release=release)
    for choices in (OFF, ON)
    for release in (DEBIAN_12, DEBIAN_13, IN_THE_IMAGE)
]
CHOICES = {"ipv6-off": OFF, "ipv6-on": ON}


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("name", ["full", "vhosts", "ipv6", "halves"])
def test_exact_text(name: str, choice: str) -> None:
    """OCGATE_UPDATE_GOLDEN=1 writes the files anew; review the diff."""
    document = parse((GOLDEN / f"{name}.in.conf").read_bytes(), "/etc/ocserv/ocserv.conf")
    expected = GOLDEN / f"{name}.{choice}.conf"
    data = render(document, CHOICES[choice]).data
    if os.environ.get("OCGATE_UPDATE_GOLDEN"):
        expected.write_bytes(data)
    assert data.decode() == expected.read_bytes().decode()


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("name", ["vhosts", "inheriting"])
def test_exact_text_where_virtual_hosts_inherit(name: str, choice: str) -> None:
    """OCGATE_UPDATE_GOLDEN=1 writes the files anew; review the diff."""
    document = parse((GOLDEN / f"{name}.in.conf").read_bytes(), "/etc/ocserv/ocserv.conf")
    expected = GOLDEN / f"{name}.{choice}.1.5.0.conf"
    data = render(document, dataclasses.replace(CHOICES[choice], release=IN_THE_IMAGE)).data
    if os.environ.get("OCGATE_UPDATE_GOLDEN"):
        expected.write_bytes(data)
    assert data.decode() == expected.read_bytes().decode()


def test_a_sink_takes_all_ipv6_of_a_full_tunnel() -> None:
    """Also where ocserv.conf names its own IPv6 network and some IPv6 routes; where IPv6 works,
    these routes are the operator's choice."""
    text = b"ipv6-network = fd00::/64\nroute = 0.0.0.0/1\nroute = 128.0.0.0/1\nroute = fd00::/8\n"
    sink = dataclasses.replace(ON, ipv6_resolvers=False)
    for choices, added in ((sink, True), (ON, False)):
        lines = render(parse(text, "f"), choices).data.decode().splitlines()
        assert ("route = ::/0" in lines) == added


LINES = st.sampled_from(
    [
        *("auth = plain[passwd=/p,otp=/o]", "device = vpns", "tcp-port = 443", "mtu=1400"),
        *("ipv4-network = 10.1.0.0/16", "ipv4-network = 10.2.0.0", "ipv4-netmask = 255.255.0.0"),
        *(
            "ipv6-network = fd00::/64",
            "ipv6-network = fd00::",
            "ipv6-prefix = 56",
            "dns = fd00::53",
        ),
        *("dns = 9.9.9.9", "ipv4-dns = 1.1.1.1", "route = default", "route = 10.0.0.0/8"),
        *("route = 0.0.0.0/1", "route = 128.0.0.0/1", "route = 2000::/3"),
        *("route = fd00::/8", "no-route = 10.1.0.0/16", "no-route = fd01::/16", "route = ::/0"),
        *('connect-script = "/a b" # c', "disconnect-script: /d", "use-occtl = false"),
        *("socket-file = /s", "pid-file = /one", "pid-file = /two", "occtl-socket-file=/o"),
        *("server-cert = c", "server-key = k", "[vhost:a]", "[vhost:b]", "[]", "[other]"),
        *("", "# comment", "  indented = 1", "  /continued", "a = \x00", 'socket-file = ""'),
        *('  dns = ""', '  ""', "mtu = 1300", "  [vhost:b]"),
    ]
)
FILES = st.builds(
    lambda lines, end, bom: (bom + end.join(lines)).encode(),
    st.lists(LINES, max_size=14),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "\ufeff"]),
)


OURS = {
    *("ipv4-network", "ipv4-netmask", "ipv6-network", "ipv6-prefix", "ipv6-subnet-prefix"),
    *("connect-script", "disconnect-script", "use-occtl", "isolate-workers"),
    *("socket-file", "pid-file", "occtl-socket-file"),
}


def kept(view: ServerView, after: Document) -> tuple[object, ...]:
    """What rendering must not touch, whatever is chosen."""
    scopes = {scope.name: kept_of_scope(scope) for scope in view.scopes}
    # A virtual host of nothing but lines that we replace is none to ocserv, which makes one at its
    # first key; or it has but lines of ours.
    told = {entry.vhost for entry in after.entries}
    named = {name: found for name, found in scopes.items() if any(found[1:]) and name in told}
    return (view.device, view.tcp_port, view.udp_port, view.mtu, named)


def kept_of_scope(scope: Scope) -> tuple[object, ...]:
    return (
        scope.full_tunnel4,
        [found.value for found in scope.dns if found.value.version == 4],
        [found.value for found in scope.passwd_files],
        [pair.certificate.value for pair in scope.key_pairs],
        [route.value for route in scope.no_routes if ":" not in route.value],
        {key: found.value for key, found in scope.settings.items() if key not in OURS},
    )


@example(data=b"dns = 9.9.9.9\n[vhost:a]\n  indented = 1", choices=EVERY[-1])
@example(data=b'no-route = 10.1.0.0/16\n[vhost:a]\n  mtu = ""\ndns = 9.9.9.9', choices=EVERY[-1])
@example(data=b"dns = 9.9.9.9\n[vhost:a]\n [vhost:b]\nmtu = 3\n[vhost:a]\nx = 1", choices=EVERY[-1])
@example(data=b"dns = 9.9.9.9\n[vhost:a]\n[]\nmtu = 1\n[vhost:a]\nx = 1", choices=EVERY[-1])
@example(data=b'use-occtl = 1\n  ""\ndns = 9.9.9.9', choices=EVERY[0])
@given(data=FILES, choices=st.sampled_from(EVERY))
def test_the_rest_reads_as_before(data: bytes, choices: EffectiveChoices) -> None:
    """Reading the effective file gives the operator's view but for what we chose."""
    before = parse(data, "f")
    after = parse(render(before, choices).data, "f")
    assert bool(after.broken) == bool(before.broken)
    old, new = viewed(before, choices.release), viewed(after, choices.release)
    assert kept(new, after) == kept(old, after)
    pools = {scope.name: scope.networks4 for scope in new.scopes}
    for scope in old.scopes:
        if scope.networks4 and scope.name in pools:
            assert [found.value for found in pools[scope.name]] == [scope.networks4[0].value]


@given(data=FILES, choices=st.sampled_from(EVERY))
def test_our_choices_stand(data: bytes, choices: EffectiveChoices) -> None:
    """Hooks, occtl, sockets and a pool are there, in main, whatever the operator wrote."""
    document = parse(data, "f")
    old = viewed(document, choices.release)
    new = viewed(parse(render(document, choices).data, "f"), choices.release)
    assert new.main.text("connect-script") == choices.connect_hook
    assert new.main.text("disconnect-script") == choices.disconnect_hook
    assert new.use_occtl
    assert new.socket_file == (old.socket_file or choices.socket_file)
    assert new.pid_file == (old.pid_file or choices.pid_file)
    assert new.occtl_socket_file == (old.occtl_socket_file or choices.occtl_socket_file)
    assert new.main.text("ipv4-network")


@given(data=FILES, release=st.sampled_from([DEBIAN_12, IN_THE_IMAGE]))
def test_ipv6_is_all_or_nothing(data: bytes, release: Release) -> None:
    """Not advertised: no trace of it. Advertised: every section hands it out."""
    document = parse(data, "f")
    files = (render(document, dataclasses.replace(c, release=release)) for c in (OFF, ON))
    off, on = (viewed(parse(file.data, "f"), release) for file in files)
    assert not off.networks6
    assert not [found for found in off.dns if found.value.version == 6]
    assert not [route for scope in off.scopes for route in scope.routes if ":" in route.value]
    for scope in on.scopes:
        assert scope.text("ipv6-network")
    routes = {scope.name: scope.routes for scope in viewed(document, release).scopes}
    for scope in on.scopes:
        if scope.networks6 and scope.networks6[0].value == ON.ipv6_network:
            own = [route for route in routes[scope.name] if ":" in route.value]
            assert own or scope.full_tunnel6 == scope.full_tunnel4


@given(data=FILES, choices=st.sampled_from(EVERY))
def test_rendering_twice_changes_no_choice(data: bytes, choices: EffectiveChoices) -> None:
    """The effective file as input: same view again."""
    once = parse(render(parse(data, "f"), choices).data, "f")
    twice = parse(render(once, choices).data, "f")
    once_read, twice_read = (viewed(text, choices.release) for text in (once, twice))
    assert kept(once_read, once) == kept(twice_read, twice)
    assert once_read.main.settings.keys() == twice_read.main.settings.keys()


@given(data=FILES, choices=st.sampled_from(EVERY))
def test_every_line_knows_its_origin(data: bytes, choices: EffectiveChoices) -> None:
    """The operator's lines appear in order, and once each but for lists that virtual hosts have of
    main's; all others are ours."""
    document = parse(data, "f")
    effective = render(document, choices)
    assert len(effective.origins) == effective.data.count(b"\n")
    theirs = [origin for origin in effective.origins if origin]
    numbers, met = range(1, len(document.lines) + 1), iter(theirs)
    assert set(theirs) == set(numbers)
    assert all(number in met for number in numbers)  # consumes: in this order
    more = {line for line in theirs if theirs.count(line) > 1}
    assert more <= {entry.line for entry in document.of("") if entry.key in ADDED_LISTS}
    assert not more or choices.release >= IN_THE_IMAGE
    assert effective.origin(0) == effective.origin(10_000) == 0


@given(data=FILES, choices=st.sampled_from([OFF, ON]))
def test_no_virtual_host_adds_to_a_list_of_mains(data: bytes, choices: EffectiveChoices) -> None:
    """ocserv 1.5.0 writes behind the end of a list to which one does, and aborts."""
    new = dataclasses.replace(choices, release=IN_THE_IMAGE)
    after = parse(render(parse(data, "f"), new).data, "f")
    for vhost in after.vhosts:
        has = {entry.key for entry in inherited(after, vhost, IN_THE_IMAGE)}
        assert not has & ADDED_LISTS


def test_a_sandbox_of_workers_is_the_default_and_the_operators_word_counts() -> None:
    """By either name of the setting; a vhost has no word in it."""
    ours = b"\nisolate-workers = true\n"
    for silent in (b"", b"[vhost:b]\nisolate-workers = false\nipv4-network = 10.0.0.0/24\n"):
        assert ours in render(parse(silent, "f"), OFF).data
    for said in (b"isolate-workers = false\n", b"use-seccomp = false\n"):
        assert ours not in render(parse(said, "f"), OFF).data


def test_a_virtual_host_has_main_device_only_where_it_needs_one() -> None:
    """From 1.4.2 on ocserv refuses a file that has it there."""
    text = parse(b"device = vpns\n[vhost:b]\nipv4-network = 10.0.0.0/24\n", "f")
    for release, lines in ((DEBIAN_12, 2), ((1, 2, 1), 1), (DEBIAN_13, 1), (IN_THE_IMAGE, 1)):
        made = render(text, dataclasses.replace(OFF, release=release))
        assert made.data.count(b"\ndevice = vpns\n") == lines


def test_scripts_are_chained_for_every_vhost() -> None:
    """ocserv runs main's scripts for virtual hosts, too, so their chain is main's."""
    text = b"connect-script = a\n[vhost:b]\nconnect-script = /never\nipv4-network = 10.0.0.0/24\n"
    main = ("/etc/ocserv/a", None)
    assert render(parse(text, "f"), OFF).chain == {"default": main, "b": main}


@pytest.mark.parametrize("path", ["/run/a # b/hook", '/run/"', "/run/a\nb"])
def test_a_path_that_ocserv_would_read_otherwise_is_refused(path: str) -> None:
    """Our hooks must be where ocserv looks; a cut path would run nothing."""
    with pytest.raises(OcgateError, match="cannot hold connect-script"):
        render(parse(b"", "f"), dataclasses.replace(OFF, connect_hook=path))

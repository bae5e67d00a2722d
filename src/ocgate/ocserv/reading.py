"""From parsed files to the typed `ServerView`: which value counts, in which scope.

Pure. Which keys a virtual host may set, what it has of main's, and that all resolver keys fill one
list, is taken from what ocserv says and pushes; where releases differ, `releases` is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import zip_longest

from ocgate.errors import Problem
from ocgate.ocserv import fields
from ocgate.ocserv.ini_parser import Document, Entry
from ocgate.ocserv.releases import GLOBAL_KEYS, VHOSTS_INHERIT, Release
from ocgate.ocserv.view import (
    DEFAULT_IPV6_SUBNET_PREFIX,
    KeyPair,
    PasswdFile,
    Placed,
    Scope,
    ScopeKind,
    ServerView,
)

# Keys whose lines add up; for all others the last one wins.
_LIST_KEYS = """
    auth enable-auth server-cert server-key route no-route iroute dns ipv4-dns ipv6-dns nbns
    ipv4-nbns ipv6-nbns split-dns custom-header select-group kkdcp included-http-headers
"""
LIST_KEYS = frozenset(_LIST_KEYS.split())

# pid-file is read once, since `ocserv -p` may have set it before the file is read.
FIRST_WINS = frozenset(["pid-file"])

# Lists that are read when ocserv starts: a virtual host has main's whole one or its own.
_STARTED_WITH = frozenset(["auth", "enable-auth", "server-cert", "server-key", "kkdcp"])

# Lists that a virtual host adds lines to, where it has main's.
ADDED_LISTS = LIST_KEYS - _STARTED_WITH

# A virtual host has main's where it sets none itself, wherever main's lines stand; the reason of
# the second is that ocserv then reads neither from the virtual host (config.c,
# vhost_inherit_static_config).
_WHOLE = {
    **{key: key for key in ("auth", "acct", "server-cert", "server-key", "ca-cert", "dh-params")},
    **{key: key for key in ("pin-file", "srk-pin-file", "key-pin", "srk-pin")},
    "enable-auth": "auth",
}

# Of no effect in a virtual host in any release, besides those that only main can set.
_MAINS = GLOBAL_KEYS | FIRST_WINS

DNS_KEYS = ("dns", "ipv4-dns", "ipv6-dns")


@dataclass(frozen=True)
class Supplement:
    """A per-user or per-group file, or a default one: `kind` is GROUP or USER."""

    kind: ScopeKind
    document: Document


def read_view(
    document: Document, supplements: Iterable[Supplement] = (), *, release: Release
) -> ServerView:
    """The view of ocserv.conf and of the per-user and per-group files that it names.

    release: of the ocserv that reads them. Never raises: values that have no type are in `problems`
    and left out of the view.
    """
    problems: list[Problem] = []
    main = _scope(document, ScopeKind.MAIN, "", document.of(""), problems)
    others = []
    for name in document.vhosts:
        entries = (*inherited(document, name, release), *document.of(name))
        mine = [entry for entry in entries if entry.key not in _MAINS]
        others.append(_scope(document, ScopeKind.VHOST, name, mine, problems))
    for extra in supplements:
        text = extra.document
        # ocserv admits its user all the same, by what stands before the line at which it stops.
        counts = [e for e in text.of("") if text.broken is None or e.line < text.broken.line]
        others.append(_scope(text, extra.kind, text.source, counts, problems))
    return ServerView(
        source=document.source,
        main=main,
        others=tuple(others),
        device=main.text("device") or "",
        tcp_port=fields.integer(main.text("tcp-port") or ""),
        udp_port=fields.integer(main.text("udp-port") or ""),
        listen_host=main.text("listen-host"),
        listen_netns=main.text("listen-netns"),
        mtu=_optional_integer(main, "mtu"),
        ipv6_subnet_prefix=_subnet_prefix(main),
        run_as_user=main.text("run-as-user"),
        run_as_group=main.text("run-as-group"),
        socket_file=main.text("socket-file"),
        occtl_socket_file=main.text("occtl-socket-file"),
        pid_file=main.text("pid-file"),
        chroot_dir=main.text("chroot-dir"),
        use_occtl=main.flag("use-occtl"),
        problems=tuple(dict.fromkeys(problems)),
    )


def inherited(document: Document, vhost: str, release: Release) -> tuple[Entry, ...]:
    """Main's entries that a virtual host has, too, in file order; those of its own come after them.

    What main sets behind the first line of a virtual host is not copied into it, but for what
    ocserv reads only when it starts. Of that the virtual host has all, or none if it has its own.
    """
    if not VHOSTS_INHERIT.holds(release):
        return ()
    own = document.of(vhost)
    begins, keys = document.first_line(vhost), {entry.key for entry in own}
    return tuple(
        entry
        for entry in document.of("")
        if entry.key not in _MAINS
        and (_WHOLE[entry.key] not in keys if entry.key in _WHOLE else entry.line < begins)
    )


@dataclass(frozen=True)
class _Lines:
    """The entries of one scope."""

    rows: tuple[Placed[str], ...]

    def of(self, *keys: str) -> tuple[Placed[str], ...]:
        return tuple(row for row in self.rows if row.key in keys)


def _scope(
    document: Document,
    kind: ScopeKind,
    name: str,
    entries: Iterable[Entry],
    problems: list[Problem],
) -> Scope:
    lines = _Lines(tuple(fields.placed(entry, document.source) for entry in entries))
    scalars = _scalars(lines)
    networks4, networks6 = _networks(lines, scalars, problems)
    return Scope(
        kind=kind,
        name=name,
        source=document.source,
        networks4=networks4,
        networks6=networks6,
        routes=lines.of("route"),
        no_routes=lines.of("no-route"),
        iroutes=lines.of("iroute"),
        dns=_addresses(lines.of(*DNS_KEYS), problems),
        passwd_files=_passwd_files(lines),
        key_pairs=_key_pairs(lines),
        explicit4=_explicit4(lines, problems),
        explicit6=_explicit6(lines, problems),
        settings=scalars,
    )


def _scalars(lines: _Lines) -> dict[str, Placed[str]]:
    found: dict[str, Placed[str]] = {}
    for row in lines.rows:
        if row.key not in LIST_KEYS and not (row.key in FIRST_WINS and row.key in found):
            found[row.key] = row
    return found


def _networks(
    lines: _Lines, scalars: Mapping[str, Placed[str]], problems: list[Problem]
) -> tuple[tuple[Placed[IPv4Network], ...], tuple[Placed[IPv6Network], ...]]:
    prefix = scalars.get("ipv6-subnet-prefix")
    bits = (fields.integer(prefix.value) if prefix else 0) or DEFAULT_IPV6_SUBNET_PREFIX
    four, wrong4 = fields.network4(lines.of("ipv4-network", "ipv4-netmask"))
    six, wrong6 = fields.network6(lines.of("ipv6-network", "ipv6-prefix"), bits)
    problems += wrong4 + wrong6
    return (() if four is None else (four,)), (() if six is None else (six,))


def _addresses(
    rows: Iterable[Placed[str]], problems: list[Problem]
) -> tuple[Placed[IPv4Address | IPv6Address], ...]:
    found = []
    for row in rows:
        typed = fields.address(row)
        if isinstance(typed, Problem):
            problems.append(typed)
        else:
            found.append(typed)
    return tuple(found)


def _explicit4(lines: _Lines, problems: list[Problem]) -> tuple[Placed[IPv4Address], ...]:
    return tuple(
        Placed(found.value, found.place, found.raw)
        for found in _addresses(lines.of("explicit-ipv4")[-1:], problems)
        if isinstance(found.value, IPv4Address)
    )


def _explicit6(lines: _Lines, problems: list[Problem]) -> tuple[Placed[IPv6Address], ...]:
    return tuple(
        Placed(found.value, found.place, found.raw)
        for found in _addresses(lines.of("explicit-ipv6")[-1:], problems)
        if isinstance(found.value, IPv6Address)
    )


def _passwd_files(lines: _Lines) -> tuple[Placed[PasswdFile], ...]:
    found = (fields.plain_auth(row) for row in lines.of("auth", "enable-auth"))
    return tuple(file for file in found if file is not None)


def _key_pairs(lines: _Lines) -> tuple[KeyPair, ...]:
    pairs = zip_longest(lines.of("server-cert"), lines.of("server-key"))
    return tuple(KeyPair(certificate, key) for certificate, key in pairs if certificate)


def _subnet_prefix(main: Scope) -> int:
    """ocserv takes 1 to 128 and refuses more; 0 and garbage mean the default."""
    bits = fields.integer(main.text("ipv6-subnet-prefix") or "")
    return bits if 1 <= bits <= 128 else DEFAULT_IPV6_SUBNET_PREFIX


def _optional_integer(scope: Scope, key: str) -> int | None:
    text = scope.text(key)
    return None if text is None else fields.integer(text)

"""From parsed files to the typed `ServerView`: which value counts, in which scope.

Pure. Which keys a virtual host may set, and that all resolver keys fill one list, is taken from
what ocserv 1.1.6 and 1.3.0 say and push.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import zip_longest

from ocgate.errors import Problem
from ocgate.server import fields
from ocgate.server.inih import Document
from ocgate.server.view import (
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

# ocserv warns "… is ignored on NAME virtual host" for these and uses main's.
_MAIN_ONLY = """
    auth-timeout ban-reset-time chroot-dir connect-script device disconnect-script dtls-psk
    host-update-script isolate-workers max-ban-score max-clients min-reauth-time
    occtl-socket-file pid-file rate-limit-ms route-add-cmd route-del-cmd run-as-group
    run-as-user server-stats-reset-time socket-file tcp-port try-mtu-discovery udp-port
    use-occtl use-utmp listen-proxy-proto ping-leases
"""
MAIN_ONLY = frozenset(_MAIN_ONLY.split())

DNS_KEYS = ("dns", "ipv4-dns", "ipv6-dns")


@dataclass(frozen=True)
class Supplement:
    """A per-user or per-group file, or a default one: `kind` is GROUP or USER."""

    kind: ScopeKind
    document: Document


def read_view(document: Document, supplements: Iterable[Supplement] = ()) -> ServerView:
    """The view of ocserv.conf and of the per-user and per-group files that it names.

    Never raises: values that have no type are in `problems` and left out of the view.
    """
    problems: list[Problem] = []
    main = _scope(document, ScopeKind.MAIN, "", problems)
    others = [_scope(document, ScopeKind.VHOST, name, problems) for name in document.vhosts]
    for extra in supplements:
        if extra.document.broken is None:  # else ocserv ignores the whole file
            others.append(_scope(extra.document, extra.kind, extra.document.source, problems))
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


@dataclass(frozen=True)
class _Lines:
    """The entries of one scope."""

    rows: tuple[Placed[str], ...]

    def of(self, *keys: str) -> tuple[Placed[str], ...]:
        return tuple(row for row in self.rows if row.key in keys)


def _scope(document: Document, kind: ScopeKind, name: str, problems: list[Problem]) -> Scope:
    vhost = name if kind is ScopeKind.VHOST else ""
    entries = (fields.placed(entry, document.source) for entry in document.of(vhost))
    ignored = MAIN_ONLY if kind is ScopeKind.VHOST else frozenset()
    lines = _Lines(tuple(row for row in entries if row.key not in ignored))
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

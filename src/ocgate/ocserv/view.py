"""What ocserv.conf says, as typed values: the only form in which planner and checks see it.

Pure. `reading.read_view` makes a `ServerView` of parsed documents; nothing here opens a file.
A value that the operator wrote is `Placed`: it remembers its file, line and key, so that a check
can name the place. Scopes follow ocserv: `[vhost:…]` sections stand beside main, per-group and
per-user files override either for one session.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Generic, TypeVar

from ocgate.errors import Problem
from ocgate.plan.coverage import Coverage, tunnel_coverage
from ocgate.plan.facts import Family

T_co = TypeVar("T_co", covariant=True)
_T = TypeVar("_T")

# What hooks find in VHOST for sessions of no virtual host (ocserv's DEFAULT_VHOST_NAME).
DEFAULT_VHOST = "default"

# One setting under two names; the line that comes last counts.
ISOLATION = ("isolate-workers", "use-seccomp")

# ocserv's own default where ipv6-subnet-prefix is not set (ocserv(8)).
DEFAULT_IPV6_SUBNET_PREFIX = 128


@dataclass(frozen=True, order=True)
class Place:
    """Where something stands: `source` a path, `line` 1-based, `key` as ocserv spells it."""

    source: str
    line: int
    key: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}"


@dataclass(frozen=True)
class Placed(Generic[T_co]):
    """A typed value and where the operator wrote it; `raw` is the text ocserv reads."""

    value: T_co
    place: Place
    raw: str

    @property
    def source(self) -> str:
        """The file's path."""
        return self.place.source

    @property
    def line(self) -> int:
        """The 1-based line."""
        return self.place.line

    @property
    def key(self) -> str:
        """The key, as ocserv spells it."""
        return self.place.key


class ScopeKind(Enum):
    """Whom the values of a scope reach."""

    MAIN = "main"  # sessions of the default virtual host
    VHOST = "vhost"  # sessions whose TLS server name is the section's
    GROUP = "group"  # one group's file, or default-group-config
    USER = "user"  # one user's file, or default-user-config


@dataclass(frozen=True)
class PasswdFile:
    """`auth = "plain[passwd=…,otp=…]"`: paths as written; `otp` None without a second factor."""

    path: str
    otp: str | None


@dataclass(frozen=True)
class KeyPair:
    """One server-cert with the server-key of the same rank; a PKCS #11 URL or a path."""

    certificate: Placed[str]
    key: Placed[str] | None


@dataclass(frozen=True)
class Scope:
    """What one section or one per-user/per-group file sets; absent values are None or empty.

    name:          '' for main, the section's NAME for a vhost, the file's path for group and user.
    routes:        `route` values as ocserv reads them (`default`, `10.0.0.0/8`, …), in order.
    no_routes:     the same for `no-route`.
    dns:           resolvers that parse as addresses; `dns`, `ipv4-dns` and `ipv6-dns` are one list.
    key_pairs:     server-cert/server-key by rank.
    explicit4/6:   explicit-ipv4 and explicit-ipv6 of a per-user file (outside ocserv's leases).
    settings:      every other scalar by key, as ocserv reads it (the last one wins); what ocserv
                   ignores in a virtual host is left out.
    A virtual host holds what it has of main's, where it has that (`reading.inherited`).
    """

    kind: ScopeKind
    name: str
    source: str
    networks4: tuple[Placed[IPv4Network], ...] = ()
    networks6: tuple[Placed[IPv6Network], ...] = ()
    routes: tuple[Placed[str], ...] = ()
    no_routes: tuple[Placed[str], ...] = ()
    iroutes: tuple[Placed[str], ...] = ()
    dns: tuple[Placed[IPv4Address | IPv6Address], ...] = ()
    passwd_files: tuple[Placed[PasswdFile], ...] = ()
    key_pairs: tuple[KeyPair, ...] = ()
    explicit4: tuple[Placed[IPv4Address], ...] = ()
    explicit6: tuple[Placed[IPv6Address], ...] = ()
    settings: Mapping[str, Placed[str]] = field(default_factory=dict)

    def coverage(self, family: Family) -> Coverage:
        """What of a family's internet clients send into the tunnel by these lines. A per-group or
        per-user file has a part of them only: see `ServerView.session_scopes`."""
        return tunnel_coverage(_values(self.routes), _values(self.no_routes), family=family)

    @property
    def full_tunnel4(self) -> bool:
        """True if clients send (nearly) all IPv4 into the tunnel."""
        return self.coverage(4).full

    @property
    def full_tunnel6(self) -> bool:
        """True if clients that get IPv6 send (nearly) all of it into the tunnel."""
        return self.coverage(6).full

    def text(self, key: str) -> str | None:
        """The scalar `key` as ocserv reads it, None where it is not set."""
        found = self.settings.get(key)
        return None if found is None else found.value

    def flag(self, key: str) -> bool:
        """The boolean `key`; ocserv takes `true` and `yes` in any case, all else is false."""
        return (self.text(key) or "").lower() in ("true", "yes")

    def place(self, key: str) -> Place:
        """Where the scalar `key` stands; the scope's file with line 0 where it is not set."""
        found = self.settings.get(key)
        return Place(self.source, 0, key) if found is None else found.place


@dataclass(frozen=True)
class ServerView:
    """Everything the planner and the checks need of ocserv.conf and the files it names.

    source:             path of ocserv.conf.
    main:               the scope before any `[vhost:…]`.
    others:             vhosts in file order, then group files, then user files.
    device:             prefix of tunnel devices (`vpns` makes vpns0, vpns1, …); '' if missing.
    tcp_port, udp_port: listener's ports, 0 where ocserv opens none.
    listen_host:        host name or address the listener binds, None for all.
    listen_netns:       network namespace of the listener sockets, None for ocserv's own.
    mtu:                outer link MTU pushed, None if unset; the tun is 28 to 66 bytes smaller.
    run_as_user/group:  whom workers and sec-mod become.
    socket_file, occtl_socket_file, pid_file, chroot_dir: as written, None if unset.
    problems:           values that could not be typed; `checks` adds the rest.
    """

    source: str
    main: Scope
    others: tuple[Scope, ...] = ()
    device: str = ""
    tcp_port: int = 0
    udp_port: int = 0
    listen_host: str | None = None
    listen_netns: str | None = None
    mtu: int | None = None
    ipv6_subnet_prefix: int = DEFAULT_IPV6_SUBNET_PREFIX
    run_as_user: str | None = None
    run_as_group: str | None = None
    socket_file: str | None = None
    occtl_socket_file: str | None = None
    pid_file: str | None = None
    chroot_dir: str | None = None
    use_occtl: bool = False
    problems: tuple[Problem, ...] = ()

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """Main first, then all others."""
        return (self.main, *self.others)

    @property
    def vhosts(self) -> tuple[Scope, ...]:
        """The `[vhost:…]` sections, in file order."""
        return tuple(scope for scope in self.others if scope.kind is ScopeKind.VHOST)

    @property
    def networks4(self) -> tuple[Placed[IPv4Network], ...]:
        """Every IPv4 client network of any scope, host bits cleared (`raw` keeps them)."""
        return _once(network for scope in self.scopes for network in scope.networks4)

    @property
    def networks6(self) -> tuple[Placed[IPv6Network], ...]:
        """Every IPv6 client network of any scope, host bits cleared."""
        return _once(network for scope in self.scopes for network in scope.networks6)

    @property
    def gateways4(self) -> tuple[IPv4Address, ...]:
        """The server's own address towards clients, per network: network | 1 (ocserv ip-lease)."""
        return tuple(dict.fromkeys(_gateway4(found.value) for found in self.networks4))

    @property
    def gateways6(self) -> tuple[IPv6Address, ...]:
        """The same for IPv6: network | 1."""
        return tuple(dict.fromkeys(_gateway6(found.value) for found in self.networks6))

    @property
    def dns(self) -> tuple[Placed[IPv4Address | IPv6Address], ...]:
        """Every resolver that any scope pushes, both families."""
        return _once(resolver for scope in self.scopes for resolver in scope.dns)

    @property
    def routes(self) -> tuple[Placed[str], ...]:
        """`route` of main, in order."""
        return self.main.routes

    @property
    def session_scopes(self) -> tuple[Scope, ...]:
        """What sessions may be given: each section, and each per-group and per-user file with
        lines about routes, filled up as ocserv does it."""
        files = (scope for scope in self.others if scope.kind in (ScopeKind.GROUP, ScopeKind.USER))
        with_lines = (file for file in files if file.routes or file.no_routes)
        return (self.main, *self.vhosts, *(self.filled(file) for file in with_lines))

    def filled(self, file: Scope) -> Scope:
        """A per-group or per-user file with main's lists where it has none (tried on 1.1.6): a
        `route` of its own replaces all of main's, of both families, unless append-routes adds
        these; `no-route` and `dns` are lists of their own."""
        main = self.main
        appended = main.routes if main.flag("append-routes") or not file.routes else ()
        return replace(
            file,
            routes=(*file.routes, *appended),
            no_routes=file.no_routes or main.no_routes,
            dns=file.dns or main.dns,
            settings={**main.settings, **file.settings},
        )

    @property
    def full_tunnel(self) -> bool:
        """True if any session's clients send (nearly) all IPv4 into the tunnel."""
        return any(scope.full_tunnel4 for scope in self.session_scopes)

    @property
    def tunnel_all_dns(self) -> bool:
        """True if main tells clients to ask only the pushed resolvers."""
        return self.main.flag("tunnel-all-dns")

    @property
    def isolates_workers(self) -> Placed[str] | None:
        """What main says of the workers' sandbox, by either name; None where it says nothing."""
        named = [self.main.settings.get(key) for key in ISOLATION]
        return max((found for found in named if found), key=lambda found: found.line, default=None)

    @property
    def camouflage_secret(self) -> str | None:
        """What clients of the main host must put into their URL; None where they need not."""
        return self.main.text("camouflage_secret") if self.main.flag("camouflage") else None

    @property
    def passwd_files(self) -> tuple[Placed[PasswdFile], ...]:
        """Password files of main and vhosts."""
        return _once(passwd for scope in self.scopes for passwd in scope.passwd_files)

    @property
    def key_pairs(self) -> tuple[KeyPair, ...]:
        """Server certificates with their keys, of main and vhosts."""
        return _once(pair for scope in self.scopes for pair in scope.key_pairs)

    @property
    def scripts(self) -> Mapping[str, tuple[str | None, str | None]]:
        """The operator's (connect-script, disconnect-script) by the hook's VHOST value.

        Main's for everyone: ocserv ignores both keys in a virtual host, and runs main's there.
        """
        main = (
            self.main.text("connect-script") or None,
            self.main.text("disconnect-script") or None,
        )
        return dict.fromkeys((DEFAULT_VHOST, *(scope.name for scope in self.vhosts)), main)

    def place(self, key: str) -> Place:
        """Where main sets the scalar `key`; line 0 where it does not."""
        return self.main.place(key)


def _once(found: Iterable[_T]) -> tuple[_T, ...]:
    """A virtual host may have lines of main's."""
    return tuple(dict.fromkeys(found))


def _values(lines: tuple[Placed[str], ...]) -> tuple[str, ...]:
    return tuple(line.value for line in lines)


def _gateway4(network: IPv4Network) -> IPv4Address:
    return IPv4Address(int(network.network_address) | 1)


def _gateway6(network: IPv6Network) -> IPv6Address:
    return IPv6Address(int(network.network_address) | 1)

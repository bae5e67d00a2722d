"""What the release of the ocserv at hand means for one configuration, the gravest first. Pure.

Of the table (`releases`) only what this configuration meets: a defect that its lines open, a line
that this release reads otherwise than another one, and what is known but held. What concerns
nobody's configuration stands in docs/ocserv-releases.md alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from ocgate.ocserv import releases
from ocgate.ocserv.ini_parser import Document
from ocgate.ocserv.reading import ADDED_LISTS, inherited, read_view
from ocgate.ocserv.releases import Release, shown, update_to
from ocgate.ocserv.view import Place, Scope, ScopeKind, ServerView

_SHOWN = 3  # places that one message names; the rest it counts

_PASSWORDS = ("pam", "plain", "radius")
_NAMES_OF_OTHERS = ("certificate", "gssapi", "oidc", "pam", "radius")


class Gravity(IntEnum):
    """What a meaning asks of the operator, the gravest first."""

    OPEN = 0
    """Somebody can do what he must not, and nothing here holds him."""
    DIFFERS = 1
    """The file does something else than it says."""
    HELD = 2
    """To know: it is limited, or may well be meant."""

    @property
    def to_do(self) -> bool:
        """Whether it is a warning, not a notice."""
        return self is not Gravity.HELD


@dataclass(frozen=True)
class Meaning:
    """code: the row's name. text: what happens and why. remedy: what to do, imperative."""

    gravity: Gravity
    code: str
    text: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.code}: {self.text}. {self.remedy}"


@dataclass(frozen=True)
class _Asked:
    document: Document
    view: ServerView
    release: Release


def report(document: Document, view: ServerView, release: Release) -> tuple[Meaning, ...]:
    """All of it, in the order of gravity.

    view: of this document and its per-user and per-group files, as this release reads them.
    """
    asked = _Asked(document, view, release)
    found = [meaning for rule in _RULES for meaning in rule(asked)]
    return tuple(sorted(dict.fromkeys(found), key=lambda meaning: meaning.gravity))


def _workers(asked: _Asked) -> Iterator[Meaning]:
    """What a stranger can do to a worker, and what holds it there."""
    says = asked.view.isolates_workers
    isolated = says is None or asked.view.main.flag(says.key)
    crash = releases.COOKIE_OVERFLOW
    if not crash.holds(asked.release):
        if says is not None and not isolated:
            yield Meaning(
                Gravity.OPEN,
                "workers-not-isolated",
                f"{says.place}: {says.key} = {says.raw}: a worker that a client takes over has no "
                "sandbox",
                "Remove the line: ocgate writes `isolate-workers = true`",
            )
        return
    text = "a stranger can crash a worker before logging in, by one request with a long cookie"
    if releases.MEMORY_BY_A_STRANGER.holds(asked.release):
        text += ", or make it take memory without end"
    if isolated or says is None:
        held = (
            "isolate-workers is on, so it stays in the worker's sandbox; sessions of others go on"
        )
        yield Meaning(Gravity.HELD, crash.name, f"{text}; {held}", _newer())
        return
    user = asked.view.run_as_user or "the account of the workers"
    yield Meaning(
        Gravity.OPEN,
        crash.name,
        f"{text}; {says.key} = {says.raw} ({says.place}), so what is made of it runs as {user} "
        "without a sandbox",
        f"Remove that line: ocgate writes `isolate-workers = true`. {_newer()}",
    )


def _newer() -> str:
    return update_to(releases.COOKIE_OVERFLOW.until or releases.IN_THE_IMAGE)


def _certificates(asked: _Asked) -> Iterator[Meaning]:
    bypass, proxy = releases.CERTIFICATE_BYPASS, releases.PROXY_CERTIFICATE
    for vhost in ("", *asked.document.vhosts):
        methods = [line.value.lower() for line in asked.document.of(vhost, "auth")]
        certificate = any(method.startswith("certificate") for method in methods)
        password = any(method.startswith(_PASSWORDS) for method in methods)
        for line in asked.document.of(vhost, "cert-user-oid")[-1:]:
            named = line.value.lower() == "san(rfc822name)"
            if bypass.holds(asked.release) and certificate and password and named:
                place = Place(asked.document.source, line.line, line.key)
                yield Meaning(
                    Gravity.OPEN,
                    bypass.name,
                    f"{place}: {bypass.what}: {bypass.effect}",
                    bypass.remedy,
                )
        if proxy.holds(asked.release) and certificate and asked.view.main.flag(_PROXIED):
            place = asked.view.place(_PROXIED)
            yield Meaning(
                Gravity.DIFFERS, proxy.name, f"{place}: {proxy.what}: {proxy.effect}", proxy.remedy
            )


_PROXIED = "listen-proxy-proto"


def _timeouts(asked: _Asked) -> Iterator[Meaning]:
    row = releases.SESSION_TIMEOUT_BYPASS
    limited = [
        scope.place("session-timeout")
        for scope in asked.view.scopes
        if (scope.text("session-timeout") or "0").isdigit() and _limits(scope)
    ]
    if limited and row.holds(asked.release):
        yield Meaning(
            Gravity.OPEN, row.name, f"{_places(limited)}: {row.what}: {row.effect}", row.remedy
        )


def _limits(scope: Scope) -> bool:
    return int(scope.text("session-timeout") or "0") > 0


def _names_as_paths(asked: _Asked) -> Iterator[Meaning]:
    row, document = releases.USER_NAME_PATHS, asked.document
    methods = [e for e in document.entries if e.key in ("auth", "enable-auth")]
    of_others = any(e.value.lower().startswith(_NAMES_OF_OTHERS) for e in methods)
    directories = [e for e in document.entries if e.key in ("config-per-user", "config-per-group")]
    if row.holds(asked.release) and of_others and directories:
        places = [Place(document.source, e.line, e.key) for e in directories]
        text = f"{_places(places)}: {row.what}, by whoever chooses the names"
        yield Meaning(Gravity.OPEN, row.name, text, row.remedy)


def _dns_of_users(asked: _Asked) -> Iterator[Meaning]:
    """Files whose word about resolvers is not heeded, and is another one than main's."""
    row, main = releases.TUNNEL_ALL_DNS_OF_USERS, asked.view.main.flag(_ALL_DNS)
    ignored = ("tunnel_all_dns",) if row.holds(asked.release) else (_ALL_DNS, "tunnel_all_dns")
    for scope in asked.view.scopes:
        if scope.kind not in (ScopeKind.GROUP, ScopeKind.USER):
            continue
        for key in ignored:
            if key in scope.settings and scope.flag(key) != main:
                says = "true" if main else "false"
                yield Meaning(
                    Gravity.DIFFERS,
                    row.name,
                    f"{scope.place(key)}: ocserv passes over {key} in such a file; its clients get "
                    f"ocserv.conf's tunnel-all-dns, {says}",
                    "Write tunnel-all-dns there instead"
                    if row.holds(asked.release)
                    else "Write `tunnel-all-dns = true` into ocserv.conf, or use ocserv 1.5.0 or "
                    "newer",
                )


_ALL_DNS = "tunnel-all-dns"


def _unknown_keys(asked: _Asked) -> Iterator[Meaning]:
    if asked.view.camouflage_secret is not None:
        yield from _no_camouflage(asked)
    for entry in asked.document.entries:
        row = releases.KEYS.get(entry.key)
        if entry.vhost is None or row is None or row.known(asked.release):
            continue
        if entry.key in releases.CAMOUFLAGE_KEYS:
            continue
        known = (
            f"known from {shown(row.since)} on"
            if row.since and asked.release < row.since
            else f"gone since {shown(row.until or asked.release)}"
        )
        yield Meaning(
            Gravity.DIFFERS,
            "key-unknown",
            f"{asked.document.source}:{entry.line}: this ocserv passes over {entry.key} ({known})",
            f"Write {row.instead} instead" if row.instead else "Remove the line",
        )


def _no_camouflage(asked: _Asked) -> Iterator[Meaning]:
    if releases.CAMOUFLAGE.holds(asked.release):
        return
    yield Meaning(
        Gravity.OPEN,
        releases.CAMOUFLAGE.name,
        f"{asked.view.place('camouflage')}: this ocserv is too old for camouflage: everybody sees "
        "that this is a VPN server",
        releases.CAMOUFLAGE.remedy,
    )


def _vhosts(asked: _Asked) -> Iterator[Meaning]:
    """Virtual hosts that inherit what their own lines do not show."""
    row = releases.VHOSTS_INHERIT
    if not row.holds(asked.release) or not asked.view.vhosts:
        return
    before = read_view(asked.document, release=releases.DEBIAN_13)
    alone = {scope.name: scope for scope in before.vhosts}
    for scope in asked.view.vhosts:
        has = inherited(asked.document, scope.name, asked.release)
        own = [entry for entry in asked.document.of(scope.name) if entry.key in ADDED_LISTS]
        was, now = _width(alone[scope.name]), _width(scope)
        added = [
            entry
            for entry in has
            if any(line.key == entry.key for line in own)
            and not any((line.key, line.value) == (entry.key, entry.value) for line in own)
            and not (entry.key == "route" and was == now == _FULL)
        ]
        if was == now and not added:
            continue
        taken = [entry for entry in has if was != now and entry.key in ("route", "no-route")]
        named = dict.fromkeys([*added, *taken])
        places = [Place(asked.document.source, e.line, e.key) for e in named]
        lines = ", ".join(dict.fromkeys(place.key for place in places))
        changed = f"so it is {now}; up to 1.4.2 it was {was}" if was != now else f"it stays {now}"
        yield Meaning(
            Gravity.HELD if was == now else Gravity.DIFFERS,
            row.name,
            f"[vhost:{scope.name}] of {asked.document.source} has main's {lines} lines "
            f"({_places(places)}), too: {changed}",
            "If it shall not have them, put main's behind all virtual hosts, after a line `[]`; "
            "`route = default` in it makes it a full tunnel",
        )


_FULL = "a full tunnel"


def _width(scope: Scope) -> str:
    return _FULL if scope.full_tunnel4 else "a split tunnel"


def _cookies(asked: _Asked) -> Iterator[Meaning]:
    row = releases.TERMINATE
    kept = [s.place(_PERSISTENT) for s in asked.view.scopes if s.flag(_PERSISTENT)]
    if kept and not row.holds(asked.release):
        text = f"{_places(kept)}: a user who is removed may come back by the cookie, without a "
        text += "password, within cookie-timeout"
        yield Meaning(Gravity.HELD, row.name, text, row.remedy)


_PERSISTENT = "persistent-cookies"


def _places(found: Sequence[Place]) -> str:
    named = list(dict.fromkeys(str(place) for place in found))
    more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
    return ", ".join(named[:_SHOWN]) + more


_RULES: tuple[Callable[[_Asked], Iterator[Meaning]], ...] = (
    *(_workers, _certificates, _timeouts, _names_as_paths),
    *(_unknown_keys, _dns_of_users, _vhosts, _cookies),
)

"""The effective ocserv.conf: the operator's lines in their order, and ours with a reason each.

Pure. What we replace is commented out where it stood; what we add stands at the end of its
section, where it can't be overridden (the last scalar wins) and can't swallow an indented line of
the operator's. Hooks go into main only: ocserv runs main's for every session, with VHOST naming the
host.

Where virtual hosts inherit (`releases.VHOSTS_INHERIT`), ocserv overruns each list of main's to
which one of them adds (`VHOST_LISTS_OVERRUN`), and would also give them the routes that we write
for main. So main's lists move behind all virtual hosts, after a `[]`, by which ocserv reads on in
main; and what a virtual host has of them is written out at its beginning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from itertools import pairwise
from pathlib import PurePosixPath

from ocgate.errors import OcgateError
from ocgate.ocserv.ini_parser import MAX_LINE_BYTES, Document, Entry, FlawKind, parse, vhost_of
from ocgate.ocserv.keys import KEYS, NamedFile, named_files
from ocgate.ocserv.reading import ADDED_LISTS, DNS_KEYS, inherited, read_view
from ocgate.ocserv.releases import VHOSTS_INHERIT, VHOSTS_NEED_DEVICE, Release
from ocgate.ocserv.view import DEFAULT_IPV6_SUBNET_PREFIX, Scope, ServerView

SCRIPTS = ("connect-script", "disconnect-script")
IPV6_SCALARS = ("ipv6-network", "ipv6-prefix", "ipv6-subnet-prefix")
ROUTES = ("route", "no-route")

# What of a replaced line is kept in its comment: a whole line must stay below ocserv's limit.
_KEPT_BYTES = MAX_LINE_BYTES - 400


@dataclass(frozen=True)
class EffectiveChoices:
    """What ocgate decides in place of the operator, or where the operator is silent.

    connect_hook, disconnect_hook: programs of ours; the operator's scripts are chained by them.
    socket_file, pid_file, occtl_socket_file: used unless ocserv.conf names its own.
    directory: where ocserv is started; the operator's relative script paths start there.
    ipv4_network: written where main has none (VPN_SUBNET, else 10.10.10.0/24).
    release: of the ocserv that will read the file.
    ipv6_network: advertised to clients of every section that names none; None: IPv6 is not
                  advertised, and what ocserv.conf says of it is taken out.
    ipv6_resolvers: False where clients' IPv6 is rejected: a resolver that can't be asked is not
                  given out, since not every system takes a reject for an answer to a query.
    keys_directory: holds the copies of certificates and keys; None: the operator's are named.
    """

    connect_hook: str
    disconnect_hook: str
    socket_file: str
    pid_file: str
    occtl_socket_file: str
    directory: str
    ipv4_network: IPv4Network
    release: Release
    ipv6_network: IPv6Network | None = None
    ipv6_subnet_prefix: int = DEFAULT_IPV6_SUBNET_PREFIX
    ipv6_resolvers: bool = True
    keys_directory: str | None = None


@dataclass(frozen=True)
class Effective:
    """The rendered file.

    data:    bytes to write.
    origins: for each line of `data`, the operator's 1-based line, or 0 where the line is ours.
    chain:   VHOST value -> the operator's (connect-script, disconnect-script) as absolute paths.
    """

    source: str
    data: bytes
    origins: tuple[int, ...]
    chain: Mapping[str, tuple[str | None, str | None]]

    def origin(self, line: int) -> int:
        """The operator's line for a line of the effective file, 0 for one of ours."""
        return self.origins[line - 1] if 0 < line <= len(self.origins) else 0


def render(document: Document, choices: EffectiveChoices) -> Effective:
    """The effective file for a document without fatal flaws (`checks` finds those).

    Raises `OcgateError` if a path of ours can't be written in ocserv.conf's syntax.
    """
    view = read_view(document, release=choices.release)
    page = _Writer(document, view, choices)
    page.out.ours(
        f"# Made by ocgate from {document.source} at every start. Edit that file, not this one."
    )
    page.theirs()
    return Effective(document.source, page.out.data, tuple(page.out.origins), _chain(view, choices))


class _Writer:
    """One pass over the operator's lines, with ours where sections begin and end."""

    def __init__(self, document: Document, view: ServerView, choices: EffectiveChoices) -> None:
        self.out = _Page()
        self._document, self._view, self._choices = document, view, choices
        self._keys = tuple(named_files(document)) if choices.keys_directory else ()
        self._behind = bool(view.vhosts) and VHOSTS_INHERIT.holds(choices.release)
        self._begun: set[str] = {""}
        self._finished: set[str] = set()

    def theirs(self) -> None:
        """All lines, each kept or with its reason in front."""
        entries = self._document.entries
        why = {entry.line: reason for entry in entries if (reason := self._replaced(entry))}
        why |= dict.fromkeys(_idle_continuations(self._document), "sets nothing")
        of_line = {entry.line: entry for entry in entries}
        opened = {found.line: found.name for found in self._document.sections}
        last = len(self._document.lines) + 1
        ends = dict(pairwise((*opened, last)))
        section = ""
        for number, line in enumerate(self._document.lines, start=1):
            if number in opened:
                self._finish(section, number)
                section = opened[number]
            self.out.theirs(number, _kept(line, why.get(number), of_line.get(number)))
            if number in opened:
                self._begin(section, ends[number])
        self._finish(section, last)
        if self._behind:
            self._lists_of_main()

    def _replaced(self, entry: Entry) -> str | None:
        why = _replaced(entry, self._choices)
        if why is None and self._behind and entry.vhost == "" and entry.key in ADDED_LISTS:
            return "behind the virtual hosts"
        return why

    def _begin(self, section: str, end: int) -> None:
        """What a virtual host has of main's lists, where ocserv reads its first line. end: the line
        behind the section."""
        vhost = vhost_of(section)
        if not self._behind or vhost is None or vhost in self._begun or not self._is(vhost, end):
            return
        self._begun.add(vhost)
        has = inherited(self._document, vhost, self._choices.release)
        self._verbatim(has, "main's, which a virtual host has, too")

    def _verbatim(self, entries: Iterable[Entry], why: str) -> None:
        lists = [entry for entry in entries if entry.key in ADDED_LISTS]
        kept = [entry for entry in lists if _replaced(entry, self._choices) is None]
        if kept:
            self.out.ours(f"# ocgate: {why}")
        for entry in kept:
            line = self._document.lines[entry.line - 1]
            self.out.theirs(entry.line, _kept(line, None, entry))

    def _lists_of_main(self) -> None:
        self.out.ours("# ocgate: main again: virtual hosts shall not add to its lists")
        self.out.ours("[]")
        self._verbatim(self._document.of(""), "the operator's")
        routes = _scope_lines(self._view.main, self._view, self._choices)
        _write(self.out, (line for line in routes if line[1] in ROUTES))

    def _scope(self, vhost: str | None) -> Scope | None:
        return next((found for found in self._view.vhosts if found.name == vhost), None)

    def _is(self, vhost: str, end: int) -> bool:
        """Whether ocserv knows the virtual host by what stands before this line. One that it knew
        earlier, by a line of ours, would have less of main's."""
        return self._scope(vhost) is not None and self._document.first_line(vhost) < end

    def _finish(self, section: str, end: int) -> None:
        """Our lines at the first end of main, and of each virtual host that has begun."""
        vhost = vhost_of(section)
        if vhost is None or vhost in self._finished or (vhost and not self._is(vhost, end)):
            return
        self._finished.add(vhost)
        view, choices = self._view, self._choices
        scope = self._scope(vhost)
        if not section:
            _write(self.out, _main_lines(view, choices))
            lines = _scope_lines(view.main, view, choices)
            _write(self.out, (line for line in lines if not self._behind or line[1] not in ROUTES))
        elif scope is not None:
            _write(self.out, _scope_lines(scope, view, choices))
        _write(
            self.out, (_key_line(found, choices) for found in self._keys if found.vhost == vhost)
        )


def _chain(
    view: ServerView, choices: EffectiveChoices
) -> Mapping[str, tuple[str | None, str | None]]:
    def absolute(script: str | None) -> str | None:
        return None if script is None else str(PurePosixPath(choices.directory) / script)

    return {
        vhost: (absolute(connect), absolute(disconnect))
        for vhost, (connect, disconnect) in view.scripts.items()
    }


class _Page:
    """Lines with the operator's line numbers beside them."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.origins: list[int] = []

    def ours(self, line: str) -> None:
        self._put(line.encode("utf-8", "surrogateescape"), 0)

    def theirs(self, number: int, line: bytes) -> None:
        self._put(line, number)

    def _put(self, line: bytes, origin: int) -> None:
        self.lines.append(line)
        self.origins.append(origin)

    @property
    def data(self) -> bytes:
        return b"\n".join(self.lines) + b"\n"


def _idle_continuations(document: Document) -> set[int]:
    """Lines that continue a key with nothing. Their key may be gone by now, and then they would be
    lines without `=`."""
    kinds = (FlawKind.CONTINUATION, FlawKind.IGNORED_VALUE)
    continued, ignored = ({f.line for f in document.flaws if f.kind is kind} for kind in kinds)
    return continued & ignored


def _kept(line: bytes, why: str | None, entry: Entry | None) -> bytes:
    """entry: what it says, None for a line that sets nothing."""
    if why is not None:
        return f"# ocgate, {why}: ".encode() + line.strip()[:_KEPT_BYTES]
    if entry is None and line.lstrip()[:1] in (b"", b"#", b";"):
        return line
    if entry is not None and entry.continued:  # its key may be gone by now
        return entry.key.encode("utf-8", "surrogateescape") + b" = " + line.strip()
    return line.lstrip()  # an indented one behind a line of ours would go on with that


def _replaced(entry: Entry, choices: EffectiveChoices) -> str | None:
    """Why an operator's line does not reach ocserv as it is, or None."""
    if entry.vhost is None:
        return None
    if entry.key in SCRIPTS:
        return "chained by our hook" if entry.vhost == "" else "ignored by ocserv in a vhost"
    if choices.keys_directory and entry.key in KEYS:
        return "a copy is used"
    if entry.key == "use-occtl" and entry.vhost == "":
        return "needed to re-adopt sessions"
    if choices.ipv6_network is None and _is_ipv6(entry):
        return "IPv6 is not advertised"
    if not choices.ipv6_resolvers and entry.key in DNS_KEYS and ":" in entry.value:
        return "clients' IPv6 is rejected"
    return None


def _is_ipv6(entry: Entry) -> bool:
    if entry.key in IPV6_SCALARS:
        return True
    return entry.key in (*ROUTES, *DNS_KEYS) and ":" in entry.value


def _key_line(found: NamedFile, choices: EffectiveChoices) -> tuple[str, str, str]:
    """All of a section's are written anew where one is, because pairs are made by their order."""
    copy = f"{choices.keys_directory}/{found.copy_name}"
    why = "a copy, taken when certificate and key match" if found.copied else "as it was"
    return why, found.key, copy if found.copied else found.value


def _write(out: _Page, lines: Iterable[tuple[str, str, str]]) -> None:
    for why, key, value in lines:
        written = f"{key} = {value}"
        entries = parse(written.encode("utf-8", "surrogateescape"), "").entries
        if [(entry.key, entry.value) for entry in entries] != [(key, value)]:
            raise OcgateError(
                f"ocserv.conf cannot hold {key} = {value!r}",
                hint="Choose a directory without line ends, quotes and ` #` in its name",
            )
        out.ours(f"# ocgate: {why}")
        out.ours(written)


def _main_lines(view: ServerView, choices: EffectiveChoices) -> Iterable[tuple[str, str, str]]:
    yield "admits a session only once its kernel state stands", SCRIPTS[0], choices.connect_hook
    yield "takes a session's kernel state down", SCRIPTS[1], choices.disconnect_hook
    yield "sessions are re-adopted through it", "use-occtl", "true"
    if view.isolates_workers is None:
        yield "a worker that a client takes over stays in a sandbox", "isolate-workers", "true"
    ours = (
        ("socket-file", choices.socket_file),
        ("occtl-socket-file", choices.occtl_socket_file),
        ("pid-file", choices.pid_file),
    )
    for key, value in ours:
        if not view.main.text(key):
            yield f"{view.source} names none", key, value


def _scope_lines(
    scope: Scope, view: ServerView, choices: EffectiveChoices
) -> Iterable[tuple[str, str, str]]:
    if scope is not view.main and view.device and VHOSTS_NEED_DEVICE.holds(choices.release):
        # It has main's tunnels in any case. Without the line a client is admitted, and its worker
        # then says "no networks are configured; rejecting client".
        yield "ocserv turns away clients of a virtual host without it", "device", view.device
    if not _names(scope, "ipv4-network") and _needs_ipv4(scope, view, choices):
        network = next(iter(view.networks4), None) if scope is not view.main else None
        value = choices.ipv4_network if network is None else network.value
        yield f"{view.source} names none", "ipv4-network", str(value)
    if choices.ipv6_network is None:
        return
    if _names(scope, "ipv6-network"):
        yield from _sunk(scope, choices)
        return
    yield "IPv6 is advertised", "ipv6-network", str(choices.ipv6_network)
    yield "a session's own part of it", "ipv6-subnet-prefix", str(choices.ipv6_subnet_prefix)
    yield from _ipv6_routes(scope, choices.ipv6_network)


def _names(scope: Scope, key: str) -> bool:
    return scope.text(key) is not None


def _needs_ipv4(scope: Scope, view: ServerView, choices: EffectiveChoices) -> bool:
    """Main always; a virtual host if IPv6 was all it had and is taken out.

    A virtual host without any network is the operator's mistake: ocserv names it.
    """
    if scope is view.main:
        return True
    return choices.ipv6_network is None and _names(scope, "ipv6-network")


def _sunk(scope: Scope, choices: EffectiveChoices) -> Iterable[tuple[str, str, str]]:
    """Where IPv6 is rejected, a full tunnel's IPv6 routes of the operator's, which are only some,
    would leave the rest to the client's own IPv6."""
    own = [route.value for route in scope.routes if ":" in route.value]
    if own and "::/0" not in own and scope.full_tunnel4 and not choices.ipv6_resolvers:
        yield "clients' own IPv6 shall not leave outside of the tunnel", "route", "::/0"


def _ipv6_routes(scope: Scope, network: IPv6Network) -> Iterable[tuple[str, str, str]]:
    """A full tunnel stays full in both families, a split one does not start to take all IPv6.

    ocserv drops every route beside `default`; without it, and with nothing pushed for a family,
    clients take all of that family into the tunnel.
    """
    routes = [route.value for route in scope.routes]
    if scope.full_tunnel4:
        if not routes:
            yield "what no route means, said for both families", "route", "default"
        if "::/0" not in routes:
            yield "a full tunnel carries IPv6 too", "route", "::/0"
    elif not any(":" in route for route in routes):
        yield "a split tunnel stays split", "route", str(network)

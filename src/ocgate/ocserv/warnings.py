"""What works but is unlikely to be meant: `ocgate check` shows these, nothing stops for them.

Pure. Facts about the machine come as arguments; a warning is a value with a code that scripts can
match, a text that names the place, and a remedy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from ocgate.ocserv.ini_parser import Document, FlawKind
from ocgate.ocserv.reading import FIRST_WINS, LIST_KEYS
from ocgate.ocserv.releases import GLOBAL_KEYS, VHOSTS_REFUSE_GLOBALS, Release
from ocgate.ocserv.view import Placed, Scope, ScopeKind, ServerView
from ocgate.plan.facts import Family

# RFC 3986, 2.3: what no client encodes.
_IN_A_URL = re.compile(r"[A-Za-z0-9._~-]+")

# Networks that a warning names; the rest it counts.
_SHOWN = 3
_SMALL = 0.001  # of all public addresses: below it a share would be shown as 0.0%

# Routes of one session, beyond which openconnect can't start its script: each takes four variables
# of the environment, which Linux limits to a quarter of the stack (execve(2)); 2,500 worked, 3,000
# did not. And beyond which no ocserv here, 1.1.6 to 1.5.0, admits anybody ("failed cookie
# authentication attempt"): 5,200 of some 13 characters worked, 5,300 did not.
SCRIPT_ROUTES, ADMITTED_ROUTES = 2_500, 5_000

IPAddress = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


@dataclass(frozen=True, order=True)
class ServerWarning:
    """code: stable, kebab-case. text: what happens and where. remedy: what to do, imperative."""

    code: str
    text: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.code}: {self.text}. {self.remedy}"


@dataclass(frozen=True)
class Surroundings:
    """The machine as seen from ocserv's network namespace, tunnels of clients left out.

    addresses: the host's own. connected: on-link networks with their device (WAN, docker, LAN).
    """

    addresses: frozenset[IPAddress] = frozenset()
    connected: tuple[tuple[Network, str], ...] = ()


def warnings(
    view: ServerView,
    document: Document,
    around: Surroundings,
    *,
    client_networks: Sequence[Network],
    ipv6_advertised: bool,
    release: Release,
) -> tuple[ServerWarning, ...]:
    """All warnings, in a fixed order, but those about the ocserv at hand (`release_report`).

    client_networks: the agreed ones (`sync.Synced.subnets4` and, if advertised, `subnets6`).
    ipv6_advertised: clients get an IPv6 address (real egress or IPV6_SINK).
    release: of the ocserv that reads the configuration.
    """
    found = [
        *_full_tunnel_dns(view),
        *_resolvers(view, around, client_networks),
        *_collisions(around, client_networks),
        *_ipv6_outside(view, ipv6_advertised=ipv6_advertised),
        *_left_out(view, around, ipv6_advertised=ipv6_advertised),
        *_many_routes(view),
        *_camouflage(view),
        *_ignored_in_vhosts(document, release),
        *_overridden(document),
        *_ignored_values(document),
    ]
    return tuple(dict.fromkeys(found))


def _titled(scope: Scope) -> str:
    return f"[vhost:{scope.name}] of {scope.source}" if _is_vhost(scope) else scope.source


def _is_vhost(scope: Scope) -> bool:
    return scope.kind is ScopeKind.VHOST


def _is_file(scope: Scope) -> bool:
    return scope.kind in (ScopeKind.GROUP, ScopeKind.USER)


def _full_tunnel_dns(view: ServerView) -> Iterator[ServerWarning]:
    for scope in view.session_scopes:
        if not scope.full_tunnel4 or (_is_file(scope) and view.main.full_tunnel4):
            continue
        if not scope.dns:
            yield ServerWarning(
                "full-tunnel-without-dns",
                f"{_titled(scope)} is a full tunnel and pushes no resolver: clients go on asking "
                "the one of their own network, outside of the tunnel",
                "Add a line `dns = ADDRESS` and `tunnel-all-dns = true`",
            )
        elif not scope.flag("tunnel-all-dns"):
            yield ServerWarning(
                "full-tunnel-without-tunnel-all-dns",
                f"{_titled(scope)} is a full tunnel without tunnel-all-dns: clients may ask "
                "resolvers outside of the tunnel",
                "Add a line `tunnel-all-dns = true`",
            )


def _many_routes(view: ServerView) -> Iterator[ServerWarning]:
    for scope in view.session_scopes:
        given = len(scope.routes) + len(scope.no_routes)
        if given > SCRIPT_ROUTES:
            what = (
                "ocserv admits no session with so many"
                if given > ADMITTED_ROUTES
                else "openconnect on Linux can't start its script with so many, and sets up nothing"
            )
            yield ServerWarning(
                "many-routes",
                f"{_titled(scope)} gives a session {given:,} routes: {what}",
                f"Write at most {SCRIPT_ROUTES:,}: larger networks, or `route = default` and "
                "a few `no-route` lines",
            )


def _resolvers(
    view: ServerView, around: Surroundings, client_networks: Sequence[Network]
) -> Iterator[ServerWarning]:
    for resolver in view.dns:
        who = _answered_by(resolver.value, around, client_networks)
        if who is not None:
            yield ServerWarning(
                "resolver-outside-tunnel",
                f"{resolver.place}: the resolver {resolver.value} is {who}: what clients ask "
                "leaves from there, not by the tunnel's exit",
                "Push a public resolver that is reached through the exit",
            )


def _answered_by(
    resolver: IPAddress, around: Surroundings, client_networks: Sequence[Network]
) -> str | None:
    if resolver.is_loopback or resolver in around.addresses:
        return "this host"
    if any(resolver in network for network in client_networks):
        return "in the clients' own subnet, so this host"
    device = next((device for network, device in around.connected if resolver in network), None)
    return None if device is None else f"in the local network of {device}"


def _collisions(
    around: Surroundings, client_networks: Sequence[Network]
) -> Iterator[ServerWarning]:
    for mine in client_networks:
        for other, device in around.connected:
            if mine.version == other.version and mine.overlaps(other):
                yield ServerWarning(
                    "client-subnet-collides",
                    f"the client subnet {mine} overlaps {other}, the network of {device}: "
                    "answers go to one of the two",
                    "Give clients another subnet (ipv4-network or ipv6-network), or that network",
                )


def _ipv6_outside(view: ServerView, *, ipv6_advertised: bool) -> Iterator[ServerWarning]:
    for scope in view.session_scopes:
        if _is_file(scope) and not ipv6_advertised and view.main.full_tunnel4:
            continue  # main's warning says it
        if not scope.full_tunnel4:
            if ipv6_advertised and _takes_ipv6_unasked(scope):
                yield _ipv6_taken(scope)
            continue
        if ipv6_advertised and scope.full_tunnel6:
            continue
        narrowed = "sends only some IPv6 into the tunnel" if ipv6_advertised else "gives no IPv6"
        yield ServerWarning(
            "ipv6-outside-tunnel",
            f"{_titled(scope)} is a full tunnel for IPv4 but {narrowed}: a client with IPv6 of "
            "its own uses that outside of the tunnel",
            "Add `route = ::/0`" if ipv6_advertised else "Set IPV6_NAT=auto, and IPV6_SINK=1",
        )
    if not ipv6_advertised:
        yield from _ipv6_of_users(view)


def _takes_ipv6_unasked(scope: Scope) -> bool:
    """A file that narrows IPv4 only; of a section rendering keeps a split tunnel split."""
    return _is_file(scope) and not any(":" in route.value for route in scope.routes)


def _ipv6_taken(scope: Scope) -> ServerWarning:
    return ServerWarning(
        "split-tunnel-takes-ipv6",
        f"{_titled(scope)} is a split tunnel for IPv4 and names no IPv6 route: its clients send "
        "all of their IPv6 into the tunnel",
        "Add a line `route = IPV6-NETWORK`, be it the clients' own, or `route = ::/0`",
    )


def _left_out(
    view: ServerView, around: Surroundings, *, ipv6_advertised: bool
) -> Iterator[ServerWarning]:
    """A full tunnel with holes: whoever wrote a country's networks into them means it, whoever
    forgot a quarter does not."""
    families: tuple[Family, ...] = (4, 6) if ipv6_advertised else (4,)
    for scope in view.session_scopes:
        for family in families:
            found = scope.coverage(family)
            holes = [net for net in found.left_out if not _is_own(net, around)]
            told = _is_file(scope) and found == view.main.coverage(family)
            if found.full and scope.full_tunnel4 and holes and not told:
                yield _holes(scope, family, holes, found.share)


def _is_own(hole: Network, around: Surroundings) -> bool:
    """Clients send what is for the VPN server itself outside of the tunnel in any case."""
    return hole.num_addresses == 1 and hole.network_address in around.addresses


def _holes(scope: Scope, family: Family, holes: list[Network], share: float) -> ServerWarning:
    more = f" and {len(holes) - _SHOWN} more" if len(holes) > _SHOWN else ""
    left = 1 - share
    size = f"{left:.1%}" if left >= _SMALL else f"less than {_SMALL:.1%}"
    return ServerWarning(
        "tunnel-leaves-out",
        f"{_titled(scope)} is a full tunnel but for {', '.join(map(str, holes[:_SHOWN]))}{more} "
        f"({size} of the public IPv{family} addresses): clients reach these by their own network, "
        "outside of the tunnel",
        "Add the missing `route` lines or take `no-route` lines out, unless it is meant",
    )


def _ipv6_of_users(view: ServerView) -> Iterator[ServerWarning]:
    for scope in view.scopes:
        if scope.kind not in (ScopeKind.GROUP, ScopeKind.USER):
            continue
        given: list[Placed[IPv6Network] | Placed[IPv6Address]] = [
            *scope.networks6,
            *scope.explicit6,
        ]
        for found in given:
            yield ServerWarning(
                "ipv6-of-user-rejected",
                f"{found.place}: {found.key} gives IPv6 although it is not advertised; its "
                "packets are rejected",
                "Remove the line, or set IPV6_NAT=auto",
            )


def _camouflage(view: ServerView) -> Iterator[ServerWarning]:
    main = view.main
    if not main.flag("camouflage"):
        if main.text("camouflage_secret"):
            yield ServerWarning(
                "camouflage-off",
                f"{main.place('camouflage_secret')}: a secret is set, but camouflage is not on: "
                "everybody sees that this is a VPN server",
                "Add a line `camouflage = true`, or remove the secret",
            )
        return
    secret = main.text("camouflage_secret") or ""
    if not secret:
        yield ServerWarning(
            "camouflage-without-secret",
            f"{main.place('camouflage')}: camouflage has no secret to tell clients by",
            "Add a line `camouflage_secret = SECRET`; clients then use https://HOST/?SECRET",
        )
    elif not _IN_A_URL.fullmatch(secret):
        yield ServerWarning(
            "camouflage-secret-not-for-urls",
            f"{main.place('camouflage_secret')}: clients send the secret as part of a URL, and "
            "many change or refuse characters other than letters, digits and -._~",
            "Choose a secret of those",
        )


def _ignored_in_vhosts(document: Document, release: Release) -> Iterator[ServerWarning]:
    ignored = FIRST_WINS if VHOSTS_REFUSE_GLOBALS.holds(release) else GLOBAL_KEYS | FIRST_WINS
    for entry in document.entries:
        if entry.vhost and entry.key in ignored:
            yield ServerWarning(
                "ignored-in-vhost",
                f"{document.source}:{entry.line}: ocserv ignores {entry.key} in a virtual host "
                "and uses main's",
                "Move it before the first section, or remove it",
            )


def _overridden(document: Document) -> Iterator[ServerWarning]:
    seen: dict[tuple[str, str], tuple[int, str]] = {}
    for entry in document.entries:
        place = (entry.section, entry.key)
        if entry.key in LIST_KEYS or entry.vhost is None:
            continue
        line, value = seen.get(place, (entry.line, entry.value))
        if value != entry.value:
            yield ServerWarning(
                "repeated-key",
                f"{document.source}:{entry.line}: {entry.key} was set already at line {line}; "
                "only one of them counts",
                "Remove one of the lines",
            )
        seen[place] = (entry.line, entry.value)


def _ignored_values(document: Document) -> Iterator[ServerWarning]:
    for flaw in document.flaws:
        if flaw.kind is FlawKind.IGNORED_VALUE:
            yield ServerWarning(
                "ignored-line",
                f"{document.source}:{flaw.line}: {flaw.key} has nothing but quotes or a comment "
                "for a value, so ocserv drops the line and keeps what was set before",
                "Write a value, or remove the line",
            )

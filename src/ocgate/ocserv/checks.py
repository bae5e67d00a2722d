"""What is wrong in the text of ocserv.conf and its per-user files, beyond what `ocserv -t` sees.

Pure: from parsed documents and the view alone; `file_checks` judges the files that they name. Every
finding is something that ocserv takes without a word and that leaks, locks out or does nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, ip_interface
from itertools import combinations

from ocgate.errors import Problem
from ocgate.ocserv.fields import placed, problem
from ocgate.ocserv.ini_parser import Document, Flaw, FlawKind
from ocgate.ocserv.releases import GLOBAL_KEYS, VHOSTS_REFUSE_GLOBALS, Release, shown
from ocgate.ocserv.view import Placed, Scope, ScopeKind, ServerView

# IFNAMSIZ less its NUL, less four digits for the tunnel's number (as for VPN_IF).
_LONGEST_DEVICE = 11
_DEVICE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", re.ASCII)

# The tun gets `mtu` less up to 66 bytes (DTLS); below 1280 (RFC 8200) Linux takes IPv6 off it.
LEAST_MTU_WITH_IPV6 = 1280 + 66

_BOOLEANS = """
    append-routes auto-select-group camouflage cisco-client-compat cisco-svc-client-compat
    client-bypass-protocol compression deny-roaming dtls-legacy dtls-psk expose-iroutes
    isolate-workers limit-worker-memory listen-host-is-dyndns listen-proxy-proto
    match-tls-dtls-ciphers no-udp persistent-cookies ping-leases predictable-ips
    restrict-user-to-routes select-group-by-url try-mtu-discovery tunnel-all-dns tunnel_all_dns
    use-occtl use-seccomp use-utmp
"""
BOOLEANS = frozenset(_BOOLEANS.split())

_NUMBERS = """
    auth-timeout ban-points-connection ban-points-kkdcp ban-points-wrong-password ban-reset-time
    ban-time cookie-timeout dpd idle-timeout ipv6-subnet-prefix keepalive log-level max-ban-score
    max-clients max-same-clients min-reauth-time mobile-dpd mobile-idle-timeout mtu
    no-compress-limit output-buffer rate-limit-ms rekey-time rx-data-per-sec sec-mod-db-cleanup-time
    sec-mod-scale server-drain-ms server-stats-reset-time session-timeout stats-report-time
    switch-to-tcp-timeout tx-data-per-sec
"""
NUMBERS = frozenset(_NUMBERS.split())

# Flaws that refuse; FlawKind.IGNORED_VALUE (`banner = ""`) is only a warning.
_REMEDIES = {
    FlawKind.SYNTAX: "Write `key = value`, or put # in front",
    FlawKind.UNCLOSED_SECTION: "Write [vhost:NAME]",
    FlawKind.EMPTY_VHOST: "Write [vhost:NAME]",
    FlawKind.CONTINUATION: "Remove the white space in front of the line",
    FlawKind.TOO_LONG: "Shorten the line to 2046 bytes",
    FlawKind.NUL: "Remove the NUL byte",
    FlawKind.UNKNOWN_SECTION: "Write [vhost:NAME], or remove the section",
    FlawKind.LONG_SECTION: "Shorten the virtual host's name to 43 bytes",
}
_SHOWN = 80  # characters of an odd line that an error shows


def check(
    document: Document,
    supplements: Iterable[Document],
    view: ServerView,
    *,
    ipv6: bool,
    release: Release,
) -> list[Problem]:
    """Every problem of the texts, once each (`ConfigurationError` sorts them).

    supplements: the per-user and per-group files. ipv6: clients may be given IPv6 (IPV6_NAT is not
    0, IPV6_SINK, or an ipv6-network in ocserv.conf). release: of the ocserv that reads them.
    """
    found = list(view.problems)
    for text in (document, *supplements):
        found += [_flawed(flaw, text, document) for flaw in text.flaws if flaw.kind in _REMEDIES]
    for scope in view.scopes:
        found += [*_scope(scope, ipv6=ipv6)]
    found += [*_main(view), *_overlaps(view), *_explicit(view)]
    if VHOSTS_REFUSE_GLOBALS.holds(release):
        found += [*_globals_in_vhosts(document, release)]
    return list(dict.fromkeys(found))


def _globals_in_vhosts(document: Document, release: Release) -> Iterator[Problem]:
    """ocserv says the key, and a line that is the effective file's."""
    since = f"from {shown(VHOSTS_REFUSE_GLOBALS.since or release)} on ocserv refuses it"
    for entry in document.entries:
        if entry.vhost and entry.key in GLOBAL_KEYS:
            yield problem(
                placed(entry, document.source),
                f"no such line in [vhost:{entry.vhost}]: only main can set it, for all ({since})",
                "Remove the line; what it shall say for everybody belongs before the first section",
            )


def _flawed(flaw: Flaw, text: Document, main: Document) -> Problem:
    expected = (
        f"a comment, a section or `key = value` at the line's start; this is {flaw.kind.value}"
    )
    if text is not main and flaw.kind.fatal:
        expected += "; ocserv ignores all from this line on and admits the user without it"
    return Problem(
        text.source,
        flaw.line,
        flaw.key or "syntax",
        flaw.text[:_SHOWN],
        expected,
        _REMEDIES[flaw.kind],
    )


def _scope(scope: Scope, *, ipv6: bool) -> Iterator[Problem]:
    for found in scope.settings.values():
        yield from _boolean(found)
        yield from _number(found)
    for route in (*scope.routes, *scope.no_routes):
        yield from _route(route)
    yield from _refused(scope)
    yield from _pools(scope)
    mtu = scope.settings.get("mtu")
    if ipv6 and mtu and mtu.value.isdigit() and int(mtu.value) < LEAST_MTU_WITH_IPV6:
        yield problem(
            mtu,
            f"{LEAST_MTU_WITH_IPV6} or more bytes with IPv6",
            "Raise it, or leave it out: the tunnel would be below IPv6's 1280 bytes and Linux "
            "would silently take IPv6 off it",
        )


def _boolean(found: Placed[str]) -> Iterator[Problem]:
    if found.key in BOOLEANS and found.value.lower() not in ("true", "yes", "false", "no"):
        yield problem(
            found,
            "true or false",
            "Write true or false; ocserv takes all but true and yes as false",
        )


def _number(found: Placed[str]) -> Iterator[Problem]:
    if found.key in NUMBERS and not re.fullmatch(r"-?[0-9]+", found.value):
        yield problem(
            found, "a whole number", "Write digits only; ocserv reads this as another number"
        )


def _route(found: Placed[str]) -> Iterator[Problem]:
    if found.value == "default" and found.key == "route":
        return
    try:
        interface = ip_interface(found.value)
    except ValueError:
        interface = None
    if interface is None or "/" not in found.value:
        yield problem(
            found,
            "a network like 10.0.0.0/8 or fd00::/8" + ", or default" * (found.key == "route"),
            "Correct it; clients would get the text as it is",
        )
    elif interface.ip != interface.network.network_address:
        yield problem(
            found, "a network without host bits", f"Write {interface.network}, if you mean that one"
        )
    elif isinstance(interface, IPv4Interface) and interface.network.prefixlen == 0:
        yield problem(found, "default, or longer prefixes", "Write `route = default`")


def _refused(scope: Scope) -> Iterator[Problem]:
    """Keys whose promise can't be kept here; to ignore them would fail open."""
    firewall = (
        "Remove it: ocserv-fw would run our hooks by /bin/sh and leave its rules behind for "
        "refused sessions"
    )
    ports = scope.settings.get("restrict-user-to-ports")
    if scope.flag("restrict-user-to-routes"):
        yield problem(scope.settings["restrict-user-to-routes"], "false, or no such line", firewall)
    if ports is not None:
        yield problem(ports, "no such line", firewall)
    networks = (
        "Remove it: a session may send only its own addresses (anti-spoofing), so a network behind "
        "a client can't be reached"
    )
    for found in scope.iroutes:
        yield problem(found, "no such line", networks)
    if scope.flag("expose-iroutes"):
        yield problem(scope.settings["expose-iroutes"], "false, or no such line", networks)


def _pools(scope: Scope) -> Iterator[Problem]:
    for pool in scope.networks4:
        network = pool.value
        bad = network.is_loopback or network.is_multicast or network.overlaps(_THIS_NETWORK)
        if bad or network.overlaps(_RESERVED):
            yield problem(pool, "a unicast network", "Choose a private one, like 10.10.10.0/24")
    for pool6 in scope.networks6:
        six = pool6.value
        if six.is_link_local or six.is_multicast or six.is_loopback or six.is_unspecified:
            yield problem(pool6, "a unicast network", "Choose a unique local one (RFC 4193)")


_THIS_NETWORK = IPv4Network("0.0.0.0/8")  # RFC 791
_RESERVED = IPv4Network("240.0.0.0/4")  # RFC 1112 section 4


def _main(view: ServerView) -> Iterator[Problem]:
    yield from _port(view.main, "tcp-port", least=1)
    yield from _port(view.main, "udp-port", least=0)
    yield from _device(view)
    yield from _same_paths(view)


def _port(main: Scope, key: str, *, least: int) -> Iterator[Problem]:
    found = main.settings.get(key)
    if found is None:
        if least:
            yield Problem(main.source, 0, key, None, "a TCP port", f"Add a line `{key} = 443`")
        return
    if not found.value.isdecimal() or not least <= int(found.value) <= 65535:
        yield problem(found, f"a port of {least} to 65535", "Write `443`, say")


def _device(view: ServerView) -> Iterator[Problem]:
    found = view.main.settings.get("device")
    if found is None or not found.value:
        yield Problem(
            view.source, 0, "device", None, "a device prefix", "Add a line `device = vpns`"
        )
    elif not _DEVICE.fullmatch(found.value) or len(found.value) > _LONGEST_DEVICE:
        yield problem(
            found,
            f"a device prefix of at most {_LONGEST_DEVICE} letters, digits, '_', '.' or '-'",
            "Write `device = vpns`; ocserv appends the number",
        )
    elif "lo".startswith(found.value):
        yield problem(found, "a prefix that no other device has", "Write `device = vpns`")


def _same_paths(view: ServerView) -> Iterator[Problem]:
    keys = ("socket-file", "occtl-socket-file", "pid-file")
    named = [view.main.settings[key] for key in keys if key in view.main.settings]
    for first, second in combinations(named, 2):
        if first.value == second.value:
            yield problem(
                second, f"a path other than {first.key}'s ({first.place})", "Choose another path"
            )


def _overlaps(view: ServerView) -> Iterator[Problem]:
    """Pools may be the same in two scopes (ocserv leases an address once), not partly."""
    for first, second in combinations(view.networks4, 2):
        if first.value != second.value and first.value.overlaps(second.value):
            yield _overlapping(second, f"{first.value} ({first.place})")
    for first6, second6 in combinations(view.networks6, 2):
        if first6.value != second6.value and first6.value.overlaps(second6.value):
            yield _overlapping(second6, f"{first6.value} ({first6.place})")


def _overlapping(found: Placed[object], other: str) -> Problem:
    return problem(
        found, f"a network apart from {other}, or the same", "Choose networks that do not overlap"
    )


def _explicit(view: ServerView) -> Iterator[Problem]:
    """ocserv neither leases explicit addresses nor looks whether they lie in a pool."""
    owners: dict[IPv4Address, Placed[IPv4Address]] = {}
    for scope in view.scopes:
        if scope.kind is not ScopeKind.USER:
            continue
        for found in scope.explicit4:
            yield from _explicit4(found, view)
            other = owners.setdefault(found.value, found)
            if other is not found:
                yield _moved(found, f"an address that {other.place} does not give out too")


def _explicit4(found: Placed[IPv4Address], view: ServerView) -> Iterator[Problem]:
    pools = [pool.value for pool in view.networks4]
    home = next((pool for pool in pools if found.value in pool), None)
    if home is None:
        yield _moved(found, "an address inside of a client network")
    elif found.value in (home.network_address, home.broadcast_address, *view.gateways4):
        yield _moved(found, f"an address that a client can have in {home}")


def _moved(found: Placed[IPv4Address], expected: str) -> Problem:
    return problem(found, expected, "Choose another address")

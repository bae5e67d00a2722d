"""What differs between ocserv's releases, as one table: features, meanings, faults, defects. Pure.

Whoever needs to know what the ocserv at hand does asks a row (`VHOSTS_INHERIT.holds(release)`);
nobody else compares versions. `ROWS` is what docs/ocserv-releases.md is made of, and
`release_report` says what of it matters for one configuration.

`tried` names the releases on which a claim was seen to be true, or not to be; () is what ocserv's
release notes (NEWS) say and nobody here has tried.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

Release = tuple[int, int, int]

# Debian 12, 13 and testing. The first is the oldest that ocgate is tested with.
DEBIAN_12: Release = (1, 1, 6)
DEBIAN_13: Release = (1, 3, 0)
IN_THE_IMAGE: Release = (1, 5, 0)

_ALL = (DEBIAN_12, DEBIAN_13, IN_THE_IMAGE)
_UPDATE = "Use ocserv {release} or newer: Debian testing, or ocgate's container image"


class Kind(Enum):
    """What a row is about; in the order of the page."""

    SECURITY = "Security defects"
    """Somebody else can do what he must not."""
    FAULT = "Faults"
    """Something does not work as ocserv's manual says."""
    MEANING = "Changed meanings"
    """The same file means something else."""
    FEATURE = "Features"
    """Something that older releases do not know, or newer ones no longer."""


@dataclass(frozen=True)
class Row:
    """One difference.

    name:   stable and kebab-case; the code of a warning about it.
    since:  the first release that has it, None for all older ones, too.
    until:  the first release that has it no more, None while none is known.
    what:   a clause. effect: what it means for an ocgate server. remedy: what to do, or what ocgate
            does by itself.
    tried:  releases that were seen to have it, or not to have it, as the row says.
    """

    name: str
    kind: Kind
    what: str
    effect: str
    remedy: str
    since: Release | None = None
    until: Release | None = None
    tried: tuple[Release, ...] = ()

    def holds(self, release: Release) -> bool:
        """Whether this release has it."""
        after = self.since is None or release >= self.since
        return after and (self.until is None or release < self.until)


def shown(release: Release) -> str:
    """(1, 5, 0) -> 1.5.0"""
    return ".".join(str(part) for part in release)


def parsed(text: str) -> Release:
    """The reverse, of three numbers; raises ValueError."""
    major, minor, patch = (int(part) for part in text.split("."))
    return major, minor, patch


def update_to(release: Release) -> str:
    """What to do where only another ocserv helps."""
    return _UPDATE.format(release=shown(release))


COOKIE_OVERFLOW = Row(
    "worker-crashed-by-a-stranger",
    Kind.SECURITY,
    "a stranger can crash a worker before logging in, by one request with a long cookie (a heap "
    "overflow; 200 bytes are enough)",
    "the worker of that connection dies, sessions of others go on; `isolate-workers` keeps what "
    "might be made of it in the worker's sandbox",
    "ocgate writes `isolate-workers = true` unless the operator says false; "
    + update_to(IN_THE_IMAGE),
    until=(1, 5, 0),
    tried=_ALL,
)
MEMORY_BY_A_STRANGER = Row(
    "memory-taken-by-a-stranger",
    Kind.SECURITY,
    "a stranger can make a worker take memory without end, by the body of a request (up to 1.4.1) "
    "or its headers (up to 1.4.2)",
    "a small machine runs short of memory; `max-clients` limits how many workers there are",
    "Limit the container's memory; " + update_to((1, 5, 0)),
    until=(1, 5, 0),
)
MTU_UNDERFLOW = Row(
    "worker-crashed-by-a-user",
    Kind.SECURITY,
    "a user who has logged in can crash his own worker by a small MTU",
    "his session ends; the sandbox holds as above",
    update_to((1, 5, 0)),
    until=(1, 5, 0),
)
CERTIFICATE_BYPASS = Row(
    "certificate-bypass",
    Kind.SECURITY,
    "where certificate and password are both asked for and `cert-user-oid = SAN(rfc822name)`, a "
    "certificate without that name lets in whoever has a user's password",
    "any certificate of the authority serves for any user",
    "Name users by another field (cert-user-oid = 2.5.4.3), or use ocserv 1.4.1 or newer",
    until=(1, 4, 1),
)
SESSION_TIMEOUT_BYPASS = Row(
    "session-timeout-bypass",
    Kind.SECURITY,
    "`session-timeout` begins anew with each reconnect",
    "a client that reconnects in time stays for ever",
    update_to((1, 4, 1)),
    until=(1, 4, 1),
)
USER_NAME_PATHS = Row(
    "user-name-as-path",
    Kind.SECURITY,
    "a user's or group's name with `../` is taken for a path below `config-per-user` or "
    "`config-per-group`",
    "names that PAM, RADIUS or certificates bring choose which file is read; names of a password "
    "file are the operator's own",
    "Let the server of the names refuse `/` in them, or use ocserv 1.5.1 or newer",
    until=(1, 5, 1),
)
BROKEN_USER_FILE = Row(
    "broken-user-file-admits",
    Kind.SECURITY,
    "a per-user or per-group file is ignored from a line on that can't be read, and its user "
    "admitted without the rest",
    "limits and networks that stand there do not hold",
    "`ocgate check` and a start refuse such a file; run `ocgate check` after each change",
    until=(1, 5, 1),
    tried=_ALL,
)
BAN_TIMER = Row(
    "bans-unreliable",
    Kind.FAULT,
    "the timer of bans can keep an address from being banned, or end a ban too early",
    "guessing passwords is slowed down less than `max-ban-score` says",
    update_to((1, 4, 0)),
    until=(1, 4, 0),
)
ACCOUNTING = Row(
    "accounting-over-roaming",
    Kind.FAULT,
    "byte counts of users who roam are wrong",
    "RADIUS accounting and the session history show another sum",
    update_to((1, 4, 0)),
    until=(1, 4, 0),
)
PROXY_CERTIFICATE = Row(
    "proxy-certificate-name",
    Kind.FAULT,
    "with `listen-proxy-proto` the name in a client's certificate, as the proxy hands it on "
    "(version 2), is never found",
    "users of certificates behind a proxy are refused",
    update_to((1, 4, 2)),
    until=(1, 4, 2),
)
OCCTL_JSON = Row(
    "occtl-json-broken",
    Kind.FAULT,
    "occtl's JSON has commas too many and keys twice",
    "none: ocgate reads it all the same",
    "Nothing",
    until=(1, 4, 0),
    tried=_ALL,
)
VHOST_LISTS_OVERRUN = Row(
    "vhost-lists-overrun",
    Kind.FAULT,
    "a virtual host that adds a line to a list of main's (`route`, `dns`, `split-dns`, "
    "`custom-header`, …) makes ocserv write behind the end of that list: it aborts at its start "
    "(`corrupted size vs. prev_size`), or workers do",
    "none: in what ocgate renders, main's lists stand behind the virtual hosts, and each of these "
    "has its whole list written out",
    "Nothing",
    since=(1, 5, 0),
    tried=(IN_THE_IMAGE,),
)
VHOSTS_INHERIT = Row(
    "vhosts-inherit",
    Kind.MEANING,
    "a virtual host has all that main sets and it does not set itself, `auth` and certificates "
    "included; its own `route`, `no-route` and `dns` lines are added to main's",
    "a virtual host without a `route` line of its own has main's split tunnel; before, it was a "
    "full tunnel, and without `auth` or certificate of its own it was refused",
    "Write into the virtual host what its clients shall have; `ocgate check` says where the two "
    "differ",
    since=(1, 5, 0),
    tried=_ALL,
)
VHOSTS_REFUSE_GLOBALS = Row(
    "global-key-in-vhost",
    Kind.MEANING,
    "a key that only main can set (`device`, ports, sockets, scripts, `isolate-workers`, bans, …) "
    "is an error inside of `[vhost:…]`; before, it was ignored with a warning",
    "ocserv refuses the file",
    "Take the line out of the virtual host, or move it before the first section; ocgate names each",
    since=(1, 4, 2),
    tried=_ALL,
)
VHOSTS_NEED_DEVICE = Row(
    "vhost-needs-device",
    Kind.MEANING,
    "a virtual host without a `device` line of its own admits clients and then turns them away",
    "none: ocgate writes the line",
    "Nothing",
    until=(1, 2, 1),
    tried=_ALL,
)
LONG_LINES_REFUSED = Row(
    "long-line-refused",
    Kind.MEANING,
    "a line of more than 2046 bytes is an error; before, it was read in pieces",
    "none: ocgate refuses such a line with every release",
    "Shorten the line",
    since=(1, 4, 1),
    tried=_ALL,
)
TUNNEL_ALL_DNS_OF_USERS = Row(
    "tunnel-all-dns-of-users",
    Kind.MEANING,
    "`tunnel-all-dns` in a per-user or per-group file counts; before, it was passed over, and "
    "`tunnel_all_dns`, which those files knew, changed nothing in any release",
    "clients of that file are told what main says: they may ask resolvers outside of the tunnel",
    "Write `tunnel-all-dns = true` into ocserv.conf",
    since=(1, 5, 0),
    tried=_ALL,
)
DEFAULTS_CHANGED = Row(
    "defaults-changed",
    Kind.MEANING,
    "what holds where a line is missing follows the sample file: `auth-timeout` 240 s (before: "
    "1,800), `cookie-timeout` 300 s (120), `dpd` 90 s (600), `max-ban-score` 80 (30)",
    "none for a file that a first start writes: it names these",
    "Write the lines that matter to you",
    since=(1, 4, 2),
)
CAMOUFLAGE = Row(
    "camouflage-unknown",
    Kind.FEATURE,
    "`camouflage`, `camouflage_secret` and `camouflage_realm`",
    "without it everybody sees that this is a VPN server",
    update_to((1, 2, 0)),
    since=(1, 2, 0),
    tried=_ALL,
)
LOG_TO_STDERR = Row(
    "log-to-stderr",
    Kind.FEATURE,
    "`--log-stderr`; older ones log there whenever `-d` is given, and from here on to syslog",
    "none: ocgate gives what the release needs",
    "Nothing",
    since=(1, 2, 3),
    tried=_ALL,
)
CONNECTED_AT = Row(
    "occtl-connected-at",
    Kind.FEATURE,
    "occtl tells the moment of a connection (`raw_connected_at`)",
    "a session that is found after a restart of control has its real beginning",
    "Nothing",
    since=(1, 2, 3),
    tried=_ALL,
)
TERMINATE = Row(
    "occtl-terminate",
    Kind.FEATURE,
    "`occtl terminate` ends a session and its cookie; where `persistent-cookies` is on, "
    "`disconnect` leaves the cookie",
    "without it `ocgate user remove` can't keep a client with such a cookie out, which comes back "
    "without a password for `cookie-timeout` seconds more",
    "Leave `persistent-cookies` off, or restart ocgate after removing a user",
    since=(1, 4, 2),
    tried=_ALL,
)
WORKER_MEMORY = Row(
    "limit-worker-memory",
    Kind.FEATURE,
    "a worker's memory is limited to what it begins with and 64 MB more (`limit-worker-memory`, on "
    "by default)",
    "a stranger can't make it take more; 500 routes take less than 1 MB of it",
    "Nothing",
    since=(1, 5, 0),
    tried=(IN_THE_IMAGE,),
)

ROWS: tuple[Row, ...] = (
    *(COOKIE_OVERFLOW, MEMORY_BY_A_STRANGER, MTU_UNDERFLOW, CERTIFICATE_BYPASS),
    *(SESSION_TIMEOUT_BYPASS, USER_NAME_PATHS, BROKEN_USER_FILE),
    *(BAN_TIMER, ACCOUNTING, PROXY_CERTIFICATE, OCCTL_JSON, VHOST_LISTS_OVERRUN),
    *(VHOSTS_INHERIT, VHOSTS_REFUSE_GLOBALS, VHOSTS_NEED_DEVICE, LONG_LINES_REFUSED),
    *(TUNNEL_ALL_DNS_OF_USERS, DEFAULTS_CHANGED),
    *(CAMOUFLAGE, LOG_TO_STDERR, CONNECTED_AT, TERMINATE, WORKER_MEMORY),
)


@dataclass(frozen=True)
class KeyRow:
    """Keys of ocserv.conf that not every release knows; the others pass over their lines with a
    warning in the log. since, until: as in `Row`. instead: what to write in their place, ''."""

    keys: tuple[str, ...]
    since: Release | None = None
    until: Release | None = None
    instead: str = ""

    def known(self, release: Release) -> bool:
        """Whether this release reads them."""
        after = self.since is None or release >= self.since
        return after and (self.until is None or release < self.until)


# Found by showing every word in three programs to `ocserv -t`.
CAMOUFLAGE_KEYS = ("camouflage", "camouflage_realm", "camouflage_secret")
KEY_ROWS: tuple[KeyRow, ...] = (
    KeyRow(CAMOUFLAGE_KEYS, since=(1, 2, 0)),
    KeyRow(("cisco-svc-client-compat",), since=(1, 2, 0)),
    KeyRow(("select-group-by-url",), since=(1, 3, 0)),
    KeyRow(("ban-time",), since=(1, 4, 1), instead="min-reauth-time"),
    KeyRow(("no-udp",), since=(1, 4, 2)),
    KeyRow(("limit-worker-memory", "sec-mod-db-cleanup-time", "syslog-facility"), since=(1, 5, 0)),
    KeyRow(("cgroup",), until=(1, 5, 0)),
)


def _by_key() -> Iterator[tuple[str, KeyRow]]:
    for row in KEY_ROWS:
        yield from ((key, row) for key in row.keys)


KEYS: Mapping[str, KeyRow] = dict(_by_key())

# What only main can set: an error inside of [vhost:…] where VHOSTS_REFUSE_GLOBALS holds, of no
# effect elsewhere. All but pid-file, of which ocserv takes the first that it reads, were tried.
_GLOBAL = """
    auth-timeout ban-points-connection ban-points-kkdcp ban-points-wrong-password ban-reset-time
    ban-time chroot-dir compression-algo-priority connect-script device disconnect-script dtls-psk
    host-update-script isolate-workers limit-worker-memory listen-host listen-proxy-proto
    max-ban-score max-clients min-reauth-time occtl-socket-file ping-leases rate-limit-ms
    route-add-cmd route-del-cmd run-as-group run-as-user sec-mod-db-cleanup-time sec-mod-scale
    server-drain-ms server-stats-reset-time socket-file tcp-port try-mtu-discovery udp-listen-host
    udp-port use-dbus use-occtl use-seccomp use-utmp
"""
GLOBAL_KEYS = frozenset(_GLOBAL.split())

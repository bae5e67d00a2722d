"""Variables of the reference image that this version knows but does not serve yet. Pure.

Two kinds, and the difference is the whole point: what steers or guards clients' packets is refused
(running without it would send them by another exit), what is only comfort is accepted with a
notice. When a release serves a variable, its line moves from here to
`model`.
"""

from __future__ import annotations

from dataclasses import dataclass

GATEWAYS = (
    "named gateways, per-user exits and bypass pools are not in this version and running without "
    "them would send clients by another exit than the one meant for them"
)

_OFF = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True)
class Unserved:
    """A known variable without effect.

    inert: values that mean the same as unset, so that nothing is lost by accepting them.
    steers: True refuses all other values; False accepts them with a notice.
    about: what is missing, as a clause.
    """

    name: str
    inert: frozenset[str]
    steers: bool
    about: str


def _steering(name: str, *inert: str) -> Unserved:
    return Unserved(name, frozenset(inert), steers=True, about=GATEWAYS)


def _comfort(name: str, about: str, inert: frozenset[str] = _OFF) -> Unserved:
    return Unserved(name, inert, steers=False, about=about)


# `inert` holds the reference's defaults (compatibility table of azinchen/ocserv-server).
_TABLE = (
    _steering("VPN_GATEWAYS"),
    _steering("VPN_GATEWAYS6"),
    _steering("VPN_GATEWAYS_FILE"),
    _steering("VPN_USER_GATEWAY"),
    _steering("VPN_USER_GATEWAY_FILE"),
    _steering("VPN_USER_GATEWAY_WATCH", *_OFF),
    _steering("VPN_GATEWAY_USER_RULE_PRIO", "900"),
    _steering("VPN_BYPASS_POOLS_DIR", "/etc/ocserv/pools"),
    _steering("VPN_GATEWAY_BYPASS"),
    _steering("VPN_GATEWAYS_BYPASS"),
    _steering("VPN_USER_BYPASS"),
    _steering("VPN_USER_BYPASS_FILE"),
    _steering("VPN_USER_BYPASS_WATCH", *_OFF),
    _steering("VPN_BYPASS_TARGETS"),
    _steering("VPN_BYPASS_TARGETS_FILE"),
    _steering("VPN_BYPASS_WATCH", *_OFF),
    _steering("VPN_BYPASS_SOURCES_FILE"),
    _steering("VPN_BYPASS_UPDATE_INTERVAL", "0"),
    _steering("VPN_BYPASS_RULE_PRIO", "800"),
    _steering("VPN_BYPASS_MARK", "0xbc"),
    _comfort("SESSION_HISTORY_FILE", "completed sessions are not written to a file"),
    _comfort("HEALTH_CHECK_ENABLED", "`ocgate healthcheck` works, but nothing calls it by itself"),
    _comfort("HEALTH_CHECK_EGRESS", "`ocgate healthcheck` does not test egress"),
    _comfort("HEALTH_CHECK_URL", "`ocgate healthcheck` fetches no URL"),
    _comfort("CERT_WATCH", "certificates are reloaded on SIGHUP only"),
    _comfort("CERT_WATCH_INTERVAL", "certificates are reloaded on SIGHUP only"),
)

UNSERVED = {line.name: line for line in _TABLE}

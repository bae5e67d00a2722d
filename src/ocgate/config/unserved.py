"""Variables of the reference image that this version knows but does not serve yet. Pure.

All of them steer clients' packets, and are refused: running without them would send these by
another exit. When a release serves a variable, its line moves from here to `model`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ocgate.config.values import FALSE_WORDS

GATEWAYS = (
    "named gateways, per-user exits and bypass pools are not in this version and running without "
    "them would send clients by another exit than the one meant for them"
)


@dataclass(frozen=True)
class Unserved:
    """A known variable without effect.

    inert: values that mean the same as unset, so that nothing is lost by accepting them.
    about: what is missing, as a clause.
    """

    name: str
    inert: frozenset[str]
    about: str


def _steering(name: str, *inert: str) -> Unserved:
    return Unserved(name, frozenset(inert), GATEWAYS)


# `inert` holds the reference's defaults (compatibility table of azinchen/ocserv-server).
_TABLE = (
    _steering("VPN_GATEWAYS"),
    _steering("VPN_GATEWAYS6"),
    _steering("VPN_GATEWAYS_FILE"),
    _steering("VPN_USER_GATEWAY"),
    _steering("VPN_USER_GATEWAY_FILE"),
    _steering("VPN_USER_GATEWAY_WATCH", *FALSE_WORDS),
    _steering("VPN_GATEWAY_USER_RULE_PRIO", "900"),
    _steering("VPN_BYPASS_POOLS_DIR", "/etc/ocserv/pools"),
    _steering("VPN_GATEWAY_BYPASS"),
    _steering("VPN_GATEWAYS_BYPASS"),
    _steering("VPN_USER_BYPASS"),
    _steering("VPN_USER_BYPASS_FILE"),
    _steering("VPN_USER_BYPASS_WATCH", *FALSE_WORDS),
    _steering("VPN_BYPASS_TARGETS"),
    _steering("VPN_BYPASS_TARGETS_FILE"),
    _steering("VPN_BYPASS_WATCH", *FALSE_WORDS),
    _steering("VPN_BYPASS_SOURCES_FILE"),
    _steering("VPN_BYPASS_UPDATE_INTERVAL", "0"),
    _steering("VPN_BYPASS_RULE_PRIO", "800"),
    _steering("VPN_BYPASS_MARK", "0xbc"),
)

UNSERVED = {line.name: line for line in _TABLE}

"""Variables of the companion images that the exit role knows but does not read. Pure.

azinchen/nordvpn and azinchen/openconnect-client, whose users come by changing `image:`. What would
let packets out another way, or lead the client by options that nobody has checked, is refused;
what is only comfort, or protects less than ours does, is accepted with a notice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ocgate.config.origin import Written
from ocgate.config.values import FALSE_WORDS
from ocgate.errors import Problem


@dataclass(frozen=True)
class Foreign:
    """A variable without effect here.

    why:     what is not done, a clause.
    instead: what to write, an imperative without full stop.
    inert:   values that mean the same as unset.
    refused: True stops the start unless the value is in `inert`; False gives a notice.
    """

    name: str
    why: str
    instead: str
    inert: frozenset[str]
    refused: bool


def _refuse(name: str, why: str, instead: str, *inert: str) -> Foreign:
    return Foreign(name, why, instead, frozenset(inert), refused=True)


def _notice(name: str, why: str, instead: str, *inert: str) -> Foreign:
    return Foreign(name, why, instead, frozenset(inert), refused=False)


_CHECKS = "the tunnel is probed all the time"
_FILE = "options on the command line are checked by nobody"
_FORWARD = "a resolver outside of the tunnel would be a DNS leak"

# `inert` holds the companions' defaults, and options of theirs that change nothing here: rotation
# over servers is ours, whatever OpenVPN does by itself.
_TABLE = (
    _notice(
        "RECREATE_VPN_CRON",
        "servers are changed after a time and not by a cron expression",
        "write EXIT_ROTATE in seconds, 21600 for every six hours",
    ),
    _notice("CHECK_CONNECTION_CRON", _CHECKS, "write EXIT_PROBE_INTERVAL to change how often"),
    _notice("CHECK_CONNECTION_URL", _CHECKS, "write EXIT_PROBE to change where it connects"),
    _notice("CHECK_CONNECTION_ATTEMPTS", _CHECKS, "write EXIT_PROBE_FAILURES", "5"),
    _notice("CHECK_CONNECTION_ATTEMPT_INTERVAL", _CHECKS, "write EXIT_PROBE_INTERVAL", "10"),
    _notice("RECONNECT_DELAY", "the delay grows from 1 s to 60 s by itself", "remove it", "5"),
    _notice(
        "NORDVPNAPI_IP",
        "the API's name is resolved, and without it the kept list serves",
        "keep OCGATE_CACHE_DIR on a volume",
        "104.16.208.203;104.19.159.190",
    ),
    _notice("NETWORK_DIAGNOSTIC_ENABLED", "nothing is printed by itself", "ask `ocgate status`"),
    _notice("HEALTH_CHECK_ENABLED", "`ocgate healthcheck` always probes", "remove it"),
    _notice("NETWORK6", "NETWORK takes both families", "write these networks into NETWORK, too"),
    _notice(
        "FORWARD_FROM6",
        "FORWARD_FROM takes both families",
        "write these networks into FORWARD_FROM, too",
    ),
    _notice("WHITELIST", "nothing is reachable outside of the tunnel by name", "use NETWORK"),
    _notice("GATEWAY_MODE", "the exit role is nothing else", "write FORWARD_FROM", "true", "1"),
    _notice("GATEWAY_NAT6", "IPv6 is always masqueraded", "remove it", "true", "1"),
    _notice("TOKEN", "access tokens are not exchanged", "write service credentials as USER, PASS"),
    _notice("PUID", "the client has a user id of its own", "remove it"),
    _notice("PGID", "the client has a group id of its own", "remove it"),
    _notice("DNS", "this host asks its own resolver at start only", "see GATEWAY_DNS for clients"),
    _notice("MTU", "the tunnel's own MTU is used, and TCP is clamped to it", "remove it", "auto"),
    _notice("DTLS", "DTLS is used where the server offers it", "remove it", "on"),
    _notice("CONNECT_FAMILY", "the server's addresses are tried in turn", "remove it", "auto"),
    _refuse("OPENVPN_OPTS", _FILE, "write them into a file and name it as OVPN_CONFIG",
            "--mute-replay-warnings",
            "--pull-filter ignore ping-restart --ping-exit 180",
            '--pull-filter ignore "ping-restart" --ping-exit 180',
            "--mute-replay-warnings --ping-exit 60"),
    _refuse("OPENCONNECT_OPTS", _FILE, "remove it"),
    _refuse("PROTOCOL", "only AnyConnect's protocol is spoken", "remove it", "anyconnect"),
    _refuse("SPLIT_TUNNEL", "everything goes through the tunnel", "remove it", *FALSE_WORDS),
    _refuse("INSECURE", "a server is never believed unseen", "write SERVERCERT", *FALSE_WORDS),
    _refuse("GATEWAY_DNS_SERVER", _FORWARD, "remove it; see GATEWAY_DNS"),
    _refuse("CA_FILE", "only the system's authorities and pins are used", "write SERVERCERT"),
    _refuse("CERT_FILE", "client certificates are not served", "write USER and PASS"),
    _refuse("KEY_FILE", "client certificates are not served", "write USER and PASS"),
)  # fmt: skip

FOREIGN = {line.name: line for line in _TABLE}


def refuse_foreign(found: Mapping[str, Written]) -> list[Problem]:
    """Problems for what must not be ignored; values of theirs are not shown."""
    return [
        found[name].origin.problem(name, None, f"unset, because {line.why}", line.instead)
        for name, line in _written(found)
        if line.refused
    ]


def foreign_notices(found: Mapping[str, Written]) -> list[str]:
    """One sentence for each that is accepted."""
    return [
        f"{found[name].origin}: {name}: has no effect: {line.why}; {line.instead}"
        for name, line in _written(found)
        if not line.refused
    ]


def _written(found: Mapping[str, Written]) -> list[tuple[str, Foreign]]:
    """What is set to something, in the table's order."""
    return [
        (name, line)
        for name, line in FOREIGN.items()
        if name in found and found[name].text.strip() not in line.inert
    ]

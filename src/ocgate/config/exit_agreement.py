"""Which of the exit role's settings cannot both be meant, and which have no effect. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ocgate.config.agreement import Contradiction
from ocgate.config.exit_choices import ExitKind
from ocgate.config.origin import Written

if TYPE_CHECKING:
    from ocgate.config.exit_model import ExitSettings

_KINDS = "OVPN_CONFIG, URL, WG_CONFIG, or USER and PASS alone for NordVPN"
_NAMES = {
    ExitKind.OPENVPN: "OVPN_CONFIG",
    ExitKind.OPENCONNECT: "URL",
    ExitKind.WIREGUARD: "WG_CONFIG",
}

# What says nothing to a tunnel of the other kinds. USER and PASS of an OVPN_CONFIG are looked at
# when the configuration is read.
_IDLE = {
    ExitKind.OPENVPN: ("TECHNOLOGY", "RANDOM_TOP", "OCGATE_CACHE_DIR", "SERVERCERT"),
    ExitKind.OPENCONNECT: ("TECHNOLOGY", "RANDOM_TOP", "OCGATE_CACHE_DIR"),
    ExitKind.WIREGUARD: (
        *("TECHNOLOGY", "RANDOM_TOP", "OCGATE_CACHE_DIR", "SERVERCERT"),
        *("USER", "PASS"),
    ),
    ExitKind.NORDVPN: ("SERVERCERT",),
}


def contradictions(settings: ExitSettings) -> list[Contradiction]:
    """Settings that cannot both be meant, in a fixed order."""
    kinds = [name for name, value in _kinds(settings).items() if value]
    if len(kinds) > 1:
        return [_one_of(kinds)]
    if not kinds and settings.password is None:
        expected = f"one of {_KINDS}"
        remedy = "say by which VPN the exit leaves"
        names = ("OVPN_CONFIG", "URL", "WG_CONFIG", "PASS", "USER")
        return [Contradiction(None, expected, remedy, names)]
    return [*_missing_credentials(settings, kinds), *_places(settings, kinds)]


def _kinds(settings: ExitSettings) -> dict[str, object]:
    return {
        "OVPN_CONFIG": settings.ovpn_config,
        "URL": settings.url,
        "WG_CONFIG": settings.wg_config,
    }


def _one_of(kinds: list[str]) -> Contradiction:
    together = f"{', '.join(kinds[:-1])} or {kinds[-1]}"
    remedy = f"remove all but one; {' and '.join(kinds)} are tunnels of different kinds"
    return Contradiction(None, f"either {together}", remedy, tuple(kinds))


def _missing_credentials(settings: ExitSettings, kinds: list[str]) -> list[Contradiction]:
    if settings.user is None and settings.password is not None and kinds != ["WG_CONFIG"]:
        return [Contradiction(None, "a user for PASS", "set USER, too", ("USER", "PASS"))]
    if settings.url and settings.password is None:
        missing = "USER and PASS" if settings.user is None else "PASS"
        remedy = f"set {missing}, or PASS_FILE"
        return [Contradiction(None, "a password for URL's server", remedy, ("PASS", "URL"))]
    return []


def _places(settings: ExitSettings, kinds: list[str]) -> list[Contradiction]:
    if not kinds:
        return []
    written = {"COUNTRY": settings.country, "CITY": settings.city, "GROUP": settings.group}
    remedy = f"remove it, or {kinds[0]} to leave by NordVPN"
    return [
        Contradiction(
            ";".join(value),
            f"unset with {kinds[0]}, whose servers are not chosen by place",
            remedy,
            (name, kinds[0]),
        )
        for name, value in written.items()
        if value
    ]


def without_effect(found: Mapping[str, Written], settings: ExitSettings) -> list[str]:
    """Settings that say nothing for this kind of tunnel, and networks that are open to everybody,
    one sentence each."""
    by = _NAMES.get(settings.kind, "NordVPN")
    notices = [
        f"{found[name].origin}: {name}: has no effect with {by}"
        for name in _IDLE[settings.kind]
        if name in found
    ]
    public = [str(network) for network in settings.network or () if not network.is_private]
    if public:
        place = found["NETWORK"].origin
        notices.append(
            f"{place}: NETWORK: {', '.join(public)} is public: what goes there leaves outside of "
            "the tunnel"
        )
    return notices

"""The values of the exit role's settings that are one of a few words. Pure."""

from __future__ import annotations

from enum import StrEnum


class ExitKind(StrEnum):
    """What the exit's tunnel is, which follows from the settings that are written."""

    OPENVPN = "openvpn"
    """OVPN_CONFIG."""
    OPENCONNECT = "openconnect"
    """URL."""
    WIREGUARD = "wireguard"
    """WG_CONFIG."""
    NORDVPN = "nordvpn"
    """USER and PASS alone."""


class GatewayDns(StrEnum):
    """What becomes of port 53 from the networks that may use the tunnel."""

    REDIRECT = "redirect"
    """To the tunnel's resolver, whatever resolver was asked."""
    OFF = "off"
    """Forwarded like everything else."""


class Technology(StrEnum):
    """How a NordVPN server is spoken to; NordVPN's identifiers."""

    OPENVPN_UDP = "openvpn_udp"
    OPENVPN_TCP = "openvpn_tcp"

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

    AUTO = "auto"
    """Redirected if the tunnel offers a resolver, otherwise forwarded like everything else."""
    REDIRECT = "redirect"
    """To the tunnel's resolver, whatever resolver was asked."""
    OFF = "off"
    """Forwarded like everything else."""


class Mac(StrEnum):
    """The MAC address of this container on the networks of FORWARD_FROM."""

    KEEP = "keep"
    """The one that it was started with."""
    NEW = "new"
    """One at random, taken when the kill switch stands."""


class Technology(StrEnum):
    """How a NordVPN server is spoken to; NordVPN's identifiers."""

    OPENVPN_UDP = "openvpn_udp"
    OPENVPN_TCP = "openvpn_tcp"

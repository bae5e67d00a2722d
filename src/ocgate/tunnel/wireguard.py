"""WireGuard: the exit's tunnel from a wg-quick file. Pure; `wireguard_reading` reads it.

The kernel is the client: it has no process, no hook and no state of its own to report. What the
tunnel carries stands in the file, and whether it works only probes can tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_interface

from ocgate.plan.facts import InterfaceAddress
from ocgate.tunnel.model import Carried, Endpoint, Refusal, Remote
from ocgate.tunnel.wireguard_profile import Peer, Profile
from ocgate.tunnel.wireguard_reading import read

__all__ = ["Interface", "Peer", "Profile", "interface", "read", "remotes"]

# An Ethernet packet less outer IPv6 (40), UDP (8) and WireGuard's own 32 bytes (wg-quick's figure).
DEFAULT_MTU = 1420

_SHOWN = 3  # of the networks that are left out


@dataclass(frozen=True)
class Interface:
    """What the device is configured with: `text` for `wg setconf DEVICE /dev/stdin`."""

    carried: Carried
    text: str = field(repr=False)


def remotes(profile: Profile) -> tuple[Remote, ...]:
    """The peers' servers in the file's order, each once."""
    return tuple(dict.fromkeys(peer.remote for peer in profile.peers))


def interface(profile: Profile, remote: Remote, endpoint: Endpoint) -> Interface:
    """The device's configuration for one of the profile's remotes, at its resolved address.

    Each family is judged by itself: it counts as carried only if the peer takes its internet. Of
    what it does not take clients are told, rather than have it swallowed. (A peer that takes
    neither is for a company's network: then what it takes of IPv4 is the operator's wish.)
    """
    peer = next(each for each in profile.peers if each.remote == remote)
    given = tuple(ip_interface(address.ip) for address in dict.fromkeys(profile.addresses))
    refused = tuple(_not_taken(peer, address) for address in given if not _passes(peer, address))
    taken = tuple(address for address in given if _passes(peer, address))
    text = "".join(f"{line}\n" for line in _lines(profile, peer, endpoint))
    carried = Carried(taken, profile.mtu or DEFAULT_MTU, profile.resolvers, refused)
    return Interface(carried, text)


def _passes(peer: Peer, address: InterfaceAddress) -> bool:
    return peer.allows(address.version) or (
        address.version == 4 and not peer.allows(6) and bool(peer.allowed)
    )


def _not_taken(peer: Peer, address: InterfaceAddress) -> Refusal:
    """Without IPv4 clients are lost; without IPv6 they fall back to it."""
    version = address.version
    missing = ", ".join(str(net) for net in peer.left_out(version)[:_SHOWN])
    why = f"AllowedIPs of this peer leave out most of IPv{version}'s internet ({missing}, …)"
    return Refusal(f"address {address.ip}", why, loses=version == 4)


def _lines(profile: Profile, peer: Peer, endpoint: Endpoint) -> Iterator[str]:
    address = endpoint.address
    host = f"[{address}]" if address.version == 6 else str(address)
    yield "[Interface]"
    yield f"PrivateKey = {profile.private}"
    yield "[Peer]"
    yield f"PublicKey = {peer.public}"
    if peer.preshared:
        yield f"PresharedKey = {peer.preshared}"
    yield f"Endpoint = {host}:{endpoint.port}"
    yield f"AllowedIPs = {', '.join(str(net) for net in peer.allowed)}"
    if peer.keepalive:
        yield f"PersistentKeepalive = {peer.keepalive}"

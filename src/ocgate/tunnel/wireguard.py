"""WireGuard: the exit's tunnel from a wg-quick file. Pure; `wireguard_reading` reads it.

The kernel is the client: it has no process, no hook and no state of its own to report. What the
tunnel carries stands in the file, and whether it works only probes can tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_interface

from ocgate.plan.facts import InterfaceAddress
from ocgate.tunnel.gate import LEAST_MTU6
from ocgate.tunnel.model import Carried, Endpoint, Remote
from ocgate.tunnel.wireguard_profile import Peer, Profile
from ocgate.tunnel.wireguard_reading import read

__all__ = ["Interface", "Peer", "Profile", "interface", "read", "remotes"]

# An Ethernet packet less outer IPv6 (40), UDP (8) and WireGuard's own 32 bytes (wg-quick's figure).
DEFAULT_MTU = 1420


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

    IPv6 counts as carried only if the peer takes all of it, and the same of IPv4: of what it does
    not take clients are told, rather than have it swallowed.
    """
    peer = next(each for each in profile.peers if each.remote == remote)
    mtu = profile.mtu or DEFAULT_MTU
    addresses = tuple(
        ip_interface(address.ip)
        for address in dict.fromkeys(profile.addresses)
        if _passes(peer, address, mtu)
    )
    text = "".join(f"{line}\n" for line in _lines(profile, peer, endpoint))
    return Interface(Carried(addresses, mtu, profile.resolvers), text)


def _passes(peer: Peer, address: InterfaceAddress, mtu: int) -> bool:
    if address.version == 6 and (mtu < LEAST_MTU6 or not peer.allows(6)):
        return False
    return address.version == 6 or peer.allows(4) or not peer.allows(6)


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

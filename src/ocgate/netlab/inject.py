"""Put a packet on the wire as it is, whoever its source claims to be."""

from __future__ import annotations

import json
import socket
from ipaddress import ip_address

from ocgate.netlab.namespace import Namespace
from ocgate.netlab.packet import ETH_ARP, ETH_IPV4, ETH_IPV6


def into_tun(netns: Namespace, device: str, *packets: bytes) -> None:
    """Send IP packets out by `device` (a tun, so no link header) past routes and firewall.

    This is what a hostile client does: openconnect reads them from its tun and passes them on.
    """
    with netns.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as raw:
        for packet in packets:
            ethertype = ETH_IPV4 if packet[0] >> 4 == 4 else ETH_IPV6
            raw.sendto(packet, (device, ethertype))


def routed(netns: Namespace, *packets: bytes) -> None:
    """Send IP packets by `netns`'s routing table (and firewall), with any source address.

    This is what a hostile neighbour does.
    """
    with netns.entered():
        for packet in packets:
            is_v4 = packet[0] >> 4 == 4
            family = socket.AF_INET if is_v4 else socket.AF_INET6
            to = ip_address(packet[16:20] if is_v4 else packet[24:40])
            with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
                raw.sendto(packet, (str(to), 0))


def onto_link(netns: Namespace, device: str, mac: str, *packets: bytes) -> None:
    """Send IP packets or ARP to a neighbour's MAC address on an Ethernet `device`, past routes and
    firewall and whatever the neighbour table says."""
    to = bytes.fromhex(mac.replace(":", ""))
    with netns.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as raw:
        for packet in packets:
            kinds = {4: ETH_IPV4, 6: ETH_IPV6}
            raw.sendto(packet, (device, kinds.get(packet[0] >> 4, ETH_ARP), 0, 0, to))


def mac_of(netns: Namespace, device: str) -> str:
    """The MAC address of a device."""
    found: list[dict[str, str]] = json.loads(
        netns.run(["ip", "-j", "link", "show", "dev", device]).stdout
    )
    return found[0]["address"]

"""A slow line between an OpenVPN client and its provider, for the tests of both roles."""

from __future__ import annotations

from ipaddress import IPv4Address

from lab.addresses import PROVIDER
from lab.openvpn import OPENVPN_PORT
from lab.slow_line import Line, SlowLine
from lab.topology import Lab

RELAY_PORT = 1195
TWO_MBIT = 250_000.0  # bytes a second
FILLED = 20.0  # seconds; with probes alone the verdict fell after 4.8 to 6.6

# What comes to the provider's port goes to the relay, and from there to the port itself.
REDIRECT = f"""
table ip slow {{
    chain prerouting {{
        type nat hook prerouting priority dstnat;
        udp dport {OPENVPN_PORT} redirect to :{RELAY_PORT}
    }}
}}
"""


def slowed(lab: Lab, line: Line) -> None:
    """The provider is reached by that line from now on."""
    netns = lab.provider.netns
    listen = (IPv4Address("0.0.0.0"), RELAY_PORT)
    lab.own(SlowLine(netns, listen, (PROVIDER, OPENVPN_PORT), line))
    netns.nft(REDIRECT)


def dropped(match: str) -> str:
    """A ruleset for the provider, which drops what it forwards of this."""
    hook = "type filter hook forward priority 0"
    return f"table inet blocked {{ chain forward {{ {hook}; {match} drop; }}; }}"

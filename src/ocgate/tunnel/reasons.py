"""Why the kill switch blocks a packet: one named counter each, as `ocgate status` tells. Pure."""

from __future__ import annotations

REASONS = {
    "tunnel_down": "from a network that may use the tunnel, while it is not up",
    "ipv6_not_carried": "IPv6 from such a network, which the tunnel does not carry",
    "no_resolver": "DNS from such a network, and the tunnel offers no resolver",
    "not_allowed": "from a source that is not in FORWARD_FROM",
    "local_destination": "to a network of this host, which is not beyond the tunnel",
    "by_uplink": "through this host by anything but the tunnel",
    "unsolicited": "from the tunnel, of no flow that began on this side",
    "invalid": "of no known flow (conntrack state INVALID)",
    "redirects": "an ICMP redirect: a neighbour's word about where this host shall send",
    "input_closed": "to this host itself, other than ping from the local networks",
    "output_closed": "of this host itself, by anything but the tunnel",
    "resolver_closed": "to docker's resolver (127.0.0.11), which asks beside the tunnel",
}
"""Each counted reason for a drop or reject, and what it counts."""

SENT = "sent"
"""Counter of users' bytes into the tunnel; what comes back is counted by `plan.carried`'s names."""

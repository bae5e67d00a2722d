"""Why a packet is blocked, and how it is told: one counter a reason, a reject that is noticed.

Pure. A deliberate block rejects; what should never have been sent is dropped. Every one of them is
counted by its reason: `nft list counters inet`, `ocgate status`.
"""

from __future__ import annotations

from ocgate.names import MARK_MASK
from ocgate.plan.model import NftRule
from ocgate.plan.sysctls import Sysctl

COUNTERS = {
    "spoofed": "from a tunnel, with a source that is not this session's",
    "link_local": "link-local chatter of a client's own system (router solicitations, MLD, mDNS)",
    "ipv6_rejected": "a client's IPv6, which has no way out now",
    "claimed": "from outside a tunnel, with a client's source",
    "input_closed": "from a client to this host, other than ping and the resolver",
    "client_address": "from outside to the server's address in the tunnel",
    "redirects": "an ICMP redirect: a neighbour's word about where this host shall send",
    "invalid": "of no known flow (conntrack state INVALID)",
    "between_clients": "from one client to another",
    "link_local_destination": "from a client to link-local addresses (cloud metadata)",
    "no_exit": "from a client by a way that its exit does not allow",
    "unsolicited": "to a client, of no flow that it began",
    "ended_session": "to the client subnet, with no such session",
    "portless": "from a client by a protocol whose flows can't be told from this host's by a port",
    "not_translated": "leaving with a client's source by anything but a tunnel",
}
"""Each counted reason for a drop or reject, and what it counts; one named counter each."""

EXIT_COUNTERS = {"exit_closed": "from a client whose exit is blocked, down or not there"}
"""What gateway mode adds to these."""

GUARD_COUNTERS = {
    "wrong_exit": "from a client towards another next hop than its exit's",
    "local_destination": "from a client to a network of this host, which is no way out",
    "between_clients": COUNTERS["between_clients"],
    "spoofed": COUNTERS["spoofed"],
    "stray": "for a client's flow that is forgotten: the answer would leave by this host",
    "gateway_reset": "from a gateway that resets a probe in its target's name: it leads nowhere",
}
"""The same for the guard of gateway mode, table `inet ocserv_gw`."""

LIMIT_COUNTERS = {
    "flow_limit": "from a client that has as many flows as OCGATE_SESSION_FLOWS allows",
    "flow_rate": "from a client that begins flows faster than it could keep that many",
    "destination_limit": "from a client that has its share of the ports to one destination",
}
"""The same for the limits of a session's flows, table `inet ocserv_limits`."""

NETWORK_COUNTERS = {
    "network_closed": "from a client to a permitted network whose interface or route is away",
}
"""What permitted networks add to both tables."""

ALL_COUNTERS = COUNTERS | EXIT_COUNTERS | NETWORK_COUNTERS | GUARD_COUNTERS | LIMIT_COUNTERS

# Without it a client hears six rejects at once and then one a second (ten on newer kernels): a
# browser that tries many hosts by QUIC waits for the rest as if nobody had answered. All ICMPv6
# types but 1, destination unreachable, stay limited; packet too big (2) never was
# (Documentation/networking/ip-sysctl, icmp/ratemask, since Linux 5.1).
REJECTS6_UNLIMITED = Sysctl(
    "net.ipv6.icmp.ratemask",
    "0,3-127",
    "every packet of a client's IPv6 that is rejected says so, not only the first few",
    required=False,
)

# The same for IPv4: the kernel's default 6168 without bit 3, destination unreachable
# (Documentation/networking/ip-sysctl, icmp_ratemask).
REJECTS4_UNLIMITED = Sysctl(
    "net.ipv4.icmp_ratemask",
    "6160",
    "every packet that is rejected says so, not only the first few",
    required=False,
)

RESET = "reject with tcp reset"
PROHIBITED = "reject with icmpx admin-prohibited"


def reject(match: str, reason: str, why: str) -> tuple[NftRule, NftRule]:
    """A block that is noticed at once. TCP gets a RST, because Windows ignores ICMP errors while it
    connects; all else gets admin-prohibited."""
    words = f"{match} " if match else ""
    return (
        NftRule(f"{words}meta l4proto tcp {count(reason)} {RESET}", why),
        NftRule(f"{words}{count(reason)} {PROHIBITED}", why),
    )


# Every session's packet has one (`from_client`), whatever its exit.
MARKED = f"meta mark & 0x{MARK_MASK:08x} != 0x00000000"


def unmarked() -> NftRule:
    """Before a chain's first reject: what no session sent is dropped without a word. Should the
    chain that drops forged sources be gone, a reject would go to whoever was named as the sender,
    by this host's own way."""
    match = f"meta mark & 0x{MARK_MASK:08x} == 0x00000000"
    return NftRule(f"{match} {count('spoofed')} drop", "of no session: its sender is told nothing")


def count(reason: str) -> str:
    """The statement that counts it."""
    return f'counter name "{reason}"'

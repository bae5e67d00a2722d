"""The names of the tables in a family, by netlink.

Not by libnftables, whose `list tables` reads the whole ruleset of all families first (5 ms beside
three tables of ours, and more with docker's; this takes 0.05 ms). Only the room `kernel` imports
this.
"""

from __future__ import annotations

import struct

from ocgate.kernel.netlink import Netlink, attributes

# linux/netfilter/nf_tables.h: subsystem in the high byte of the message type.
_GETTABLE = 10 << 8 | 1
_NAME = 1
_NFPROTO_INET = 1


def inet(netlink: Netlink) -> list[str]:
    """Tables of the family inet, in the order in which they were made."""
    request = struct.pack("=BBH", _NFPROTO_INET, 0, 0)  # family, version, res_id
    found = (message.payload for message in netlink.dump(_GETTABLE, request))
    return [bytes(attributes(body, len(request))[_NAME]).rstrip(b"\0").decode() for body in found]

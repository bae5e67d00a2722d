"""The names of the tables in a family, and their end, by netlink.

Not by libnftables, whose `list tables` reads the whole ruleset of all families first (5 ms beside
three tables of ours, and more with docker's; this takes 0.05 ms). Only the room `kernel` imports
this.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

from ocgate.kernel.netlink import Netlink, attributes, text

# linux/netfilter/nf_tables.h: subsystem in the high byte of the message type.
_GETTABLE, _DELTABLE = 10 << 8 | 1, 10 << 8 | 2
_BATCH_BEGIN, _BATCH_END = 16, 17  # linux/netfilter/nfnetlink.h, of subsystem 0
_NFTABLES = 10
_NAME = 1
_NFPROTO_INET = 1


def inet(netlink: Netlink) -> list[str]:
    """Tables of the family inet, in the order in which they were made."""
    request = struct.pack("=BBH", _NFPROTO_INET, 0, 0)  # family, version, res_id
    found = (message.payload for message in netlink.dump(_GETTABLE, request))
    return [bytes(attributes(body, len(request))[_NAME]).rstrip(b"\0").decode() for body in found]


def remove(netlink: Netlink, names: Sequence[str]) -> None:
    """Delete those that are there, all or none; raises NetlinkError."""
    there = [name for name in inet(netlink) if name in names]
    if not there:
        return
    subsystem = struct.pack("=BBH", 0, 0, socket.htons(_NFTABLES))
    header = struct.pack("=BBH", _NFPROTO_INET, 0, 0)
    netlink.transaction(
        (_BATCH_BEGIN, subsystem),
        [(_DELTABLE, header + text(_NAME, name)) for name in there],
        (_BATCH_END, subsystem),
    )

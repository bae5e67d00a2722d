"""The base chains of all tables, by netlink: other programs' tables are not for libnftables to read
(`nft_sets` says why). Only the room `kernel` imports this.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ocgate.kernel.netlink import Netlink, as_text, attributes

# linux/netfilter/nf_tables.h: subsystem in the high byte of the message type; attributes of a chain
# and of its hook.
_GETCHAIN = 10 << 8 | 4
_TABLE, _NAME, _HOOK, _POLICY = 1, 3, 4, 5
_HOOK_NUMBER = 1
_HEADER = struct.Struct("=BBH")  # family, version, res_id
_NUMBER = struct.Struct("!I")

# linux/netfilter.h: families, hooks of the IP families, verdicts.
FAMILIES = {1: "inet", 2: "ip", 10: "ip6"}
FORWARD = 2
_DROP = 0


@dataclass(frozen=True)
class BaseChain:
    """One chain at a hook. family: nft's word; hook: NF_INET_*; drops: by its policy."""

    family: str
    table: str
    name: str
    hook: int
    drops: bool


def of_ip(netlink: Netlink) -> Iterator[BaseChain]:
    """Base chains of the families ip, ip6 and inet."""
    for message in netlink.dump(_GETCHAIN, _HEADER.pack(0, 0, 0)):
        held = attributes(message.payload, _HEADER.size)
        family = FAMILIES.get(message.payload[0])
        if family is None or _HOOK not in held:
            continue
        (hook,) = _NUMBER.unpack(attributes(held[_HOOK])[_HOOK_NUMBER])
        policy = _NUMBER.unpack(held[_POLICY])[0] if _POLICY in held else None
        yield BaseChain(family, as_text(held[_TABLE]), as_text(held[_NAME]), hook, policy == _DROP)

"""The generation of the nftables ruleset: a counter that every commit in this namespace raises.

`nft` remembers the generations of its own commits, `watch` gets others' by NEWGEN events; both read
the same message here. Only the room `kernel` imports this.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass

from ocgate.kernel.netlink import Message, Netlink, attributes

# linux/netfilter/nfnetlink.h and nf_tables.h: subsystem in the high byte of the message type.
NEWGEN = 10 << 8 | 15
_GETGEN = 10 << 8 | 16
_NFGENMSG = struct.pack("=BBH", 0, 0, 0)  # family, version, res_id
_GEN_ID, _GEN_PROC_PID, _GEN_PROC_NAME = 1, 2, 3


@dataclass(frozen=True)
class Commit:
    """One committed transaction of any process.

    generation: the ruleset's generation after it.
    pid:        of the committing thread, in the initial pid namespace (not the container's).
    process:    its command name, 15 bytes at most.
    """

    generation: int
    pid: int
    process: str


def generation(netlink: Netlink) -> int:
    """The generation now; raises KernelRefused when nf_tables is not in this kernel."""
    for message in netlink.request(_GETGEN, 0, _NFGENMSG):
        return parse(message).generation
    raise OSError(errno.ENODATA, "nf_tables did not tell its generation")


def parse(message: Message) -> Commit:
    """The commit that a NEWGEN message tells of (numbers are big-endian: nfnetlink)."""
    found = attributes(message.payload, len(_NFGENMSG))
    return Commit(
        generation=int.from_bytes(found[_GEN_ID], "big"),
        pid=int.from_bytes(found.get(_GEN_PROC_PID, b""), "big"),
        process=bytes(found.get(_GEN_PROC_NAME, b"")).rstrip(b"\0").decode(errors="replace"),
    )

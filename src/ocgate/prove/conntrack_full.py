"""The conntrack table full: new flows get no entry, and so no translation.

The limit (net.netfilter.nf_conntrack_max) is the whole machine's and can't be set in a namespace,
but each namespace's entries are counted for themselves: this one is filled with entries that the
kernel may not evict (IPS_ASSURED), through netlink, and emptied again.
"""

from __future__ import annotations

import contextlib
import socket
import struct

from ocgate.kernel import conntrack
from ocgate.kernel.netlink import CREATE, NETFILTER, Netlink, attribute, nested
from ocgate.netlab.namespace import Namespace
from ocgate.prove.fault import Expect, Fault
from ocgate.prove.stage import Stage
from ocgate.prove.subject import Unsupported

# 320 bytes each in the kernel: 200 MiB at the most, for two seconds.
MOST_ENTRIES = 600_000
TIMEOUT_SECONDS = 300  # of the entries, should nobody empty the table

# linux/netfilter/nfnetlink_conntrack.h, nf_conntrack_common.h
_NEW, _REQUEST = 1 << 8, 1
_TUPLE_ORIG, _TUPLE_REPLY, _STATUS, _TIMEOUT = 1, 2, 3, 7
_IP, _PROTO = 1, 2
_SEEN_REPLY, _ASSURED, _CONFIRMED = 1 << 1, 1 << 2, 1 << 3
_CTA_MARK = 8
_UDP = 17
_MARK = 0x00C7_F111  # of what was filled in; outside of the product's mask
_HEADER = struct.Struct("=IHHII")
_PER_SEND = 200  # messages of 148 bytes: below the socket's buffer


def fill(stage: Stage) -> None:
    """Raises Unsupported where the limit is too high for that."""
    fill_table(stage.gw)


def fill_table(netns: Namespace, *, room: int = 0) -> None:
    """Fill the table of this namespace until `room` entries are free, or up to _PER_SEND less;
    raises Unsupported."""
    limit = int(netns.sysctl("net/netfilter/nf_conntrack_max"))
    if limit > MOST_ENTRIES:
        raise Unsupported(f"nf_conntrack_max is {limit} and is the whole machine's")
    with netns.entered(), Netlink(NETFILTER):  # the module answers
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER)
    wanted = limit + 1000 if not room else limit - room - _count(netns)
    with sock:
        sock.settimeout(0)  # the kernel takes requests within the call
        template, ports = _entry()
        for start in range(0, wanted, _PER_SEND):
            _send(sock, template, ports, start)
    count = _count(netns)
    if count < limit - (room and room + _PER_SEND):  # of what was there some has ended
        raise Unsupported(f"only {count} of {limit} entries could be made")


def _count(netns: Namespace) -> int:
    return int(netns.sysctl("net/netfilter/nf_conntrack_count"))


def _send(sock: socket.socket, template: bytes, ports: tuple[int, ...], start: int) -> None:
    """Flow `number` is between two ports that its two halves name."""
    whole = bytearray()
    for number in range(start, start + _PER_SEND):
        entry = bytearray(template)
        low, high = 1 + (number & 0x7FFF), 1 + (number >> 15)
        for at, value in zip(ports, (low, high, high, low), strict=True):
            struct.pack_into("!H", entry, at, value)
        whole += entry
    sock.send(whole)
    with contextlib.suppress(BlockingIOError):  # refusals only: nobody asked for acks
        while sock.recv(65536):
            pass


def _entry() -> tuple[bytes, tuple[int, ...]]:
    """The request that makes an entry, and where its four ports stand."""
    one, other = socket.inet_aton("127.9.9.1"), socket.inet_aton("127.9.9.2")
    body = struct.pack("=BBH", socket.AF_INET, 0, 0)
    body += _tuple(_TUPLE_ORIG, one, other, b"\xf1\xf1\xf2\xf2")
    body += _tuple(_TUPLE_REPLY, other, one, b"\xf3\xf3\xf4\xf4")
    body += attribute(_STATUS, struct.pack(">I", _SEEN_REPLY | _ASSURED | _CONFIRMED))
    body += attribute(_CTA_MARK, struct.pack(">I", _MARK))
    body += attribute(_TIMEOUT, struct.pack(">I", TIMEOUT_SECONDS))
    made = _HEADER.pack(16 + len(body), _NEW, _REQUEST | CREATE, 0, 0) + body
    marks = (b"\xf1\xf1", b"\xf2\xf2", b"\xf3\xf3", b"\xf4\xf4")
    return made, tuple(made.index(mark) for mark in marks)


def _tuple(kind: int, src: bytes, dst: bytes, ports: bytes) -> bytes:
    addresses = nested(_IP, attribute(1, src), attribute(2, dst))
    numbers = (attribute(1, bytes((_UDP,))), attribute(2, ports[:2]), attribute(3, ports[2:]))
    return nested(kind, addresses, nested(_PROTO, *numbers))


def empty(stage: Stage) -> None:
    """Forget what `fill` has made, and nothing else."""
    empty_table(stage.gw)


def empty_table(netns: Namespace) -> None:
    """The same of `fill_table`."""
    with netns.entered():
        conntrack.delete_marked(_MARK, 0xFFFF_FFFF)


FAULTS = (Fault("conntrack table full", "conntrack", fill, empty, expect=Expect.OUTAGE),)

"""Kernel events, coalesced: they only say "look again", what is so now is then read anew.

            rtnetlink: links, addresses, routes, rules, ─┐
                       forwarding, lost neighbours       │
                                                         ├─ parse ─ debounce ─ Look(…)
            nfnetlink: NEWGEN (a ruleset was committed) ─┘

Nothing is lost by an overflow of the socket, because that says "look again at everything", too.
Client tunnels come and go by the thousand and no plan depends on them, so their events don't wake
anybody; only the names of those that went are handed on. The wiring imports this.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import socket
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from enum import Enum

from ocgate.kernel import neighbours, netlink, nftgen, rtnetlink
from ocgate.kernel.netlink import Message, as_number, attributes
from ocgate.kernel.nftgen import Commit
from ocgate.names import TUNNEL_GROUP

# linux/rtnetlink.h RTNLGRP_*: link, neighbour, IPv4 address, route and rule, and the same of IPv6.
# Links and addresses, too: when one goes, IPv4 routes go with it without an event of their own.
# RTNLGRP_IPV4_NETCONF and _IPV6_NETCONF tell of the forwarding sysctls, whoever writes them.
_ROUTE_GROUPS = (1, 3, 5, 7, 8, 9, 11, 19, 24, 25)
_NEWNETCONF = 80  # linux/rtnetlink.h
_NETCONFMSG_SIZE = 4  # one byte of family, padded to 4; linux/netconf.h
_NETCONFA_IFINDEX, _NETCONFA_FORWARDING = 1, 2
_ALL = struct.pack("=i", -1)  # NETCONFA_IFINDEX_ALL
_NFTABLES_GROUP = 7  # linux/netfilter/nfnetlink.h NFNLGRP_NFTABLES
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_SO_ATTACH_FILTER = 26

# 10,000 tunnels that go at once send about 15 MB of messages; what doesn't fit is an overflow.
_RECEIVE = 16 << 20

# Seconds of quiet that end a burst, and how long a burst without end may hold an event back. The
# aim is a missing guard back within 100 ms: the first takes a tenth of that, the second half.
DEBOUNCE = 0.01
_LONGEST = 0.05

# Datagrams read before the event loop gets its turn again: 200 take about 1 ms.
_PER_TURN = 200


class Topic(Enum):
    """What may have changed."""

    LINK = "link"
    ADDRESS = "address"
    ROUTE = "route"
    RULE = "rule"
    NFT = "nft"
    FORWARDING = "forwarding"
    NEIGHBOUR = "neighbour"  # one failed, or its entry went; a plan does not depend on it


EVERYTHING = frozenset(Topic)

_TOPIC = {
    rtnetlink.NEWLINK: Topic.LINK,
    rtnetlink.DELLINK: Topic.LINK,
    rtnetlink.NEWADDR: Topic.ADDRESS,
    rtnetlink.DELADDR: Topic.ADDRESS,
    rtnetlink.NEWROUTE: Topic.ROUTE,
    rtnetlink.DELROUTE: Topic.ROUTE,
    rtnetlink.NEWRULE: Topic.RULE,
    rtnetlink.DELRULE: Topic.RULE,
    _NEWNETCONF: Topic.FORWARDING,
    rtnetlink.NEWNEIGH: Topic.NEIGHBOUR,
    rtnetlink.DELNEIGH: Topic.NEIGHBOUR,
}


@dataclass(frozen=True)
class Look:
    """Look again.

    topics:   what may have changed; all of them after an overflow. Empty when only tunnels went.
    gone:     client tunnels deleted, in order; a name that is back already may stand here.
    left:     client tunnels that were in the group of admitted sessions and are not any more; after
              an overflow all that are not.
    commits:  nftables transactions of others, oldest first: who to name in a fight.
    overflow: events were lost: list the tunnels anew, too.
    """

    topics: frozenset[Topic]
    gone: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    commits: tuple[Commit, ...] = ()
    overflow: bool = False


@dataclass
class _Pending:
    """What has been heard since the last Look."""

    topics: set[Topic] = field(default_factory=set)
    gone: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    commits: list[Commit] = field(default_factory=list)
    overflow: bool = False


class Watch:
    """Events of the network namespace of the thread that creates it; for one asyncio loop.

    Listens from its creation on, so create it before the first observation: then nothing falls
    between the two. `async for look in watch` never ends by itself; `close` ends it.
    """

    def __init__(
        self,
        *,
        session_prefix: str,
        is_own: Callable[[int], bool] = lambda _: False,
        debounce: float = DEBOUNCE,
    ) -> None:
        """session_prefix: how client tunnels are named ("vpns").

        is_own: whether an nft generation is a commit of ours (`Nft.is_own`), asked after the
        debounce, when our own call has returned. debounce: seconds of quiet, up to 0.05.
        """
        self._prefix = session_prefix
        self._is_own = is_own
        self._debounce = debounce
        self._session_links: set[int] = set()
        self._grouped: set[int] = set()  # those of them in the group of admitted sessions
        self._pending = _Pending()
        self._heard = asyncio.Event()
        self._closed = False
        self._route = _listener(netlink.ROUTE, _ROUTE_GROUPS)
        self._nft = _listener(netlink.NETFILTER, (_NFTABLES_GROUP,))
        # A transaction of 10,000 elements sends 10,000 events and one NEWGEN: take only that.
        _only_newgen(self._nft)
        self._learn_session_links()

    def close(self) -> None:
        """Stop listening and end the iteration; a second call does nothing."""
        self._closed = True
        self._heard.set()
        self._route.close()
        self._nft.close()

    async def __aiter__(self) -> AsyncIterator[Look]:
        loop = asyncio.get_running_loop()
        for sock, hear in ((self._route, self._hear_route), (self._nft, self._hear_nft)):
            loop.add_reader(sock.fileno(), self._drain, sock, hear)
        readers = (self._route.fileno(), self._nft.fileno())
        try:
            while not self._closed:
                await self._heard.wait()
                await self._settle()
                look = self._take()
                if look is not None and not self._closed:
                    yield look
        finally:
            for descriptor in readers:
                loop.remove_reader(descriptor)

    async def _settle(self) -> None:
        """Return after `debounce` seconds without an event, or when it has lasted long enough."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _LONGEST
        while self._heard.is_set() and not self._closed and loop.time() < deadline:
            self._heard.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._debounce):
                    await self._heard.wait()
        self._heard.clear()

    def _take(self) -> Look | None:
        heard, self._pending = self._pending, _Pending()
        foreign = tuple(commit for commit in heard.commits if not self._is_own(commit.generation))
        topics = set(heard.topics)
        if foreign:
            topics.add(Topic.NFT)
        if heard.overflow:
            topics = set(EVERYTHING)
        if not topics and not heard.gone and not heard.left:
            return None
        gone, left = tuple(heard.gone), tuple(heard.left)
        return Look(frozenset(topics), gone, left, foreign, heard.overflow)

    def _drain(self, sock: socket.socket, hear: Callable[[Message], None]) -> None:
        """Read what is there, a turn's worth; the loop calls again while more is waiting."""
        for _ in range(_PER_TURN):
            try:
                datagram = sock.recv(netlink.DATAGRAM)
            except BlockingIOError:
                return
            except OSError as problem:
                if problem.errno != errno.ENOBUFS:
                    raise
                self._pending.overflow = True
                self._heard.set()  # first: without descriptors the list can't be had
                self._pending.left += self._learn_session_links()
                continue
            for _, message in netlink.parse(datagram):
                hear(message)

    def _hear_nft(self, message: Message) -> None:
        self._pending.commits.append(nftgen.parse(message))
        self._heard.set()

    def _hear_route(self, message: Message) -> None:
        topic = _TOPIC.get(message.kind)
        if topic is None or self._is_of_no_concern(topic, message):
            return
        self._pending.topics.add(topic)
        self._heard.set()

    def _is_of_no_concern(self, topic: Topic, message: Message) -> bool:
        """Whether it is about a client tunnel, or no change; notes tunnels that come and go."""
        if topic is Topic.LINK:
            return self._is_session_link(message)
        if topic is Topic.ADDRESS:
            return rtnetlink.IFADDRMSG.unpack_from(message.payload)[4] in self._session_links
        if topic is Topic.ROUTE:
            out = attributes(message.payload, rtnetlink.RTMSG.size).get(rtnetlink.RTA_OIF)
            return out is not None and as_number(out) in self._session_links
        if topic is Topic.FORWARDING:  # each new device tells its own, tunnels among them
            held = attributes(message.payload, _NETCONFMSG_SIZE)
            of_all = bytes(held.get(_NETCONFA_IFINDEX, b"")) == _ALL
            return not (of_all and _NETCONFA_FORWARDING in held)
        if topic is Topic.NEIGHBOUR:
            index = neighbours.index_of_lost(message)
            return index is None or index in self._session_links
        return False

    def _is_session_link(self, message: Message) -> bool:
        index = rtnetlink.IFINFOMSG.unpack_from(message.payload)[2]
        name = rtnetlink.link_name(message)
        if not name.startswith(self._prefix):
            # Renamed away from a tunnel's name: somebody else's from now on.
            self._session_links.discard(index)
            self._grouped.discard(index)
            return False
        if message.kind == rtnetlink.NEWLINK:
            self._session_links.add(index)
            self._follow_group(index, name, message)
        elif message.payload[0] == socket.AF_UNSPEC:  # not a bridge port's DELLINK
            # Its index stays noted: IPv6 route events still come after it, and none is reused.
            self._grouped.discard(index)
            self._pending.gone.append(name)
            self._heard.set()
        return True

    def _follow_group(self, index: int, name: str, message: Message) -> None:
        """A tunnel that is being set up is in no group yet, and wakes nobody."""
        group = rtnetlink.link_group(message)
        if group == TUNNEL_GROUP:
            self._grouped.add(index)
        elif group is not None and index in self._grouped:
            self._grouped.discard(index)
            self._pending.left.append(name)
            self._heard.set()

    def _learn_session_links(self) -> list[str]:
        """... anew; the names of those that are not in the group of admitted sessions."""
        request = rtnetlink.IFINFOMSG.pack(0, 0, 0, 0, 0)
        request += netlink.number(rtnetlink.IFLA_EXT_MASK, rtnetlink.SKIP_STATS)
        with netlink.Netlink(netlink.ROUTE) as door:
            links = {
                rtnetlink.IFINFOMSG.unpack_from(message.payload)[2]: message
                for message in door.dump(rtnetlink.GETLINK, request)
                if rtnetlink.link_name(message).startswith(self._prefix)
            }
        self._session_links = set(links)
        self._grouped = {i for i, m in links.items() if rtnetlink.link_group(m) == TUNNEL_GROUP}
        return [rtnetlink.link_name(m) for i, m in links.items() if i not in self._grouped]


def _listener(protocol: int, groups: tuple[int, ...]) -> socket.socket:
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    sock = socket.socket(socket.AF_NETLINK, kind, protocol)
    netlink.widen(sock, _RECEIVE)
    sock.bind((0, 0))
    for group in groups:
        sock.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
    return sock


def _only_newgen(sock: socket.socket) -> None:
    """Let the kernel drop every datagram whose first message is not NEWGEN (classic BPF).

    The kernel sends NEWGEN in a datagram of its own, after the commit's other events
    (nf_tables_gen_notify). nlmsg_type stands at byte 4, host-endian, and BPF loads big-endian.
    """
    load_half, jump_equal, return_constant = 0x28, 0x15, 0x06  # linux/bpf_common.h
    kind = socket.htons(nftgen.NEWGEN)
    program = b"".join(
        struct.pack("=HBBI", code, yes, no, constant)
        for code, yes, no, constant in (
            (load_half, 0, 0, 4),
            (jump_equal, 0, 1, kind),
            (return_constant, 0, 0, 0xFFFFFFFF),
            (return_constant, 0, 0, 0),
        )
    )
    held = ctypes.create_string_buffer(program, len(program))
    sock.setsockopt(
        socket.SOL_SOCKET,
        _SO_ATTACH_FILTER,
        struct.pack("HL", len(program) // 8, ctypes.addressof(held)),  # struct sock_fprog
    )

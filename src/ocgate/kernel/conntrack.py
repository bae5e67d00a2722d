"""The door to conntrack: forget the flows of a client that ended or moved.

A flow that is not forgotten goes on to its old exit with its old address translation, so entries
go after the new guard stands. Spawning `conntrack -D` costs 150 to 200 ms. Edges of the room
`kernel` and the wiring may import it.

A client's entries are those whose original source is its address (what it opened, masqueraded or
not) and those whose reply source is (what others opened to it, translated on the way or not).

IPv4 entries are deleted by the kernel's own filter (CTA_FILTER): two walks, 1 ms at 1,000 entries
and 60 ms at 60,000, with the GIL released. Never IPv6 ones: on 6.18 the same filter matches every
IPv6 address *but* the one given (a test shows it), so it would delete everybody else's and leave
this client's. They are dumped, compared here and deleted one by one: 125 ms beside 30,000 others.
"""

from __future__ import annotations

import errno
import struct
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import ip_address

from ocgate.errors import KernelRefused, MissingRequirement
from ocgate.kernel import netlink, sysctl
from ocgate.kernel.netlink import Message, Netlink, NetlinkError, attribute, attributes, nested
from ocgate.plan.facts import Address, Network

# linux/netfilter/nfnetlink_conntrack.h; subsystem 1 in the high byte.
_GET, _DELETE, _GET_STATS = 1 << 8 | 1, 1 << 8 | 2, 1 << 8 | 5
_NFGENMSG = struct.Struct("=BBH")  # family, version, res_id
_AF_UNSPEC, _AF = 0, {4: 2, 6: 10}
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_PROTO_NUM, _PROTO_SRC_PORT, _PROTO_DST_PORT = 1, 2, 3
_TCP = 6
_WITH_PORTS = {_TCP: "tcp", 17: "udp"}
_IP_SRC, _IP_DST = {4: 1, 6: 3}, {4: 2, 6: 4}
_STATUS, _MARK, _ID, _ZONE, _MARK_MASK, _FILTER = 3, 8, 12, 18, 21, 25
_ASSURED = 1 << 2  # linux/netfilter/nf_conntrack_common.h, IPS_ASSURED
_FILTER_ORIG, _FILTER_REPLY = 1, 2
_FILTER_IP_SRC = 1 << 0
_STATS_ENTRIES = 1

# Kernels that can't delete by filter (6.1 among them) take the partial tuple for a whole one and
# say EINVAL, before they touch anything.
_NO_FILTER = frozenset({errno.EINVAL, errno.EOPNOTSUPP})


_Entry = dict[int, memoryview]
_Choice = Callable[[_Entry, int], bool]


class _Side(IntEnum):
    """A direction's tuple attribute; its source address is what is compared."""

    ORIGINAL = 1
    REPLY = 2


def delete_of_clients(addresses: Iterable[Address]) -> int:
    """Delete all entries of these client addresses; the number of entries fewer afterwards.

    The number is the table's difference in size: right on a quiet host, an estimate under traffic.
    Raises KernelRefused, or MissingRequirement without CAP_NET_ADMIN.
    """
    with Netlink(netlink.NETFILTER) as door:
        before = _entries(door)
        if not before:
            return 0
        for address in addresses:
            if address.version == 4:
                for side in _Side:
                    _delete_filtered(door, address, side)
            else:
                _delete_found(door, 6, holding=address.packed, chosen=_is_of({int(address)}))
        return max(0, before - _entries(door))


def delete_of_networks(networks: Iterable[Network]) -> int:
    """Delete all entries of client addresses within `networks`; how many were deleted.

    The kernel filters by whole addresses only, so the table is read once for each network: 0.13 s
    at 60,000 entries of others, and 25 us for each that is deleted. Raises as `delete_of_clients`
    does.
    """
    with Netlink(netlink.NETFILTER) as door:
        return sum(_delete_within(door, network) for network in networks)


def delete_untranslated(networks: Iterable[Network]) -> int:
    """Delete entries of client addresses within `networks` that are answered at the client's own
    address; how many. Raises as `delete_of_clients` does.

    They were made while nobody translated (our table was gone), keep the kernel from translating
    what follows, and live as long as the client goes on trying.
    """
    with Netlink(netlink.NETFILTER) as door:
        return sum(_delete_within(door, network, translated=False) for network in networks)


def delete_towards(networks: Iterable[Network], destinations: Iterable[Network]) -> int:
    """Delete entries of client addresses within `networks` whose destination is within
    `destinations`; how many. Raises as `delete_of_clients` does.

    What may begin is asked of a flow's first packet alone: these began while it was allowed, or
    while nobody asked.
    """
    closed = tuple(destinations)
    ranges = {v: [_members(net) for net in closed if net.version == v] for v in (4, 6)}
    with Netlink(netlink.NETFILTER) as door:
        return sum(
            _delete_found(
                door,
                network.version,
                chosen=_is_towards(_members(network), ranges[network.version]),
                holding=_whole_bytes(network),
            )
            for network in networks
        )


def _is_towards(members: range, destinations: Sequence[range]) -> _Choice:
    """Chooses entries from these addresses to one of those."""

    def chosen(entry: _Entry, version: int) -> bool:
        if _source(entry, _Side.ORIGINAL, version) not in members:
            return False
        to = _destination(entry, _Side.ORIGINAL, version)
        return any(to in some for some in destinations)

    return chosen


def delete_unassured(networks: Iterable[Network]) -> int:
    """Delete entries of client addresses within `networks` that are no stream: a question and what
    came of it, a connection that has only begun; how many. Raises as `delete_of_clients` does.

    The kernel calls a TCP connection assured when it stands, and datagrams that went both ways for
    more than two seconds (nf_conntrack_proto_tcp.c, _udp.c); it never is with ICMP.
    """
    with Netlink(netlink.NETFILTER) as door:
        return sum(
            _delete_found(
                door,
                network.version,
                chosen=_is_unassured(_members(network)),
                holding=_whole_bytes(network),
            )
            for network in networks
        )


def _is_unassured(members: range) -> _Choice:
    def chosen(entry: _Entry, version: int) -> bool:
        return _source(entry, _Side.ORIGINAL, version) in members and not _is_assured(entry)

    return chosen


def _is_assured(entry: _Entry) -> bool:
    return bool(int.from_bytes(entry[_STATUS], "big") & _ASSURED)


@dataclass(frozen=True)
class TcpFlow:
    """A TCP connection as the client sees it."""

    client: Address
    port: int
    far: Address
    far_port: int


def tcp_of_networks(networks: Iterable[Network]) -> list[TcpFlow]:
    """The connections that client addresses within `networks` began, and that stand or lately did.
    Reads every entry of these families. Raises as `delete_of_clients` does."""
    found: list[TcpFlow] = []
    with Netlink(netlink.NETFILTER) as door:
        for network in networks:
            members = _members(network)
            for message in _dumped(door, network.version, holding=_whole_bytes(network)):
                entry = attributes(message.payload, _NFGENMSG.size)
                ours = _source(entry, _Side.ORIGINAL, network.version) in members
                if ours and _is_assured(entry):
                    found.extend(_tcp(entry, network.version))
    return found


def _tcp(entry: _Entry, version: int) -> Iterator[TcpFlow]:
    parts = attributes(entry[_Side.ORIGINAL])
    transport, addresses = attributes(parts[_TUPLE_PROTO]), attributes(parts[_TUPLE_IP])
    if transport[_PROTO_NUM][0] == _TCP:
        ports = (int.from_bytes(transport[p], "big") for p in (_PROTO_SRC_PORT, _PROTO_DST_PORT))
        client, far = (ip_address(bytes(addresses[side[version]])) for side in (_IP_SRC, _IP_DST))
        port, far_port = ports
        yield TcpFlow(client, port, far, far_port)


def usage() -> tuple[int, int]:
    """(entries of this network namespace, how many it may have); 0 where the kernel has none."""
    found = (sysctl.read(f"net.netfilter.nf_conntrack_{what}") for what in ("count", "max"))
    entries, most = (int(text) if text is not None and text.isdigit() else 0 for text in found)
    return entries, most


def busiest(networks: Iterable[Network]) -> tuple[str, int]:
    """The destination (`ADDRESS PROTOCOL PORT`) that most TCP or UDP flows of client addresses
    within `networks` have, and how many; ("", 0) where there are none.

    Reads every entry of these families: 0.3 s at 20,000. Raises as `delete_of_clients` does.
    """
    found: Counter[tuple[int, bytes, int, bytes]] = Counter()
    with Netlink(netlink.NETFILTER) as door:
        for network in networks:
            members = _members(network)
            for message in _dumped(door, network.version, holding=_whole_bytes(network)):
                entry = attributes(message.payload, _NFGENMSG.size)
                if _source(entry, _Side.ORIGINAL, network.version) in members:
                    found.update(_destinations(entry, network.version))
    for (_, address, protocol, port), flows in found.most_common(1):
        at = f"{ip_address(address)} {_WITH_PORTS[protocol]} {int.from_bytes(port, 'big')}"
        return at, flows
    return "", 0


def _destinations(entry: _Entry, version: int) -> Iterator[tuple[int, bytes, int, bytes]]:
    """(version, address, protocol, port) of one entry; none where it has no ports."""
    parts = attributes(entry[_Side.ORIGINAL])
    transport = attributes(parts[_TUPLE_PROTO])
    protocol = transport[_PROTO_NUM][0]
    if protocol in _WITH_PORTS:
        address = bytes(attributes(parts[_TUPLE_IP])[_IP_DST[version]])
        yield version, address, protocol, bytes(transport[_PROTO_DST_PORT])


def delete_marked(mark: int, mask: int) -> int:
    """Delete all entries whose ct mark is `mark` within `mask`; counted as `delete_of_clients`."""
    conditions = attribute(_MARK, struct.pack(">I", mark)) + attribute(
        _MARK_MASK, struct.pack(">I", mask)
    )
    with Netlink(netlink.NETFILTER) as door:
        before = _entries(door)
        _ask(door, _NFGENMSG.pack(_AF_UNSPEC, 0, 0) + conditions)  # both families in one walk
        return max(0, before - _entries(door))


def _delete_filtered(door: Netlink, address: Address, side: _Side) -> None:
    """One walk in the kernel; where it can't delete by filter, dump by filter and delete each."""
    condition = _condition(address, side)
    try:
        door.request(_DELETE, 0, _header(address.version) + condition)
    except NetlinkError as refused:
        if refused.errno == errno.ENOENT:
            return
        if refused.errno not in _NO_FILTER:
            raise _refusal(refused) from refused
        chosen = _is_of({int(address)})
        _delete_found(door, address.version, condition=condition, chosen=chosen)


def _delete_within(door: Netlink, network: Network, *, translated: bool = True) -> int:
    """translated: also entries that are."""
    members = _members(network)
    chosen = _is_of(members) if translated else _is_untranslated(members)
    return _delete_found(door, network.version, chosen=chosen, holding=_whole_bytes(network))


def _members(network: Network) -> range:
    """A range holds its members without listing them, which a set of a /64 could not."""
    return range(int(network.network_address), int(network.broadcast_address) + 1)


def _whole_bytes(network: Network) -> bytes:
    """Of the prefix; they stand in every entry wanted, and others are not even looked into."""
    return network.network_address.packed[: network.prefixlen // 8]


def _delete_found(
    door: Netlink,
    version: int,
    *,
    chosen: _Choice,
    condition: bytes = b"",
    holding: bytes = b"",
) -> int:
    """Dump by a condition, delete what is chosen, entry by entry; how many there were."""
    found = _dumped(door, version, condition, holding)
    entries = (attributes(message.payload, _NFGENMSG.size) for message in found)
    requests = [(_DELETE, 0, _exactly(e, version)) for e in entries if chosen(e, version)]
    results = door.batch(requests)
    failed = [code for code in results if code not in (0, errno.ENOENT)]  # ENOENT: it ended
    if failed:
        raise _refusal(NetlinkError(failed[0], ""))
    return results.count(0)


def _dumped(
    door: Netlink, version: int, condition: bytes = b"", holding: bytes = b""
) -> list[Message]:
    try:
        return door.dump(_GET, _header(version) + condition, holding=holding)
    except NetlinkError as refused:
        raise _refusal(refused) from refused


def _is_of(members: Container[int]) -> _Choice:
    """Chooses entries of which a source, of either side, is among these addresses."""

    def chosen(entry: _Entry, version: int) -> bool:
        return any(_source(entry, side, version) in members for side in _Side)

    return chosen


def _is_untranslated(members: Container[int]) -> _Choice:
    """Chooses entries whose original source is among these addresses, and is answered as such."""

    def chosen(entry: _Entry, version: int) -> bool:
        source = _source(entry, _Side.ORIGINAL, version)
        return source in members and _destination(entry, _Side.REPLY, version) == source

    return chosen


def _header(version: int) -> bytes:
    return _NFGENMSG.pack(_AF[version], 0, 0)


def _condition(address: Address, side: _Side) -> bytes:
    """Tuple with nothing but the source, and the filter that says so."""
    flags = {_FILTER_ORIG: 0, _FILTER_REPLY: 0}
    flags[_FILTER_ORIG if side is _Side.ORIGINAL else _FILTER_REPLY] = _FILTER_IP_SRC
    source = attribute(_IP_SRC[address.version], address.packed)
    return nested(side, nested(_TUPLE_IP, source)) + nested(
        _FILTER, *(netlink.number(kind, value) for kind, value in flags.items())
    )


def _exactly(entry: _Entry, version: int) -> bytes:
    """The payload that deletes this entry and no later one of the same tuple."""
    parts = [_header(version), nested(_Side.ORIGINAL, bytes(entry[_Side.ORIGINAL]))]
    parts += [attribute(kind, bytes(entry[kind])) for kind in (_ZONE, _ID) if kind in entry]
    return b"".join(parts)


def _source(entry: _Entry, side: _Side, version: int) -> int:
    addresses = attributes(attributes(entry[side])[_TUPLE_IP])
    return int.from_bytes(addresses[_IP_SRC[version]], "big")


def _destination(entry: _Entry, side: _Side, version: int) -> int:
    addresses = attributes(attributes(entry[side])[_TUPLE_IP])
    return int.from_bytes(addresses[_IP_DST[version]], "big")


def _entries(door: Netlink) -> int:
    """How many entries this namespace's table has (not a walk: a counter)."""
    for message in _ask_stats(door):
        found = attributes(message.payload, _NFGENMSG.size)
        return int.from_bytes(found[_STATS_ENTRIES], "big")
    return 0


def _ask_stats(door: Netlink) -> list[Message]:
    try:
        return door.request(_GET_STATS, 0, _NFGENMSG.pack(0, 0, 0))
    except NetlinkError as refused:
        raise _refusal(refused) from refused


def _ask(door: Netlink, payload: bytes) -> None:
    try:
        door.request(_DELETE, 0, payload)
    except NetlinkError as refused:
        if refused.errno != errno.ENOENT:
            raise _refusal(refused) from refused


def _refusal(refused: NetlinkError) -> KernelRefused | MissingRequirement:
    words = refused.strerror or str(refused)
    if refused.errno == errno.EPERM:
        return MissingRequirement(
            f"conntrack: {words}", hint="add the capability: docker run --cap-add NET_ADMIN"
        )
    hint = "is nf_conntrack_netlink in this kernel?" if refused.errno in _NO_FILTER else ""
    return KernelRefused("refused", request="conntrack -D", reply=words, hint=hint)

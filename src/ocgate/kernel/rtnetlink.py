"""rtnetlink's numbers and fixed headers, and how a route or rule value is written and read.

The numbers are linux/rtnetlink.h's, if_link.h's, if_addr.h's and fib_rules.h's. Only the room
`kernel` imports this: `routes` writes and sweeps with it, `facts` and `watch` read with it.
"""

from __future__ import annotations

import errno
import struct
import sys
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Final

from ocgate.kernel.netlink import (
    Message,
    Netlink,
    NetlinkError,
    as_number,
    as_text,
    attribute,
    attributes,
    number,
    text,
)
from ocgate.names import ROUTE_PROTOCOL
from ocgate.plan.facts import Address, Family, Network
from ocgate.plan.routing import Route, RouteKind, Rule, RuleAction

NEWLINK, DELLINK, GETLINK, SETLINK = 16, 17, 18, 19
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
NEWNEIGH, DELNEIGH, GETNEIGH = 28, 29, 30
NEWRULE, DELRULE, GETRULE = 32, 33, 34

_HEAD = struct.Struct("=HH")  # of an attribute: length, type
IFINFOMSG = struct.Struct("=BxHiII")  # family, type, index, flags, change
IFADDRMSG = struct.Struct("=BBBBi")  # family, prefix length, flags, scope, index
RTMSG = struct.Struct(
    "=BBBBBBBBI"
)  # family, dst len, src len, tos, table, proto, scope, type, flags
FIB_RULE_HDR = struct.Struct("=BBBBBxxBI")  # family, dst len, src len, tos, table, action, flags

IFLA_IFNAME, IFLA_MTU, IFLA_GROUP, IFLA_EXT_MASK = 3, 4, 27, 29
SKIP_STATS: Final = 1 << 3  # RTEXT_FILTER_SKIP_STATS: a third of a link's bytes
IFF_UP, IFF_LOOPBACK, IFF_LOWER_UP = 0x1, 0x8, 0x10000
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
IFA_F_DADFAILED, IFA_F_TENTATIVE, IFA_F_OPTIMISTIC = 0x08, 0x40, 0x04
IFA_F_PERMANENT = 0x80

RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY = 1, 4, 5, 6
RTA_MULTIPATH, RTA_TABLE, RTA_VIA = 9, 15, 18
RTN_UNICAST = 1
RTPROT_RA = 9
RTNH_F_ONLINK, RTM_F_CLONED = 4, 0x200
RTNEXTHOP = struct.Struct("=HBBi")  # length, flags, hops, index
SCOPE_UNIVERSE, SCOPE_LINK = 0, 253

FRA_DST, FRA_SRC, FRA_IIFNAME, FRA_PRIORITY, FRA_FWMARK = 1, 2, 3, 6, 10
FRA_GOTO, FRA_TUN_ID, FRA_SUPPRESS_IFGROUP = 4, 12, 13
FRA_SUPPRESS_PREFIXLEN, FRA_TABLE, FRA_FWMASK, FRA_OIFNAME = 14, 15, 16, 17
FRA_L3MDEV, FRA_UID_RANGE = 19, 20
FRA_PROTOCOL, FRA_IP_PROTO, FRA_SPORT_RANGE, FRA_DPORT_RANGE = 21, 22, 23, 24
FIB_RULE_INVERT = 0x2
NO_SUPPRESSION = 0xFFFF_FFFF

_AF = {4: 2, 6: 10}
_FAMILY: dict[int, Family] = {2: 4, 10: 6}
_ROUTE_TYPE = {
    RouteKind.UNICAST: RTN_UNICAST,
    RouteKind.BLACKHOLE: 6,
    RouteKind.UNREACHABLE: 7,
    RouteKind.PROHIBIT: 8,
}
_ROUTE_KIND = {value: kind for kind, value in _ROUTE_TYPE.items()}
_RULE_TYPE = {
    RuleAction.LOOKUP: 1,
    RuleAction.BLACKHOLE: 6,
    RuleAction.UNREACHABLE: 7,
    RuleAction.PROHIBIT: 8,
}
_RULE_ACTION = {value: action for action, value in _RULE_TYPE.items()}
_PORTS = struct.Struct("=HH")
_UIDS = struct.Struct("=II")

NameOf = Callable[[int], str]


def af(family: Family) -> int:
    """AF_INET or AF_INET6."""
    return _AF[family]


def family_of(message: Message) -> Family | None:
    """4 or 6, or None for any other address family (bridge, MPLS, multicast routing)."""
    return _FAMILY.get(message.payload[0])


def dump_family(door: Netlink, kind: int, family: Family, header: bytes) -> list[Message]:
    """Dump routes or rules of one family; empty where the kernel has none of it to dump.

    ENOENT is a table without a route yet. A kernel without IPv6 refuses the family, or answers for
    it with all that it has.
    """
    try:
        found = door.dump(kind, header)
    except NetlinkError as refused:
        if refused.errno in (errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
            return []
        raise
    return [message for message in found if family_of(message) == family]


def encode_route(route: Route, index: int | None) -> bytes:
    """The payload of NEWROUTE; `index` is the ifindex of route.device."""
    # Scope as iproute2 sets it: without a gateway the destination is a neighbour on the link.
    on_link = route.kind is RouteKind.UNICAST and route.gateway is None and route.family == 4
    scope = SCOPE_LINK if on_link else SCOPE_UNIVERSE
    flags = RTNH_F_ONLINK if route.onlink else 0
    prefix, kind = route.prefix, _ROUTE_TYPE[route.kind]
    header = RTMSG.pack(
        _AF[route.family], prefix.prefixlen, 0, 0, 0, ROUTE_PROTOCOL, scope, kind, flags
    )
    parts = [
        header,
        attribute(RTA_DST, prefix.network_address.packed),
        number(RTA_TABLE, route.table),
        number(RTA_PRIORITY, route.metric),
    ]
    if route.gateway is not None:
        parts.append(attribute(RTA_GATEWAY, route.gateway.packed))
    if index is not None:
        parts.append(number(RTA_OIF, index))
    return b"".join(parts)


def decode_route(message: Message, name_of: NameOf) -> Route | None:
    """The value of a dumped route, or None if it is of a shape that we never make."""
    family = family_of(message)
    header = RTMSG.unpack_from(message.payload)
    _, length, _, tos, table, _, _, kind, flags = header
    found = attributes(message.payload, RTMSG.size)
    if family is None or tos or kind not in _ROUTE_KIND or found.keys() & {RTA_MULTIPATH, RTA_VIA}:
        return None
    unicast = kind == RTN_UNICAST
    return Route(
        prefix=_network(family, found.get(RTA_DST), length),
        kind=_ROUTE_KIND[kind],
        table=as_number(found[RTA_TABLE]) if RTA_TABLE in found else table,
        metric=as_number(found[RTA_PRIORITY]) if RTA_PRIORITY in found else 0,
        # IPv6 hangs a blackhole on `lo`; that is no next hop.
        device=name_of(as_number(found[RTA_OIF])) if unicast and RTA_OIF in found else None,
        gateway=address(found[RTA_GATEWAY]) if RTA_GATEWAY in found else None,
        onlink=bool(flags & RTNH_F_ONLINK) and RTA_GATEWAY in found,
    )


def table_of(message: Message) -> int:
    """The routing table that a dumped route stands in."""
    found = attributes(message.payload, RTMSG.size)
    in_header: int = RTMSG.unpack_from(message.payload)[4]
    return as_number(found[RTA_TABLE]) if RTA_TABLE in found else in_header


def deletion_of(message: Message) -> bytes:
    """The payload of DELROUTE that removes exactly this dumped route, whatever shape it has."""
    fixed = list(RTMSG.unpack_from(message.payload))
    fixed[8] = 0  # state flags (linkdown, offload) are refused on input
    found = attributes(message.payload, RTMSG.size)
    keep = (RTA_DST, RTA_TABLE, RTA_PRIORITY, RTA_OIF, RTA_GATEWAY)
    return RTMSG.pack(*fixed) + b"".join(
        attribute(kind, bytes(found[kind])) for kind in keep if kind in found
    )


def encode_rule(rule: Rule) -> bytes:
    """The payload of NEWRULE."""
    lengths = [net.prefixlen if net is not None else 0 for net in (rule.destination, rule.source)]
    flags = FIB_RULE_INVERT if rule.inverted else 0
    header = FIB_RULE_HDR.pack(_AF[rule.family], *lengths, 0, 0, _RULE_TYPE[rule.action], flags)
    parts = [
        header,
        number(FRA_PRIORITY, rule.priority),
        attribute(FRA_PROTOCOL, bytes([ROUTE_PROTOCOL])),
    ]
    for kind, network in ((FRA_DST, rule.destination), (FRA_SRC, rule.source)):
        if network is not None and network.prefixlen:
            parts.append(attribute(kind, network.network_address.packed))
    for kind, name in ((FRA_IIFNAME, rule.iif), (FRA_OIFNAME, rule.oif)):
        if name is not None:
            parts.append(text(kind, name))
    for kind, value in (
        (FRA_FWMARK, rule.fwmark),
        (FRA_FWMASK, rule.mask),
        (FRA_TABLE, rule.table),
        (FRA_SUPPRESS_PREFIXLEN, rule.suppress_prefixlength),
        (FRA_SUPPRESS_IFGROUP, rule.suppress_ifgroup),
    ):
        if value is not None:
            parts.append(number(kind, value))
    if rule.ipproto is not None:
        parts.append(attribute(FRA_IP_PROTO, bytes([rule.ipproto])))
    if rule.sport is not None:
        parts.append(attribute(FRA_SPORT_RANGE, _PORTS.pack(*rule.sport)))
    return b"".join(parts)


def decode_rule(message: Message) -> Rule | None:
    """The value of a dumped rule, or None if it is of a shape that we never make."""
    priority = rule_priority(message)
    return _rule(message, priority) if 0 < priority < 32766 else None


def rule_text(message: Message) -> str:
    """A dumped rule of anybody's, as `ip rule` shows it without its priority. What our own rules
    never ask (port, user, tunnel) is told behind the rest."""
    found = attributes(message.payload, FIB_RULE_HDR.size)
    tos, kind = FIB_RULE_HDR.unpack_from(message.payload)[3], rule_action(message)
    more = [f"tos {tos:#x}"] if tos else []
    if FRA_UID_RANGE in found:
        more.append("uidrange {}-{}".format(*_UIDS.unpack(found[FRA_UID_RANGE])))
    if FRA_DPORT_RANGE in found:
        more.append("dport {}-{}".format(*_PORTS.unpack(found[FRA_DPORT_RANGE])))
    if FRA_TUN_ID in found:
        more.append(f"tun_id {int.from_bytes(found[FRA_TUN_ID], 'big')}")
    if FRA_GOTO in found:
        more.append(f"goto {as_number(found[FRA_GOTO])}")
    if found.get(FRA_L3MDEV, b"\0")[0]:
        more.append("lookup [l3mdev-table]")
    # Its priority is no part of the text; 1 is one that a value may have.
    plain = _rule(message, 1) if kind in _RULE_ACTION else None
    words = plain.text if plain is not None else f"of action {kind}"
    return " ".join([words, *more])


def rule_table(message: Message) -> int | None:
    """What a dumped rule looks up; None where it does something else."""
    if rule_action(message) != _RULE_TYPE[RuleAction.LOOKUP]:
        return None
    found = attributes(message.payload, FIB_RULE_HDR.size)
    in_header: int = FIB_RULE_HDR.unpack_from(message.payload)[4]
    return as_number(found[FRA_TABLE]) if FRA_TABLE in found else in_header


def rule_action(message: Message) -> int:
    """linux/fib_rules.h, FR_ACT_*."""
    return int(FIB_RULE_HDR.unpack_from(message.payload)[5])


def _rule(message: Message, priority: int) -> Rule | None:
    family = family_of(message)
    _, to_length, from_length, _, table, kind, flags = FIB_RULE_HDR.unpack_from(message.payload)
    found = attributes(message.payload, FIB_RULE_HDR.size)
    if family is None or kind not in _RULE_ACTION:
        return None

    def value(attr: int) -> int | None:
        return as_number(found[attr]) if attr in found else None

    action = _RULE_ACTION[kind]
    lookup = action is RuleAction.LOOKUP
    suppressed, group = value(FRA_SUPPRESS_PREFIXLEN), value(FRA_SUPPRESS_IFGROUP)
    mark, mask = value(FRA_FWMARK), value(FRA_FWMASK)
    return Rule(
        family=family,
        priority=priority,
        action=action,
        table=(value(FRA_TABLE) or table) if lookup else None,
        inverted=bool(flags & FIB_RULE_INVERT),
        source=_network(family, found[FRA_SRC], from_length) if FRA_SRC in found else None,
        destination=_network(family, found[FRA_DST], to_length) if FRA_DST in found else None,
        iif=as_text(found[FRA_IIFNAME]) if FRA_IIFNAME in found else None,
        oif=as_text(found[FRA_OIFNAME]) if FRA_OIFNAME in found else None,
        fwmark=(mark or 0) if mask is not None else None,
        mask=mask,
        ipproto=value(FRA_IP_PROTO),
        sport=_ports(found[FRA_SPORT_RANGE]) if FRA_SPORT_RANGE in found else None,
        suppress_prefixlength=None if suppressed in (None, NO_SUPPRESSION) else suppressed,
        suppress_ifgroup=None if group in (None, NO_SUPPRESSION) else group,
    )


def rule_protocol(message: Message) -> int:
    """Who made a dumped rule: 0 unspecified, 2 the kernel, 143 us."""
    found = attributes(message.payload, FIB_RULE_HDR.size)
    return as_number(found[FRA_PROTOCOL]) if FRA_PROTOCOL in found else 0


def rule_priority(message: Message) -> int:
    """The place of a dumped rule; 0 where none is told, as of `local`."""
    found = attributes(message.payload, FIB_RULE_HDR.size)
    return as_number(found[FRA_PRIORITY]) if FRA_PRIORITY in found else 0


def link_name(message: Message) -> str:
    """The device of a link message, found without reading the other kilobyte of it: the kernel
    writes IFLA_IFNAME first (rtnl_fill_ifinfo); should that change, all attributes are read."""
    payload, start = message.payload, IFINFOMSG.size
    if int.from_bytes(payload[start + 2 : start + 4], sys.byteorder) == IFLA_IFNAME:
        length = int.from_bytes(payload[start : start + 2], sys.byteorder)
        return as_text(payload[start + 4 : start + length])
    return as_text(attributes(payload, start)[IFLA_IFNAME])


def link_group(message: Message) -> int | None:
    """The interface group that a link message tells, None where it tells none; what stands behind
    it is not read."""
    payload, at = message.payload, IFINFOMSG.size
    head, end = _HEAD.unpack_from, len(payload) - _HEAD.size
    while at <= end:
        length, kind = head(payload, at)
        if kind == IFLA_GROUP:
            return as_number(payload[at + _HEAD.size : at + length])
        at += max(_HEAD.size, (length + 3) & ~3)
    return None


def next_hops(found: dict[int, memoryview]) -> list[tuple[int, dict[int, memoryview]]]:
    """(ifindex, attributes with the gateway) of a route's next hop, or of each of several."""
    if RTA_OIF in found:
        return [(as_number(found[RTA_OIF]), found)]
    hops, rest = [], found.get(RTA_MULTIPATH, memoryview(b""))
    while len(rest) >= RTNEXTHOP.size:
        length, _, _, index = RTNEXTHOP.unpack_from(rest)
        hops.append((index, attributes(rest[:length], RTNEXTHOP.size)))
        rest = rest[(length + 3) & ~3 :]
    return hops


def address(data: memoryview) -> Address:
    """4 or 16 bytes in network order."""
    return ip_address(bytes(data))


def _ports(data: memoryview) -> tuple[int, int]:
    """First and last, of a struct fib_rule_port_range."""
    first, last = _PORTS.unpack(data)
    return first, last


def _network(family: Family, data: memoryview | None, length: int) -> Network:
    packed = bytes(data) if data is not None else bytes(4 if family == 4 else 16)
    return ip_network((packed, length))

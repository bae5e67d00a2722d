"""The door through which facts are observed: links, addresses, routes, rules and sysctls, now.

`observe` reads everything in a few batched dumps and returns a plain value; the planner never asks
on its own. Edges of the room `kernel` and the wiring may import it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_interface, ip_network
from types import MappingProxyType

from ocgate.kernel import netlink, rtnetlink, sysctl
from ocgate.kernel.netlink import Message, Netlink, as_number, as_text, attributes, number
from ocgate.names import ROUTE_PROTOCOL
from ocgate.plan.facts import (
    Connected,
    DefaultRoute,
    Facts,
    Family,
    ForeignRule,
    Interface,
    InterfaceAddress,
)
from ocgate.plan.routing import TABLE_MAIN

_FAMILIES: tuple[Family, ...] = (4, 6)
_KERNEL = 2  # RTPROT_KERNEL

# What the plan and the checks of this version ask about.
SYSCTLS = (
    "net.ipv4.ip_forward",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv6.conf.all.forwarding",
    "net.ipv6.conf.all.disable_ipv6",
    "net.ipv6.conf.default.disable_ipv6",  # what a new tunnel starts with
    "net.netfilter.nf_conntrack_max",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
)

# Of each interface: a strict reverse path filter drops a gateway's answers.
_RP_FILTER = "net.ipv4.conf.{}.rp_filter"

# Registered for the machine's first network namespace only (net/core/sysctl_net_core.c); it can be
# seen where /proc/sys is read-only, too.
_FIRST_NAMESPACE_ONLY = "net.core.netdev_max_backlog"


def observe(*, session_prefix: str | None = None, sysctls: Iterable[str] = SYSCTLS) -> Facts:
    """The facts of this thread's network namespace.

    session_prefix: devices whose name starts so (clients' tunnels) are left out with all that
    hangs on them: plans don't depend on single sessions, and 10,000 of them would cost 0.5 s.
    Raises MissingRequirement without netlink, OSError on an answer that makes no sense.
    """
    with Netlink(netlink.ROUTE, strict=True) as door:
        links = dict(_links(door, session_prefix))
        names = {index: link.name for index, link in links.items()}
        addresses, lent = _addresses(door, names)
        routes = [(f, message) for f in _FAMILIES for message in _main_routes(door, f)]
        asked = [(family, message) for family in _FAMILIES for message in _rules(door, family)]
    rules = [rule for family, message in asked for rule in _foreign_rule(family, message)]
    defaults = [hop for family, message in routes for hop in _default(family, message, names)]
    keys = (
        *sysctls,
        *dict.fromkeys(_accept_ra(r.device) for r in defaults if r.family == 6),
        *(_RP_FILTER.format(link.name.replace(".", "/")) for link in links.values()),
    )
    found = ((key, sysctl.read(key)) for key in keys)
    return Facts(
        interfaces=tuple(
            replace(
                link,
                addresses=tuple(addresses.get(link.index, ())),
                lent=tuple(lent.get(link.index, ())),
            )
            for link in links.values()
        ),
        routes4=tuple(route for route in defaults if route.family == 4),
        routes6=tuple(route for route in defaults if route.family == 6),
        connected=tuple(net for _, message in routes for net in _connected(message, names)),
        sysctls=MappingProxyType({key: value for key, value in found if value is not None}),
        rules=tuple(rules),
        without_main=tuple(_without_main(asked, [r.family for r in defaults])),
        own_namespace=sysctl.read(_FIRST_NAMESPACE_ONLY) is None,
    )


def _accept_ra(device: str) -> str:
    """Whether that device takes router advertisements: asked of where IPv6 goes out."""
    return f"net.ipv6.conf.{device.replace('.', '/')}.accept_ra"


def _links(door: Netlink, session_prefix: str | None) -> Iterator[tuple[int, Interface]]:
    request = rtnetlink.IFINFOMSG.pack(0, 0, 0, 0, 0)
    request += number(rtnetlink.IFLA_EXT_MASK, rtnetlink.SKIP_STATS)
    for message in door.dump(rtnetlink.GETLINK, request):
        if session_prefix is not None and rtnetlink.link_name(message).startswith(session_prefix):
            continue
        _, _, index, flags, _ = rtnetlink.IFINFOMSG.unpack_from(message.payload)
        found = attributes(message.payload, rtnetlink.IFINFOMSG.size)
        sends = rtnetlink.IFF_UP | rtnetlink.IFF_LOWER_UP
        yield (
            index,
            Interface(
                index=index,
                name=as_text(found[rtnetlink.IFLA_IFNAME]),
                mtu=as_number(found[rtnetlink.IFLA_MTU]),
                up=flags & sends == sends,
                loopback=bool(flags & rtnetlink.IFF_LOOPBACK),
            ),
        )


_ByIndex = dict[int, list[InterfaceAddress]]


def _addresses(door: Netlink, names: dict[int, str]) -> tuple[_ByIndex, _ByIndex]:
    """By ifindex, those that packets can be sent from, and which of them are lent."""
    found: _ByIndex = {}
    lent: _ByIndex = {}
    for message in door.dump(rtnetlink.GETADDR, rtnetlink.IFADDRMSG.pack(0, 0, 0, 0, 0)):
        family, length, _, _, index = rtnetlink.IFADDRMSG.unpack_from(message.payload)
        if index not in names or family not in (rtnetlink.af(4), rtnetlink.af(6)):
            continue
        held = attributes(message.payload, rtnetlink.IFADDRMSG.size)
        if _unusable(held):
            continue
        # Of a point-to-point device IFA_ADDRESS is the peer; IFA_LOCAL is ours where it is given.
        own = held.get(rtnetlink.IFA_LOCAL, held.get(rtnetlink.IFA_ADDRESS))
        if own is not None:
            address = ip_interface((bytes(own), length))
            found.setdefault(index, []).append(address)
            if not _flags(held) & rtnetlink.IFA_F_PERMANENT:
                lent.setdefault(index, []).append(address)
    return found, lent


def _flags(held: dict[int, memoryview]) -> int:
    return as_number(held[rtnetlink.IFA_FLAGS]) if rtnetlink.IFA_FLAGS in held else 0


def _unusable(held: dict[int, memoryview]) -> bool:
    flags = _flags(held)
    if flags & rtnetlink.IFA_F_DADFAILED:
        return True
    # An optimistic address is tentative and yet usable (RFC 4429).
    return bool(flags & rtnetlink.IFA_F_TENTATIVE) and not flags & rtnetlink.IFA_F_OPTIMISTIC


def _main_routes(door: Netlink, family: Family) -> list[Message]:
    """Unicast routes of table main, the kernel filtering by table."""
    header = rtnetlink.RTMSG.pack(rtnetlink.af(family), 0, 0, 0, TABLE_MAIN, 0, 0, 0, 0)
    found = rtnetlink.dump_family(door, rtnetlink.GETROUTE, family, header)
    return [message for message in found if _is_main_unicast(message)]


def _is_main_unicast(message: Message) -> bool:
    _, _, _, _, table, _, _, kind, flags = rtnetlink.RTMSG.unpack_from(message.payload)
    cloned = bool(flags & rtnetlink.RTM_F_CLONED)
    return table == TABLE_MAIN and kind == rtnetlink.RTN_UNICAST and not cloned


def _default(family: Family, message: Message, names: dict[int, str]) -> Iterator[DefaultRoute]:
    """The next hops of a default route; of any other route none."""
    _, length, _, _, _, protocol, _, _, _ = rtnetlink.RTMSG.unpack_from(message.payload)
    if length:
        return
    advertised = protocol == rtnetlink.RTPROT_RA
    found = attributes(message.payload, rtnetlink.RTMSG.size)
    metric = as_number(found[rtnetlink.RTA_PRIORITY]) if rtnetlink.RTA_PRIORITY in found else 0
    for index, hop in rtnetlink.next_hops(found):
        if index not in names:
            continue
        # RTA_VIA (an IPv6 gateway of an IPv4 route, RFC 5549) counts as: there is one.
        packed = hop.get(rtnetlink.RTA_GATEWAY)
        via = hop.get(rtnetlink.RTA_VIA)
        gateway = rtnetlink.address(packed) if packed is not None else None
        gateway = rtnetlink.address(via[2:]) if via is not None else gateway
        yield DefaultRoute(family, metric, index, names[index], gateway, advertised)


def _connected(message: Message, names: dict[int, str]) -> Iterator[Connected]:
    """The network of a route without gateway; defaults, ours and IPv6 multicast left out."""
    _, length, _, _, _, protocol, _, _, _ = rtnetlink.RTMSG.unpack_from(message.payload)
    found = attributes(message.payload, rtnetlink.RTMSG.size)
    beyond = found.keys() & {rtnetlink.RTA_GATEWAY, rtnetlink.RTA_VIA, rtnetlink.RTA_MULTIPATH}
    if not length or beyond or protocol == ROUTE_PROTOCOL or rtnetlink.RTA_OIF not in found:
        return
    network = ip_network((bytes(found[rtnetlink.RTA_DST]), length))
    index = as_number(found[rtnetlink.RTA_OIF])
    if index in names and not network.is_multicast:
        yield Connected(network, names[index])


def _rules(door: Netlink, family: Family) -> list[Message]:
    header = rtnetlink.FIB_RULE_HDR.pack(rtnetlink.af(family), 0, 0, 0, 0, 0, 0)
    return list(rtnetlink.dump_family(door, rtnetlink.GETRULE, family, header))


def _foreign_rule(family: Family, message: Message) -> Iterator[ForeignRule]:
    if rtnetlink.rule_protocol(message) not in (_KERNEL, ROUTE_PROTOCOL):
        text, table = rtnetlink.rule_text(message), rtnetlink.rule_table(message)
        yield ForeignRule(family, rtnetlink.rule_priority(message), text, table)


def _without_main(
    asked: Sequence[tuple[Family, Message]], routed: Sequence[Family]
) -> Iterator[Family]:
    """Of the families that have a default route, those of which no rule but ours looks main up."""
    for family in dict.fromkeys(routed):
        rules = [rule for of, rule in asked if of == family]
        others = (r for r in rules if rtnetlink.rule_protocol(r) != ROUTE_PROTOCOL)
        if not any(rtnetlink.rule_table(rule) == TABLE_MAIN for rule in others):
            yield family

"""The door to routes and policy rules: those with our protocol number are ours, all others are not.

Everything made here carries protocol 143 (names.ROUTE_PROTOCOL), and `sweep` removes whatever
carries it and isn't wanted, in every table and both families: what a crashed or differently
configured run left goes too. Edges of the room `kernel` and the wiring may import it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterable

from ocgate.errors import KernelRefused, MissingRequirement
from ocgate.kernel import netlink, rtnetlink
from ocgate.kernel.netlink import CREATE, REPLACE, Message, NetlinkError
from ocgate.names import ROUTE_PROTOCOL
from ocgate.plan.facts import Family
from ocgate.plan.routing import Route, Rule

_FAMILIES: tuple[Family, ...] = (4, 6)

# A deletion that finds nothing has what it wanted: ENOENT (rule), ESRCH (route, table), ENODEV.
_GONE = frozenset({errno.ENOENT, errno.ESRCH, errno.ENODEV})

# Rounds of a sweep: the kernel deletes one of several equals a time, and another writer may add
# meanwhile. A namespace that isn't clean after so many is being fought over.
_ROUNDS = 50


def ensure(routes: Iterable[Route] = (), rules: Iterable[Rule] = ()) -> list[Route | Rule]:
    """`Routing.ensure` in this thread's network namespace."""
    with Routing() as door:
        return door.ensure(routes, rules)


def sweep(
    routes: Collection[Route] = (), rules: Collection[Rule] = (), *, tables: Iterable[int] = ()
) -> list[str]:
    """`Routing.sweep` in this thread's network namespace."""
    with Routing() as door:
        return door.sweep(routes, rules, tables=tables)


def differing(
    routes: Collection[Route] = (), rules: Iterable[Rule] = (), *, tables: Iterable[int] = ()
) -> list[str]:
    """What the kernel lacks of these, and what it holds besides in `tables`, which are ours alone,
    in words; empty when all is as given."""
    with Routing() as door:
        standing_routes, standing_rules = set(door.routes()), set(door.rules())
        foreign = door.foreign(routes, tables)
    found = [f"route {route.text} is gone" for route in routes if route not in standing_routes]
    found += [f"rule {r.priority}: {r.text} is gone" for r in rules if r not in standing_rules]
    return found + [f"route {text} is not ours" for text in foreign]


class Routing:
    """Routes and rules of the network namespace of the thread that creates it; for one thread.

    All methods raise KernelRefused with the command in iproute2's words and the kernel's answer, or
    MissingRequirement without CAP_NET_ADMIN. The functions above open one for a single act.
    """

    def __init__(self) -> None:
        self._netlink = netlink.Netlink(netlink.ROUTE, strict=True)

    def close(self) -> None:
        self._netlink.close()

    def __enter__(self) -> Routing:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def routes(self) -> tuple[Route, ...]:
        """Ours, as the kernel holds them now. One of a shape we can't have made is left out here,
        and removed by `sweep` all the same."""
        known: dict[int, str] = {}

        def name_of(index: int) -> str:
            return known.setdefault(index, self._name(index))

        values = (rtnetlink.decode_route(m, name_of) for m in self._our_routes())
        return tuple(value for value in values if value is not None)

    def rules(self) -> tuple[Rule, ...]:
        """Ours, by family and priority, as the kernel holds them now."""
        values = (rtnetlink.decode_rule(message) for message in self._our_rules())
        return tuple(value for value in values if value is not None)

    def ensure(
        self, routes: Iterable[Route] = (), rules: Iterable[Rule] = ()
    ) -> list[Route | Rule]:
        """Add what is lacking, routes first, each group in the order given; return what was added.

        A route of the same identity (family, table, prefix, metric) is replaced in place, so that
        there is no moment without one. Nothing is removed: `sweep` does that afterwards.
        """
        standing_routes, standing_rules = set(self.routes()), set(self.rules())
        lacking: list[Route | Rule] = [r for r in routes if r not in standing_routes]
        lacking += [rule for rule in rules if rule not in standing_rules]
        for item in lacking:
            self.add(item)
        return lacking

    def add(self, item: Route | Rule) -> None:
        """Put one route (replacing its identity) or one rule (beside equals) into the kernel."""
        if isinstance(item, Route):
            index = None if item.device is None else self._index(item.device, item)
            payload = rtnetlink.encode_route(item, index)
            self._ask(rtnetlink.NEWROUTE, CREATE | REPLACE, payload, item)
        else:
            self._ask(rtnetlink.NEWRULE, CREATE, rtnetlink.encode_rule(item), item)

    def delete(self, item: Route | Rule) -> bool:
        """Remove it if it stands as ours; False if it was not there."""
        if isinstance(item, Route):
            return bool(self._sweep_routes(lambda route: route != item))
        return bool(self._sweep_rules(lambda rule: rule != item))

    def foreign(self, routes: Collection[Route], tables: Iterable[int]) -> list[str]:
        """Routes in `tables` that are not among those given, whoever made them, as text."""
        return [text for _, text in self._in_tables(tables, set(routes).__contains__)]

    def sweep(
        self,
        routes: Collection[Route] = (),
        rules: Collection[Rule] = (),
        *,
        tables: Iterable[int] = (),
    ) -> list[str]:
        """Remove everything of ours but what is given, and whatever else is in `tables`, which are
        ours alone; what was removed, as text.

        Rules go before routes: a rule whose table is already empty falls through to the next one,
        and so may let out what it held back.
        """
        wanted_routes, wanted_rules = set(routes), set(rules)
        alone = tuple(tables)
        removed = self._sweep_rules(wanted_rules.__contains__)
        removed += self._sweep_routes(wanted_routes.__contains__)
        return removed + self._remove(
            lambda: self._in_tables(alone, wanted_routes.__contains__),
            rtnetlink.DELROUTE,
            rtnetlink.deletion_of,
        )

    def _in_tables(
        self, tables: Iterable[int], keep: Callable[[Route | None], bool]
    ) -> list[tuple[Message, str]]:
        """Routes of these tables that are not to be kept: made by others, or of another shape."""
        found: list[tuple[Message, str]] = []
        for table in tables:
            for message in self._table_routes(table):
                value = rtnetlink.decode_route(message, self._name)
                ours = rtnetlink.RTMSG.unpack_from(message.payload)[5] == ROUTE_PROTOCOL
                if not (ours and keep(value)):
                    found.append((message, value.text if value else f"of table {table}"))
        return found

    def _table_routes(self, table: int) -> list[Message]:
        """All routes of one table, the kernel filtering where it can."""
        found: list[Message] = []
        for family in _FAMILIES:
            header = rtnetlink.RTMSG.pack(rtnetlink.af(family), 0, 0, 0, 0, 0, 0, 0, 0)
            asked = header + netlink.number(rtnetlink.RTA_TABLE, table)
            found += rtnetlink.dump_family(self._netlink, rtnetlink.GETROUTE, family, asked)
        return [m for m in found if rtnetlink.table_of(m) == table]

    def _sweep_routes(self, keep: Callable[[Route | None], bool]) -> list[str]:
        def unwanted() -> list[tuple[Message, str]]:
            decoded = ((m, rtnetlink.decode_route(m, self._name)) for m in self._our_routes())
            return [
                (m, value.text if value else "route") for m, value in decoded if not keep(value)
            ]

        return self._remove(unwanted, rtnetlink.DELROUTE, rtnetlink.deletion_of)

    def _sweep_rules(self, keep: Callable[[Rule | None], bool]) -> list[str]:
        seen: set[Rule] = set()

        def unwanted() -> list[tuple[Message, str]]:
            seen.clear()
            return [
                (message, f"{value.priority}: {value.text}" if value else "rule")
                for message, value in ((m, rtnetlink.decode_rule(m)) for m in self._our_rules())
                if not keep(value) or _again(value, seen)
            ]

        return self._remove(unwanted, rtnetlink.DELRULE, lambda message: bytes(message.payload))

    def _remove(
        self,
        unwanted: Callable[[], list[tuple[Message, str]]],
        kind: int,
        payload: Callable[[Message], bytes],
    ) -> list[str]:
        """Delete what `unwanted` lists until it lists nothing."""
        removed: list[str] = []
        for _ in range(_ROUNDS):
            found = unwanted()
            if not found:
                return removed
            results = self._netlink.batch((kind, 0, payload(message)) for message, _ in found)
            for (_, said), code in zip(found, results, strict=True):
                if code and code not in _GONE:
                    raise _refusal(f"delete {said}", NetlinkError(code, ""))
            removed += [said for _, said in found]
        raise KernelRefused(
            "routes or rules of ours keep coming back",
            request="\n".join(said for _, said in found),
            reply=f"{len(found)} left after {_ROUNDS} rounds",
            hint=f"another process adds them with protocol {ROUTE_PROTOCOL}: `ip monitor` shows it",
        )

    def _our_routes(self) -> list[Message]:
        """Dumped with the kernel's filter on protocol, so a FIB of 200,000 others costs little."""
        found: list[Message] = []
        for family in _FAMILIES:
            header = rtnetlink.RTMSG.pack(rtnetlink.af(family), 0, 0, 0, 0, ROUTE_PROTOCOL, 0, 0, 0)
            found += rtnetlink.dump_family(self._netlink, rtnetlink.GETROUTE, family, header)
        # Asked again here, because a kernel that doesn't filter answers with all of them.
        return [
            m
            for m in found
            if m.kind == rtnetlink.NEWROUTE
            and rtnetlink.RTMSG.unpack_from(m.payload)[5] == ROUTE_PROTOCOL
        ]

    def _our_rules(self) -> list[Message]:
        found: list[Message] = []
        for family in _FAMILIES:
            header = rtnetlink.FIB_RULE_HDR.pack(rtnetlink.af(family), 0, 0, 0, 0, 0, 0)
            found += rtnetlink.dump_family(self._netlink, rtnetlink.GETRULE, family, header)
        return [m for m in found if rtnetlink.rule_protocol(m) == ROUTE_PROTOCOL]

    def _index(self, device: str, item: Route) -> int:
        request = rtnetlink.IFINFOMSG.pack(0, 0, 0, 0, 0) + netlink.text(
            rtnetlink.IFLA_IFNAME, device
        )
        try:
            answer = self._netlink.request(rtnetlink.GETLINK, 0, request)
        except NetlinkError as refused:
            raise _refusal(str(item), refused) from refused
        index: int = rtnetlink.IFINFOMSG.unpack_from(answer[0].payload)[2]
        return index

    def _name(self, index: int) -> str:
        """The device's name; `if7` for one that went away meanwhile (its routes go with it)."""
        try:
            request = rtnetlink.IFINFOMSG.pack(0, 0, index, 0, 0)
            answer = self._netlink.request(rtnetlink.GETLINK, 0, request)
        except NetlinkError:
            return f"if{index}"
        found = netlink.attributes(answer[0].payload, rtnetlink.IFINFOMSG.size)
        return netlink.as_text(found[rtnetlink.IFLA_IFNAME])

    def _ask(self, kind: int, flags: int, payload: bytes, item: Route | Rule) -> None:
        try:
            self._netlink.request(kind, flags, payload)
        except NetlinkError as refused:
            raise _refusal(str(item), refused) from refused


def _again(value: Rule | None, seen: set[Rule]) -> bool:
    """Whether an equal rule was met before (two of them add nothing); notes it as met."""
    if value is None or value in seen:
        return value is not None
    seen.add(value)
    return False


def _refusal(command: str, refused: NetlinkError) -> KernelRefused | MissingRequirement:
    words = refused.strerror or str(refused)
    if refused.errno == errno.EPERM:
        return MissingRequirement(
            f"{command}: {words}", hint="add the capability: docker run --cap-add NET_ADMIN"
        )
    hint = ""
    if refused.errno == errno.EAFNOSUPPORT:
        hint = "IPv6 is not in this kernel, or was turned off at boot (ipv6.disable=1)"
    return KernelRefused(f"refused: {command}", request=command, reply=words, hint=hint)

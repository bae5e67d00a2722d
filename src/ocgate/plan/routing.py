"""Routes and policy rules that we want in the kernel, as values that read as iproute2 text.

Pure; any room may import it. `str(route)` is a command that can be pasted and does the same as
`kernel.routes` does through netlink: a kernel test runs both and compares.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from ocgate.names import ROUTE_PROTOCOL
from ocgate.plan.facts import Address, Family, Network

TABLE_MAIN = 254  # RT_TABLE_MAIN, linux/rtnetlink.h
METRIC_DEFAULT_6 = 1024  # IP6_RT_PRIO_USER: what IPv6 stores where 0 was asked for
METRIC_MAX = 2**32 - 1

IPPROTO = {"icmp": 1, "tcp": 6, "udp": 17, "ipv6-icmp": 58}  # as iproute2 prints them


class RouteKind(Enum):
    """What a route does; the value is iproute2's word."""

    UNICAST = "unicast"  # forwards
    BLACKHOLE = "blackhole"  # drops without a word
    UNREACHABLE = "unreachable"  # drops, and tells the sender (ICMP host unreachable)
    PROHIBIT = "prohibit"  # drops, and tells the sender (ICMP admin-prohibited)


class RuleAction(Enum):
    """What a policy rule does with a match; the value is iproute2's word."""

    LOOKUP = "lookup"
    BLACKHOLE = "blackhole"
    UNREACHABLE = "unreachable"
    PROHIBIT = "prohibit"


@dataclass(frozen=True)
class Route:
    """One route. The kernel tells routes apart by family, table, prefix and metric.

    table:  1 to 2**32-1 (254 main).
    metric: 0 to 2**32-1, lower wins. IPv6 has no 0: it becomes the kernel's 1024 here already, so
            that what is read back compares equal.
    device, gateway: unicast only, at least one of them.
    onlink: take the gateway for reachable on `device` without a route to it. IPv6 needs it where
            policy rules hide main's connected routes ("no route to host" otherwise).
    """

    prefix: Network
    kind: RouteKind = RouteKind.UNICAST
    table: int = TABLE_MAIN
    metric: int = 0
    device: str | None = None
    gateway: Address | None = None
    onlink: bool = False

    def __post_init__(self) -> None:
        if self.family == 6 and self.metric == 0:
            object.__setattr__(self, "metric", METRIC_DEFAULT_6)
        _within("table", self.table, 1, METRIC_MAX)
        _within("metric", self.metric, 0, METRIC_MAX)
        forwards = self.device is not None or self.gateway is not None
        if forwards != (self.kind is RouteKind.UNICAST):
            raise ValueError(f"{self.kind.value} route to {self.prefix}: next hop given or missing")
        if self.gateway is not None and self.gateway.version != self.family:
            raise ValueError(f"route to {self.prefix}: gateway {self.gateway} of the other family")
        if self.onlink and (self.device is None or self.gateway is None):
            raise ValueError(f"route to {self.prefix}: onlink needs a gateway and its device")

    @property
    def family(self) -> Family:
        return self.prefix.version

    @property
    def identity(self) -> tuple[Family, int, Network, int]:
        """Two routes of one identity can't stand side by side: the later replaces."""
        return (self.family, self.table, self.prefix, self.metric)

    @property
    def text(self) -> str:
        """As `ip route show table all` would say it, protocol left out."""
        words = [] if self.kind is RouteKind.UNICAST else [self.kind.value]
        words += ["default" if self.prefix.prefixlen == 0 else str(self.prefix)]
        words += ["via", str(self.gateway)] if self.gateway is not None else []
        words += ["dev", self.device] if self.device is not None else []
        words += ["table", _table(self.table)] if self.table != TABLE_MAIN else []
        words += ["metric", str(self.metric)] if self.metric else []
        words += ["onlink"] if self.onlink else []
        return " ".join(words)

    def __str__(self) -> str:
        return f"{_ip(self.family)} route replace {self.text} protocol {ROUTE_PROTOCOL}"


@dataclass(frozen=True)
class Rule:
    """One policy rule (ip-rule(8)). All selectors given must match; `inverted` negates the whole.

    priority:  1 to 32765: 0, 32766 and 32767 are the kernel's own.
    source, destination: None is `all`.
    iif, oif:  literal device names, no wildcard; `lo` as iif means sent by this host.
    fwmark, mask: both given, and fwmark within mask.
    ipproto, sport: transport protocol number, first and last source port (Linux 4.17 and newer).
    table:     for LOOKUP only.
    suppress_prefixlength: LOOKUP only; a result whose prefix is this long or shorter is ignored,
               so 0 hides that table's default route.
    suppress_ifgroup: LOOKUP only; a result by a device of this group is ignored.
    """

    family: Family
    priority: int
    action: RuleAction = RuleAction.LOOKUP
    table: int | None = None
    inverted: bool = False
    source: Network | None = None
    destination: Network | None = None
    iif: str | None = None
    oif: str | None = None
    fwmark: int | None = None
    mask: int | None = None
    ipproto: int | None = None
    sport: tuple[int, int] | None = None
    suppress_prefixlength: int | None = None
    suppress_ifgroup: int | None = None

    def __post_init__(self) -> None:
        _within("priority", self.priority, 1, 32765)
        if (self.table is not None) != (self.action is RuleAction.LOOKUP):
            raise ValueError(f"rule {self.priority}: a table goes with lookup, and only there")
        suppressed = (self.suppress_prefixlength, self.suppress_ifgroup)
        if suppressed != (None, None) and self.table is None:
            raise ValueError(f"rule {self.priority}: to suppress a result needs lookup")
        for network in (self.source, self.destination):
            if network is not None and network.version != self.family:
                raise ValueError(f"rule {self.priority}: {network} is of the other family")
        if (self.fwmark is None) != (self.mask is None):
            raise ValueError(f"rule {self.priority}: fwmark and mask go together")
        if self.fwmark is not None and self.mask is not None and self.fwmark & ~self.mask:
            raise ValueError(f"rule {self.priority}: fwmark {self.fwmark:#x} outside its mask")

    @property
    def text(self) -> str:
        """As `ip rule show` would say it, priority and protocol left out."""
        words = ["not"] if self.inverted else []
        words += ["from", str(self.source) if self.source is not None else "all"]
        words += ["to", str(self.destination)] if self.destination is not None else []
        words += ["fwmark", f"{self.fwmark:#x}/{self.mask:#x}"] if self.fwmark is not None else []
        words += ["iif", self.iif] if self.iif is not None else []
        words += ["oif", self.oif] if self.oif is not None else []
        words += ["ipproto", _ipproto(self.ipproto)] if self.ipproto is not None else []
        words += ["sport", _ports(self.sport)] if self.sport is not None else []
        words += [self.action.value]
        words += [_table(self.table)] if self.table is not None else []
        if self.suppress_prefixlength is not None:
            words += ["suppress_prefixlength", str(self.suppress_prefixlength)]
        if self.suppress_ifgroup is not None:
            words += ["suppress_ifgroup", str(self.suppress_ifgroup)]
        return " ".join(words)

    def __str__(self) -> str:
        tail = f"pref {self.priority} protocol {ROUTE_PROTOCOL}"
        # `ip rule add not` wants the selectors behind it, and the action last but for these.
        return f"{_ip(self.family)} rule add {self.text} {tail}"


def render(wanted: Iterable[Route | Rule]) -> str:
    """One command a line, rules in the order given; ends with a newline unless empty."""
    return "".join(f"{item}\n" for item in wanted)


def _ip(family: Family) -> str:
    return "ip" if family == 4 else "ip -6"


def _table(table: int) -> str:
    return {253: "default", TABLE_MAIN: "main", 255: "local"}.get(table, str(table))


def _ipproto(number: int) -> str:
    return next((name for name, known in IPPROTO.items() if known == number), str(number))


def _ports(ports: tuple[int, int]) -> str:
    first, last = ports
    return str(first) if first == last else f"{first}-{last}"


def _within(what: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"{what}: got {value}; expected {low} to {high}")

"""The plan: what the kernel should hold, as frozen values.

Pure. The planner builds it, `nft` renders it, `kernel.apply` hands it to the kernel and reads it
back. Comments are part of a rule: they tell the operator why it stands there, and reading a chain
back compares them in order.
"""

from __future__ import annotations

from dataclasses import dataclass

from ocgate.names import ROUTE_PROTOCOL
from ocgate.plan.facts import Address, Network
from ocgate.plan.routing import Route, Rule
from ocgate.plan.sysctls import Sysctl
from ocgate.plan.tunnel_device import TunnelDevice


@dataclass(frozen=True)
class NftRule:
    """One rule: `match` is what stands before the comment, in nft's own canonical spelling."""

    match: str
    why: str

    def __str__(self) -> str:
        return f'{self.match} comment "{self.why}"'


@dataclass(frozen=True)
class Hook:
    """Where a base chain sits; `priority` as a number, so that old and new nft list it alike."""

    type: str
    hook: str
    priority: int
    policy: str = "accept"

    def __str__(self) -> str:
        return f"type {self.type} hook {self.hook} priority {self.priority}; policy {self.policy};"


@dataclass(frozen=True)
class Chain:
    """A base chain (with a hook) or a regular one (without)."""

    name: str
    rules: tuple[NftRule, ...]
    hook: Hook | None = None


@dataclass(frozen=True)
class NftMap:
    """A map whose elements are the sessions'; replacing the rules leaves its elements alone."""

    name: str
    typeof: str
    data: str


@dataclass(frozen=True)
class NftSet:
    """A set that the kernel itself fills as packets come; replacing the rules leaves it alone.

    most:  elements it may hold. timeout: of one that no packet asks for, or '' for none.
    """

    name: str
    typeof: str
    most: int
    timeout: str = ""

    def __str__(self) -> str:
        kept = f"dynamic,timeout; timeout {self.timeout}" if self.timeout else "dynamic"
        return f"{self.name} {{ typeof {self.typeof}; size {self.most}; flags {kept}; }}"


@dataclass(frozen=True)
class Table:
    """One nftables table of ours, family inet; replaced whole, in one transaction."""

    name: str
    chains: tuple[Chain, ...]
    maps: tuple[NftMap, ...] = ()
    counters: tuple[str, ...] = ()
    sets: tuple[NftSet, ...] = ()


@dataclass(frozen=True)
class PinnedNeighbour:
    """A permanent neighbour entry: `address` is at this MAC on `device`, whoever answers."""

    address: Address
    device: str
    mac: str

    @property
    def text(self) -> str:
        """As `ip neigh show` would say it."""
        return f"{self.address} dev {self.device} lladdr {self.mac} nud permanent"

    def __str__(self) -> str:
        return f"ip neigh replace {self.text} protocol {ROUTE_PROTOCOL}"


@dataclass(frozen=True)
class ClientNetworks:
    """Where only clients are: no route of main leads into `subnets` but by devices whose name
    begins with `device`."""

    device: str
    subnets: tuple[Network, ...]


@dataclass(frozen=True)
class Plan:
    """Everything ocgate wants in the kernel, but for the sessions' elements.

    devices:        persistent tun devices that nobody reads: what is routed there is gone.
    routing_tables: numbers of routing tables that hold our routes and none of anybody else's.
    tunnel:         the device that the exit role's clients leave by; None in the server role.
    forwards:       every device lets through what comes by it (IPv4), once all else stands.
    neighbours:     entries that no answer to ARP or neighbour discovery changes.
    clients:        networks that are nobody else's; None in the exit role, which has no clients.
    """

    tables: tuple[Table, ...]
    routes: tuple[Route, ...]
    rules: tuple[Rule, ...]
    sysctls: tuple[Sysctl, ...]
    devices: tuple[str, ...] = ()
    routing_tables: tuple[int, ...] = ()
    tunnel: TunnelDevice | None = None
    forwards: bool = False
    clients: ClientNetworks | None = None
    neighbours: tuple[PinnedNeighbour, ...] = ()

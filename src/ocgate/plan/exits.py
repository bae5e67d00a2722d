"""The exits of the clients as values: which way each family leaves, and whether it can now.

Pure; any room may import it. What is known of a gateway (its address, whether it answers) comes in
from `server.exits.watch`; the planner makes routes, rules and the guard of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ocgate.names import MARK_DIRECT, MARK_GATEWAY
from ocgate.plan.facts import Address, Family


@dataclass(frozen=True)
class ExitState:
    """What is known now of the gateway of one family.

    address: None while its name has not resolved.
    down:    '' while it can be used, else why clients are rejected, one clause.
    mac:     what it was learned to be reached at, '' while nothing was.
    lasts:   it has been down for so long that flows of before are told (`Exit.holds`).
    given_up: ... that they are reset, as what is new is refused.
    """

    address: Address | None
    down: str = ""
    mac: str = ""
    lasts: bool = False
    given_up: bool = False


@dataclass(frozen=True)
class Exits:
    """The gateways of both families; None where that family's exit is no gateway."""

    exit4: ExitState | None = None
    exit6: ExitState | None = None

    def of(self, family: Family) -> ExitState | None:
        """That family's."""
        return self.exit4 if family == 4 else self.exit6


NO_GATEWAYS = Exits()


class ExitKind(Enum):
    """What an exit is; the value is the operator's word where there is one."""

    DIRECT = "direct"
    BLOCK = "block"
    GATEWAY = "gateway"


@dataclass(frozen=True)
class Exit:
    """The way out of one family's clients, as it can be put into the kernel now.

    kind:    GATEWAY and DIRECT forward, BLOCK rejects.
    device:  the interface it leaves by: None while there is none.
    gateway: next hop of GATEWAY, None for the others or while it is not on an attached network.
    closed:  '' while clients may use it, else why they are rejected.
    own:     this host's addresses on `device`, which clients are translated to.
    mac:     the MAC address that GATEWAY is reached at and at no other; '' where it is not pinned.
    waits:   it is closed to what is new alone: a gateway that does not answer just now, and whose
             way stands. Flows that exist go on by it, and by nothing else (`plan.first_packets`).
    holds:   ... and what they send is refused meanwhile, in a way that ends none of them.
    """

    family: Family
    kind: ExitKind
    device: str | None = None
    gateway: Address | None = None
    closed: str = ""
    own: tuple[Address, ...] = ()
    mac: str = ""
    waits: bool = False
    holds: bool = False

    @property
    def mark(self) -> int:
        """What the packets of its clients are marked with."""
        return MARK_GATEWAY if self.kind is ExitKind.GATEWAY else MARK_DIRECT

    @property
    def usable(self) -> bool:
        """Whether clients' packets are forwarded by it now."""
        return not self.closed and self.device is not None

    @property
    def carries(self) -> bool:
        """Whether clients' flows that exist are still its own: what it sends for them is let in."""
        return self.usable or (self.waits and self.device is not None)


@dataclass(frozen=True)
class FormerAddress:
    """An address of this host that clients are, or lately were, translated to: what the host itself
    sends from there, in answer to a flow that it no longer knows, must not leave by main."""

    device: str
    address: Address


@dataclass(frozen=True)
class Steering:
    """How gateway mode sends clients to their exits: tables and priorities.

    table:     VPN_GATEWAY_TABLE, the table of the default gateway.
    priority:  VPN_GATEWAY_RULE_PRIO, of `from SUBNET lookup TABLE`; others stand around it.
    exclusive: nothing but clients is forwarded in this network namespace.
    strays:    where such answers would come from. An interface that is down, a gateway that moved:
               late packets still arrive, so what was one stays one while this process lives.
    """

    exit4: Exit
    exit6: Exit
    table: int
    priority: int
    exclusive: bool
    strays: tuple[FormerAddress, ...] = ()

    def of(self, family: Family) -> Exit:
        """That family's exit."""
        return self.exit4 if family == 4 else self.exit6

    def closes_local(self, family: Family) -> bool:
        """Whether networks of this host are no destination for clients of that family: where a
        gateway is its exit, and where one is the other's, because neighbours have both families."""
        kinds = (self.exit4.kind, self.exit6.kind)
        return ExitKind.GATEWAY in kinds and self.of(family).kind is not ExitKind.BLOCK


@dataclass(frozen=True)
class Marks:
    """The mark that each family of a session's packets gets: its exit's."""

    four: int = MARK_DIRECT
    six: int = MARK_DIRECT

"""What is proven, as the engine sees it: the seam between the matrix and whatever stands in gw.

The real `ocgate run` is one subject (`gateway`); a hand-made configuration is another (bench). The
engine and the faults know only this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ocgate.plan.exits import ExitKind
from ocgate.plan.facts import Address, Family, Network


@dataclass(frozen=True)
class Ways:
    """Which way each family's clients may leave, and how.

    translated: False where clients keep their own addresses on the right way (routed IPv6).
    answered:   families whose traffic is answered while nothing is broken. What is not among them
                may leave by its exit all the same, once the host has a way out (IPV6_NAT=auto on a
                host without IPv6, where a default route comes later).
    policy_routing: whether policy rules hold clients, too; the standalone server has none.
    """

    exit4: ExitKind
    exit6: ExitKind
    translated4: bool = True
    translated6: bool = True
    answered: frozenset[Family] = frozenset((4, 6))
    policy_routing: bool = True

    def of(self, family: Family) -> ExitKind:
        """That family's exit."""
        return self.exit4 if family == 4 else self.exit6

    def out(self, family: Family) -> bool:
        """Whether that family's clients get anywhere."""
        return self.of(family) is not ExitKind.BLOCK

    def closes_local(self, family: Family) -> bool:
        """Whether this host's own networks are no destination: by any exit but `direct`, and by
        that one beside a gateway of the other family."""
        beside = ExitKind.GATEWAY in (self.exit4, self.exit6)
        return beside or self.of(family) is not ExitKind.DIRECT

    def translated(self, family: Family) -> bool:
        """Whether the right way shows gw's own address."""
        return self.translated4 if family == 4 else self.translated6


@dataclass(frozen=True)
class ClientNets:
    """How tunnels are made: subnets, the server's address in each, device prefix, IPv6 share."""

    subnets: tuple[Network, ...]
    gateways: tuple[Address, ...]
    device: str
    prefix6: int = 128


@dataclass(frozen=True)
class Lease:
    """One session as a VPN server hands it out. worker: pid of its process."""

    worker: int
    user: str
    device: str
    addresses: tuple[Address, ...]


class Subject(Protocol):
    """Something that forwards clients' packets in a namespace.

    name:     as it is printed.
    tables:   nft tables that are its own, as `inet ocserv`.
    table:    its routing table of gateway mode, 0 without.
    repairs:  whether it puts right by itself what somebody has broken.
    pinned:   families whose gateway is held to its MAC address.
    """

    name: str
    tables: Sequence[str]
    table: int
    repairs: bool
    pinned: Sequence[int]
    ways: Ways
    nets: ClientNets

    def start(self) -> None:
        """Start in gw and return when it serves."""

    def stop(self) -> None:
        """An orderly stop, as of a container; returns when nothing of it runs."""

    def running(self) -> bool:
        """Whether it was started and not stopped."""

    def ready(self) -> str:
        """'' while it serves and the kernel holds what it should; else why not."""

    def freeze(self) -> None:
        """From now on it repairs nothing, until `thaw`."""

    def thaw(self) -> None:
        """It goes on."""

    def kill_control(self) -> None:
        """What steers dies at once; it is back by itself."""

    def kill_server(self) -> None:
        """The VPN server dies at once, with all sessions; it is back by itself."""

    def reload(self) -> None:
        """Read the configuration anew, while clients send."""

    def admit(self, lease: Lease) -> str:
        """A session comes in, its tun is there; '' or why it was refused."""

    def end(self, lease: Lease) -> None:
        """It has ended."""

    def restore(self) -> None:
        """Put right what a fault has left broken, where it doesn't do that by itself."""

    def evidence(self) -> str:
        """Its own words, for after a failure."""


class Unsupported(Exception):
    """A subject can't do that; the fault is passed over, with these words."""

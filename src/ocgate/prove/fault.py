"""What a fault is, as a value: how it breaks the world, how it is undone, what it needs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from ocgate.prove.marker import Kind
from ocgate.prove.stage import Stage

Act = Callable[[Stage], None]


def nothing(_stage: Stage) -> None:
    """For a fault that undoes itself, or that the subject repairs."""


class Need(Enum):
    """What a configuration must have for a fault to make sense."""

    GATEWAY = "a gateway"
    POLICY_ROUTING = "the policy-routing layer"
    NAME = "a gateway with a DNS name"
    IPV6 = "clients with IPv6 addresses"
    REPAIRS = "a subject that repairs itself"
    PINNED = "a gateway that is held to its MAC address"
    UNPINNED = "a gateway that is not held to its MAC address"
    NETWORK = "a network that clients may reach beside their exit"


class Expect(Enum):
    """What clients are to notice; in words, for the table."""

    GOES_ON = "traffic goes on"
    COMES_BACK = "an interruption, then it comes back by itself"
    OUTAGE = "rejected or dropped until the cause is gone"


class Lock(Enum):
    """The three layers that hold clients (docs/security.md says which holds what by itself): what a
    fault takes away of them. The values are their names in JSON and stay."""

    TABLES = "nftables"
    RULES = "policy-routing"
    ROUTES = "blackhole"


@dataclass(frozen=True)
class Fault:
    """One line of the matrix.

    inject, undo: what breaks the world and what takes the cause away. Without an undo the subject
                  is to repair it, and the recovery is timed from the injection.
    after:        what the harness takes out once the subject has come back.
    frozen:       nothing repairs anything until it is undone.
    noticed:      clients are to be rejected after a while; that is waited for, and timed.
    focus:        only these kinds are sent (with UDP, by which health is seen); empty: all.
    """

    name: str
    group: str
    inject: Act
    undo: Act = nothing
    after: Act = nothing
    frozen: bool = False
    locks: frozenset[Lock] = frozenset()
    needs: frozenset[Need] = frozenset()
    expect: Expect = Expect.GOES_ON
    noticed: bool = False
    focus: frozenset[Kind] = frozenset()

    @property
    def id(self) -> str:
        """Its name for programs: stays when the printed one is reworded."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")

    @property
    def layers(self) -> tuple[Lock, ...]:
        """`locks` in the order of the layers."""
        return tuple(lock for lock in Lock if lock in self.locks)

    @property
    def repaired_by_subject(self) -> bool:
        """Whether nobody else takes the cause away."""
        return self.undo is nothing and not self.frozen

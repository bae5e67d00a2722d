"""What a proof comes to: leaks by the layer that was taken away, and what closes them. Pure.

The names of enum members' values are what programs read (`ocgate prove --json`); they stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from ocgate.prove.fault import Fault, Lock
from ocgate.prove.marker import Kind
from ocgate.prove.outcome import Guarded, Outcome, Proof
from ocgate.prove.verdict import Leak, Limit

SESSION = "another session"  # where a packet was seen that another client got


class What(Enum):
    """What leaked, as people tell it apart."""

    CLIENT = "client"
    DOWNLOAD = "download"
    FORGED = "forged"
    LOCAL = "local"
    HOST = "host"
    CROSSED = "crossed"


WORDS: Mapping[What, str] = {
    What.CLIENT: "what clients send to the internet",
    What.DOWNLOAD: "downloads on their way to clients",
    What.FORGED: "packets whose source a client has forged",
    What.LOCAL: "what clients send to neighbours, metadata and groups",
    What.HOST: "what this host itself says about clients' flows",
    What.CROSSED: "packets that another client received",
}

_OF_KIND = {
    Kind.DOWNLOAD: What.DOWNLOAD,
    Kind.TCP_DOWNLOAD: What.DOWNLOAD,
    Kind.SPOOF: What.FORGED,
    Kind.DOCKER: What.LOCAL,
    Kind.EXIT: What.LOCAL,
    Kind.PEER: What.LOCAL,
    Kind.METADATA: What.LOCAL,
    Kind.MULTICAST: What.LOCAL,
    Kind.ROUTER: What.LOCAL,
    Kind.HOST: What.HOST,
}


class Remedy(Enum):
    """What closes a leak."""

    POLICY_ROUTING = "policy-routing"
    EXCLUSIVE = "exclusive-forwarding"
    UNAVOIDABLE = "unavoidable"
    DEFECT = "defect"


@dataclass(frozen=True)
class Advice:
    """setting, value: what to set, '' where nothing helps; why: what lets the packets out."""

    why: str
    remedy: str
    setting: str = ""
    value: str = ""


ADVICE: Mapping[Remedy, Advice] = {
    Remedy.POLICY_ROUTING: Advice(
        "Without VPN_GATEWAY the policy-routing layer is missing: while the ruleset is gone, the "
        "kernel forwards what clients send by its main routing table, untranslated.",
        "VPN_GATEWAY=direct adds that layer, and clients leave by this host as before. To see it: "
        "sudo VPN_GATEWAY=direct ocgate prove",
        "VPN_GATEWAY",
        "direct",
    ),
    Remedy.EXCLUSIVE: Advice(
        "Others forward on this machine as well (OCGATE_FORWARDING is shared), so what is no "
        "client's address is not held by policy routing, and IPv6 has no reverse path filter.",
        "OCGATE_FORWARDING=exclusive, where nothing but clients is forwarded on this machine.",
        "OCGATE_FORWARDING",
        "exclusive",
    ),
    Remedy.UNAVOIDABLE: Advice(
        "A packet was between two hooks of the kernel, marked and not yet translated, at the very "
        "moment in which the ruleset went.",
        "Nothing: it is at most one packet for each processor, each time that somebody does this.",
    ),
    Remedy.DEFECT: Advice(
        "Another layer should have held these packets.",
        "No setting: this is a defect of ocgate. Please report it, with the captures (--pcap DIR).",
    ),
}

_OF_LIMIT = {
    Limit.FORGED_ON_SHARED_HOST: Remedy.EXCLUSIVE,
    Limit.IN_FLIGHT: Remedy.UNAVOIDABLE,
}

LIMIT_WORDS: Mapping[Limit, str] = {
    Limit.FORGED_ON_SHARED_HOST: "IPv6 with a forged source, while the ruleset was gone",
    Limit.IN_FLIGHT: "in flight when the ruleset went",
}


@dataclass
class Group:
    """Leaks that have the same taken away, or the same limit. faults: in the order of the run."""

    layers: tuple[Lock, ...]
    remedy: Remedy
    limit: Limit | None = None
    packets: int = 0
    faults: list[Fault] = field(default_factory=list)
    what: dict[What, int] = field(default_factory=dict)

    def add(self, fault: Fault, leak: Leak, count: int) -> None:
        """One more leak."""
        self.packets += count
        if fault not in self.faults:
            self.faults.append(fault)
        self.what[kind_of(leak)] = self.what.get(kind_of(leak), 0) + count


def kind_of(leak: Leak) -> What:
    """What leaked there."""
    return What.CROSSED if leak.where == SESSION else _OF_KIND.get(leak.kind, What.CLIENT)


def leaking(proof: Proof) -> list[Group]:
    """Leaks by the layers that were taken away, what leaked most first."""
    return _grouped(proof, limited=False)


def not_promised(proof: Proof) -> list[Group]:
    """What docs/known-issues.md tells, by its limit."""
    return _grouped(proof, limited=True)


def remedies(groups: Iterable[Group]) -> tuple[Remedy, ...]:
    """What closes them, once each."""
    return tuple(dict.fromkeys(group.remedy for group in groups))


def _grouped(proof: Proof, *, limited: bool) -> list[Group]:
    found: dict[object, Group] = {}
    for outcome in proof.outcomes:
        for leak, count in outcome.leaks.items():
            if (leak.limit is not None) is not limited:
                continue
            layers = outcome.fault.layers
            remedy = _remedy(outcome, leak, proof.guarded)
            key = leak.limit or (layers, remedy)
            group = found.setdefault(key, Group(layers, remedy, leak.limit))
            group.add(outcome.fault, leak, count)
    return sorted(found.values(), key=lambda group: -group.packets)


def _remedy(outcome: Outcome, leak: Leak, guarded: Guarded) -> Remedy:
    if leak.limit is not None:
        return _OF_LIMIT[leak.limit]
    if Lock.TABLES in outcome.fault.locks and not guarded.policy_routing:
        return Remedy.POLICY_ROUTING
    return Remedy.DEFECT

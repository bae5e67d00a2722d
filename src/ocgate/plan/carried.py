"""Counters of what clients send by a gateway, and of what comes back from it for them. Pure.

That an exit carries is seen from these, also while a full line delays every probe
(`upstream.liveness`). Only replies of flows that clients began count, and no ICMP errors: a gateway
that says "unreachable" leads nowhere. Nor what clients exchange with a permitted network, also on
the gateway's own interface, or with the gateway itself, a pushed resolver: neither goes beyond it.
Nor DNS that the gateway answers in a resolver's place, as some redirect it: its time to live was
lessened by this host alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from ocgate.plan import permitted
from ocgate.plan.exits import Exit, ExitKind
from ocgate.plan.facts import WHOLE_TTLS, Address, Family
from ocgate.plan.model import NftRule
from ocgate.plan.permitted import Permitted
from ocgate.plan.reasons import count

SENT: dict[Family, str] = {4: "sent4", 6: "sent6"}
CAME_BACK: dict[Family, str] = {4: "came_back4", 6: "came_back6"}

# Times to live of a neighbour's packets when they are forwarded: the kernel has taken one off
# before it asks this hook (ip_forward.c, ip6_output.c).
_OF_A_NEIGHBOUR = ", ".join(str(whole - 1) for whole in WHOLE_TTLS)


def counters(ways: tuple[Exit, ...]) -> tuple[str, ...]:
    """Of these exits."""
    counted = [way.family for way in ways if _is_counted(way)]
    return (*(SENT[family] for family in counted), *(CAME_BACK[family] for family in counted))


def sent(way: Exit) -> str:
    """The statement in the rule that lets a session's packets of this family in; '' for none. There
    a counter costs 40 ns a packet of 1,650; where the next hop is asked, by a chain of its own, 70.
    """
    return f"{count(SENT[way.family])} " if _is_counted(way) else ""


def asked_itself(way: Exit, pushed: Collection[Address], owner: str) -> Iterator[NftRule]:
    """What a session sends to a counted gateway that is a pushed resolver, let in beside `sent`.
    owner: the look-up of the session."""
    if _is_counted(way) and way.gateway in pushed:
        yield NftRule(f"{_to_gateway(way)} {owner} accept", "for the gateway, not by it")


def answers(
    ways: tuple[Exit, ...],
    networks: tuple[Permitted, ...],
    pushed: Collection[Address],
    receiver: dict[int, str],
) -> Iterator[NftRule]:
    """What is let in to a session: answers, those last that are an exit's evidence. receiver: the
    look-up of the session that gets it, by family."""
    devices = {way.device for way in ways if _is_counted(way)}
    yield from permitted.answers((n for n in networks if n.device in devices), receiver)
    for way in ways:
        if way.carries:
            yield from _answers(way, pushed, receiver[way.family])
    yield from permitted.answers((n for n in networks if n.device not in devices), receiver)


def _answers(way: Exit, pushed: Collection[Address], receiver: str) -> Iterator[NftRule]:
    """Of a gateway's only what its flows carry is counted, not the errors about them."""

    def rule(states: str, statement: str, why: str) -> NftRule:
        match = f"ct state {states} ct direction reply meta mark set {receiver} {statement}accept"
        return NftRule(f'iifname "{way.device}" {match}', why)

    told = "answers to an admitted client"
    if not _is_counted(way):
        yield rule("established,related", "", told)
        return
    if way.gateway in pushed:
        itself = f'iifname "{way.device}" ct original {_to_gateway(way)} ct direction reply'
        yield NftRule(
            f"{itself} ct state established,related meta mark set {receiver} accept",
            "the gateway's own answers come from no further",
        )
    hops = "ip ttl" if way.family == 4 else "ip6 hoplimit"
    yield NftRule(
        f'udp sport 53 {hops} {{ {_OF_A_NEIGHBOUR} }} iifname "{way.device}" '
        f"ct state established ct direction reply meta mark set {receiver} accept",
        "DNS that the gateway answers by itself",
    )
    yield rule("established", f"{count(CAME_BACK[way.family])} ", told)
    yield rule("related", "", told)


def _to_gateway(way: Exit) -> str:
    return f"{'ip' if way.family == 4 else 'ip6'} daddr {way.gateway}"


def _is_counted(way: Exit) -> bool:
    """A gateway by which flows go."""
    return way.kind is ExitKind.GATEWAY and way.carries

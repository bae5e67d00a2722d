"""What may begin: chains of type nat, asked of the first packet of each flow. Pure; the planner's.

    client -> tun vpnsN
        prerouting (nat)   the exit does not answer just now: rejected, so that who begins something
                           learns it at once
                           TCP that begins nothing and belongs to no flow: reset

A chain of type nat meets the first packet of a flow and no other, so flows that exist pay nothing
here. What becomes of them while their exit is down, counted from the verdict:

    0 to 3 s      their packets go on to the next hop that they had, which the guard asks of every
                  packet as ever, and nowhere else. A verdict may be wrong, and many outages are
                  short: TCP sends again what was lost, and is better at it than we would be
    to 120 s      what they send is refused by `no-route`. That ends no connection (RFC 1122,
                  4.2.3.9), and Linux' TCP takes it for "try again": it stays at the pace that it
                  has instead of waiting twice as long each time (RFC 6069; of IPv4 this code and
                  host-unreachable, of IPv6 this alone), which is some 3 s by then. So who was
                  sending goes on that soon, and not after as long again as the exit was away
    from then on  the exit is closed to everything. What a client sends is reset: it learns that its
                  connection is dead

120 s is TCP's own patience: RFC 1122 (4.2.3.5) wants 100 s at the least for what is not
acknowledged, applications mostly have less, and a tunnel that is made anew takes some of it; Linux'
TCP tries for 15 minutes, which nobody waits for. What an exit sends for these flows is let in all
the while: it is evidence that the exit lives. Nothing is cut in the kernel. Should the exit come
back later, who still waits gets what its far end still sends; and who was reset answers with a
reset of his own, and so the far end learns it, too.
"""

from __future__ import annotations

from collections.abc import Iterator

from ocgate.plan import permitted
from ocgate.plan.exits import Exit
from ocgate.plan.intent import Intent
from ocgate.plan.model import Chain, Hook, NftRule
from ocgate.plan.reasons import EXIT_COUNTERS, RESET, count, reject
from ocgate.plan.translation import is_translated

# Seconds of an outage: until flows are told of it, until they are given up; see above.
LASTS, WAIT = 3.0, 120.0

# Ends no TCP connection that stands, see above.
NO_ROUTE = "reject with icmpx no-route"

# Behind the limits (-199), which are to see what a session begins whatever becomes of it.
FIRST = -198

# What begins no TCP connection (an answer to one never is a flow's first packet).
_BEGINS_NOTHING = "tcp flags != syn / syn,ack"


def chains(intent: Intent) -> tuple[Chain, ...]:
    """Always both, so that an exit that waits changes their rules alone. What is for this host, or
    for nobody in particular, is asked elsewhere."""
    first = NftRule(
        f'iifname "{intent.device}*" fib daddr type != {{ local, broadcast, multicast }} '
        "goto begins",
        "a client's flow begins",
    )
    return (
        Chain("first_packet", (first,), Hook("nat", "prerouting", FIRST)),
        Chain("begins", tuple(_begins(intent))),
    )


def held(way: Exit) -> NftRule:
    """In forward, for an exit that holds what flows send."""
    match = f"ct state established meta nfproto ipv{way.family} meta mark 0x{way.mark:08x}"
    return NftRule(f"{match} {count('exit_closed')} {NO_ROUTE}", "a flow that exists: try again")


def _begins(intent: Intent) -> Iterator[NftRule]:
    for way in intent.exits:
        if way.waits:
            yield from _waiting(intent, way)
    for way in intent.exits:
        if way.usable and is_translated(intent, way):
            yield _forgotten(way)


def _waiting(intent: Intent, way: Exit) -> Iterator[NftRule]:
    """New flows of one family are rejected; networks that need no exit are reached."""
    for net in permitted.of_family(intent.networks, way.family):
        yield NftRule(f"{permitted.towards(net)} accept", "a permitted network needs no exit")
    yield from reject(_of_clients(way), "exit_closed", EXIT_COUNTERS["exit_closed"])


def _forgotten(way: Exit) -> NftRule:
    """Of a flow that was cut, because the way that it was translated for is another now: its far
    end would be told by a stranger, from a new port, and perhaps another address, and may be a
    firewall that says nothing to that. Where nothing is translated the kernel takes it up again.
    """
    return NftRule(
        f"{_of_clients(way)} {_BEGINS_NOTHING} {count('invalid')} {RESET}", "of no flow any more"
    )


def _of_clients(way: Exit) -> str:
    """By the mark, which only a session's own source gets: what a forged one is told would leave by
    this host's own way, should the chain that drops it be gone."""
    return f"meta nfproto ipv{way.family} meta mark 0x{way.mark:08x}"

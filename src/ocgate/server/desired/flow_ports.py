"""Which ports clients' flows are translated to: never one of a socket of this host. Pure.

A flow of a client that had a port of a listener would own, in conntrack, what its destination sends
to that listener: the kernel would hand it to the client (a port shadow). Both modes translate to
these ports alone; gateway mode tells by them, too, what the host says to a flow that is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from ocgate.config.choices import Forwarding
from ocgate.plan.facts import Facts
from ocgate.server.desired.sources import Sources

Ports = tuple[int, int]
"""First and last."""

# The kernel's default (net/ipv4/af_inet.c), for a kernel that tells none.
LOCAL_PORTS = (32768, 60999)

# A rule's range of ports must end before 65535 (net/core/fib_rules.c, fib_rule_port_range_valid).
HIGHEST_PORT = 65534

# Below are the services that a container may have beside ocserv: in gateway mode what is new to a
# translated port is dropped. It is also far from what a docker host publishes: its own NAT in front
# of a container keeps a port that is free, and draws another one from 1024 on where it is not
# (net/netfilter/nf_nat_core.c), never one of a listener below.
FIRST_PORT = 10240

# A flow that can't be translated is dropped: fewer ports than these would be met by one busy
# server (each port serves one flow to one destination address and port).
FEWEST_PORTS = 1024


@dataclass(frozen=True)
class FlowPorts:
    """first and last port of clients' flows; reserved: what net.ipv4.ip_local_reserved_ports must
    be so that the kernel gives no socket of this host one of them, '' where it would not anyway."""

    ports: Ports
    reserved: str = ""


def is_exclusive(sources: Sources, facts: Facts) -> bool:
    """Whether nothing but clients is forwarded in this network namespace."""
    chosen = sources.settings.forwarding
    return chosen is Forwarding.EXCLUSIVE or (chosen is Forwarding.AUTO and facts.own_namespace)


def choose(sources: Sources, facts: Facts) -> FlowPorts:
    """Total: there are such ports on every machine.

    In a namespace of ours the larger room below the kernel's own ports, less the listener's: 22,528
    flows to one destination. Elsewhere somebody's service may listen there, and above the kernel's
    own nobody does: 4,535. That is above what they are everywhere: a host that was given lower ones
    has its WireGuard at 51820 all the same. Where the kernel's own leave no room, they are made to.
    """
    exclusive, listeners = is_exclusive(sources, facts), _listeners(sources)
    low, high = _local_ports(facts)
    free = FIRST_PORT if exclusive else LOCAL_PORTS[1] + 1
    above = _largest_gap(max(high + 1, free), HIGHEST_PORT, listeners)
    below = _largest_gap(free, low - 1, listeners)
    best = max((below, above), key=_size)
    if _size(best) >= FEWEST_PORTS:
        return FlowPorts(best)
    first, last = (
        (FIRST_PORT, LOCAL_PORTS[0] - 1) if exclusive else (LOCAL_PORTS[1] + 1, HIGHEST_PORT)
    )
    if not exclusive and low > first - FEWEST_PORTS:  # nearly all of its own: it keeps a half
        first = (low + last) // 2 + 1
    ports = _largest_gap(first, last, listeners)
    held = _ranges(facts.sysctls.get("net.ipv4.ip_local_reserved_ports", ""))
    return FlowPorts(ports, reserved=_text([*held, ports]))


def _size(ports: Ports) -> int:
    return ports[1] - ports[0] + 1


def _listeners(sources: Sources) -> set[int]:
    return {sources.view.tcp_port, sources.view.udp_port}


def _local_ports(facts: Facts) -> Ports:
    words = facts.sysctls.get("net.ipv4.ip_local_port_range", "").split()
    return (int(words[0]), int(words[1])) if len(words) == 2 else LOCAL_PORTS


def _largest_gap(first: int, last: int, taken: set[int]) -> Ports:
    edges = [first - 1, *sorted(port for port in taken if first <= port <= last), last + 1]
    gaps = [(a + 1, b - 1) for a, b in pairwise(edges)]
    return max(gaps, key=_size)


def _ranges(text: str) -> Iterator[Ports]:
    """As the kernel writes a list of ports: `8080,61000-65534`."""
    for word in filter(None, text.replace(" ", "").split(",")):
        first, _, last = word.partition("-")
        yield int(first), int(last or first)


def _text(ranges: Iterable[Ports]) -> str:
    """The same, sorted and joined as the kernel will (kernel/sysctl.c, proc_do_large_bitmap)."""
    joined: list[Ports] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in joined)

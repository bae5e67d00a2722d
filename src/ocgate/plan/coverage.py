"""How much of the internet a list of routes covers: the one answer to "is this a full tunnel?".

Pure. A tunnel that takes the internet in two halves, in quarters, or in the
thirty pieces that leave private networks out is as full as one that says `default`: what clients
then send by an IPv6 of their own leaves outside of it. Only public addresses count, since leaving
out a home network, multicast or loopback lets nothing of the internet past the tunnel.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv6Address,
    ip_network,
    summarize_address_range,
)

from ocgate.plan.facts import Family, Network

# From this share on a tunnel is full. Company networks that are pushed are far below one percent of
# the public addresses, tunnels that leave a country's networks out lie between 0.57 (the largest
# one) and 0.99. In doubt full: then IPv6 is closed, and clients fall back to IPv4 at once.
FULL_FROM = 0.5

# IPv4: all but what the registry of special-purpose addresses calls not globally reachable (RFC
# 6890), and multicast. IPv6: what is given out as global unicast (RFC 4291 section 2.4).
_SPECIAL4 = """
    0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24
    192.0.2.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/3
"""

_Ranges = list[tuple[int, int]]
"""First and last address as numbers; in order, and neither overlapping nor adjacent."""


@dataclass(frozen=True)
class Coverage:
    """share: of the family's public addresses, 0.0 to 1.0. left_out: public networks that are not
    covered, in numeric order."""

    share: float
    left_out: tuple[Network, ...]

    @property
    def full(self) -> bool:
        """Whether clients take it for their way to the internet."""
        return self.share >= FULL_FROM


def tunnel_coverage(routes: Iterable[str], no_routes: Iterable[str], *, family: Family) -> Coverage:
    """Of clients that are given these `route` and `no-route` lines, as ocserv reads them."""
    return _of_lines(tuple(routes), tuple(no_routes), family)


@lru_cache(maxsize=64)  # a start asks a dozen times of the same few sections
def _of_lines(routes: tuple[str, ...], no_routes: tuple[str, ...], family: Family) -> Coverage:
    return coverage(family, pushed(routes, family), networks_of(no_routes, family))


def pushed(routes: Iterable[str], family: Family) -> list[Network]:
    """What clients with these `route` lines send into the tunnel, but for `no-route`.

    A `default` among the routes discards all others, of both families; else a family without a line
    of its own has none pushed, which clients take as all of it (openconnect 9.01, vpnc-script).
    """
    lines = list(routes)
    return ([] if "default" in lines else networks_of(lines, family)) or [_ALL[family]]


def networks_of(lines: Iterable[str], family: Family) -> list[Network]:
    """The networks of one family among `route` or `no-route` lines, host bits cleared. What is no
    network (`checks` refuses it) counts for nothing."""
    found: list[Network] = []
    for text in lines:
        try:
            net = ip_network(text, strict=False)
        except ValueError:
            continue
        if net.version == family:
            found.append(net)
    return found


def coverage(family: Family, routes: Iterable[Network], without: Iterable[Network]) -> Coverage:
    """Of these routes less those networks, both of this family."""
    covered = _without(_ranges(routes), _ranges(without))
    missing = _without(_PUBLIC[family], covered)
    share = 1 - _size(missing) / _size(_PUBLIC[family])
    return Coverage(share, tuple(net for pair in missing for net in _networks(family, pair)))


def _ranges(networks: Iterable[Network]) -> _Ranges:
    """The union."""
    pairs = sorted((int(net.network_address), int(net.broadcast_address)) for net in networks)
    found: _Ranges = []
    for first, last in pairs:
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return found


def _without(ranges: _Ranges, holes: _Ranges) -> _Ranges:
    """Both are walked once: thousands of no-route lines cost no more than reading them."""
    found: _Ranges = []
    waiting = iter(holes)
    hole = next(waiting, None)
    for first, last in ranges:
        while hole is not None and hole[0] <= last:
            if hole[1] >= first:
                if hole[0] > first:
                    found.append((first, hole[0] - 1))
                first = hole[1] + 1
            if hole[1] > last:
                break
            hole = next(waiting, None)
        if first <= last:
            found.append((first, last))
    return found


def _size(ranges: _Ranges) -> int:
    return sum(last - first + 1 for first, last in ranges)


def _networks(family: Family, pair: tuple[int, int]) -> Iterable[Network]:
    if family == 4:
        return summarize_address_range(IPv4Address(pair[0]), IPv4Address(pair[1]))
    return summarize_address_range(IPv6Address(pair[0]), IPv6Address(pair[1]))


_ALL: dict[Family, Network] = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}
_PUBLIC: dict[Family, _Ranges] = {
    4: _without(
        _ranges([_ALL[4]]),
        _ranges([ip_network(text) for text in _SPECIAL4.split()]),
    ),
    6: _ranges([ip_network("2000::/3")]),
}

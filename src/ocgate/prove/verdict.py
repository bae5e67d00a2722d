"""What each captured packet means: by the right exit, or a leak. Pure.

    seen by isp, neighbour   a mark, a client's address, a forged source of ours, or a destination
                             that only clients use: a leak; unless that family's exit is `direct`:
                             then a translated packet of a usual kind is where it belongs
    seen by an upstream      translated and of a usual kind: the right exit; else a leak
    for a permitted network  on the wire of its own segment and translated: where it belongs; seen
                             anywhere else: a leak, whatever the exit
    leaving gw (witness)     judged by whom its Ethernet destination names, as that one would

The witness sees what the receiver does, and also what goes to receivers that are down.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from ocgate.netlab.packet import ETH_IPV4, ETH_IPV6, ICMP, ICMPV6, Packet, parse
from ocgate.plan.exits import ExitKind
from ocgate.plan.facts import Address, Family, Network
from ocgate.prove import marker
from ocgate.prove.marker import USUAL, Kind
from ocgate.prove.ring import Ring, Sight, sights
from ocgate.prove.subject import Ways
from ocgate.prove.world import role_of

WITNESS = "gw"
_KINDS = {int(kind): kind for kind in Kind}
_GROUPS = b"\xe0"  # IPv4 multicast and above; IPv6 groups compare as higher, too
_MAC_SEGMENT = 4  # the byte of a port's address that numbers its segment (world.mac)
_EXAMPLES = 3  # of leaks, for the report


class Limit(Enum):
    """What is not promised, and therefore reported apart from leaks (docs/known-issues.md)."""

    FORGED_ON_SHARED_HOST = "forged-on-shared-host"
    IN_FLIGHT = "in-flight"


@dataclass(frozen=True)
class Leak:
    """Where a leak was seen, of which kind and family, by whom. limit: why it is not promised that
    there is none; None: it is."""

    where: str
    kind: Kind
    family: Family
    fault: int
    limit: Limit | None = None


@dataclass
class Seen:
    """Of one drain. right: packets by the right exit, by (fault, kind, family). examples: a packet
    of each leak, in words; spans: when its first and its last one was seen (since the epoch)."""

    right: Counter[tuple[int, int, int]] = field(default_factory=Counter)
    leaks: Counter[Leak] = field(default_factory=Counter)
    witnessed: Counter[Leak] = field(default_factory=Counter)
    examples: dict[Leak, list[str]] = field(default_factory=dict)
    spans: dict[Leak, tuple[float, float]] = field(default_factory=dict)
    sights: int = 0
    unguarded: int = 0

    def leaked(self) -> dict[Leak, int]:
        """Leaks by whom they reached; what only gw's own capture saw counts as well."""
        found = dict(self.leaks)
        for leak, count in self.witnessed.items():
            found[leak] = max(count, found.get(leak, 0))
        return found


class Judge:
    """Judges what was captured around one subject.

    own: gw's addresses, asked anew for each drain.   foreign: forged sources that nobody has.
    services: destinations that only clients use.     clients: their subnets.
    unguarded: spans of time (seconds since the epoch) in which the subject did not run: nobody can
               keep the host from answering for itself then; clients' packets count all the same.
    networks:  permitted ones, each with the number of the segment it is reached by.
    open_to:   gw's own networks while its tables are gone, else nothing: that this host is closed
               to clients is the nftables layer alone, so a source forged from there is answered
               there.
    forged_pass: families whose forged sources no layer holds just now.
    """

    def __init__(
        self,
        ways: Ways,
        clients: Iterable[Network],
        services: Iterable[Address],
        foreign: Iterable[Address],
        upstreams: Mapping[str, Family],
        networks: Iterable[tuple[Network, int]] = (),
    ) -> None:
        self._ways = ways
        self._nets = {v: [_Range(n) for n in clients if n.version == v] for v in (4, 6)}
        self._services = {a.packed for a in services}
        self._foreign = {a.packed for a in foreign}
        self._upstreams = dict(upstreams)
        self._networks = [(net.version, _Range(net), number) for net, number in networks]
        self.unguarded: list[tuple[float, float]] = []
        self.open_to: tuple[Network, ...] = ()
        self.forged_pass: frozenset[Family] = frozenset()

    def judge(
        self, drained: Mapping[Ring, list[bytes]], own: Iterable[Address], fault: int
    ) -> Seen:
        """What the blocks of all rings show; leaks count for `fault`, when they were seen."""
        seen = Seen()
        mine = {address.packed for address in own}
        for ring, blocks in drained.items():
            witness = ring.role == WITNESS
            for block in blocks:
                for sight in sights(block):
                    role = role_of(sight.mac) if witness else ring.role
                    seen.sights += 1
                    self._look(seen, sight, role, mine, fault, witness=witness)
        return seen

    def _look(
        self, seen: Seen, sight: Sight, role: str, mine: set[bytes], fault: int, *, witness: bool
    ) -> None:
        packet, family = sight.packet, _family(sight.ethertype)
        if family is None or len(packet) < 20:
            return
        src, dst = (packet[12:16], packet[16:20]) if family == 4 else (packet[8:24], packet[24:40])
        found = marker.find(packet)
        translated = src in mine
        if found is not None:
            kind = _KINDS.get(found.kind, Kind.UNMARKED)
            if kind is Kind.MULTICAST and dst < _GROUPS:
                kind = Kind.DOCKER  # the broadcast address of a network that isn't here just now
            segment = self._segment_of(dst, family)
            right = (
                self._is_right(role, family, kind, translated=translated)
                if segment is None
                else translated and sight.mac[_MAC_SEGMENT] == segment
            )
            if right:
                if not witness:
                    seen.right[found.fault, kind, family] += 1
                return
            if (
                segment is None
                and dst in mine
                and self._ways.of(family) is ExitKind.DIRECT
                and role == "isp"
            ):
                return  # for an address that gw has lost: goes back by where it came from
        else:
            wrong = self._unmarked(role, family, src, dst, translated=translated)
            if wrong is None:
                return
            kind = wrong
        if _is_error(packet, family):
            kind = Kind.HOST
        if kind is Kind.HOST and self._is_excused(sight.at, dst, family):
            seen.unguarded += 1
            return
        leak = self._leak(role, kind, family, fault, found)
        (seen.witnessed if witness else seen.leaks)[leak] += 1
        first, last = seen.spans.get(leak, (sight.at, sight.at))
        seen.spans[leak] = (min(first, sight.at), max(last, sight.at))
        held = seen.examples.setdefault(leak, [])
        if len(held) < _EXAMPLES:
            held.append(describe(packet, family))

    def _leak(
        self, role: str, kind: Kind, family: Family, fault: int, found: marker.Marker | None
    ) -> Leak:
        """The limit of forged sources takes what the host says about them along."""
        forged = kind is Kind.SPOOF or (found is not None and found.kind == Kind.SPOOF)
        if forged and family in self.forged_pass:
            return Leak(role, Kind.SPOOF, family, fault, Limit.FORGED_ON_SHARED_HOST)
        return Leak(role, kind, family, fault)

    def _is_excused(self, at: float, dst: bytes, family: Family) -> bool:
        """Whether nobody could keep the host from saying this."""
        number = int.from_bytes(dst, "big")
        return any(start <= at <= end for start, end in self.unguarded) or any(
            net.version == family
            and int(net.network_address) <= number <= int(net.broadcast_address)
            for net in self.open_to
        )

    def _is_right(self, role: str, family: Family, kind: Kind, *, translated: bool) -> bool:
        """Whether a marked packet may be seen by that one."""
        exit_kind = self._ways.of(family)
        if translated is not self._ways.translated(family):
            return False
        if self._upstreams.get(role) == family:
            # DOCKER: to a network that gw has lost just now is to somewhere behind the tunnel.
            return kind in USUAL or kind in (Kind.EXIT, Kind.DOCKER)
        if exit_kind is ExitKind.DIRECT and role in ("isp", "neighbour"):
            if kind in USUAL:
                return True
            # What is on the docker network is reached like the internet, as docs/security.md says,
            # but for a gateway of the other family; then to one that gw has lost just now.
            lost = kind is Kind.DOCKER and role == "isp"
            local = kind in (Kind.DOCKER, Kind.EXIT)
            return lost or (local and not self._ways.closes_local(family))
        return False

    def _unmarked(
        self, role: str, family: Family, src: bytes, dst: bytes, *, translated: bool
    ) -> Kind | None:
        """What is wrong with a packet without a mark, None if nothing is."""
        client = self._is_client(src, family) or self._is_client(dst, family)
        right_role = self._upstreams.get(role) == family or (
            self._ways.of(family) is ExitKind.DIRECT and role == "isp"
        )
        if client:
            routed = right_role and not self._ways.translated(family)
            return None if routed else Kind.UNMARKED
        if src in self._foreign:
            return Kind.SPOOF
        if dst in self._services and not right_role:
            return Kind.HOST if translated else Kind.UNMARKED
        return None

    def _segment_of(self, dst: bytes, family: Family) -> int | None:
        """Of a permitted network's address the segment that it is reached by, else None."""
        number = int.from_bytes(dst, "big")
        for version, net, segment in self._networks:
            if version == family and net.first <= number <= net.last:
                return segment
        return None

    def _is_client(self, packed: bytes, family: Family) -> bool:
        number = int.from_bytes(packed, "big")
        return any(net.first <= number <= net.last for net in self._nets[family])


def _is_error(packet: bytes, family: Family) -> bool:
    """Whether this is an ICMP error: our clients send none, so it is the host's own word."""
    if family == 4:
        return packet[9] == ICMP and packet[20] in (3, 11, 12)
    return packet[6] == ICMPV6 and packet[40] < 128


class _Range:
    """A network as two numbers: a comparison of integers costs a tenth of `in`."""

    def __init__(self, network: Network) -> None:
        self.first = int(network.network_address)
        self.last = int(network.broadcast_address)


def _family(ethertype: int) -> Family | None:
    return 4 if ethertype == ETH_IPV4 else 6 if ethertype == ETH_IPV6 else None


def describe(packet: bytes, family: Family) -> str:
    """A packet in words: addresses and protocol."""
    ethertype = ETH_IPV4 if family == 4 else ETH_IPV6
    seen = parse(Packet(0.0, "", outgoing=False, ethertype=ethertype, raw=packet))
    ports = f" {seen.sport}->{seen.dport}" if seen.sport is not None else ""
    flags = f" flags {seen.flags:#04x}" if seen.protocol == "tcp" else ""
    kind = f" type {seen.kind[0]} code {seen.kind[1]}" if seen.kind else ""
    inner = ""
    if _is_error(packet, family) and len(packet) > 80:
        inner = f" about {describe(packet[28:] if family == 4 else packet[48:], family)}"
    return f"{seen.src} -> {seen.dst} {seen.protocol}{ports}{flags}{kind}{inner}"

"""`ocgate explain USER DEST`: which way a packet of that user takes, in the order of the chains.

Pure: from what is in force, without asking the kernel; the planner's decisions told again for one
destination. A kernel test holds it against what packets really do.

    pushed into the tunnel? -> the server itself? -> a permitted network? -> closed? -> this host?
      -> another client?
      -> a network of this host? -> by the exit, and by nothing else
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from ipaddress import ip_address, ip_network
from pathlib import PurePath

from ocgate.config.gateways import VARIABLES
from ocgate.errors import OcgateError
from ocgate.names import NFT_TABLE, NFT_TABLE_GATEWAY
from ocgate.ocserv.view import Scope, ScopeKind, ServerView
from ocgate.plan import permitted
from ocgate.plan.coverage import networks_of, pushed
from ocgate.plan.exits import Exit, ExitKind
from ocgate.plan.facts import Address, Family
from ocgate.plan.guard import NOT_BEYOND
from ocgate.plan.intent import Intent
from ocgate.plan.ipv6 import Ipv6Path
from ocgate.plan.reasons import ALL_COUNTERS
from ocgate.server.desired.prepare import Prepared
from ocgate.sessions.session import Session

_LINK_LOCAL4 = ip_network("169.254.0.0/16")


@dataclass(frozen=True)
class Step:
    """at: chain, rule or file that decides; says: what it makes of the packet, a clause."""

    at: str
    says: str


@dataclass(frozen=True)
class Explanation:
    """verdict: `gateway` or `direct` (it goes out by that), `network` (one of OCGATE_NETWORKS),
    `host` (it is answered here),
    `outside` (clients do not send it into the tunnel), `rejected` or `dropped`.

    way:     by what it leaves, '' where it does not. reason: the counter of a block, else ''.
    why:     one sentence. steps: what decides it, in the order of the packet.
    session: the device of the user's latest live session, None without one.
    """

    user: str
    destination: str
    family: int
    verdict: str
    way: str
    reason: str
    why: str
    session: str | None
    steps: tuple[Step, ...]

    @property
    def arrives(self) -> bool:
        """Whether it goes anywhere."""
        return self.verdict not in ("rejected", "dropped")


@dataclass(frozen=True)
class _End:
    verdict: str
    why: str
    way: str = ""
    reason: str = ""


def explain(
    prepared: Prepared, user: str, destination: Address, sessions: Sequence[Session]
) -> Explanation:
    """Of a packet to `destination` from this user; sessions: the user's own live ones."""
    steps: list[Step] = []
    end = _Packet(prepared, user, destination, steps).end()
    latest = max(sessions, key=lambda s: s.connected_at, default=None)
    return Explanation(
        user=user,
        destination=str(destination),
        family=destination.version,
        verdict=end.verdict,
        way=end.way,
        reason=end.reason,
        why=end.why,
        session=latest.device if latest else None,
        steps=tuple(steps),
    )


def answer(prepared: Prepared, sessions: Iterable[Session], fields: Mapping[str, bytes]) -> bytes:
    """The control plane's answer to the verb `explain`: JSON; raises OcgateError."""
    user = fields.get("USERNAME", b"").decode("utf-8", "surrogateescape")
    try:
        destination = ip_address(fields.get("DESTINATION", b"").decode("ascii", "replace"))
    except ValueError as error:
        raise OcgateError(f"DEST: {error}") from None
    found = explain(prepared, user, destination, [s for s in sessions if s.user == user])
    return json.dumps({**asdict(found), "arrives": found.arrives}).encode()


class _Packet:
    """One packet on its way; `steps` is filled as it goes."""

    def __init__(
        self, prepared: Prepared, user: str, destination: Address, steps: list[Step]
    ) -> None:
        self.prepared = prepared
        self.intent: Intent = prepared.intent
        self.user = user
        self.to = destination
        self.family: Family = 4 if destination.version == 4 else 6
        self.exit: Exit = self.intent.exits[0 if self.family == 4 else 1]
        self.steps = steps

    def end(self) -> _End:
        """The first that decides."""
        for decide in (
            self._pushed,
            self._multicast,
            self._host,
            self._network,
            self._closed,
            self._own,
            self._clients,
            self._local,
        ):
            found = decide()
            if found is not None:
                return found
        return self._out()

    def _pushed(self) -> _End | None:
        """What ocserv tells the client to send into the tunnel."""
        view, decision = self.prepared.sources.view, self.prepared.decision
        if self.family == 6 and not decision.advertised:
            self._step(view.source, f"clients get no IPv6 ({decision.why})")
            return _End(
                "outside", "the client gets no IPv6 and uses its own, outside of the tunnel"
            )
        scope = _scope(view, self.user)
        every = scope.coverage(self.family).full
        inside = any(self.to in net for net in pushed(_values(scope.routes), self.family))
        without = networks_of(_values(scope.no_routes), self.family)
        spared = [str(net) for net in without if self.to in net]
        if inside and not spared:
            self._step(scope.source, "sent into the tunnel" + (" as all is" if every else ""))
            return None
        words = f"no-route = {spared[0]}" if spared else "no route covers it"
        self._step(scope.source, words)
        return _End("outside", f"the client sends it by its own network: {words}")

    def _multicast(self) -> _End | None:
        if not self.to.is_multicast and not (self.family == 6 and self.to.is_link_local):
            return None
        return self._block("from_client", "dropped", "link_local")

    def _host(self) -> _End | None:
        intent = self.intent
        if self.to in intent.gateways or self.to in intent.resolvers:
            allowed = ["ping"] if self.to in intent.gateways else []
            allowed += ["DNS (port 53)"] if self.to in intent.resolvers else []
            self._step(f"{NFT_TABLE} input_from_client", f"{' and '.join(allowed)}; else rejected")
            return _End("host", f"it is this server: {' and '.join(allowed)} is answered")
        return None

    def _network(self) -> _End | None:
        """One that is reached beside the exit, whatever that is."""
        for net in permitted.of_family(self.intent.networks, self.family):
            if self.to not in net.network or self.prepared.facts.is_local(self.to):
                continue
            if net.missing:
                self._step(f"{NFT_TABLE} from_client", "rejected, counted as network_closed")
                why = f"OCGATE_NETWORKS permits {net}, but {net.missing}"
                return _End("rejected", why, reason="network_closed")
            self._step(f"route of {net.network}", f"by {net.device}; below it unreachable")
            self._step(f"{NFT_TABLE} networks", "accepted there, by nothing else")
            self._step(f"{NFT_TABLE} nat", "masqueraded")
            via = f"via {net.via} " if net.via else ""
            why = f"OCGATE_NETWORKS permits {net.network} by {net.device}"
            return _End("network", why, f"{via}dev {net.device}")
        return None

    def _own(self) -> _End | None:
        if not self.prepared.facts.is_local(self.to):
            return None
        return self._block("input_from_client", "rejected", "input_closed")

    def _closed(self) -> _End | None:
        why = self.exit.closed or ("" if self.exit.device else "there is no default route")
        if not why:
            self._step(f"{NFT_TABLE} from_client", f"the session's mark, 0x{self.exit.mark:08x}")
            return None
        plain6 = self.family == 6 and self.exit.kind is not ExitKind.GATEWAY
        reason = "ipv6_rejected" if plain6 else "exit_closed"
        if self.prepared.intent.steering is None and self.family == 4:
            reason = "no_exit"
        chain = "forward_from_client" if reason == "no_exit" else "from_client"
        if self.exit.waits:
            chain = "begins"
        self._step(f"{NFT_TABLE} {chain}", f"rejected, counted as {reason}")
        name = VARIABLES[self.family] if self.intent.steering else "the exit"
        said = f"{name} can't be used now: {why}"
        if self.exit.waits:
            said += "; flows that exist wait for it to answer"
        return _End("rejected", said, reason=reason)

    def _clients(self) -> _End | None:
        if not any(self.to in net for net in self.intent.subnets(self.family)):
            return None
        return self._block("guard", "rejected", "between_clients")

    def _local(self) -> _End | None:
        """Networks of this host, and addresses that mean something on its links only."""
        if self.to in _LINK_LOCAL4:
            return self._block("forward_from_client", "rejected", "link_local_destination")
        steering = self.intent.steering
        if steering is not None and steering.closes_local(self.family):
            held = (*NOT_BEYOND[self.family], *self.intent.local)
            if any(self.to in net for net in held if net.version == self.family):
                if self.to == self.exit.gateway and self.to in self.intent.pushed:
                    self._step(f"{NFT_TABLE_GATEWAY} guard", "port 53 of the pushed resolver only")
                    return _End(
                        "gateway", "it is the gateway itself: DNS is let through", self._by()
                    )
                return self._block("guard", "rejected", "local_destination")
            if self.exit.kind is ExitKind.GATEWAY:
                return None
        link = self.prepared.facts.connected_network_of(self.to)
        if link is not None and link.device != self.exit.device:
            self._step(f"route of {link.network}", f"by {link.device}, which is not the exit's")
            return self._block("forward_from_client", "rejected", "no_exit")
        return None

    def _out(self) -> _End:
        steering = self.intent.steering
        if self.exit.kind is ExitKind.BLOCK:  # always closed, and told before
            return self._block("from_client", "rejected", "exit_closed")
        if steering is not None and self.exit.kind is ExitKind.GATEWAY:
            self._step(f"ip rule {steering.priority}", f"from the clients, lookup {steering.table}")
            self._step(f"table {steering.table}", f"default {self._by()}; below it unreachable")
            self._step(f"{NFT_TABLE_GATEWAY} guard", "the next hop is the gateway: accepted")
            first, last = self.intent.ports
            self._step(f"{NFT_TABLE} nat", f"masqueraded, to ports {first}-{last}")
            said = self.exit.gateway
            return _End("gateway", f"every client's IPv{self.family} leaves by {said}", self._by())
        self._step("table main", f"the route of this host; only {self.exit.device} is let out by")
        self._step(f"{NFT_TABLE} forward_from_client", f"out by {self.exit.device}: accepted")
        routed = self.family == 6 and self.intent.ipv6 is Ipv6Path.ROUTED
        first, last = self.intent.ports
        masqueraded = f"masqueraded, to ports {first}-{last}"
        self._step(f"{NFT_TABLE} nat", "not translated (routed IPv6)" if routed else masqueraded)
        why = f"{VARIABLES[self.family]} is direct" if steering else "no gateway is set"
        return _End("direct", f"it leaves by this host, because {why}", self._by())

    def _by(self) -> str:
        via = f"via {self.exit.gateway} " if self.exit.gateway else ""
        return f"{via}dev {self.exit.device}"

    def _block(self, chain: str, verdict: str, reason: str) -> _End:
        gateway = self.intent.steering is not None and chain == "guard"
        if chain == "guard" and not gateway:
            chain = "forward_from_client"
        table = NFT_TABLE_GATEWAY if gateway else NFT_TABLE
        self._step(f"{table} {chain}", f"{verdict}, counted as {reason}")
        return _End(verdict, f"{verdict}: {ALL_COUNTERS[reason]}", reason=reason)

    def _step(self, at: str, says: str) -> None:
        self.steps.append(Step(at, says))


def _scope(view: ServerView, user: str) -> Scope:
    """The user's own file where it has lines about routes, filled up with main's, else main."""
    for scope in view.session_scopes:
        if scope.kind is ScopeKind.USER and PurePath(scope.name).name == user:
            return scope
    return view.main


def _values(placed: Sequence[object]) -> tuple[str, ...]:
    return tuple(str(getattr(one, "value", "")) for one in placed)

"""Looks a server's name up while the switch is open for the nameservers and nothing else.

The window is opened here and shut by whatever the runner holds next: the endpoint, or nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from ocgate import outside
from ocgate.errors import OcgateError
from ocgate.exit_node.nameservers import nameservers
from ocgate.exit_node.reconciler import Open
from ocgate.plan.facts import Address, Family
from ocgate.runtime.log import stage
from ocgate.tunnel import endpoint_gate
from ocgate.tunnel.model import Bootstrap, Endpoint, ExitIntent, Remote
from ocgate.upstream.resolver import RESOLV_CONF, Answer, NotResolved, resolve

# A second nameserver gets its turn after two; the switch is open meanwhile.
LIMIT = 5.0  # seconds, for each family

_FAMILIES: tuple[Family, ...] = (4, 6)

log = stage("svc-control")


class KillSwitch(Protocol):
    """The reconciler, as far as it is needed here."""

    @property
    def intent(self) -> ExitIntent:
        """What the kernel is held to now, with the networks around this host."""

    async def hold(self, wanted: Open) -> None:
        """Make the kernel hold this."""


class Lists(Protocol):
    """A provider's servers, likewise."""

    async def remotes(self, lookups: Lookups) -> tuple[Remote, ...]:
        """In the order in which they are tried."""


class Lookups:
    """Remembers each name's last good addresses: a DNS outage is no reason to stay closed."""

    def __init__(
        self,
        reconciler: KillSwitch,
        *,
        resolv_conf: Path = RESOLV_CONF,
        resolve: Callable[[str, Family, float], Awaitable[Answer]] = resolve,
        servers: Lists | None = None,
    ) -> None:
        self._reconciler = reconciler
        self._resolv_conf = resolv_conf
        self._resolve = resolve
        self._servers = servers
        self._known: dict[str, tuple[Address, ...]] = {}

    async def remotes(self) -> tuple[Remote, ...]:
        """Of a kind whose servers have to be listed; raises OcgateError."""
        if self._servers is None:
            raise OcgateError("there is no list of servers")
        return await self._servers.remotes(self)

    async def endpoint(self, remote: Remote, nth: int) -> Endpoint:
        """Of several addresses the nth, counted round and round; raises NotResolved, NotThere where
        none may be spoken to, or OcgateError where the switch can't be opened."""
        addresses = await self.addresses(remote.host, listed=remote.listed)
        return Endpoint(addresses[nth % len(addresses)], remote.port, remote.protocols)

    async def addresses(self, host: str, *, listed: bool = False) -> tuple[Address, ...]:
        """All of a name that may be spoken to, or the one of a literal; raises as `endpoint` does.

        listed: the host stands in a provider's list; otherwise the operator wrote it.
        """
        literal = outside.address(host)
        if literal is not None:
            if listed:
                endpoint_gate.required("", (literal,), self._reconciler.intent)
            return (literal,)
        await self._reconciler.hold(Open(bootstrap=Bootstrap(self.nameservers())))
        try:
            self._known[host] = await self._asked(host)
        except (NotResolved, endpoint_gate.NotThere) as error:
            if host not in self._known:
                raise
            why = error.said if isinstance(error, NotResolved) else error.message
            log.warning("name not resolved, its former addresses are used", name=host, why=why)
        return self._known[host]

    def nameservers(self) -> tuple[Address, ...]:
        """Whom the system asks, as resolv.conf is now."""
        try:
            text = self._resolv_conf.read_text("utf-8", "replace")
        except OSError:
            return ()
        return nameservers(text)

    async def _asked(self, host: str) -> tuple[Address, ...]:
        """IPv4 first: an uplink without IPv6 is common, one without IPv4 is not."""
        found: list[Address] = []
        failed: OcgateError | None = None
        for family in _FAMILIES:
            if found:  # an uplink of both families reaches it by IPv4
                break
            try:
                found += self._taken(host, await self._resolve(host, family, LIMIT))
            except (NotResolved, endpoint_gate.NotThere) as error:
                failed = _worse(failed, error)
        if not found:
            assert failed is not None
            raise failed
        return tuple(found)

    def _taken(self, host: str, answer: Answer) -> tuple[Address, ...]:
        if answer.written:
            return answer.addresses
        found = endpoint_gate.required(host, answer.addresses, self._reconciler.intent)
        if found.refused:
            why = endpoint_gate.said(found.refused)
            log.warning("addresses of a name are left out", name=host, by=answer.source, why=why)
        return found.addresses


def _worse(before: OcgateError | None, now: OcgateError) -> OcgateError:
    """What is told of two families: an answer that is refused says more than none."""
    keep = before is not None and not isinstance(now, endpoint_gate.NotThere)
    return before if keep and before is not None else now

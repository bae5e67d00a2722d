"""Finds out which servers a provider has, while the switch is open for its API and nothing else.

name of the API ── lookups ──> address ── reconciler: port 443 of it ──> provider_list.obtain
                      └─ not resolved, not reachable: the copy that was kept
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from ocgate.errors import OcgateError
from ocgate.exit_node.kinds import Provided
from ocgate.exit_node.reconciler import Open
from ocgate.plan.facts import Address, Family
from ocgate.runtime.log import stage
from ocgate.tunnel import endpoint_gate
from ocgate.tunnel.model import Bootstrap, Carried, Endpoint, ExitIntent, Remote
from ocgate.tunnel.provider import Ask, Listing
from ocgate.tunnel.provider_fetch import Api
from ocgate.tunnel.provider_list import obtain
from ocgate.upstream.resolver import Answer, Lookup, resolve

_HTTPS = 443

# A tunnel's resolver may be the other end of the world.
_LOOKUP_LIMIT = 5.0  # seconds

log = stage("svc-control")


class KillSwitch(Protocol):
    """The reconciler, as far as it is needed here."""

    @property
    def intent(self) -> ExitIntent:
        """What the kernel is held to now, with the networks around this host."""

    async def hold(self, wanted: Open) -> None:
        """Make the kernel hold this."""


class Resolves(Protocol):
    """The look-ups, likewise."""

    async def addresses(self, host: str) -> tuple[Address, ...]:
        """All addresses of a name; raises OcgateError."""


def _asks(host: str, address: Address) -> Ask:
    return Api(host, address).ask


class Servers:
    """The servers of one provider for one wish."""

    def __init__(
        self,
        reconciler: KillSwitch,
        kind: Provided,
        cache_dir: Path,
        *,
        asks: Callable[[str, Address], Ask] = _asks,
        resolve: Callable[[str, Family, float, Lookup], Awaitable[Answer]] = resolve,
    ) -> None:
        self._reconciler = reconciler
        self._kind = kind
        self._cache_dir = cache_dir
        self._asks = asks
        self._resolve = resolve
        self.listed_at = 0.0  # seconds since 1970, when the API last gave a list

    async def remotes(self, lookups: Resolves) -> tuple[Remote, ...]:
        """In the order in which they are tried; raises OcgateError where there is no list."""
        provider, wish = self._kind.provider, self._kind.wish
        listing = await self._listing(lookups) if provider.needs_list(wish) else None
        return provider.remotes(listing, wish, random.shuffle)

    async def renewed(self, carried: Carried) -> tuple[Remote, ...]:
        """The same while a tunnel stands, asked through it and nothing else; raises OcgateError
        where it offers no resolver, or the API does not answer."""
        provider, wish = self._kind.provider, self._kind.wish
        if not provider.needs_list(wish):
            return ()
        with tempfile.NamedTemporaryFile("w", suffix=".resolv.conf") as file:
            file.writelines(f"nameserver {address}\n" for address in carried.resolvers)
            file.flush()
            lookup = Lookup(resolv_conf=Path(file.name))
            answer = await self._resolve(provider.service, 4, _LOOKUP_LIMIT, lookup)
        named = endpoint_gate.required(provider.service, answer.addresses, self._reconciler.intent)
        ask = self._asks(provider.service, named.addresses[0])
        listing = await self._obtained(ask)
        return provider.remotes(listing, wish, random.shuffle)

    async def _listing(self, lookups: Resolves) -> Listing:
        return await self._obtained(await self._door(lookups))

    async def _obtained(self, ask: Ask | None) -> Listing:
        obtained = await asyncio.to_thread(
            obtain,
            self._kind.provider,
            self._kind.wish,
            ask=ask,
            cache_dir=self._cache_dir,
            now=time.time(),
        )
        if not obtained.age:
            self.listed_at = time.time()
        for notice in obtained.notices:
            log.warning("list of servers", why=notice)
        count = len(obtained.listing.servers)
        log.info("servers listed", provider=self._kind.name, servers=count, age=obtained.age)
        return obtained.listing

    async def _door(self, lookups: Resolves) -> Ask | None:
        """How the API is asked, with the switch open for it; None where its name has no address."""
        host = self._kind.provider.service
        try:
            address = (await lookups.addresses(host))[0]
        except OcgateError as error:
            log.warning("the provider's API can't be found", name=host, why=error.message)
            return None
        service = Endpoint(address, _HTTPS, ("tcp",))
        await self._reconciler.hold(Open(bootstrap=Bootstrap(services=(service,))))
        return self._asks(host, address)

"""Whether the ways of HEALTH_CHECK_EGRESS lead out: the third part of `ocgate healthcheck`.

    direct   by this host's own way: HEALTH_CHECK_URL, else the targets of EXIT_PROBE
    default  by what clients leave: HEALTH_CHECK_URL with the gateway's mark, else what is known of
             the gateway, which is probed all the time

Without an address to fetch nothing new is sent for a gateway: its health is known to the second,
and two opinions of one exit would only confuse.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from ocgate import outside
from ocgate.config.choices import HealthPath
from ocgate.config.gateways import UpstreamKind
from ocgate.config.model import Settings
from ocgate.kernel.fetch import fetch
from ocgate.kernel.probe import ProbeResult, probe
from ocgate.kernel.way import Way
from ocgate.names import MARK_GATEWAY
from ocgate.plan.facts import Address, Family
from ocgate.server.desired.prepare import Prepared
from ocgate.server.status.schema import ExitStatus

# SYNs go out at 0, 1 and 3 s. All ways are asked at once, so that with the look-up before it the
# whole check ends within the 10 s that the image's HEALTHCHECK gives it.
TIMEOUT = 4.0  # seconds for a fetch or probe, and for a look-up

# A look-up that is given up goes on in its thread for as long as the resolver is waited for
# (resolv.conf(5): 5 s a server, twice). These are not the loop's own threads, which work on the
# kernel's state: a dead resolver must not keep them from it.
_LOOKING_UP = ThreadPoolExecutor(max_workers=4, thread_name_prefix="look-up")


async def look_up(host: str) -> tuple[Address, ...]:
    """Addresses of a name by this host's resolver; none where there is no answer in time."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(TIMEOUT):
            found = await loop.run_in_executor(_LOOKING_UP, _resolved, host)
    except (OSError, UnicodeError):  # a TimeoutError is an OSError; labels too long for IDNA
        return ()
    return tuple(dict.fromkeys(ip_address(text) for text in found))


def _resolved(host: str) -> list[str]:
    answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in answers]


@dataclass(frozen=True)
class EgressCheck:
    """What is asked, and how; the functions are replaced by tests."""

    prepared: Prepared
    exits: Sequence[ExitStatus]
    fetch: Callable[..., Awaitable[ProbeResult]] = fetch
    probe: Callable[..., Awaitable[ProbeResult]] = probe
    look_up: Callable[[str], Awaitable[tuple[Address, ...]]] = look_up

    @property
    def _settings(self) -> Settings:
        return self.prepared.sources.settings

    async def failures(self) -> list[str]:
        """Why a way that is asked for does not lead out, a sentence each."""
        asked = set(self._settings.health_check_egress)
        every = HealthPath.ALL in asked
        direct = every or HealthPath.DIRECT in asked
        default = every or HealthPath.DEFAULT in asked
        jobs: list[Awaitable[str]] = []
        if direct or (default and self._settings.exit4.kind is UpstreamKind.DIRECT):
            jobs.append(self._direct())
        if default:
            jobs += [self._gateway(exit) for exit in self.exits if _watched(exit)]
        return [why for why in await asyncio.gather(*jobs) if why]

    async def _direct(self) -> str:
        """'' where it leads out."""
        settings = self._settings
        if settings.health_check_url:
            why = await self._fetched(settings.health_check_url, None, Way())
        else:
            result = await self.probe(settings.exit_probe, timeout=TIMEOUT)
            why = "" if result.ok else result.reason
        return f"direct egress does not work: {why}" if why else ""

    async def _gateway(self, exit: ExitStatus) -> str:
        """'' where it leads out; of one that is closed to clients why it is."""
        family: Family = 4 if exit["family"] == 4 else 6
        lost = exit["state"] == "unknown" and exit["heard"] is not None  # this host can't ask
        why = exit["why"] if exit["state"] == "down" or lost else ""
        urls, ports = self._settings.health_check_url, self.prepared.intent.ports
        if urls and not why:
            why = await self._fetched(urls, family, Way(mark=MARK_GATEWAY, ports=ports))
        name = f"gateway {exit['gateway']} (IPv{family})"
        return f"egress by {name} does not work: {why}" if why else ""

    async def _fetched(self, urls: Sequence[str], family: Family | None, way: Way) -> str:
        """'' where one of them answers; of a family that none of them has an address in, nothing
        is known beyond what probes tell."""
        answers = await asyncio.gather(*(self._one(url, family, way) for url in urls))
        told = [why for why in answers if why is not None]
        return "" if "" in told else "; ".join(told)

    async def _one(self, url: str, family: Family | None, way: Way) -> str | None:
        """'' if it answers, why not, or None where it has no address of this family."""
        host = urlsplit(url).hostname or ""
        addresses = await self.look_up(host)
        if not addresses:
            return f"{url}: {host} does not resolve"
        unfit = [address for address in addresses if outside.nobodys(address)]
        if unfit:  # a forged answer must not have root ask itself, or a cloud's metadata service
            return f"{url}: {host} resolves to {unfit[0]}: {outside.nobodys(unfit[0])}"
        fit = [address for address in addresses if family in (None, address.version)]
        if not fit:
            return None
        result = await self.fetch(url, fit[0], timeout=TIMEOUT, way=way)
        return "" if result.ok else result.reason


def _watched(exit: ExitStatus) -> bool:
    """False for `direct` and `block`: of these there is nothing to ask by a mark."""
    return exit["state"] in ("up", "down", "unknown")

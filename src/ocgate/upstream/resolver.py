"""Looks up a gateway's name as the system does: /etc/hosts, then the nameservers of resolv.conf.

The library asks from a random port with a random id and takes nothing but an answer to both from
the address and port that it asked. Nameservers among the clients are left out: who is sent through
a gateway must not say where it is. dnspython is imported when the first name is looked up, since
its import takes 60 ms of the two seconds in which a killed control plane is back. An edge; the
wiring may import it.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from ocgate.errors import OcgateError
from ocgate.plan.facts import Address, Family, Network
from ocgate.upstream.etc_hosts import addresses_of

if TYPE_CHECKING:
    import dns.asyncresolver
    import dns.exception

HOSTS, RESOLV_CONF = Path("/etc/hosts"), Path("/etc/resolv.conf")

# A file tells nobody when it changes: it is read again as an answer of this age would be.
HOSTS_TTL = 30.0  # seconds

# Between two rounds while a start waits: docker's DNS knows a service some 100 ms after its
# container runs. Doubling up to a second, which nobody notices at the end of ten.
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 1.0

_RECORD = {4: "A", 6: "AAAA"}


@dataclass(frozen=True)
class Answer:
    """addresses: at least one; ttl: seconds; source: the file or the nameserver that said so;
    written: by the file, which is the operator's word and nobody else's."""

    addresses: tuple[Address, ...]
    ttl: float
    source: str
    written: bool = False


class NotResolved(OcgateError):
    """A name gave no address. said: by whom and why, one clause, the same for the same cause;
    waited: seconds."""

    def __init__(self, name: str, family: Family, said: str, waited: float) -> None:
        super().__init__(
            f"{name} has no IPv{family} address after {waited:.1f} s: {said}",
            hint="Is the name right, and does its container run on a network of this one?",
        )
        self.said = said
        self.waited = waited


@dataclass(frozen=True)
class Lookup:
    """How names are looked up.

    subnets: the clients', whose addresses are not asked. hosts, resolv_conf: the files, read anew
    for every look-up.
    """

    subnets: Collection[Network] = ()
    hosts: Path = HOSTS
    resolv_conf: Path = RESOLV_CONF


async def resolve(
    name: str, family: Family, timeout: float, lookup: Lookup = Lookup(), *, patient: bool = False
) -> Answer:
    """Addresses of `name` within `timeout` seconds; raises NotResolved.

    patient: ask again and again until then, also after a no, because a name may be about to exist.
    """
    began = time.monotonic()
    wait = _FIRST_WAIT
    said = "it was not asked"
    while True:
        left = began + timeout - time.monotonic()
        try:
            return await _round(name, family, max(left, 0.05), lookup)
        except _Failed as failure:
            # A round cut short by the end tells less than the whole one before it.
            if not (failure.late and wait > _FIRST_WAIT):
                said = failure.said
        waited = time.monotonic() - began
        if not patient or waited + wait >= timeout:
            raise NotResolved(name, family, said, waited)
        await asyncio.sleep(wait)
        wait = min(wait * 2, _LONGEST_WAIT)


class _Failed(Exception):
    """One round gave nothing. late: because its time was up."""

    def __init__(self, said: str, *, late: bool = False) -> None:
        super().__init__(said)
        self.said = said
        self.late = late


async def _round(name: str, family: Family, timeout: float, lookup: Lookup) -> Answer:
    try:
        text = lookup.hosts.read_text(encoding="utf-8", errors="replace")
    except OSError:  # no such file is a file without lines
        text = ""
    found = addresses_of(name, family, text)
    if found:
        return Answer(found, HOSTS_TTL, str(lookup.hosts), written=True)
    await asyncio.to_thread(importlib.import_module, "dns.asyncresolver")  # 60 ms, once
    return await _by_dns(name, family, timeout, _configured(lookup))


def _configured(lookup: Lookup) -> dns.asyncresolver.Resolver:
    """The resolver of resolv.conf, without nameservers among the clients."""
    import dns.asyncresolver
    import dns.resolver

    try:
        resolver = dns.asyncresolver.Resolver(str(lookup.resolv_conf))
    except (dns.resolver.NoResolverConfiguration, dns.exception.DNSException, ValueError) as error:
        raise _Failed(f"{lookup.resolv_conf}: {error or 'not usable'}") from None
    refused = [str(server) for server in resolver.nameservers if _among(server, lookup.subnets)]
    kept = [server for server in resolver.nameservers if str(server) not in refused]
    if not kept:
        raise _Failed(
            f"every nameserver of {lookup.resolv_conf} ({', '.join(refused)}) lies in a client "
            "subnet, and clients must not say where their gateway is"
        )
    resolver.nameservers = kept
    return resolver


def _among(server: object, subnets: Collection[Network]) -> bool:
    try:
        address = ip_address(str(server).partition("%")[0])  # fe80::1%eth0
    except ValueError:
        return False
    return any(address.version == net.version and address in net for net in subnets)


async def _by_dns(
    name: str, family: Family, timeout: float, resolver: dns.asyncresolver.Resolver
) -> Answer:
    import dns.exception
    import dns.resolver

    servers = ", ".join(str(server) for server in resolver.nameservers)
    try:
        answer = await resolver.resolve(name, _RECORD[family], lifetime=timeout, search=True)
    except dns.resolver.NXDOMAIN:
        raise _Failed(f"{servers} said NXDOMAIN") from None
    except dns.resolver.NoAnswer:
        raise _Failed(f"{servers} said that it has no {_RECORD[family]} record") from None
    except dns.resolver.NoNameservers as error:
        raise _Failed(_told(error) or f"{servers} said nothing") from None
    except dns.resolver.LifetimeTimeout as error:
        raise _Failed(_told(error) or f"no answer from {servers}", late=True) from None
    except (dns.exception.DNSException, OSError, ValueError) as error:
        raise _Failed(f"{servers}: {error}") from None
    found = tuple(dict.fromkeys(ip_address(record.address) for record in answer))
    ttl = float(answer.chaining_result.minimum_ttl)  # the shortest of a chain of CNAMEs
    return Answer(found, ttl, answer.nameserver or servers)


def _told(error: dns.exception.DNSException) -> str:
    """What each nameserver said in the end: `192.0.2.53 said SERVFAIL; no answer from …`."""
    said: dict[str, str] = {}
    for server, _, _, problem, _ in error.kwargs.get("errors") or ():
        timed_out = "timed out" in str(problem)
        where = str(server).removeprefix("Do53:").partition("@")[0]
        said[where] = f"no answer from {where}" if timed_out else f"{where} said {problem}"
    return "; ".join(said.values())

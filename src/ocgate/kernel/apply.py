"""Put a plan into the kernel, read it back, and say whether it is there.

Edge: combines the doors `nft`, `routes` and `sysctl`. `apply` is total and repeatable: whatever
the kernel held before, afterwards it holds the plan, or an exception says what it refused. Order
on the way in: guard (nft) first, then routes, then forwarding; on the way out the reverse, guards
last.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

from ocgate.errors import KernelRefused, OcgateError, VerificationFailed
from ocgate.kernel import (
    conntrack,
    device_conf,
    intruders,
    neighbours,
    null_device,
    routes,
    sysctl,
    tun,
)
from ocgate.kernel.nft import Nft
from ocgate.names import (
    NFT_FAMILY,
    NFT_TABLE,
    NFT_TABLE_CLOSING,
    NFT_TABLE_EXIT,
    NFT_TABLE_GATEWAY,
    NFT_TABLE_LIMITS,
)
from ocgate.plan import nft as text
from ocgate.plan.fingerprint import (
    Fingerprint,
    fingerprint,
    mismatch,
    stale_chains,
    stale_counters,
    stale_sets,
)
from ocgate.plan.limits import LIMITED
from ocgate.plan.model import Plan, Table

SERVER_TABLES = (NFT_TABLE, NFT_TABLE_GATEWAY, NFT_TABLE_LIMITS, NFT_TABLE_CLOSING)
OWN_TABLES = (*SERVER_TABLES, NFT_TABLE_EXIT)


@dataclass(frozen=True)
class Applied:
    """What the kernel held when it was read back: later reads are compared with this. removed: what
    others had put into client subnets, in words."""

    plan: Plan
    fingerprints: Mapping[str, Fingerprint]
    removed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Drift:
    """What a comparison of the kernel with what was applied came to.

    words:      what differs; empty where nothing does.
    intact:     tables that do not differ.
    elements:   of sessions, that they were compared with.
    generation: of the ruleset, from before its tables were read.
    """

    words: tuple[str, ...]
    intact: Mapping[str, Fingerprint]
    elements: text.Elements
    generation: int


def apply(
    nft: Nft,
    plan: Plan,
    elements: text.Elements,
    *,
    run_dir: Path,
    after: Drift | None = None,
) -> Applied:
    """Make the kernel hold `plan` and these sessions' elements; raises KernelRefused,
    MissingRequirement or VerificationFailed. A table of ours that the plan lacks is removed.

    after: what a comparison with this very plan has just found. Tables that are as they should be
    are then left alone, unless anybody has changed the ruleset since; they are most of a repair's
    time.
    """
    intact = _intact(nft, after, elements)
    nft.remove(nft.unreadable(_own_tables(nft)))
    there = _own_tables(nft)
    broken = [table for table in plan.tables if table.name not in intact]
    _replace(nft, broken, elements, there)
    _remove(nft, _unwanted(there, plan))
    null_device.ensure(plan.devices)
    if plan.tunnel is not None:
        tun.ensure(plan.tunnel)
    routes.ensure(plan.routes, plan.rules)
    routes.sweep(plan.routes, plan.rules, tables=plan.routing_tables)
    neighbours.pin(plan.neighbours)
    removed = intruders.remove(plan.clients) if plan.clients is not None else []
    null_device.sweep(plan.devices)
    if plan.tunnel is not None:
        tun.sweep(plan.tunnel)
    sysctl.ensure(plan.sysctls, run_dir=run_dir)
    if plan.forwards:
        device_conf.ensure()
    fingerprints = {**intact, **{table.name: _verified(nft, table) for table in broken}}
    return Applied(plan, fingerprints, tuple(removed))


def drift(nft: Nft, applied: Applied, elements: text.Elements) -> tuple[str, ...]:
    """What in the kernel differs from what was applied, in words; empty when nothing does."""
    return compare(nft, applied, elements).words


def compare(nft: Nft, applied: Applied, elements: text.Elements) -> Drift:
    """The same, with the tables that a repair may leave alone."""
    generation = nft.generation()  # first: what changes while the tables are read is noticed later
    plan, there = applied.plan, _own_tables(nft)
    of_tables = {t.name: _differing(nft, t, applied, elements, there) for t in plan.tables}
    found = [words for several in of_tables.values() for words in several]
    found += [f"table {name} is not wanted" for name in _unwanted(there, plan)]
    found += null_device.missing(plan.devices)
    found += tun.missing(plan.tunnel) if plan.tunnel is not None else []
    found += routes.differing(plan.routes, plan.rules, tables=plan.routing_tables)
    found += neighbours.differing(plan.neighbours)
    found += intruders.differing(plan.clients) if plan.clients is not None else []
    found += sysctl.differing(plan.sysctls)
    found += device_conf.differing() if plan.forwards else []
    intact = {name: applied.fingerprints[name] for name, words in of_tables.items() if not words}
    return Drift(tuple(found), intact, elements, generation)


def _intact(nft: Nft, after: Drift | None, elements: text.Elements) -> Mapping[str, Fingerprint]:
    """Tables that need not be replaced or read again."""
    if after is None or after.elements != elements or after.generation != nft.generation():
        return {}
    return after.intact


def _differing(
    nft: Nft, table: Table, applied: Applied, elements: text.Elements, there: Collection[str]
) -> list[str]:
    if nft.unreadable([table.name]):
        return [f"table {table.name}: another release of nft has made it"]
    held = _read(nft, table, there)
    if held is None:
        return [f"table {table.name} is gone"]
    found = []
    if fingerprint(held) != applied.fingerprints[table.name]:
        found.append(f"table {table.name}: {mismatch(table, held) or 'a rule was edited'}")
    if table.maps and text.held_elements(held, table) != elements:
        found.append(f"table {table.name}: elements of sessions differ")
    return found


def remove(
    nft: Nft,
    *,
    run_dir: Path,
    subnets: tuple[IPv4Network | IPv6Network, ...],
    late: Callable[[], object] = lambda: None,
) -> None:
    """Take the server role's state out of the kernel, guards last; what is gone already is no
    error. There is no such thing for the exit role: what it leaves is its closed plan.

    late: waits, behind the guard, for packets of the flows that are cut here.

    A step that fails does not keep the later ones from being done; its error is raised at the end.
    """
    steps: tuple[Callable[[], object], ...] = (
        lambda: sysctl.restore(run_dir=run_dir),
        lambda: conntrack.delete_of_networks(subnets),
        late,
        routes.sweep,
        lambda: neighbours.pin(()),
        null_device.sweep,
        lambda: nft.remove(SERVER_TABLES),
    )
    errors = [error for step in steps if (error := _attempt(step))]
    if errors:
        raise errors[0]


def _attempt(step: Callable[[], object]) -> OcgateError | None:
    try:
        step()
    except OcgateError as error:
        return error
    except OSError as error:  # no descriptors, no memory, a record that can't be removed
        return OcgateError(f"a step of the removal: {error}")
    return None


def unwanted(nft: Nft, plan: Plan) -> list[str]:
    """Names of tables of ours that the plan lacks."""
    return _unwanted(_own_tables(nft), plan)


def _unwanted(there: Collection[str], plan: Plan) -> list[str]:
    """A kill switch is never removed by a server that happens to start beside it."""
    wanted = {table.name for table in plan.tables}
    removable = SERVER_TABLES if plan.tunnel is None else OWN_TABLES
    return [name for name in there if name in removable and name not in wanted]


def read_table(nft: Nft, name: str) -> dict[str, Any] | None:
    """The table as libnftables' JSON (`nft -j list table`), or None if there is none."""
    return _listed(nft, name, _own_tables(nft))


def _read(nft: Nft, table: Table, there: Collection[str]) -> dict[str, Any] | None:
    """As `read_table`, without elements where the kernel fills sets of ours: these have no end.
    there: tables of ours in the kernel, asked once for all."""
    return _listed(nft, table.name, there, terse=bool(table.sets))


def counters(nft: Nft) -> dict[str, tuple[int, int]]:
    """Counter name -> (packets, bytes) of our tables together; empty where there are none."""
    found: dict[str, tuple[int, int]] = {}
    for table in _own_tables(nft):
        for name, (packets, size) in nft.counters(table).items():
            before = found.get(name, (0, 0))
            found[name] = (before[0] + packets, before[1] + size)
    return found


def limited(nft: Nft) -> frozenset[str]:
    """Devices of sessions that met a limit of flows lately."""
    if NFT_TABLE_LIMITS not in _own_tables(nft):
        return frozenset()
    items = nft.list_json(f"list set {NFT_FAMILY} {NFT_TABLE_LIMITS} {LIMITED}")["nftables"]
    found = [element for item in items for element in item.get("set", {}).get("elem", ())]
    return frozenset(str(element["elem"]["val"]) for element in found)


def _listed(
    nft: Nft, table: str, there: Collection[str], *, terse: bool = False
) -> dict[str, Any] | None:
    """What the kernel holds of our table; None if it is not there, or goes while we ask. What is
    not there is not asked for: a refusal costs ten answers (`Nft` looks for what the kernel lacks).
    """
    if table not in there:
        return None
    try:
        return nft.list_json(f"list table {NFT_FAMILY} {table}", terse=terse)
    except KernelRefused:
        if table in _own_tables(nft):
            raise
        return None


def _own_tables(nft: Nft) -> list[str]:
    return [name for name in nft.tables() if name in OWN_TABLES]


def _replace(
    nft: Nft, tables: Sequence[Table], elements: text.Elements, there: Collection[str]
) -> None:
    """One transaction for all of them. Chains that can't be kept as they are (another hook or map
    type, left by another version) make the kernel refuse; then the tables are made anew, still in
    one."""
    if not tables:
        return
    try:
        nft.run("".join(_kept(nft, table, elements, there) for table in tables))
    except KernelRefused:
        nft.run("".join(_anew(table, elements) for table in tables))


def _kept(nft: Nft, table: Table, elements: text.Elements, there: Collection[str]) -> str:
    held = _read(nft, table, there)
    wanted = elements if table.maps else {}
    if held is None:
        return text.replacement(table) + text.sync_elements(table.name, {}, wanted)
    sync = text.sync_elements(table.name, text.held_elements(held, table), wanted)
    kept = text.replacement(
        table,
        stale_chains=stale_chains(table, held),
        stale_counters=stale_counters(table, held),
        stale_sets=stale_sets(table, held),
    )
    return kept + sync


def _anew(table: Table, elements: text.Elements) -> str:
    wanted = elements if table.maps else {}
    return text.recreation(table) + text.sync_elements(table.name, {}, wanted)


def _remove(nft: Nft, extra: Sequence[str]) -> None:
    if extra:
        nft.remove(extra)


def _verified(nft: Nft, table: Table) -> Fingerprint:
    held = _read(nft, table, (table.name,))
    found = "it is not there" if held is None else mismatch(table, held)
    if held is None or found:
        raise VerificationFailed(
            f"table {NFT_FAMILY} {table.name} was accepted but reads back wrong: {found}",
            hint="Is another program rewriting nftables? `nft monitor` names it",
        )
    return fingerprint(held)

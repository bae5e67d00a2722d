"""A plan's tables as nft text, and the one transaction that puts them in place.

Pure. The transaction flushes rules and adds them anew while base chains, maps and their elements
stay, so that no packet meets a moment without a guard (measured: 0 packets lost or
leaked; deleting the table first loses 2 to 3 each time).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ocgate.names import NFT_FAMILY
from ocgate.plan.model import Chain, Table

# A netlink message of 5,000 elements overran a 64 KB send buffer (EMSGSIZE); a command is one
# message.
_PER_COMMAND = 1000

Elements = Mapping[str, Mapping[str, str]]
"""Map name -> key -> data, in nft's spelling."""


def listing(table: Table) -> str:
    """The table as `nft list table` prints it, elements and counts left out; for people."""
    lines = [f"table {NFT_FAMILY} {table.name} {{"]
    for counter in table.counters:
        lines.append(f"\tcounter {counter} {{ }}")
    for nft_map in table.maps:
        lines.append(f"\tmap {nft_map.name} {{ typeof {nft_map.typeof} : {nft_map.data}; }}")
    lines += [f"\tset {s}" for s in table.sets]
    for chain in table.chains:
        lines += ["", f"\tchain {chain.name} {{"]
        lines += [f"\t\t{chain.hook}"] if chain.hook else []
        lines += [f"\t\t{rule}" for rule in chain.rules]
        lines.append("\t}")
    return "\n".join([*lines, "}"]) + "\n"


def replacement(
    table: Table,
    *,
    stale_chains: Iterable[str] = (),
    stale_counters: Iterable[str] = (),
    stale_sets: Iterable[str] = (),
) -> str:
    """Commands that make the kernel's table equal to this one, elements untouched.

    stale_*: found in the kernel's table, and this one does not have them.
    """
    at = f"{NFT_FAMILY} {table.name}"
    lines = [f"add table {at}"]
    lines += [f"add counter {at} {counter}" for counter in table.counters]
    lines += [f"add map {at} {m.name} {{ typeof {m.typeof} : {m.data}; }}" for m in table.maps]
    lines += [f"add set {at} {s}" for s in table.sets]
    lines += [_declaration(at, chain) for chain in table.chains]
    lines += [f"flush chain {at} {chain.name}" for chain in table.chains]
    gone = sorted(set(stale_chains) - {chain.name for chain in table.chains})
    lines += [f"flush chain {at} {name}" for name in gone]
    for chain in table.chains:
        lines += [f"add rule {at} {chain.name} {rule}" for rule in chain.rules]
    lines += [f"delete chain {at} {name}" for name in gone]
    lines += [f"delete counter {at} {name}" for name in stale_counters]
    lines += [f"delete set {at} {name}" for name in stale_sets]
    return "\n".join(lines) + "\n"


def recreation(table: Table) -> str:
    """As `replacement`, for a table whose chains can't be kept (other hook, priority or map type):
    one transaction still, so no packet passes in between; elements must be added again."""
    at = f"{NFT_FAMILY} {table.name}"
    return f"add table {at}\ndelete table {at}\n{replacement(table)}"


def element_changes(
    table: str,
    *,
    add: Iterable[tuple[str, str, str]] = (),
    remove: Iterable[tuple[str, str]] = (),
) -> str:
    """Commands for map elements: (map, key, data) to add, (map, key) to remove; removals first."""
    removals = [(name, key) for name, key in remove]
    additions = [(name, f"{key} : {data}") for name, key, data in add]
    return "".join((*_grouped("delete", table, removals), *_grouped("add", table, additions)))


def _grouped(verb: str, table: str, items: Iterable[tuple[str, str]]) -> Iterator[str]:
    """One command for up to _PER_COMMAND elements of one map; all of it is one transaction."""
    by_map: dict[str, list[str]] = {}
    for name, element in items:
        by_map.setdefault(name, []).append(element)
    for name, elements in by_map.items():
        for start in range(0, len(elements), _PER_COMMAND):
            some = ", ".join(elements[start : start + _PER_COMMAND])
            yield f"{verb} element {NFT_FAMILY} {table} {name} {{ {some} }}\n"


def sync_elements(table: str, held: Elements, wanted: Elements) -> str:
    """Commands that turn the held elements into the wanted ones; '' where they are equal.

    An element with other data is deleted and added: adding over it is EEXIST.
    """
    remove: list[tuple[str, str]] = []
    add: list[tuple[str, str, str]] = []
    for name, elements in wanted.items():
        have = held.get(name, {})
        remove += [(name, key) for key, data in have.items() if elements.get(key) != data]
        add += [(name, key, data) for key, data in elements.items() if have.get(key) != data]
    return element_changes(table, add=add, remove=remove)


def held_elements(listing: Mapping[str, Any], table: Table) -> dict[str, dict[str, str]]:
    """The elements of this table's maps in libnftables' JSON listing: map -> key -> data. Another's
    map in our table is left out, and so are elements of a shape that ours never have: a map of our
    name and another type is refused by the kernel when ours are added, and is then made anew."""
    ours = {nft_map.name for nft_map in table.maps}
    return {
        item["map"]["name"]: dict(_pairs(item["map"].get("elem", [])))
        for item in listing["nftables"]
        if "map" in item and item["map"]["name"] in ours
    }


def _pairs(elements: Iterable[Any]) -> Iterator[tuple[str, str]]:
    for key, data in elements:
        if isinstance(key, Mapping) and len(key.get("concat", ())) == 2 and isinstance(data, int):
            device, address = key["concat"]
            yield f'"{device}" . {address}', f"0x{data:08x}"


def removal(names: Iterable[str]) -> str:
    """Commands that delete whole tables of ours, whether or not they exist."""
    return "".join(
        f"add table {NFT_FAMILY} {name}\ndelete table {NFT_FAMILY} {name}\n" for name in names
    )


def _declaration(at: str, chain: Chain) -> str:
    return f"add chain {at} {chain.name}" + (f" {{ {chain.hook} }}" if chain.hook else "")

"""Whether a table read back from the kernel is the one that was planned.

Pure; works on libnftables' JSON (libnftables-json(5)). Text can't be compared with what was sent:
nft lists some rules in a spelling of its own, which differs between its releases and, for masked
keys, doesn't even parse. So a table is first checked against the plan by structure (chains, hooks,
every rule's comment in its order, statements per rule present), and the whole of what was read is
then kept as the fingerprint that every later reading must equal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NewType

from ocgate.plan.model import Chain, Table

Fingerprint = NewType("Fingerprint", str)

_COUNTS = re.compile(r'(?<="handle": )\d+|(?<="packets": )\d+|(?<="bytes": )\d+')
_HOLDS_ELEMENTS = ("map", "set")
_OF_ELEMENTS = ("elem", "count")  # nft 1.1.7 tells how many there are, also where they are left out


def fingerprint(held: dict[str, Any]) -> Fingerprint:
    """Everything in the listing but handles, counts and map elements, as canonical JSON. Counts
    stand in counters and anonymous counter statements only, so they are dropped wherever they occur
    (from the text: a walk through the objects takes three times as long)."""
    items = [_without_elements(item) for item in held["nftables"] if "metainfo" not in item]
    return Fingerprint(_COUNTS.sub("0", json.dumps(items, sort_keys=True)))


def mismatch(table: Table, held: dict[str, Any]) -> str:
    """The first structural difference between plan and listing, in words; '' if there is none."""
    chains = {c["name"]: c for c in _objects(held, "chain")}
    rules = list(_objects(held, "rule"))
    wanted = {chain.name for chain in table.chains}
    if extra := sorted(set(chains) - wanted):
        return f"chain {extra[0]} is not ours"
    for chain in table.chains:
        found = _chain_mismatch(chain, chains.get(chain.name), rules)
        if found:
            return f"chain {chain.name}: {found}"
    named = {
        "map": [m.name for m in table.maps],
        "counter": list(table.counters),
        "set": [s.name for s in table.sets],
    }
    for kind, names in named.items():
        gone = sorted(set(names) - {item["name"] for item in _objects(held, kind)})
        if gone:
            return f"{kind} {gone[0]} is gone"
    return ""


def stale_chains(table: Table, held: dict[str, Any]) -> list[str]:
    """Chains in the kernel's table that the plan does not have."""
    wanted = {chain.name for chain in table.chains}
    return [c["name"] for c in _objects(held, "chain") if c["name"] not in wanted]


def stale_counters(table: Table, held: dict[str, Any]) -> list[str]:
    """Counters in the kernel's table that the plan does not have."""
    return [c["name"] for c in _objects(held, "counter") if c["name"] not in table.counters]


def stale_sets(table: Table, held: dict[str, Any]) -> list[str]:
    """Sets in the kernel's table that the plan does not have."""
    wanted = {s.name for s in table.sets}
    return [s["name"] for s in _objects(held, "set") if s["name"] not in wanted]


def _chain_mismatch(chain: Chain, held: dict[str, Any] | None, rules: list[dict[str, Any]]) -> str:
    if held is None:
        return "it is gone"
    if chain.hook is not None:
        base = (chain.hook.type, chain.hook.hook, chain.hook.priority, chain.hook.policy)
        if (held.get("type"), held.get("hook"), held.get("prio"), held.get("policy")) != base:
            return "its hook, priority or policy was changed"
    comments = [rule.get("comment", "") for rule in rules if rule["chain"] == chain.name]
    if comments != [rule.why for rule in chain.rules]:
        return "rules were removed, added or reordered"
    return ""


def _objects(held: dict[str, Any], kind: str) -> Iterator[dict[str, Any]]:
    return (item[kind] for item in held["nftables"] if kind in item)


def _without_elements(item: dict[str, Any]) -> dict[str, Any]:
    kind = next(iter(item))
    if kind not in _HOLDS_ELEMENTS:
        return item
    return {kind: {key: value for key, value in item[kind].items() if key not in _OF_ELEMENTS}}

"""All kernel state of a namespace that a gateway may change, as text that can be compared."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from ocgate.netlab.namespace import Namespace

SYSCTLS = (
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/forwarding",
    "net/ipv4/conf/default/forwarding",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv4/conf/all/send_redirects",
    "net/ipv4/conf/all/accept_redirects",
    "net/ipv6/conf/all/forwarding",
    "net/ipv6/conf/default/forwarding",
    "net/ipv6/conf/all/accept_ra",
    "net/ipv6/conf/all/disable_ipv6",
    "net/ipv6/conf/default/disable_ipv6",
)

# What changes by itself: numbers the kernel gives out, counters, ages.
_VOLATILE = frozenset({"handle", "packets", "bytes", "expires", "metainfo", "used", "age"})

# Of this table the kernel fills the sets, as flows begin.
_COUNTS_FLOWS = "ocserv_limits"


@dataclass(frozen=True)
class KernelState:
    """Each field is one line per object, sorted where the kernel promises no order."""

    nft: tuple[str, ...]
    rules: tuple[str, ...]
    routes: tuple[str, ...]
    links: tuple[str, ...]
    sysctls: tuple[str, ...]

    def differences(self, later: KernelState) -> list[str]:
        """What `later` has lost (``-``) and gained (``+``), prefixed with the field's name."""
        return [line for f in fields(self) for line in self._field_differences(f.name, later)]

    def _field_differences(self, name: str, later: KernelState) -> Iterator[str]:
        for line in difflib.ndiff(getattr(self, name), getattr(later, name)):
            if line[0] in "+-":
                yield f"{name}: {line}"


def observe(netns: Namespace) -> KernelState:
    """Read everything now. Routes of all tables and both families but the kernel's own `local`."""
    return KernelState(
        nft=tuple(_line(o) for o in _json(netns, "nft", "-j", "list", "ruleset")["nftables"] if o),
        rules=_sorted(netns, "rule"),
        routes=_sorted(netns, "route", "show", "table", "all"),
        links=tuple(sorted(link["ifname"] for link in _json(netns, "ip", "-j", "link"))),
        sysctls=tuple(f"{key} = {netns.sysctl(key)}" for key in SYSCTLS),
    )


def _sorted(netns: Namespace, *words: str) -> tuple[str, ...]:
    found = []
    for family in ("-4", "-6"):
        objects = _json(netns, "ip", "-j", "-d", family, *words)
        found += [f"{family} {_line(o)}" for o in objects if o.get("table") != "local"]
    return tuple(sorted(found))


def _json(netns: Namespace, *argv: str) -> Any:
    # `ip -j -6 route show table all` prints nothing at all where there is no route.
    return json.loads(netns.run(argv).stdout or "[]")


def _line(value: Any) -> str:
    return json.dumps(_steady(value), sort_keys=True)


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        if value.get("table") == _COUNTS_FLOWS:
            value = {k: v for k, v in value.items() if k != "elem"}
        return {k: _steady(v) for k, v in value.items() if k not in _VOLATILE}
    return [_steady(v) for v in value] if isinstance(value, list) else value

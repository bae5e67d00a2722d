"""What of nftables this kernel has, asked of the kernel itself by dry runs.

Old NAS kernels lack parts, and the kernel's own word for that is a bare "No such file or
directory" at a rule's first letter. `Nft` asks here when a text was refused; only the room `kernel`
imports this.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

_SCRATCH = "ocgate_probe"  # a table that is never committed


@dataclass(frozen=True)
class Feature:
    """One part of nftables that a kernel may be built without.

    name:   what we use it for.
    option: the kernel's configuration option, and so the module, that brings it.
    used:   finds it in a ruleset's text.
    lines:  the smallest text that needs it, in table `inet ocgate_probe` that has the chains
            `filtering` (hook forward) and, but for the probe of nat itself, `source_nat`.
    """

    name: str
    option: str
    used: re.Pattern[str]
    lines: str


def _feature(name: str, option: str, used: str, lines: str) -> Feature:
    return Feature(name, option, re.compile(used), lines)


_TABLE = f"add table inet {_SCRATCH}\n"
_FILTER = (
    f"{_TABLE}add chain inet {_SCRATCH} filtering {{ type filter hook forward priority 0; }}\n"
)
_NAT = (
    f"{_TABLE}add chain inet {_SCRATCH} source_nat {{ type nat hook postrouting priority 100; }}\n"
)


def _rule(chain: str, words: str) -> str:
    before = _NAT if chain == "source_nat" else _FILTER
    return f"{before}add rule inet {_SCRATCH} {chain} {words}\n"


# From what everything needs to what little needs, so that the first one lacking is the cause.
FEATURES = (
    _feature("tables of family inet", "CONFIG_NF_TABLES_INET", r"\binet\b", _TABLE),
    _feature("filter chains", "CONFIG_NF_TABLES_INET", r"type filter", _FILTER),
    _feature("nat chains", "CONFIG_NFT_NAT", r"type nat", _NAT),
    _feature(
        "ct", "CONFIG_NFT_CT", r"\bct (state|mark|status)", _rule("filtering", "ct mark 1 drop")
    ),
    _feature("masquerade", "CONFIG_NFT_MASQ", r"\bmasquerade\b", _rule("source_nat", "masquerade")),
    _feature(
        "reject",
        "CONFIG_NFT_REJECT_INET",
        r"\breject\b",
        _rule("filtering", "reject with icmpx type admin-prohibited"),
    ),
    _feature(
        "fib", "CONFIG_NFT_FIB_INET", r"\bfib\b", _rule("filtering", "fib daddr type local drop")
    ),
    _feature(
        "limit", "CONFIG_NFT_LIMIT", r"\blimit rate", _rule("filtering", "limit rate 1/second")
    ),
    _feature(
        "ct count (OCGATE_SESSION_FLOWS=0 does without)",
        "CONFIG_NFT_CONNLIMIT",
        r"\bct count\b",
        _rule("filtering", "ct count over 1 drop"),
    ),
    _feature("log", "CONFIG_NFT_LOG", r"\blog\b", _rule("filtering", 'log prefix "ocgate"')),
    _feature(
        "rt nexthop",
        "CONFIG_NF_TABLES (Linux 4.14)",
        r"\brt ip6? nexthop",
        _rule("filtering", "rt ip nexthop 192.0.2.1 drop"),
    ),
    _feature(
        "setting the TCP MSS",
        "CONFIG_NF_TABLES (Linux 4.14)",
        r"maxseg size set",
        _rule("filtering", "tcp flags syn tcp option maxseg size set rt mtu"),
    ),
    _feature(
        "maps with concatenated keys",
        "CONFIG_NF_TABLES (Linux 4.1)",
        r"\bmap\b",
        f"{_TABLE}add map inet {_SCRATCH} m {{ type ifname . ipv4_addr : mark; }}\n",
    ),
)


def lacking(text: str, accepts: Callable[[str], bool]) -> Feature | None:
    """The first feature that `text` uses and the kernel does not accept, or None.

    accepts: whether a dry run of the given lines succeeds.
    """
    used = (feature for feature in FEATURES if feature.used.search(text))
    return next((feature for feature in used if not accepts(feature.lines)), None)

"""Which nameservers a look-up will ask, so that the switch can be opened for exactly these. Pure.

Docker's own (127.0.0.11) asks others in turn, which stand in a comment that docker writes into the
file: from this namespace, unless it calls them `host(…)` (moby's libnetwork, since 26.0).
"""

from __future__ import annotations

import re

from ocgate import outside
from ocgate.plan.facts import Address

_SERVER = re.compile(r"^\s*nameserver\s+(\S+)", re.MULTILINE)
_EXTERNAL = re.compile(r"^#\s*ExtServers:\s*\[(.*)\]", re.MULTILINE)


def nameservers(resolv_conf: str) -> tuple[Address, ...]:
    """The nameservers of this file's text that may be asked from this namespace, in its order."""
    words = _SERVER.findall(resolv_conf)
    for listed in _EXTERNAL.findall(resolv_conf):
        words += [word for word in listed.split() if not word.startswith("host(")]
    found = (_address(word) for word in words)
    return tuple(dict.fromkeys(address for address in found if address is not None))


def _address(word: str) -> Address | None:
    return outside.address(word.partition("%")[0])  # fe80::1%eth0

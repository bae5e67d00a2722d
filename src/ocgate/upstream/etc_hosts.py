"""/etc/hosts as far as gateways need it: the addresses that a name has there. Pure."""

from __future__ import annotations

from ocgate import outside
from ocgate.plan.facts import Address, Family


def addresses_of(name: str, family: Family, text: str) -> tuple[Address, ...]:
    """The addresses of `name` in a hosts(5) file, in its order, each once; names have no case."""
    wanted = name.rstrip(".").lower()
    found: dict[Address, None] = {}
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if wanted not in (word.lower() for word in words[1:]):
            continue
        address = outside.address(words[0])  # glibc skips a line without one, too
        if address is not None and address.version == family:
            found[address] = None
    return tuple(found)

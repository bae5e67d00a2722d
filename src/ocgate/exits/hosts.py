"""/etc/hosts as far as gateways need it: the addresses that a name has there. Pure."""

from __future__ import annotations

from ipaddress import ip_address

from ocgate.plan.facts import Address, Family


def addresses_of(name: str, family: Family, text: str) -> tuple[Address, ...]:
    """The addresses of `name` in a hosts(5) file, in its order, each once; names have no case."""
    wanted = name.rstrip(".").lower()
    found: dict[Address, None] = {}
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if wanted not in (word.lower() for word in words[1:]):
            continue
        try:
            address = ip_address(words[0])
        except ValueError:  # glibc skips such a line, too
            continue
        if address.version == family:
            found[address] = None
    return tuple(found)

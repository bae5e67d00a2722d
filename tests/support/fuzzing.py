"""Random machines, and random sets of what a hostile provider reports, with what may be taken.

The oracle is not the gate: it reads an address with libc's `inet_pton` and compares numbers. A set
is drawn from a machine's own networks and their edges, so that most of it is near a wrong answer,
and then misspelt in the ways in which parsers differ.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from ocgate.plan.facts import Address, Network
from ocgate.tunnel.model import Endpoint, ExitIntent

Number = tuple[int, int]  # family, and the address as a number

BITS = {4: 32, 6: 128}
_INET = {4: socket.AF_INET, 6: socket.AF_INET6}


def number_of(text: str) -> Number | None:
    """What libc reads, None where it reads no address."""
    for family, inet in _INET.items():
        try:
            return family, int.from_bytes(socket.inet_pton(inet, text), "big")
        except (OSError, ValueError):  # a NUL, or what no bytes can be made of
            continue
    return None


def is_nobodys(family: int, number: int) -> bool:
    """Loopback, multicast, of the link alone, reserved, unspecified, IPv4 in IPv6's writing."""
    if family == 4:
        top = number >> 24
        return top in (0, 127) or top >= 224 or number >> 16 == 0xA9FE
    top16 = number >> 112
    return number in (0, 1) or number >> 32 == 0xFFFF or top16 & 0xFFC0 == 0xFE80 or top16 >= 0xFF00


# RFC 1918 and 6598 by their first and last address.
_PRIVATE = (
    (0x0A000000, 0x0AFFFFFF), (0xAC100000, 0xAC1FFFFF), (0xC0A80000, 0xC0A8FFFF),
    (0x64400000, 0x647FFFFF),
)  # fmt: skip


def is_near(family: int, number: int) -> bool:
    """Nobody's, or private: no server of a provider's has it."""
    private = any(first <= number <= last for first, last in _PRIVATE)
    return is_nobodys(family, number) or (number >> 121 == 0x7E if family == 6 else private)


@dataclass(frozen=True)
class Machine:
    """What is around an exit, as ranges of numbers: family, first, last."""

    taken: tuple[tuple[int, int, int], ...]
    intent: ExitIntent

    def forbids(self, found: Number) -> bool:
        """Whether the address is somebody's, or nobody's."""
        family, number = found
        return is_nobodys(family, number) or any(
            family == version and first <= number <= last for version, first, last in self.taken
        )


def machine(chance: random.Random) -> Machine:
    """Up to a dozen networks and addresses of both families."""
    local, inside, beside = (tuple(networks(chance)) for _ in range(3))
    own = tuple(address(chance, chance.choice((4, 6))) for _ in range(chance.randint(0, 3)))
    endpoint = None
    if chance.random() < 0.9:
        endpoint = Endpoint(address(chance, chance.choice((4, 4, 6))), 1194, ("udp",))
    held = [ip_network(a) for a in (*own, *([endpoint.address] if endpoint else ()))]
    taken = tuple(
        (net.version, int(net.network_address), int(net.broadcast_address))
        for net in (*local, *inside, *beside, *held)
    )
    intent = ExitIntent("tun0", ("eth0",), inside, local, beside, own, endpoint)
    return Machine(taken, intent)


def networks(chance: random.Random) -> list[Network]:
    """Of any size, docker's usual ones above all."""
    found: list[Network] = []
    for _ in range(chance.randint(0, 3)):
        family = chance.choice((4, 4, 6))
        usual = chance.choice((16, 24, 24) if family == 4 else (48, 64, 64))
        length = usual if chance.random() < 0.8 else chance.randint(1, BITS[family])
        found.append(ip_network((int(address(chance, family)), length), strict=False))
    return found


def address(chance: random.Random, family: int) -> Address:
    """Private ones, where docker's networks and tunnels lie, more often than others."""
    number = chance.getrandbits(BITS[family])
    if family == 4:
        private = chance.choice(((0xAC10, 12), (0x0A00, 8), (0xC0A8, 16), (0, 0)))
        return IPv4Address(_under(number, private, 16, 32))
    return IPv6Address(_under(number, chance.choice(((0xFD00, 8), (0x2001, 16), (0, 0))), 16, 128))


def _under(number: int, prefix: tuple[int, int], width: int, bits: int) -> int:
    top, length = prefix
    return (top << (bits - width)) | number & ((1 << (bits - length)) - 1)


# --- texts ----------------------------------------------------------------------------------------

_EDGES = {
    4: ("0.0.0.0", "127.0.0.1", "169.254.169.254", "224.0.0.1", "239.255.255.255", "240.0.0.1",
        "255.255.255.255", "223.255.255.255", "128.0.0.0", "126.255.255.255", "1.0.0.0"),
    6: ("::", "::1", "::2", "::ffff:172.28.0.20", "::ffff:0:1", "fe80::1", "febf:ffff::", "fec0::1",
        "ff00::", "ff02::1", "feff:ffff::1", "fe7f::1", "::fffe:0:1", "::1:0:0:0"),
}  # fmt: skip

_DIGITS = str.maketrans("0123456789", "０１２３４５６７８９")
_ARABIC = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")

MISSPELT: tuple[Callable[[str], str], ...] = (
    lambda text: f"{text}%eth0",
    lambda text: f"{text}%x}}; flush ruleset",
    lambda text: f"{text}%",
    lambda text: f"{text}/24",
    lambda text: f"[{text}]",
    lambda text: f"{text}:53",
    lambda text: f" {text}",
    lambda text: f"{text}\n",
    lambda text: f"{text}\0",
    lambda text: f"{text}\0.example",
    lambda text: f"{text}\u2028",
    lambda text: f"::ffff:{text}",
    lambda text: f"::{text}",
    lambda text: text.translate(_DIGITS),
    lambda text: text.translate(_ARABIC),
    lambda text: text.replace(".", ".0", 1),
    lambda text: text.replace(".", "\uff0e"),
    lambda text: text.replace(".", ".0x", 1),
    lambda text: text.upper(),
    lambda text: text.replace("::", ":0:", 1),
    lambda text: text.replace(":", "::", 1),
    lambda text: text + "." + text,
    lambda text: text[:-1],
    lambda text: text[1:],
    lambda text: f"-{text}",
    lambda text: f"{text};reboot",
    lambda text: f"$({text})",
    lambda text: f"\x1b[2J{text}",
    lambda text: f"{text}\udc80",
    lambda text: str(int(ip_address(text))) if number_of(text) else "2886991892",
    lambda text: hex(int(ip_address(text))) if number_of(text) else "0x7f000001",
    lambda text: ip_address(text).exploded if number_of(text) else text,
    lambda text: text * 400,
    lambda text: "9" * 5000 + text,
)


@dataclass(frozen=True)
class Texts:
    """Draws texts for one machine."""

    chance: random.Random
    machine: Machine
    _near: tuple[Number, ...] = field(default=())

    def address(self, family: int) -> str:
        """Mostly an address of that family."""
        draw = self.chance.random()
        if draw < 0.03:
            return self.chance.choice(("", "none", "0", "localhost", "\0", "a" * 70000))
        text = str(self._address(family if draw < 0.95 else 10 - family))
        return self.chance.choice(MISSPELT)(text) if self.chance.random() < 0.2 else text

    def _address(self, family: int) -> Address:
        """Anywhere, or inside of what the machine knows, at its ends and beside them."""
        draw, made = self.chance.random(), IPv4Address if family == 4 else IPv6Address
        if draw < 0.1:
            return ip_address(self.chance.choice(_EDGES[family]))
        known = [each for each in self.machine.taken if each[0] == family]
        if draw < 0.5 and known:
            _, first, last = self.chance.choice(known)
            inside = self.chance.randint(first, last)
            number = self.chance.choice((first, last, inside, first - 1, last + 1))
            return made(number % (1 << BITS[family]))
        return address(self.chance, family)

    def mtu(self) -> str:
        """Usual ones, both edges, and what is none."""
        return self.chance.choice(_MTUS) if self.chance.random() < 0.5 else "1500"

    def addresses(self) -> list[str]:
        """A handful, now and then very many, now and then the same again."""
        count = self.chance.choices((0, 1, 2, 4, 40, 400), (5, 20, 40, 30, 4, 1))[0]
        found = [self.address(self.chance.choice((4, 4, 6))) for _ in range(count)]
        return [*found, *found[:2]] if self.chance.random() < 0.1 else found


_MTUS = (
    "575", "576", "1279", "1280", "1400", "1420", "65535", "65536", "0", "", "-1500", "1500 ",
    "+1500", "１５００", "1500\n", "01500", "001500", "1_500", "1e3", "0x5dc", "1500.0",
    "9" * 400, "NaN", "\0",
)  # fmt: skip


# --- what may be taken ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Expected:
    """addresses, resolvers: as numbers, in order. No address: nothing is taken."""

    addresses: tuple[Number, ...]
    resolvers: tuple[Number, ...]


def mtu_of(text: str) -> int | None:
    """Five digits at most, 576 to 65535."""
    plain = 1 <= len(text) <= 5 and all(c in "0123456789" for c in text)
    return int(text) if plain and 576 <= int(text) <= 65535 else None


def expected(
    around: Machine, mtu: str, four: str, six: str, resolvers: Sequence[str], most: int
) -> Expected:
    """Of a hook's report. most: resolvers that are looked at."""
    given = [(4, number_of(four)), (6, number_of(six))]
    ours = [found for family, found in given if found is not None and found[0] == family]
    asked = list(dict.fromkeys(n for text in resolvers if (n := number_of(text)) is not None))
    return taken(around, mtu_of(mtu), ours, asked[:most])


def taken(
    around: Machine, mtu: int | None, ours: Sequence[Number], asked: Sequence[Number]
) -> Expected:
    """What is nobody else's; IPv6 needs 1280 bytes (RFC 8200)."""
    held = tuple(
        each
        for each in ours
        if mtu is not None and (each[0] == 4 or mtu >= 1280) and not around.forbids(each)
    )
    if not held:
        return Expected((), ())
    return Expected(held, tuple(a for a in asked if a not in held and not around.forbids(a)))

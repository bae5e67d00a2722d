"""100,000 random sets of what a provider reports, in every kind of tunnel: a fuzzer of the gate.

Of each set exactly that is taken which an oracle of other making allows: nothing that the gate
forbids, and no refusal of what is fine. Nothing but our own errors is raised, and nothing grows.

FUZZ_SEED=random looks for new sets and prints the seed when one is wrong; FUZZ_SEED=N replays it,
FUZZ_SETS makes it longer.
"""

from __future__ import annotations

import gc
import json
import os
import random
import re
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from ocgate.errors import ConfigurationError
from ocgate.sessions.protocol import ProtocolError, RequestParser
from ocgate.tunnel import gate, nordvpn_api, nordvpn_choice, openconnect, openvpn, wireguard
from ocgate.tunnel.gate import MOST_REFUSALS, MOST_RESOLVERS, Reported, Taken
from ocgate.tunnel.model import Carried, Endpoint
from ocgate.tunnel.provider import Listing, NotListed, Server, Wish
from support.fuzzing import (
    Expected,
    Machine,
    Number,
    Texts,
    expected,
    is_near,
    machine,
    mtu_of,
    number_of,
    taken,
)

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

USUAL_SEED = "587250"
SETS = int(os.environ.get("FUZZ_SETS", "100000"))
SHARE = {"openvpn": 0.35, "openconnect": 0.35, "wireguard": 0.2, "nordvpn": 0.1}
MACHINE_LASTS = 20  # sets

# A set holds a few hundred texts of 70,000 characters at most.
MOST_BYTES = 64 << 20


@contextmanager
def seeded(kind: str) -> Iterator[random.Random]:
    """Chance for this kind; whatever goes wrong, the seed is told."""
    given = os.environ.get("FUZZ_SEED", USUAL_SEED)
    seed = random.SystemRandom().randint(1, 999_999) if given == "random" else int(given)
    print(f"FUZZ_SEED={seed}")
    try:
        yield random.Random(f"{seed} {kind}")
    except BaseException as error:
        error.add_note(f"FUZZ_SEED={seed}")
        raise


def sets(kind: str, chance: random.Random) -> Iterator[Texts]:
    """As many as are this kind's share, on ever new machines."""
    for number in range(round(SETS * SHARE[kind])):
        if number % MACHINE_LASTS == 0:
            around = machine(chance)
        yield Texts(chance, around)


@pytest.fixture
def memory() -> Iterator[None]:
    """What is kept after the first sets stays what it is, and no set takes much."""
    gc.collect()
    before = _resident()
    yield
    gc.collect()
    assert _resident() - before < MOST_BYTES


def _resident() -> int:
    """Bytes of this process, the most since its start (proc_pid_status(5), VmHWM)."""
    shown = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s+([0-9]+)", shown)[0]) << 10


def numbers(carried: Carried | None) -> Expected:
    """What was taken, read from the very text that nft and `ip` get: it has no zone, no more."""
    if carried is None:
        return Expected((), ())
    assert all(a.network.prefixlen == a.max_prefixlen for a in carried.addresses)
    return Expected(
        tuple(_plain(str(address.ip)) for address in carried.addresses),
        tuple(_plain(str(resolver)) for resolver in carried.resolvers),
    )


def _plain(text: str) -> Number:
    found = number_of(text)
    assert found is not None, f"{text!r} was taken"
    return found


def check(found: Taken, wanted: Expected, around: Machine, seen: Counter[str]) -> None:
    """Exactly what the oracle says; and what is told of the rest can be shown."""
    assert numbers(found.carried) == wanted
    assert (found.carried is None) == (not wanted.addresses)
    assert len(found.refused) <= MOST_REFUSALS + 3  # a file's two addresses are judged before
    for refusal in found.refused:
        assert str(refusal).isprintable()
        assert len(str(refusal)) < 300
    if found.carried is not None:
        assert gate.fitting(found.carried, around.intent).carried == found.carried
    seen["taken"] += len(wanted.addresses) + len(wanted.resolvers)
    seen["refused"] += len(found.refused)
    seen["sets with a tunnel"] += bool(wanted.addresses)
    seen["sets"] += 1


def assert_safe(found: Taken, around: Machine) -> None:
    """Nothing that the oracle forbids."""
    carried = numbers(found.carried)
    assert not any(map(around.forbids, (*carried.addresses, *carried.resolvers)))


def assert_both(seen: Counter[str]) -> None:
    """Neither by refusing all nor by taking all can this be passed."""
    print(dict(seen))
    assert seen["sets with a tunnel"] > seen["sets"] / 4
    assert seen["refused"] > seen["sets"] / 4


# --- kinds with a hook ----------------------------------------------------------------------------


def test_openvpn(memory: None) -> None:
    """By its hook's message, as control gets it, in pieces."""
    with seeded("openvpn") as chance:
        assert_both(_reports(chance, "openvpn", _openvpn, openvpn.reported))


def test_openconnect(memory: None) -> None:
    with seeded("openconnect") as chance:
        assert_both(_reports(chance, "openconnect", _openconnect, openconnect.reported))


Environment = dict[str, str]


def _reports(
    chance: random.Random,
    kind: str,
    make: Callable[[Texts, str, str, str, list[str]], tuple[Environment, str, str, list[str]]],
    reported: Callable[[Environment], Reported],
) -> Counter[str]:
    seen: Counter[str] = Counter()
    for texts in sets(kind, chance):
        mtu, four, six = texts.mtu(), texts.address(4), texts.address(6)
        made = make(texts, mtu, four, six, texts.addresses())
        environment = _over_the_socket(made[0], chance)
        around, intent = texts.machine, texts.machine.intent
        if environment is None:  # longer than a message may be, or malformed by a NUL
            seen["messages refused"] += 1
            continue
        if any("\0" in value for value in made[0].values()):  # ended there: another report
            assert_safe(gate.read(reported(environment), intent), around)
            continue
        mtu, four, six, resolvers = _as_heard(mtu), *map(_as_heard, made[1:3]), made[3]
        wanted = expected(around, mtu, four, six, [*map(_as_heard, resolvers)], MOST_RESOLVERS)
        check(gate.read(reported(environment), intent), wanted, around, seen)
    return seen


def _openvpn(
    texts: Texts, mtu: str, four: str, six: str, resolvers: list[str]
) -> tuple[Environment, str, str, list[str]]:
    """openvpn(8), Environmental Variables: resolvers as pushed options and as 2.6's `dns`."""
    chance = texts.chance
    cut = chance.randint(0, len(resolvers))
    made = {"script_type": "up", "tun_mtu": mtu, "ifconfig_local": four}
    made["ifconfig_ipv6_local"] = six
    offered: list[str] = []
    for number, text in enumerate(resolvers[:cut], 1):
        word = chance.choice(("DNS", "DNS6", "DNS", "DOMAIN", "WINS"))
        made[f"foreign_option_{number}"] = f"dhcp-option {word} {text}"
        if word.startswith("DNS") and len(text.split()) == 1:
            offered += text.split()
    named = {f"dns_server_1_address_{n:03}": text for n, text in enumerate(resolvers[cut:])}
    for number, text in enumerate(resolvers[:3]):
        made[f"route_network_{number}"] = text
    made["foreign_option_9999999999"] = f"dhcp-option DNS {four}"  # no number of an option
    made["ifconfig_ipv6_remote"] = made["route_vpn_gateway"] = six
    pairs = [*made.items(), *named.items()]
    chance.shuffle(pairs)
    return dict(pairs), four, six, [*offered, *named.values()]


def _openconnect(
    texts: Texts, mtu: str, four: str, six: str, resolvers: list[str]
) -> tuple[Environment, str, str, list[str]]:
    """vpnc-script's variables; openconnect 9 gives the IPv6 address in either of two."""
    chance = texts.chance
    made = {"reason": "connect", "INTERNAL_IP4_MTU": mtu, "INTERNAL_IP4_ADDRESS": four}
    name = chance.choice(("INTERNAL_IP6_ADDRESS", "INTERNAL_IP6_NETMASK"))
    made[name] = six + chance.choice(("", "/64", "/128", "/0"))
    cut = chance.randint(0, len(resolvers))
    made["INTERNAL_IP4_DNS"] = " ".join(resolvers[:cut])
    made["INTERNAL_IP6_DNS"] = " ".join(resolvers[cut:])
    for number, text in enumerate(resolvers[:3]):
        made[f"CISCO_SPLIT_INC_{number}_ADDR"] = text
    made["CISCO_DEF_DOMAIN"] = six
    words = f"{made['INTERNAL_IP4_DNS']} {made['INTERNAL_IP6_DNS']}".split()
    return made, four, made[name].split("/")[0], words


def _over_the_socket(environment: Environment, chance: random.Random) -> Environment | None:
    """What control hears of a hook with this environment; None where it hears nothing."""
    items = [f"{name}={value}" for name, value in environment.items()]
    message = "\0".join(["ocgate/1 tunnel", *items]) + "\0\0"
    data = message.encode("utf-8", "surrogateescape")
    cut = chance.randint(0, len(data))
    parser = RequestParser()
    try:
        request = parser.feed(data[:cut]) or parser.feed(data[cut:])
    except ProtocolError:
        return None
    assert request is not None
    return {name: value.decode("utf-8", "replace") for name, value in request.fields.items()}


def _as_heard(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


# --- WireGuard: its file --------------------------------------------------------------------------

KEY = "A" * 42 + "A="
_ALLOWED = {"0.0.0.0/0, ::/0": {4, 6}, "0.0.0.0/0": {4}, "::/0": {6}}


def test_wireguard(memory: None) -> None:
    """A right file is read, with an endpoint or a resolver of somebody else's, too; of any other
    every problem is told."""
    with seeded("wireguard") as chance:
        seen: Counter[str] = Counter()
        for texts in sets("wireguard", chance):
            try:
                _one_file(texts, seen)
            except ConfigurationError as error:
                assert str(error).replace("\n", "").isprintable()
                seen["files refused"] += 1
        assert seen["files refused"] > seen["sets"] / 10
        assert_both(seen)


def _one_file(texts: Texts, seen: Counter[str]) -> None:
    chance = texts.chance
    ours = [texts.address(4), *[texts.address(6)] * chance.randint(0, 1)]
    resolvers, mtu = texts.addresses()[:40], texts.mtu()
    right = mtu_of(mtu) is not None and all(map(number_of, (*ours, *resolvers)))
    if chance.random() < 0.7 and not right:
        ours = [text for text in ours if number_of(text)] or ["10.2.0.2"]
        resolvers, mtu = [text for text in resolvers if number_of(text)], "1420"
        right = True
    allowed = chance.choice(list(_ALLOWED))
    text = (
        f"[Interface]\nPrivateKey = {KEY}\nAddress = {', '.join(ours)}\nMTU = {mtu}\n"
        + "".join(f"DNS = {each}\n" for each in resolvers)
        + f"[Peer]\nPublicKey = {KEY}\nEndpoint = 198.51.100.200:51820\nAllowedIPs = {allowed}\n"
    )
    try:
        profile = wireguard.read(text, "wg0.conf")
    except ConfigurationError:
        assert not right, "a right file was refused"
        raise
    around, intent = texts.machine, texts.machine.intent
    remote = wireguard.remotes(profile)[0]
    made = wireguard.interface(profile, remote, intent.endpoint or _SOMEWHERE)
    assert made.text.isascii()
    assert made.text.count("\n") == 6
    found = gate.fitting(made.carried, intent)
    if right:
        held = dict.fromkeys(n for n in map(number_of, ours) if n)
        passing = [each for each in held if each[0] in _ALLOWED[allowed]]
        asked = list(dict.fromkeys(n for n in map(number_of, resolvers) if n))
        check(found, taken(around, int(mtu), passing, asked), around, seen)
    else:  # not as we write it, and read all the same (`#`, a name among the resolvers)
        assert_safe(found, around)


_SOMEWHERE = Endpoint(ip_address("198.51.100.200"), 51820, ("udp",))


# --- NordVPN: its list ----------------------------------------------------------------------------

LARGEST_ITEM = 60_000  # characters
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*\.nordvpn\.com")
_PLACE = {"id": 153, "name": "Netherlands", "code": "NL", "city": {"id": 9, "name": "Amsterdam"}}
_ODD: tuple[Any, ...] = (
    None, True, -1, 2886991892, 1e400, 10**400, "9" * 5000, [], {}, [[]], "", "\0", "a\nb",
    "x" * 101,
    "nl1.nordvpn.com\n", "nl1.nordvpn.com%x", "ｎl1.nordvpn.com", "evil.example", "\udc80",
)  # fmt: skip


def test_nordvpn(memory: None) -> None:
    """Each server that is whole is listed, none with a name or an address that is none."""
    with seeded("nordvpn") as chance:
        seen: Counter[str] = Counter()
        for texts in sets("nordvpn", chance):
            items = [_server(texts) for _ in range(chance.choice((0, 1, 3, 3, 8)))]
            body = json.dumps([item for item, _ in items]).encode()
            wanted = {item["hostname"] for item, whole in items if whole}
            if chance.random() < 0.1:
                body, wanted = _damaged(body, chance), set()
            try:
                found = nordvpn_api.servers(body)
            except NotListed as error:
                assert str(error).isprintable()
                seen["no list"] += 1
                found = ()
            _check_list(found)
            assert wanted <= {server.hostname for server in found}
            seen["whole"] += len(wanted)
            seen["servers"] += len(found)
            for parse in (nordvpn_api.places, nordvpn_api.groups):
                with suppress(NotListed):
                    parse(body)
        print(dict(seen))
        assert seen["whole"] > round(SETS * SHARE["nordvpn"])
        assert seen["no list"] > 0


def _server(texts: Texts) -> tuple[dict[str, Any], bool]:
    """One as NordVPN has it, and whether nothing of it was made odd."""
    chance = texts.chance
    name = f"nl{chance.randint(1, 9999)}.nordvpn.com"
    station = f"{chance.choice((5, 45, 89, 185, 193))}.{chance.randint(0, 255)}.7.9"
    technologies = [{"identifier": "openvpn_udp", "pivot": {"status": "online"}}]
    item: dict[str, Any] = {
        "hostname": name, "station": station, "load": chance.randint(0, 100), "status": "online",
        "locations": [{"country": dict(_PLACE)}], "groups": [], "technologies": technologies,
    }  # fmt: skip
    if chance.random() < 0.5:
        return item, True
    key = chance.choice(list(item))
    item[key] = texts.address(chance.choice((4, 6))) if key == "station" else chance.choice(_ODD)
    if len(json.dumps(item)) > LARGEST_ITEM:  # refused with all that stands beside it
        item[key] = ""
    return item, False


def _damaged(body: bytes, chance: random.Random) -> bytes:
    at = chance.randint(0, len(body))
    return chance.choice(
        (body[:at], body[:at] + b"\xff" + body[at:], b"[" * 50_000, b'{"a":' * 50_000, b"null", b"",
         b"[" + b"{}," * 10_000 + b"{}]", body * 2, b"1" * 5000, body.replace(b"nordvpn", b"evil"))
    )  # fmt: skip


def _check_list(found: tuple[Server, ...]) -> None:
    wish = Wish(technology="openvpn_udp")
    for server in found:
        assert _NAME.fullmatch(server.hostname)
        assert not is_near(*_plain(server.address)), server.address
        assert 0 <= server.load <= 100
    with suppress(NotListed):
        remotes = nordvpn_choice.remotes(Listing(wish, (), (), (), found), wish, random.shuffle)
        assert {remote.host for remote in remotes} <= {server.address for server in found}


# --- memory ---------------------------------------------------------------------------------------


def test_a_huge_report_takes_no_more_than_it_is() -> None:
    """Without the socket's limit of 64 KiB: a gate that keeps what it refuses would show here."""
    huge = tuple(f"{n}{'9' * 1000}" for n in range(4000))
    reported = Reported("1500", "10.8.0.2", "9" * (4 << 20), huge, huge, huge)
    intent = machine(random.Random(1)).intent
    tracemalloc.start()
    try:
        found = gate.read(reported, intent)
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found.refused) == MOST_REFUSALS + 1
    assert kept < 64 << 10
    assert most < 16 << 20

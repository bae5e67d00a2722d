"""What may happen to the upstream: its tunnel, its host, its address, its name."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

from ocgate.netlab.inject import onto_link
from ocgate.netlab.odd_packets import arp_claim, ndp_claim
from ocgate.netlab.wait import wait_until
from ocgate.plan.facts import Address
from ocgate.prove.fault import Act, Expect, Fault, Need
from ocgate.prove.stage import Stage
from ocgate.prove.twin import Upstream, address_of
from ocgate.prove.world import FAULT_TABLE, mac

_CLAIMS = 3  # one may be lost, or be older than an answer that is under way

# Another container in its place: the same MAC prefix, so that the witness still knows its role.
_MAC = "02:6f:63:{generation:02x}:{segment:02x}:{role:02x}"
_ROLE = {4: 4, 6: 5}


def tunnel_down(stage: Stage) -> None:
    """It answers on its network, but nothing passes through it."""
    for up in stage.twin.upstreams:
        stage.world.spaces[up.role].nft(
            _DROP.format(table=FAULT_TABLE, hook="forward", priority=-10)
        )


def tunnel_up(stage: Stage) -> None:
    """The tunnel is back."""
    _take_drop_out(stage)


def frozen(stage: Stage) -> None:
    """Its kernel answers to nothing, not even to who asks for its address."""
    for up in stage.twin.upstreams:
        stage.world.spaces[up.role].nft(
            _DROP.format(table=FAULT_TABLE, hook="prerouting", priority=-400)
        )
        stage.world.spaces[up.role].ip("link set eth0 arp off")


def unfrozen(stage: Stage) -> None:
    """It goes on."""
    _take_drop_out(stage)
    for up in stage.twin.upstreams:
        stage.world.spaces[up.role].ip("link set eth0 arp on")


def gone(stage: Stage) -> None:
    """Its cable is out."""
    for up in stage.twin.upstreams:
        stage.world.spaces["switch"].ip(f"link set {up.role}{up.segment.number} down")


def back(stage: Stage) -> None:
    """The cable is in again."""
    for up in stage.twin.upstreams:
        stage.world.spaces["switch"].ip(f"link set {up.role}{up.segment.number} up")


def rebooted(stage: Stage) -> None:
    """Another container with the same address: gone, with another MAC address to come."""
    gone(stage)
    for up in stage.twin.upstreams:
        stage.world.spaces[up.role].ip(f"link set eth0 address {_new_mac(up)}")


def rebooted_back(stage: Stage) -> None:
    """It is up, and announces itself."""
    back(stage)
    for up in stage.twin.upstreams:
        port = f"{up.role}{up.segment.number}"
        wait_until(functools.partial(_forwards, stage, port), 5.0, f"{port} to forward")
        _announce(stage, up, _new_mac(up))


def _announce(stage: Stage, up: Upstream, mac: str) -> None:
    """As docker does for a new container: ARP announcement (RFC 5227), unsolicited neighbour
    advertisement (RFC 4861). Setting the MAC address, also the one it has, makes the kernel do it.
    """
    netns = stage.world.spaces[up.role]
    for key in ("ipv4/conf/eth0/arp_notify", "ipv6/conf/eth0/ndisc_notify"):
        netns.sysctl(f"net/{key}", 1)
    netns.ip(f"link set eth0 address {mac}")


def _new_mac(up: Upstream, generation: int = 1) -> str:
    return _MAC.format(generation=generation, segment=up.segment.number, role=_ROLE[up.family])


def _forwards(stage: Stage, port: str) -> bool:
    """Whether the bridge has noticed that the port's cable is in: it takes up to a second."""
    shown = stage.world.spaces["switch"].run(["bridge", "link", "show", "dev", port]).stdout
    return "state forwarding" in shown


def moved(stage: Stage) -> None:
    """It is another container with another address; nobody has the old one any more."""
    for up in stage.twin.upstreams:
        _take_address(stage, up, up.address, up.free, _new_mac(up, 2))


def moved_back(stage: Stage) -> None:
    """One with the old address again."""
    for up in stage.twin.upstreams:
        _take_address(stage, up, up.free, up.address, mac(up.role, up.segment.number))


def _take_address(stage: Stage, up: Upstream, old: Address, new: Address, mac: str) -> None:
    nodad = " nodad" if up.family == 6 else ""
    stage.world.spaces[up.role].ip(
        f"address del {old}/{up.length} dev eth0",
        f"address add {new}/{up.length} dev eth0{nodad}",
    )
    _announce(stage, up, mac)


def name_moves(stage: Stage) -> None:
    """Its name leads to another address, which is where it is from now on."""
    moved(stage)
    for up in stage.twin.upstreams:
        stage.world.name(up.name, up.free)


def name_moves_back(stage: Stage) -> None:
    """And back."""
    moved_back(stage)
    for up in stage.twin.upstreams:
        stage.world.name(up.name, up.address)


def claimed(stage: Stage) -> None:
    """Another container says that it has the gateways' addresses: of those that are pinned."""
    take_addresses(stage, stage.subject.pinned)


def take_addresses(stage: Stage, families: Sequence[int]) -> None:
    """The neighbour takes the addresses of the upstreams of these families, and what is sent there.

    A kernel that has just heard of an address takes no other answer for a second (arp(7),
    locktime): not so here.
    """
    for up in stage.twin.upstreams:
        if up.family in families:
            number, device = up.segment.number, up.segment.device
            stage.gw.sysctl(f"net/ipv4/neigh/{device.replace('.', '/')}/locktime", 0)
            owns = (address_of(text) for text in up.segment.own)
            own = next(address for address in owns if address.version == up.family)
            mine, its = mac("neighbour", number), mac("gw", number)
            packet = _claim(up.address, _octets(mine), own, _octets(its))
            onto_link(stage.world.spaces["neighbour"], f"seg{number}", its, *[packet] * _CLAIMS)


def _octets(written: str) -> bytes:
    return bytes.fromhex(written.replace(":", ""))


def _claim(address: Address, mine: bytes, own: Address, its: bytes) -> bytes:
    if isinstance(address, IPv4Address) and isinstance(own, IPv4Address):
        return arp_claim(address, mine, own, its)
    assert isinstance(address, IPv6Address) and isinstance(own, IPv6Address)
    return ndp_claim(address, mine, own)


def released(stage: Stage) -> None:
    """The gateway announces itself."""
    for up in stage.twin.upstreams:
        _announce(stage, up, mac(up.role, up.segment.number))


_DROP = """
table inet {table} {{
    chain closed {{ type filter hook {hook} priority {priority}; policy drop; }}
}}"""


def _take_drop_out(stage: Stage) -> None:
    for up in stage.twin.upstreams:
        stage.world.spaces[up.role].run(
            ["nft", "delete", "table", "inet", FAULT_TABLE], check=False
        )


_GATEWAY = frozenset({Need.GATEWAY})
_NAMED = frozenset({Need.GATEWAY, Need.NAME})


def _fault(
    name: str,
    inject: Act,
    undo: Act,
    needs: frozenset[Need] = _GATEWAY,
    *,
    notice: bool = True,
) -> Fault:
    return Fault(name, "upstream", inject, undo, needs=needs, expect=Expect.OUTAGE, noticed=notice)


FAULTS = (
    Fault(
        "neighbour takes the gateway's address",
        "upstream",
        claimed,
        released,
        needs=frozenset({Need.PINNED}),
    ),
    _fault("upstream tunnel down", tunnel_down, tunnel_up),
    _fault("upstream host gone", gone, back),
    _fault("upstream frozen", frozen, unfrozen),
    _fault("upstream rebooted", rebooted, rebooted_back, _GATEWAY | {Need.UNPINNED}),
    _fault("upstream under another address", moved, moved_back),
    _fault("gateway name moves", name_moves, name_moves_back, _NAMED, notice=False),
)

"""What may happen to the upstream: its tunnel, its host, its address, its name."""

from __future__ import annotations

from collections.abc import Iterator

from ocgate.prove.fault import Act, Expect, Fault, Need
from ocgate.prove.stage import Stage
from ocgate.prove.twin import Upstream

# Another container in its place: the same MAC prefix, so that the witness still knows its role.
_NEW_MAC = "02:6f:63:01:{segment:02x}:{role:02x}"
_ROLE = {4: 4, 6: 5}


def tunnel_down(stage: Stage) -> None:
    """It answers on its network, but nothing passes through it."""
    for up in stage.twin.upstreams:
        stage.world.spaces[up.role].nft(_DROP.format(hook="forward", priority=-10))


def tunnel_up(stage: Stage) -> None:
    """The tunnel is back."""
    _take_drop_out(stage)


def frozen(stage: Stage) -> None:
    """Its kernel answers to nothing, not even to who asks for its address."""
    for up in stage.twin.upstreams:
        stage.world.spaces[up.role].nft(_DROP.format(hook="prerouting", priority=-400))
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
    """Another container with the same address: gone, then back with another MAC address."""
    gone(stage)
    for up in stage.twin.upstreams:
        address = _NEW_MAC.format(segment=up.segment.number, role=_ROLE[up.family])
        _with_another(stage, up, address)


def rebooted_back(stage: Stage) -> None:
    """It is up."""
    back(stage)


def _with_another(stage: Stage, up: Upstream, mac: str) -> None:
    netns = stage.world.spaces[up.role]
    netns.ip("link set eth0 down", f"link set eth0 address {mac}", "link set eth0 up")
    netns.ip(f"address replace {up.address}/{up.length} dev eth0")


def moved(stage: Stage) -> None:
    """It is back under another address, and its old one answers no more."""
    for up, old, new in _moves(stage):
        netns = stage.world.spaces[up.role]
        netns.ip(f"address del {old} dev eth0", f"address add {new} dev eth0")


def moved_back(stage: Stage) -> None:
    """The old address again."""
    for up, old, new in _moves(stage):
        netns = stage.world.spaces[up.role]
        netns.ip(f"address del {new} dev eth0", f"address add {old} dev eth0")


def _moves(stage: Stage) -> Iterator[tuple[Upstream, str, str]]:
    for up in stage.twin.upstreams:
        yield up, f"{up.address}/{up.length}", f"{up.free}/{up.length}"


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


_DROP = """
table inet fault {{
    chain closed {{ type filter hook {hook} priority {priority}; policy drop; }}
}}"""


def _take_drop_out(stage: Stage) -> None:
    for up in stage.twin.upstreams:
        stage.world.spaces[up.role].run(["nft", "delete", "table", "inet", "fault"], check=False)


_GATEWAY = frozenset({Need.GATEWAY})
_NAMED = frozenset({Need.GATEWAY, Need.NAME})


def _fault(name: str, inject: Act, undo: Act, needs: frozenset[Need] = _GATEWAY) -> Fault:
    return Fault(name, "upstream", inject, undo, needs=needs, expect=Expect.OUTAGE)


FAULTS = (
    _fault("upstream tunnel down", tunnel_down, tunnel_up),
    _fault("upstream host gone", gone, back),
    _fault("upstream frozen", frozen, unfrozen),
    _fault("upstream rebooted", rebooted, rebooted_back),
    _fault("upstream under another address", moved, moved_back),
    _fault("gateway name moves", name_moves, name_moves_back, _NAMED),
)

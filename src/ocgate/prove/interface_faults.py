"""What may happen to the host's own network: links, names, addresses, default routes."""

from __future__ import annotations

from ipaddress import ip_interface
from typing import Any

from ocgate.names import ROUTE_PROTOCOL
from ocgate.prove.fault import Expect, Fault, Need
from ocgate.prove.marker import Kind
from ocgate.prove.stage import Stage
from ocgate.prove.twin import Segment, without_defaults
from ocgate.prove.world import default_route

RENAMED = "renamed0"


def wan_down(stage: Stage) -> None:
    """The kernel takes its routes along."""
    stage.gw.ip(f"link set {stage.wan.device} down")


def exit_down(stage: Stage) -> None:
    """The interface by which the gateways are reached."""
    for segment in stage.exits:
        stage.gw.ip(f"link set {segment.device} down")


def mend(stage: Stage) -> None:
    """Links, addresses and default routes of the host again."""
    stage.mend()


def wan_bounced(stage: Stage) -> None:
    """Down and up, and whoever runs the host puts its default route back; ours is not theirs."""
    wan_down(stage)
    stage.world.lay(stage.wan)


def exit_bounced(stage: Stage) -> None:
    """The same for the gateways' interfaces."""
    exit_down(stage)
    for segment in stage.exits:
        stage.world.lay(segment)


def wan_renamed(stage: Stage) -> None:
    """A name that no configuration knows."""
    old = stage.wan.device
    stage.gw.ip(f"link set {old} down", f"link set {old} name {RENAMED}")
    stage.world.lay(stage.wan, RENAMED)


def wan_named_back(stage: Stage) -> None:
    """The old name."""
    stage.gw.ip(f"link set {RENAMED} down", f"link set {RENAMED} name {stage.wan.device}")
    stage.mend()


def second_default(stage: Stage) -> None:
    """A second interface comes with a default route of its own, behind the first."""
    stage.world.plug(without_defaults(stage.twin.spare))
    for route in stage.twin.spare.defaults:
        words = default_route(route, stage.twin.spare.device).replace(" metric 1", "")
        stage.gw.ip(f"route append {words} metric 5000", v6=route.family == 6)


def default_moved(stage: Stage) -> None:
    """A second interface comes and takes the default route over."""
    stage.world.plug(without_defaults(stage.twin.spare))
    for route in stage.wan.defaults:
        stage.gw.ip(f"route del {default_route(route)}", v6=route.family == 6)
    for route in stage.twin.spare.defaults:
        words = default_route(route, stage.twin.spare.device)
        stage.gw.ip(f"route replace {words}", v6=route.family == 6)


def default_fails_over(stage: Stage) -> None:
    """A second default route is there; then the first one's interface goes down."""
    second_default(stage)
    wan_down(stage)


def address_changed(stage: Stage) -> None:
    """gw's addresses on the gateways' segments, or the WAN, are others of the same networks."""
    for segment in stage.exits:
        for old, new in _changes(segment):
            _replace(stage, segment, old, new)
        _lay_defaults(stage, segment)


def address_back(stage: Stage) -> None:
    """The old ones."""
    for segment in stage.exits:
        for old, new in _changes(segment):
            _replace(stage, segment, new, old)
    stage.mend()


def network_down(stage: Stage) -> None:
    """The interface of a network that clients may reach beside their exit."""
    for segment in _network_segments(stage):
        stage.gw.ip(f"link set {segment.device} down")


def network_routes_gone(stage: Stage) -> None:
    """The network's routes, ours in every table and the kernel's own."""
    for net, segment in stage.twin.networks:
        words = ("table", "all", "proto", str(ROUTE_PROTOCOL), "root", str(net))
        stage.try_ip("route", "flush", *words, family=net.version)
        stage.try_ip("route", "del", str(net), "dev", segment.device, family=net.version)


def network_all_gone(stage: Stage) -> None:
    """Both."""
    network_routes_gone(stage)
    network_down(stage)


def network_back(stage: Stage) -> None:
    """Down and up: the kernel makes its own routes again."""
    network_down(stage)
    stage.mend()


def _network_segments(stage: Stage) -> tuple[Segment, ...]:
    return tuple(dict.fromkeys(segment for _, segment in stage.twin.networks))


def _replace(stage: Stage, segment: Segment, old: str, new: str) -> None:
    """In this order: a second address of a network would go along with the first."""
    nodad = " nodad" if ":" in new else ""
    stage.gw.ip(
        f"address del {old} dev {segment.device}", f"address add {new} dev {segment.device}{nodad}"
    )


def _changes(segment: Segment) -> list[tuple[str, str]]:
    """(old, new): ten further on; the twin's own inventions begin at 200."""
    found = []
    for text in segment.own:
        old = ip_interface(text)
        new = old.network[(int(old.ip) - int(old.network.network_address) + 11) % 199 or 1]
        if old.network.num_addresses > 200:
            found.append((text, f"{new}/{old.network.prefixlen}"))
    return found


def _lay_defaults(stage: Stage, segment: Segment) -> None:
    for route in segment.defaults:
        stage.gw.ip(f"route replace {default_route(route)}", v6=route.family == 6)


_OUT = Expect.OUTAGE
# Clients' other traffic goes on; what is for the network is what neighbours of gw are sent.
_NETWORK: dict[str, Any] = {
    "needs": frozenset({Need.NETWORK}),
    "focus": frozenset({Kind.DOCKER}),
}
FAULTS = (
    Fault("WAN interface down", "interfaces", wan_down, mend, expect=_OUT),
    Fault("WAN interface bounced", "interfaces", wan_bounced, expect=Expect.COMES_BACK),
    Fault("WAN interface renamed", "interfaces", wan_renamed, wan_named_back, expect=_OUT),
    Fault("gateway's interface down", "interfaces", exit_down, mend, expect=_OUT,
          needs=frozenset({Need.GATEWAY})),
    Fault("gateway's interface bounced", "interfaces", exit_bounced, expect=Expect.COMES_BACK,
          needs=frozenset({Need.GATEWAY})),
    Fault("second default route", "interfaces", second_default, mend),
    Fault("default route moved", "interfaces", default_moved, mend, expect=Expect.COMES_BACK),
    Fault("default route fails over", "interfaces", default_fails_over, mend, expect=_OUT),
    Fault("network's interface down", "interfaces", network_down, mend, **_NETWORK),
    Fault("network's routes gone", "interfaces", network_routes_gone, network_back, **_NETWORK),
    Fault("network's interface and routes gone, frozen", "interfaces", network_all_gone,
          network_back, frozen=True, **_NETWORK),
    Fault("address of the host changed", "interfaces", address_changed, address_back,
          expect=Expect.COMES_BACK),
)  # fmt: skip

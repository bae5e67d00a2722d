"""Which settings cannot both be meant. Pure.

The model runs these once every value is fine alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

from ocgate.config.choices import HealthPath, Ipv6Nat
from ocgate.config.devices import device_matches
from ocgate.config.gateways import Upstream, UpstreamKind
from ocgate.config.values import NOTHING, Fault

if TYPE_CHECKING:
    from ocgate.config.model import Settings


@dataclass(frozen=True)
class Contradiction(Fault):
    """Values that are fine alone but not together: `names`, the one to report first."""

    names: tuple[str, ...]


def contradictions(settings: Settings) -> list[Contradiction]:
    """Settings that cannot both be meant, in a fixed order."""
    return [
        *_device_conflicts(settings),
        *_ipv6_conflicts(settings),
        *_gateway_conflicts(settings),
        *_exit6_conflicts(settings),
        *_network_conflicts(settings),
        *_place_conflicts(settings),
        *_health_conflicts(settings),
    ]


def _device_conflicts(settings: Settings) -> list[Contradiction]:
    if settings.wan_if is None or not device_matches(settings.vpn_if, settings.wan_if):
        return []
    return [
        Contradiction(
            settings.wan_if,
            f"an interface outside of VPN_IF={settings.vpn_if}",
            "name the interface to the internet; VPN_IF is for the clients' tunnels alone",
            ("WAN_IF", "VPN_IF"),
        )
    ]


def _ipv6_conflicts(settings: Settings) -> list[Contradiction]:
    found = []
    nat = settings.ipv6_nat
    if nat is not Ipv6Nat.OFF and not settings.ipv6_forward:
        found.append(
            Contradiction(
                nat.value,
                "0 with IPV6_FORWARD=0",
                "set IPV6_FORWARD=1 to give clients IPv6, or IPV6_NAT=0 to give them none",
                ("IPV6_NAT", "IPV6_FORWARD"),
            )
        )
    if nat is Ipv6Nat.ON and settings.ipv6_sink:
        found.append(
            Contradiction(
                "1",
                "0 with IPV6_NAT=1",
                "set IPV6_NAT=auto to reject IPv6 only while it does not work, or IPV6_NAT=0 to "
                "reject it always",
                ("IPV6_SINK", "IPV6_NAT"),
            )
        )
    return found


def _gateway_conflicts(settings: Settings) -> list[Contradiction]:
    """A gateway among the clients would send what it is given back to this host, or to a client.

    Where VPN_SUBNET stays None the room that has read ocserv.conf compares.
    """
    return [
        *_inside(settings.vpn_gateway, "VPN_GATEWAY", settings.vpn_subnet or (), "VPN_SUBNET"),
        *_inside(settings.vpn_gateway6, "VPN_GATEWAY6", (settings.ipv6_subnet,), "IPV6_SUBNET"),
        *_nothing_pinned(settings.vpn_gateway, settings.vpn_gateway_mac, "VPN_GATEWAY"),
        *_nothing_pinned(settings.vpn_gateway6, settings.vpn_gateway6_mac, "VPN_GATEWAY6"),
    ]


def _nothing_pinned(upstream: Upstream | None, mac: str, name: str) -> list[Contradiction]:
    """A MAC address is asked for where no neighbour is the exit: it would hold nothing."""
    if mac == NOTHING or (upstream is not None and upstream.kind is UpstreamKind.GATEWAY):
        return []
    return [
        Contradiction(
            mac,
            f"{NOTHING} while {name} is no gateway",
            f"write the gateway into {name}, or remove {name}_MAC",
            (f"{name}_MAC", name),
        )
    ]


def _inside(
    upstream: Upstream | None,
    name: str,
    subnets: tuple[IPv4Network | IPv6Network, ...],
    subnets_name: str,
) -> list[Contradiction]:
    address = upstream.address if upstream else None
    return [
        Contradiction(
            str(address),
            f"an address outside of the clients' {subnet} ({subnets_name})",
            "write the upstream's address in a network that this host is attached to",
            (name, subnets_name),
        )
        for subnet in subnets
        if address is not None and address in subnet
    ]


def _exit6_conflicts(settings: Settings) -> list[Contradiction]:
    found = []
    exit6 = settings.vpn_gateway6
    if exit6 and exit6.kind is not UpstreamKind.BLOCK and not settings.ipv6_forward:
        found.append(
            Contradiction(
                str(exit6),
                "block or unset with IPV6_FORWARD=0",
                "set IPV6_FORWARD=1 to let the clients' IPv6 out, or VPN_GATEWAY6=block to reject "
                "it",
                ("VPN_GATEWAY6", "IPV6_FORWARD"),
            )
        )
    blocked = exit6 is None and settings.vpn_gateway is not None and settings.exit6 is not None
    if blocked and settings.ipv6_nat is Ipv6Nat.ON:
        found.append(
            Contradiction(
                "1",
                f"0 or auto with VPN_GATEWAY={settings.vpn_gateway}, which blocks IPv6 while "
                "VPN_GATEWAY6 is unset",
                "set VPN_GATEWAY6=direct if the clients' IPv6 may leave by this host, which shows "
                "this host's IPv6 address to the servers they reach, or IPV6_NAT=0 or auto",
                ("IPV6_NAT", "VPN_GATEWAY", "VPN_GATEWAY6"),
            )
        )
    return found


def _network_conflicts(settings: Settings) -> Iterator[Contradiction]:
    """Where VPN_SUBNET stays None, or a gateway is a name, the wiring compares."""
    subnets: tuple[tuple[IPv4Network | IPv6Network, str], ...] = (
        *((net, "VPN_SUBNET") for net in settings.vpn_subnet or ()),
        (settings.ipv6_subnet, "IPV6_SUBNET"),
    )
    for found in settings.networks:
        if device_matches(settings.vpn_if, found.device):
            yield _contradicts(
                found.device,
                f"an interface outside of VPN_IF={settings.vpn_if}",
                "name the interface of the network; VPN_IF is for the clients' tunnels alone",
                "VPN_IF",
            )
        for net, name in subnets:
            if net.version == found.network.version and net.overlaps(found.network):
                expected = f"a network outside of the clients' {net} ({name})"
                yield _contradicts(str(found), expected, "name the network itself", name)
        for upstream, name in (
            (settings.vpn_gateway, "VPN_GATEWAY"),
            (settings.vpn_gateway6, "VPN_GATEWAY6"),
        ):
            if upstream and upstream.address and upstream.address in found.network:
                expected = f"a network without the upstream's {upstream.address} ({name})"
                remedy = "write the parts of it that clients need, without the upstream's address"
                yield _contradicts(str(found), expected, remedy, name)
        if found.network.version == 6 and not settings.ipv6_forward:
            yield _contradicts(
                str(found),
                "no IPv6 network with IPV6_FORWARD=0",
                "set IPV6_FORWARD=1, or take the network out",
                "IPV6_FORWARD",
            )


def _contradicts(got: str, expected: str, remedy: str, other: str) -> Contradiction:
    return Contradiction(got, expected, remedy, ("OCGATE_NETWORKS", other))


def _place_conflicts(settings: Settings) -> list[Contradiction]:
    """The effective ocserv.conf must never be written over the operator's."""
    run, config = settings.run_dir, settings.config_dir
    if run != config and run not in config.parents:
        return []
    return [
        Contradiction(
            str(run),
            f"a directory that does not hold OCGATE_CONFIG_DIR={config}",
            "choose another directory; what stands in the run dir is replaced at each start",
            ("OCGATE_RUN_DIR", "OCGATE_CONFIG_DIR"),
        )
    ]


def _health_conflicts(settings: Settings) -> list[Contradiction]:
    """A way that nothing can be said of: a check of it would always pass."""
    if not settings.health_check_enabled or settings.health_check_url:
        return []
    asked = settings.health_check_egress
    by_host = HealthPath.DIRECT in asked or (
        HealthPath.DEFAULT in asked and settings.exit4.kind is UpstreamKind.DIRECT
    )
    if settings.exit_probe or not (by_host or HealthPath.ALL in asked):
        return []
    return [
        Contradiction(
            "+".join(asked),
            "a path whose state can be known: with EXIT_PROBE=off and no HEALTH_CHECK_URL nothing "
            "is asked by this host's own",
            "set HEALTH_CHECK_URL, or leave EXIT_PROBE unset",
            ("HEALTH_CHECK_EGRESS", "EXIT_PROBE", "HEALTH_CHECK_URL"),
        )
    ]

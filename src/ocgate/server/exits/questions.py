"""What a gateway is asked, and how, as the settings and the machine in force say. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ocgate.config.gateways import VARIABLES
from ocgate.kernel.way import Target
from ocgate.ocserv.warnings import ServerWarning
from ocgate.plan.facts import Address, Family
from ocgate.server.desired.prepare import Prepared
from ocgate.server.desired.steering import pinned
from ocgate.server.exits.record import gateways
from ocgate.upstream.gateway_address import refusal
from ocgate.upstream.line import Pace


@dataclass(frozen=True)
class Asked:
    """One gateway; where this changes it is asked anew.

    device: where it is a neighbour, '' where it is none. unfit: why it can't be a gateway, '' if it
    can. targets: beyond it, of its family; none: its own answer is all that is known. pin: the MAC
    address that it is held to, '' for none. ports: that probes are sent from.
    """

    address: Address
    device: str
    unfit: str
    targets: tuple[Target, ...]
    pace: Pace
    pin: str
    ports: tuple[int, int] | None


def asked_by(prepared: Prepared, address: Address, mac: str) -> Asked:
    """How the gateway at this address is asked. mac: that it was learned to have, or ''."""
    settings, facts = prepared.sources.settings, prepared.facts
    family: Family = 4 if address.version == 4 else 6
    targets = tuple(t for t in settings.exit_probe if t.address.version == family)
    link = facts.connected_network_of(address)
    # The kernel calls a neighbour FAILED after three attempts: its word needs no other.
    successes = settings.exit_probe_successes if targets else 1
    return Asked(
        address=address,
        device=link.device if link else "",
        unfit=refusal(address, facts, prepared.subnets),
        targets=targets,
        pace=Pace(settings.exit_probe_interval, settings.exit_probe_failures, successes),
        pin=pinned(settings, family, mac),
        ports=prepared.intent.ports,
    )


def warnings(prepared: Prepared) -> Iterator[ServerWarning]:
    """Where EXIT_PROBE can't tell whether a gateway leads out, and nobody said `off`."""
    settings = prepared.sources.settings
    for family, upstream in gateways(settings).items() if settings.exit_probe else ():
        name = f"{VARIABLES[family]}={upstream}"
        targets = [t for t in settings.exit_probe if t.address.version == family]
        if not targets:
            yield ServerWarning(
                "no-probe-of-this-family",
                f"EXIT_PROBE names no IPv{family} target: a tunnel that is down behind {name} goes "
                "unnoticed, as with EXIT_PROBE=off",
                f"Name IPv{family} targets, too",
            )
        for target in targets:
            link = prepared.facts.connected_network_of(target.address)
            if link is not None:
                yield ServerWarning(
                    "probe-of-own-network",
                    f"EXIT_PROBE: {target} is on a network of this host, {link.network} on "
                    f"{link.device}: whether it answers says nothing of what is behind {name}",
                    "Name targets beyond the gateway's tunnel",
                )

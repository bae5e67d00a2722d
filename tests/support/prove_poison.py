"""A row: DNS turns the name of an exit's provider to somebody near (see `support.prove_rows`)."""

from __future__ import annotations

from functools import partial
from ipaddress import IPv4Address, IPv6Address

from ocgate.plan.facts import Address
from ocgate.prove.stage import Stage
from support.prove_exit import PORT
from support.prove_hostile import NOBODYS6, HostileExit
from support.prove_rows import DOCKER_HOST, ELSEWHERE, GW, NEIGHBOUR, OWN6
from support.prove_watch import Watch

# Of this network, of this host, of a cloud, of a LAN behind the uplink; and what is nobody's.
NEAR = (
    *(NEIGHBOUR, DOCKER_HOST, GW, IPv4Address("172.28.0.255")),
    *map(IPv4Address, ("127.0.0.1", "169.254.169.254", "224.0.0.1", "255.255.255.255")),
    *map(IPv4Address, ("0.0.0.0", "10.20.30.40", "192.168.1.1")),
    *(NOBODYS6, OWN6),
    *map(IPv6Address, ("::1", "fe80::1", "ff02::1", "fd00::1", "::ffff:172.28.0.200")),
)


def poisoned_dns(exit_: HostileExit, _stage: Stage) -> None:
    """The client is not sent there, and nothing else is sent to the tunnel's port there. The
    control: where the name leads to an address of the internet, it is sent there."""
    near: tuple[Address, ...] = (*NEAR, exit_.up.address)
    with Watch(exit_.netns) as out:
        for address in near:
            asked = len(exit_.dns.queries)
            exit_.leads_to(address)
            exit_.again()
            exit_.until(partial(_settled, exit_, asked), f"what becomes of {address}")
            assert str(address) not in str(exit_.tunnel()["endpoint"]), address
        exit_.leads_to(ELSEWHERE)
        exit_.again()
        exit_.until(lambda: out.sent_to([ELSEWHERE], PORT) > 0, "the control")
        assert not out.sent_to(near, PORT), "the client was sent there"


def _settled(exit_: HostileExit, asked: int) -> bool:
    """Whether the look-up is over: it is refused, or a client was started."""
    phases = ("waiting", "connecting", "up", "degraded")
    return len(exit_.dns.queries) > asked and exit_.tunnel().get("state") in phases

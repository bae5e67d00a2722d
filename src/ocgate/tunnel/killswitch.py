"""The kill switch: an `ExitIntent` in, a `Plan` out. Pure; the heart of the exit role.

    docker network 172.28.0.0/24
        |   server, other containers: default route to the exit
      eth0  exit  tun0 ........ the VPN server's other end ── internet
        |           :                    :
        |           :  encrypted, udp/tcp to ENDPOINT only, by the client's uid only
        +── 172.28.0.1, the docker host, internet (often the same eth0, sometimes another device)

Each state of the exit (closed, bootstrapping, connecting, up) is one intent, and its plan replaces
the former's: the table in one transaction, so that no packet meets a moment without it. Locks, each
of which alone keeps what is inside from leaving by the uplink:

    lock 1  `tunnel.table`      packet filter, policy drop
    lock 2  `tunnel.routing`    policy rules: what is forwarded asks the tunnel's table or nobody,
                                this host's own asks main's default for the endpoint alone
"""

from __future__ import annotations

from collections.abc import Iterator

from ocgate.names import TUNNEL_TABLE
from ocgate.plan.facts import InterfaceAddress
from ocgate.plan.model import Plan
from ocgate.plan.needed_sysctls import advertised
from ocgate.plan.reasons import REJECTS4_UNLIMITED, REJECTS6_UNLIMITED
from ocgate.plan.sysctls import Sysctl
from ocgate.plan.tunnel_device import TunnelDevice
from ocgate.tunnel import routing
from ocgate.tunnel.model import ExitIntent
from ocgate.tunnel.table import table


def plan(intent: ExitIntent) -> Plan:
    """The kernel state for `intent`; total: there is a plan for every intent."""
    carried = intent.carried
    return Plan(
        tables=(table(intent),),
        routes=tuple(routing.routes(intent)),
        rules=routing.rules(intent),
        sysctls=tuple(_needed(intent)),
        routing_tables=(TUNNEL_TABLE,),
        forwards=True,
        tunnel=TunnelDevice(
            intent.device,
            intent.client_uid,
            addresses=_addresses(intent),
            mtu=carried.mtu if carried is not None else None,
        ),
    )


def _addresses(intent: ExitIntent) -> tuple[InterfaceAddress, ...]:
    """Without those of the link alone, as `TunnelDevice` has it: nothing goes by them."""
    carried = intent.carried or intent.former
    given = carried.addresses if carried is not None else ()
    return tuple(
        address
        for address in given
        if (address.version == 4 or intent.ipv6) and not address.ip.is_link_local
    )


def _needed(intent: ExitIntent) -> Iterator[Sysctl]:
    """In the order in which they are to be set. IPv6's are no requirement, because what a tunnel
    carries is known only when it stands; who wires this leaves out of `carried` what can't be."""
    yield REJECTS4_UNLIMITED
    yield REJECTS6_UNLIMITED
    if intent.carries(6) and intent.inside(6):
        for name in intent.advertised_on:
            # A forwarding host ignores router advertisements, and so loses its own default route,
            # unless told otherwise (Documentation/networking/ip-sysctl, accept_ra). Set first.
            yield from advertised(name, prefixes=True, required=False)
        yield IPV6_FORWARDING


IPV6_FORWARDING = Sysctl(
    "net.ipv6.conf.all.forwarding",
    "1",
    "the docker networks' IPv6 packets are forwarded",
    required=False,
)
"""Whether this can be had (`kernel.sysctl.unmet`) decides whether a tunnel's IPv6 is of use."""

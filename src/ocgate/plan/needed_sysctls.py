"""The sysctls that forwarding clients' packets needs; the planner's. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ocgate.plan.intent import Intent
from ocgate.plan.ipv6 import Ipv6Path
from ocgate.plan.reasons import REJECTS4_UNLIMITED, REJECTS6_UNLIMITED
from ocgate.plan.sysctls import Sysctl, rp_filter_loose


def needed(intent: Intent) -> Iterator[Sysctl]:
    """In the order in which they are to be set."""
    yield Sysctl("net.ipv4.ip_forward", "1", "clients' packets are forwarded")
    yield REJECTS4_UNLIMITED
    if intent.reserved:
        why = "no socket of this host gets a port of clients' flows"
        yield Sysctl("net.ipv4.ip_local_reserved_ports", intent.reserved, why)
    yield from (rp_filter_loose(name) for name in intent.strict_on)
    if intent.ipv6 is Ipv6Path.REJECTED:
        if intent.subnets6:
            yield REJECTS6_UNLIMITED
        return
    for name in intent.accept_ra_on:
        # A forwarding host ignores router advertisements, and so loses its own default route,
        # unless told otherwise (Documentation/networking/ip-sysctl, accept_ra). Set first.
        key = f"net.ipv6.conf.{name.replace('.', '/')}.accept_ra"
        yield Sysctl(key, "2", "keeps this host's IPv6 default route while it forwards")
    yield Sysctl("net.ipv6.conf.all.forwarding", "1", "clients' IPv6 packets are forwarded")

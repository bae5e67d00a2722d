"""The sysctls that forwarding clients' packets needs; the planner's. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ocgate.plan import permitted
from ocgate.plan.intent import Intent
from ocgate.plan.ipv6 import Ipv6Path
from ocgate.plan.reasons import REJECTS4_UNLIMITED, REJECTS6_UNLIMITED
from ocgate.plan.sysctls import Sysctl, rp_filter_loose


def needed(intent: Intent) -> Iterator[Sysctl]:
    """In the order in which they are to be set."""
    yield Sysctl("net.ipv4.ip_forward", "1", "clients' packets are forwarded")
    # Behind it, because the kernel resets this one with it. Of `all` and the device's own both must
    # be 1 where forwarding is on (Documentation/networking/ip-sysctl, accept_redirects).
    key = "net.ipv4.conf.all.accept_redirects"
    yield Sysctl(key, "0", "a neighbour's ICMP redirects move no way of this host's")
    yield REJECTS4_UNLIMITED
    if intent.reserved:
        why = "no socket of this host gets a port of clients' flows"
        yield Sysctl("net.ipv4.ip_local_reserved_ports", intent.reserved, why)
    yield from (rp_filter_loose(name) for name in intent.strict_on)
    networks6 = bool(intent.subnets6 and permitted.of_family(intent.networks, 6))
    # In gateway mode networks of this host refuse, also while IPv6 has a way out.
    refuses = networks6 or intent.ipv6 is Ipv6Path.REJECTED or intent.steering is not None
    if intent.subnets6 and refuses:
        yield REJECTS6_UNLIMITED
    if intent.ipv6 is Ipv6Path.REJECTED and not networks6 and not intent.exits[1].waits:
        return
    for name in intent.accept_ra_on:
        # A forwarding host ignores router advertisements, and so loses its own default route,
        # unless told otherwise (Documentation/networking/ip-sysctl, accept_ra). Set first.
        yield from advertised(name, prefixes=name not in intent.written_on)
    yield Sysctl("net.ipv6.conf.all.forwarding", "1", "clients' IPv6 packets are forwarded")


def advertised(device: str, *, prefixes: bool, required: bool = True) -> Iterator[Sysctl]:
    """What keeps a default route that routers advertise on a device, and takes no more from their
    advertisements than needed. prefixes: this host's own addresses come with them."""
    at = f"net.ipv6.conf.{device.replace('.', '/')}"
    why = "keeps this host's IPv6 default route while it forwards"
    yield Sysctl(f"{at}.accept_ra", "2", why, required=required)
    none = "an advertisement can't put other networks on this link"
    yield Sysctl(f"{at}.accept_ra_rt_info_max_plen", "0", none, required=False)
    if not prefixes:
        yield Sysctl(f"{at}.accept_ra_pinfo", "0", none, required=False)

"""Whether a tunnel's IPv6 is of use in this network namespace, which docker may have turned off.

Edge; the reconciler's. What can't be had is left out of what the tunnel carries, so that a provider
with IPv6 does for a container without; clients' IPv6 is then rejected, as with any other tunnel
that does not carry it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ocgate.kernel import sysctl, tun
from ocgate.tunnel import killswitch
from ocgate.tunnel.model import ExitIntent


def obstacle(intent: ExitIntent, *, run_dir: Path) -> str:
    """Why IPv6 can't go by the tunnel of `intent`, with what to say to docker; '' where it can, or
    there is none. What root may turn on is turned on. Raises MissingRequirement or OcgateError."""
    carried = intent.carried
    if carried is None or all(address.version == 4 for address in carried.addresses):
        return ""
    if not intent.ipv6:
        return "this kernel has no IPv6"
    if not tun.allow_ipv6(intent.device):
        return "IPv6 is off here: --sysctl net.ipv6.conf.all.disable_ipv6=0 turns it on"
    wanted = killswitch.plan(intent).sysctls
    if killswitch.IPV6_FORWARDING in wanted:
        sysctl.ensure(wanted, run_dir=run_dir)
        if killswitch.IPV6_FORWARDING in sysctl.unmet(wanted):
            return f"IPv6 is not forwarded here: {killswitch.IPV6_FORWARDING.flag} turns it on"
    return ""


def without(intent: ExitIntent) -> ExitIntent:
    """The same with a tunnel that carries no IPv6."""
    if intent.carried is None:
        return intent
    own = tuple(a for a in intent.carried.addresses if a.version == 4)
    resolvers = tuple(a for a in intent.carried.resolvers if a.version == 4)
    return replace(intent, carried=replace(intent.carried, addresses=own, resolvers=resolvers))

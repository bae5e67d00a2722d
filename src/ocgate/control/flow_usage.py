"""How much of what all sessions share is in use: connection tracking, and the translated ports
towards one destination. For status, metrics and doctor; the wiring imports this.
"""

from __future__ import annotations

from ocgate.control.findings import NEARLY_ALL
from ocgate.control.prepared import Prepared
from ocgate.control.status_schema import FlowsStatus
from ocgate.kernel import conntrack
from ocgate.plan.limits import shared_ports


def collect(prepared: Prepared) -> FlowsStatus:
    """Read now. The ports are only counted where there are so many flows that it can matter, for
    that reads every entry."""
    entries, most = conntrack.usage()
    ports = shared_ports(prepared.intent)
    matters = entries >= NEARLY_ALL * ports
    busiest, used = conntrack.busiest(prepared.subnets) if matters else ("", None)
    return FlowsStatus(
        entries=entries,
        most=most,
        per_session=prepared.intent.session_flows,
        ports=ports,
        ports_used=used,
        busiest=busiest,
    )

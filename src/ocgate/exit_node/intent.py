"""From settings to the part of the intent that does not change with the exit's state. Pure."""

from __future__ import annotations

from ocgate.config.exit_model import ExitSettings
from ocgate.exit_node.kind import Kind
from ocgate.tunnel.model import ExitIntent, GatewayDns


def intent_of(settings: ExitSettings, kind: Kind) -> ExitIntent:
    """Closed, and without uplinks: these are the machine's to say (`reconciler.intent_now`)."""
    return ExitIntent(
        device=kind.device,
        uplinks=(),
        forward_from=settings.forward_from or (),
        networks=settings.network or (),
        client_uid=kind.uid,
        dns=GatewayDns(settings.gateway_dns.value),
    )

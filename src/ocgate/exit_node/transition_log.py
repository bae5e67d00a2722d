"""What the log is told of the exit's turns: one line for each, with its reason."""

from __future__ import annotations

from ocgate.exit_node.state_machine import Configured, Event, Machine, Next, Phase, Tick
from ocgate.runtime.log import stage
from ocgate.tunnel.model import Endpoint

log = stage("svc-control")


def tell(before: Machine, after: Machine, event: Event, now: float) -> None:
    """Say what an event made of the exit; nothing where only a probe was counted."""
    if before.phase is after.phase and not isinstance(event, Configured | Next):
        return
    if before.stands and not after.stands:
        _tell_lost(before, after, event, now)
    match after.phase:
        case Phase.CONNECTING:
            log.info("connecting", **_server(after), attempt=after.attempts)
        case Phase.WAITING if not before.stands:
            log.warning("no tunnel", **_server(before), why=after.why, **_next(after, now))
        case Phase.UP if before.phase is Phase.DEGRADED:
            log.info("tunnel answers again", **_server(after), after_seconds=_age(before, now))
        case Phase.UP | Phase.DEGRADED if isinstance(event, Configured):
            log.info("tunnel is up", **_server(after), **_carries(after), seconds=_age(before, now))
        case Phase.DEGRADED:
            limit = None if after.until is None else round(after.until - now)
            log.error("tunnel does not answer", **_server(after), why=after.why, given_up_in=limit)


def _tell_lost(before: Machine, after: Machine, event: Event, now: float) -> None:
    said = {**_server(before), "up_seconds": _age(before, now), **_next(after, now)}
    rotated = isinstance(event, Tick) and before.phase is Phase.UP
    if rotated or isinstance(event, Next):
        log.info("tunnel is left for the next server", **said)
    else:
        log.error("tunnel is down, clients are rejected", why=after.why, **said)


def _age(machine: Machine, now: float) -> float:
    return round(now - machine.since, 3)


def _server(machine: Machine) -> dict[str, str]:
    found = {"server": machine.remote.label if machine.remote else "unknown"}
    if machine.endpoint is not None:
        found["endpoint"] = written(machine.endpoint)
    return found


def _carries(machine: Machine) -> dict[str, object]:
    carried = machine.carried
    assert carried is not None
    return {
        "addresses": ",".join(str(address) for address in carried.addresses),
        "mtu": carried.mtu,
        "resolvers": ",".join(str(address) for address in carried.resolvers) or "none",
        "ipv6": "carried" if carried.has(6) else "rejected",
    }


def _next(machine: Machine, now: float) -> dict[str, str]:
    """Which server is next, and in how many seconds."""
    when = 0.0 if machine.until is None else max(machine.until - now, 0.0)
    label = machine.remote.label if machine.remote else "unknown"
    return {"next": label, "in_seconds": f"{when:.0f}"}


def written(endpoint: Endpoint) -> str:
    """`198.51.100.200:1194/udp`, `[2001:db8::1]:443/tcp+udp`."""
    host = f"[{endpoint.address}]" if endpoint.address.version == 6 else str(endpoint.address)
    return f"{host}:{endpoint.port}/{'+'.join(endpoint.protocols)}"

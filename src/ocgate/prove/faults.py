"""The matrix: all faults, those of processes, sessions and clients here; and what to run of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch

from ocgate.netlab.wait import wait_until
from ocgate.prove import (
    attacks,
    conntrack_full,
    damage,
    interface_faults,
    lock_faults,
    upstream_faults,
)
from ocgate.prove.clients import Refused
from ocgate.prove.fault import Act, Expect, Fault, Need, nothing
from ocgate.prove.marker import Kind
from ocgate.prove.stage import Stage

READY_SECONDS = 30.0
RELOADS = 3

# --- processes ------------------------------------------------------------------------------------


def kill_control(stage: Stage) -> None:
    """kill -9."""
    stage.subject.kill_control()


def kill_server(stage: Stage) -> None:
    """The VPN server dies with its workers; nobody runs a hook."""
    stage.subject.kill_server()
    for client in tuple(stage.clients.live):
        stage.clients.vanish(client)


def server_back(stage: Stage) -> None:
    """It is up again by itself, and the users log in at once."""
    wait_ready(stage)
    reconnect(stage)


def stop(stage: Stage) -> None:
    """An orderly stop, while the tuns are still there and clients send; the container's network
    goes with its first process."""
    stage.stop()
    for segment in stage.twin.segments:
        stage.gw.ip(f"link set {segment.device} down")


def start(stage: Stage) -> None:
    """Start again, clients sending from the first moment; sessions of before are gone with the
    server, new ones come."""
    stage.mend()
    stage.start()
    for client in tuple(stage.clients.live):
        stage.clients.vanish(client)
    reconnect(stage)


def reload(stage: Stage) -> None:
    """Several times, under traffic."""
    for _ in range(RELOADS):
        stage.subject.reload()


def wait_ready(stage: Stage) -> None:
    """Until the subject serves."""
    wait_until(lambda: not stage.subject.ready(), READY_SECONDS, "the subject to serve")


def reconnect(stage: Stage) -> None:
    """The usual sessions, where they are missing."""
    if not stage.clients.live:
        stage.clients.connect_all()


# --- sessions -------------------------------------------------------------------------------------


def log_off(stage: Stage) -> None:
    """One user leaves with downloads in flight."""
    stage.clients.disconnect(stage.clients.live[0])


def vanish(stage: Stage) -> None:
    """A worker dies; no hook is run."""
    stage.clients.vanish(stage.clients.live[0])


def log_in(stage: Stage) -> None:
    """Somebody takes the place of the one who left."""
    stage.clients.connect("alice", stage.clients.next_host())


def roam(stage: Stage) -> None:
    """Every client comes by another network."""
    for client in tuple(stage.clients.live):
        stage.clients.roam(client)


def give_address_away(stage: Stage) -> None:
    """A user leaves with downloads in flight, another one gets the address."""
    leaving = stage.clients.live[0]
    # In chaos it may be the one who got an address before; one user's flows are his to keep.
    other = "mallory" if leaving.lease.user != "mallory" else "trudy"
    stage.clients.disconnect(leaving)

    def admitted() -> bool:
        try:
            stage.clients.connect(other, 0, like=leaving)
        except Refused:  # "connect again": packets for the last owner may wait in the tunnel
            return False
        return True

    wait_until(admitted, 5.0, "the address' next user to be let in")


# --- the list -------------------------------------------------------------------------------------

_BACK, _OUT = Expect.COMES_BACK, Expect.OUTAGE

PROCESSES = (
    Fault("control killed", "processes", kill_control, needs=frozenset({Need.REPAIRS})),
    Fault("control frozen", "processes", nothing, frozen=True, needs=frozenset({Need.REPAIRS})),
    Fault(
        "server killed",
        "processes",
        kill_server,
        server_back,
        expect=_BACK,
    ),
    Fault("container restart", "processes", stop, start, expect=_BACK),
    Fault("reload under load", "processes", reload),
)
SESSIONS = (
    Fault("session ended", "sessions", log_off, log_in),
    Fault("worker died", "sessions", vanish, log_in),
    Fault("roaming", "sessions", roam, nothing),
    Fault("address given to another user", "sessions", give_address_away, nothing),
)


def _hostile(name: str, kind: Kind, *needs: Need) -> Fault:
    return Fault(name, "clients", nothing, focus=frozenset({kind}), needs=frozenset(needs))


CLIENTS = (
    Fault("nothing is broken", "clients", nothing),
    _hostile("client spoofs", Kind.SPOOF),
    _hostile("client to docker network and host", Kind.DOCKER),
    _hostile("client to the upstream itself", Kind.EXIT, Need.GATEWAY),
    _hostile("client to other clients", Kind.PEER),
    _hostile("client to the metadata address", Kind.METADATA),
    _hostile("multicast and broadcast", Kind.MULTICAST),
    _hostile("fragments", Kind.FRAGMENT),
    _hostile("IPv6 extension headers", Kind.EXTENSION, Need.IPV6),
    _hostile("router advertisements, redirects", Kind.ROUTER),
    *attacks.FAULTS,
)


def matrix(*, full: bool = False) -> list[Fault]:
    """All faults in the order they are run."""
    return [
        *CLIENTS,
        *SESSIONS,
        *upstream_faults.FAULTS,
        *damage.SINGLE,
        *map(damage.frozen, damage.SINGLE),
        *damage.pairs(),
        *(damage.pairs(alive=True) if full else ()),
        *interface_faults.FAULTS,
        *PROCESSES,
        *conntrack_full.FAULTS,
        *lock_faults.ALONE,
    ]


def chosen(faults: Sequence[Fault], patterns: Sequence[str]) -> list[Fault]:
    """Those whose name or group matches one of the patterns (fnmatch, or part of the name)."""
    if not patterns:
        return list(faults)

    def matches(fault: Fault) -> bool:
        return any(
            pattern in fault.name or fnmatch(fault.name, pattern) or fnmatch(fault.group, pattern)
            for pattern in patterns
        )

    return list(filter(matches, faults))


def possible(faults: Sequence[Fault], has: Callable[[Need], bool]) -> Iterator[Fault]:
    """Those whose needs the configuration meets."""
    for fault in faults:
        if all(has(need) for need in fault.needs):
            yield fault


__all__ = ["Act", "chosen", "matrix", "possible"]

"""What `ocgate status --json` prints: the shape and the meaning of every field, in one place.

Flat, base units (bytes, packets, seconds), stable names, times as ISO 8601 in UTC ending in `Z`.
A field may be added within one `schema`; taking one away or changing its meaning raises it. Any
room may import this; it imports nothing of ours.
"""

from __future__ import annotations

from typing import Literal, TypedDict

from ocgate.runtime.counters import BlockedStatus

SCHEMA: Literal[1] = 1


class ServerStatus(TypedDict):
    """since: start of this control plane. ocserv_since: of ocserv, None while it is not running.

    version: ocgate's; ocserv_version: '' if unknown. listening: `tcp 443` and the like, empty
    while ocserv does not listen. url: OCGATE_URL, or None.
    """

    version: str
    since: str
    ocserv_version: str
    ocserv_since: str | None
    listening: list[str]
    config_dir: str
    run_dir: str
    url: str | None


class NetworkStatus(TypedDict):
    """wan_if: None while there is no default route. ipv6_mode: `nat66`, `routed`, `rejected`
    (a sink) or `off` (not advertised); ipv6_reason says why. forwarding4/6: the sysctls as the
    kernel has them. guard: whether the kernel holds exactly what was planned when last read.
    last_repair: what the latest of `repairs` found, '' before one.
    """

    wan_if: str | None
    vpn_if: str
    subnets4: list[str]
    subnets6: list[str]
    ipv6_mode: str
    ipv6_reason: str
    forwarding4: bool
    forwarding6: bool
    guard: bool
    repairs: int
    last_repair: str


class ExitStatus(TypedDict):
    """The way out of one family's clients in gateway mode; without that mode there are none.

    exit: `default`. family: 4 or 6. gateway: as written, `direct` and `block` too. address: the
    gateway's, None while its name has not resolved. device: where it is a neighbour, None where it
    isn't. state: `up`, `down`, `unknown` (not probed yet), or for what needs no probe `direct`,
    `block`. since: of that state, None without one. why: what the state rests on. rtt: the measured
    round trip in seconds, None before it is known. heard: seconds since anything came back through
    it, None before it did. late: probes that wait for an answer longer than one should take.
    transitions: up to down and back, since control began.
    """

    exit: str
    family: int
    gateway: str
    address: str | None
    device: str | None
    state: str
    since: str | None
    why: str
    rtt: float | None
    heard: float | None
    late: int
    transitions: int


class FlowsStatus(TypedDict):
    """What all sessions share. entries: of this network namespace's connection tracking; most: how
    many it may have (0: unknown). per_session: OCGATE_SESSION_FLOWS as in force, 0 without a
    limit. ports: how many clients' flows towards one destination can be translated to. ports_used:
    of these by the destination that has the most, or None while so few flows exist that it can't
    be 9 in 10, or until they have been counted, which takes seconds where the table is full;
    busiest: that destination, `ADDRESS PROTOCOL PORT`, or ''.
    """

    entries: int
    most: int
    per_session: int
    ports: int
    ports_used: int | None
    busiest: str


class ReachedStatus(TypedDict):
    """A further network that clients may reach (OCGATE_NETWORKS). device: its interface; via: the
    router there, None where it is the interface's own. state: `up`, or `down` while what clients
    send there is rejected; why: the reason, '' while it is up. packets, bytes: from clients to it.
    """

    network: str
    device: str
    via: str | None
    state: str
    why: str
    packets: int
    bytes: int


class SessionStatus(TypedDict):
    """worker: pid of its ocserv worker. device: its tun. address4/6: its own, None without that
    family. peer: where the client comes from. bytes_in: from the client, bytes_out: to it.
    limited: a flow of it was refused by a limit within the last five minutes.
    """

    worker: int
    user: str
    vhost: str
    device: str
    address4: str | None
    address6: str | None
    peer: str
    since: str
    bytes_in: int
    bytes_out: int
    limited: bool


class CertificateStatus(TypedDict):
    """One certificate as ocserv has it. vhost: `default` outside of virtual hosts. file: as
    ocserv.conf names it. names: whom it is for (DNS names and addresses). not_after: its end, None
    where it can't be read here (hardware). since: when it was put in use.
    """

    vhost: str
    file: str
    names: list[str]
    not_after: str | None
    since: str | None


class HistoryStatus(TypedDict):
    """The session history. written: lines since control began; waiting: not in the file yet;
    lost: dropped because the file could not be written for long. trouble: why, or ''.
    """

    file: str
    written: int
    waiting: int
    lost: int
    trouble: str


class Status(TypedDict):
    """The whole answer of the control plane to `status`.

    healthy: the server runs and the guard is whole; reasons: why not, one sentence each. What
    `ocgate healthcheck` says, but for the paths of HEALTH_CHECK_EGRESS. certificate_trouble: why
    certificate files as they are now are not used, or why their watch is blind; '' if neither.
    """

    schema: Literal[1]
    at: str
    healthy: bool
    reasons: list[str]
    server: ServerStatus
    network: NetworkStatus
    exits: list[ExitStatus]
    networks: list[ReachedStatus]
    flows: FlowsStatus
    session_count: int
    sessions: list[SessionStatus]
    blocked: list[BlockedStatus]
    certificates: list[CertificateStatus]
    certificate_trouble: str
    history: HistoryStatus

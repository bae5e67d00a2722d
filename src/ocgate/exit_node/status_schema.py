"""What `ocgate status --json` prints of an exit: the shape and the meaning of every field.

As the server role's (`server.status.schema`): flat, base units, stable names, times as ISO 8601 in
UTC ending in `Z`. A field may be added within one `schema`.
"""

from __future__ import annotations

from typing import Literal, TypedDict

from ocgate.runtime.counters import BlockedStatus

SCHEMA: Literal[1] = 1
ROLE: Literal["exit"] = "exit"


class TunnelStatus(TypedDict):
    """The tunnel.

    kind: openvpn, openconnect, wireguard, nordvpn. state: resolving, connecting, up, degraded (it
    stands, but nothing comes back through it), waiting. since: of that state. server: the one tried
    or used now, its label; None before a list is there. servers: how many may be tried. endpoint:
    `198.51.100.200:1194/udp`, None while the switch is closed. addresses, mtu, resolvers: what it
    carries, empty and None while it does not stand. refused: what its server reported besides, a
    sentence each with the reason. ipv6: whether clients' IPv6 gets out. attempts:
    tunnels begun since the start. failures: in a row. last_failure: why the last one failed, None
    before the first. next_attempt: when, None unless waiting. bytes_in, bytes_out: of the device.
    """

    kind: str
    state: str
    since: str
    device: str
    server: str | None
    servers: int
    endpoint: str | None
    addresses: list[str]
    mtu: int | None
    resolvers: list[str]
    refused: list[str]
    ipv6: bool
    attempts: int
    failures: int
    last_failure: str | None
    next_attempt: str | None
    bytes_in: int
    bytes_out: int


class ProbeStatus(TypedDict):
    """Probes through the tunnel. targets: `1.1.1.1:443`; empty: off. state: `up`, `down`, `unknown`
    (not probed yet, or this host can't ask). since: None while unknown. why: what the state rests
    on. rtt: the measured round trip in seconds, None before it is known. heard: seconds since
    anything came back through the tunnel, None before it did. late: those that wait for an answer
    longer than one should take."""

    targets: list[str]
    state: str
    since: str | None
    why: str
    rtt: float | None
    heard: float | None
    late: int


class SwitchStatus(TypedDict):
    """The kill switch. intact: whether the kernel holds exactly what was planned. dns: `redirect`
    or `off`. forwarding4: the sysctl as the kernel has it."""

    intact: bool
    repairs: int
    uplinks: list[str]
    forward_from: list[str]
    networks: list[str]
    dns: str
    forwarding4: bool


class ExitRoleStatus(TypedDict):
    """The whole answer of an exit's control to `status`.

    healthy: what `ocgate healthcheck` says; reasons: why it isn't, one sentence each. since: start
    of this control.
    """

    schema: Literal[1]
    role: Literal["exit"]
    at: str
    healthy: bool
    reasons: list[str]
    version: str
    since: str
    run_dir: str
    tunnel: TunnelStatus
    probe: ProbeStatus
    switch: SwitchStatus
    blocked: list[BlockedStatus]

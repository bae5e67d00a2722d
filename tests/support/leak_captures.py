"""The ground of the leak tests: a gateway that serves, and captures wherever a leak would pass.

    client1..N ==== router ======== gw (ocgate run: ocserv, vpns0..)      see lab.topology
                    | uplink  docker | eth0    <- captures `uplink`, `docker`, `wan`

A leak is a packet with a client's address (from or to 10.10.10.0/24 or the tunnels' IPv6) by any
of the three. `prove_leaks_are_seen` is the positive control: it takes the table away while control
is stopped (SIGSTOP: nothing repairs), and insists that each capture sees such packets.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from lab import client as vpn
from lab import gateway as gateways
from lab.capture import Capture, now
from lab.client import Client, Login
from lab.gateway import Gateway
from lab.ocserv import VPN_NET, VPN_NET6, write_config_dir
from lab.streams import new_marker
from lab.topology import SERVICE, SERVICE6, Lab, Options
from lab.traffic import ask_udp
from ocgate.names import CONTROL_PID, NFT_TABLE, ROUTE_PROTOCOL
from ocgate.netlab.inject import into_tun
from ocgate.netlab.packet import SYN, Predicate, any_of, build_icmp, build_tcp, build_udp, touches
from ocgate.netlab.services import Services
from ocgate.netlab.wait import TimedOut, wait_until

Address = IPv4Address | IPv6Address
LabFactory = Callable[..., Lab]

USERS = {"alice": "a secret", "bob": "another"}
TABLE = f"inet {NFT_TABLE}"

# Real egress, so IPv6 is served by NAT66.
IPV6_SERVED = {"IPV6_NAT": "auto", "IPV6_PROBE": f"[{SERVICE6}]:443"}

CLIENT_ADDRESS: Predicate = any_of(touches(VPN_NET), touches(VPN_NET6))

# A repair takes tens of milliseconds; the rest is for a busy machine. Where the time itself is the
# point, it is measured.
REPAIR_SECONDS = 5.0


@dataclass
class Ground:
    """One gateway with its clients' credentials and the captures of the drawing."""

    lab: Lab
    gateway: Gateway
    wan: Capture
    docker: Capture
    uplink: Capture

    @property
    def captures(self) -> tuple[Capture, ...]:
        return (self.wan, self.docker, self.uplink)

    def connect(self, number: int, user: str = "alice", **options: object) -> Client:
        """A session of `user` from client `number`, counted from 0."""
        host = self.lab.clients[number]
        return vpn.connect(self.lab, host, self.login(user), **options)  # type: ignore[arg-type]

    def login(self, user: str) -> Login:
        return self.gateway.login(user, USERS[user])

    def blocked(self) -> dict[str, int]:
        """Packets by reason, straight from the kernel."""
        return counters(self.gateway, TABLE)

    def prove_leaks_are_seen(self, client: Client) -> None:
        """Positive control: without the table each capture sees the client's own source go by."""
        with frozen(self.gateway):
            take_guard_away(self.gateway)
            started = now()
            source = client.address
            assert source is not None
            into_tun(client.netns, vpn.TUN, build_udp(source, SERVICE, 4000, 9, new_marker()))
            for capture in self.captures:
                capture.prove_sees(touches(source), "a client's address", since=started)
        self.wait_guarded()

    def wait_guarded(self) -> None:
        """Wait until the kernel holds the plan again."""
        try:
            wait_until(self._guarded, REPAIR_SECONDS, "the guard to be back")
        except TimedOut as error:
            raise TimedOut(f"{error}; {self.gateway.status()['reasons']}") from error

    def _guarded(self) -> bool:
        status = self.gateway.status_or_none()
        return status is not None and bool(status["network"]["guard"])

    def assert_no_client_address(self, since: float) -> None:
        """No packet from or to a client's address went from gw to anybody.

        What comes towards gw does not count: over veth the kernel shares a received IPv6 fragment
        with all captures on its way, and gw's NAT translates it in place.
        """
        for capture, outgoing in ((self.wan, True), (self.docker, False), (self.uplink, True)):
            capture.assert_none(from_gw(outgoing=outgoing), "a client's address", since=since)

    def assert_none(self, predicate: Predicate, what: str, *, since: float = 0.0) -> None:
        for capture in self.captures:
            capture.assert_none(predicate, what, since=since)

    def settle(self, client: Client) -> None:
        """Return when all that was put into the client's tun before has passed the gateway: a
        question put in behind it has been answered."""
        assert ask_udp(client.netns, SERVICE, timeout=5.0)


def from_gw(*, outgoing: bool) -> Predicate:
    """A client's address in a packet that goes out of (or comes in by) the captured interface."""
    return lambda packet: packet.outgoing is outgoing and CLIENT_ADDRESS(packet)


def ground(
    lab: LabFactory,
    options: Options | None = None,
    *,
    settings: Mapping[str, str | None] | None = None,
    lines: Sequence[str] = ("route = default",),
    per_user: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Ground:
    """Build a lab, start the gateway with USERS, and the captures. per_user: file contents."""
    built = lab(options)
    built.own(Services(built.inet.netns, (SERVICE, SERVICE6)))
    directory = built.path("etc")
    if per_user is not None:
        write_per_user(directory, per_user)
        settings = {**(settings or {}), "config-per-user": str(directory / "users")}
    write_config_dir(built, directory, USERS, settings=settings, lines=lines)
    served = gateways.run(built, {**IPV6_SERVED, **(environ or {})}, directory)
    built.own(_Crash(served))
    return Ground(
        built,
        served,
        wan=built.capture(built.gw, "eth0"),
        docker=built.capture(built.router, "docker"),
        uplink=built.capture(built.router, "uplink"),
    )


def write_per_user(directory: Path, per_user: Mapping[str, str]) -> None:
    """Per-user files of ocserv.conf's `config-per-user`."""
    users = directory / "users"
    users.mkdir(parents=True, exist_ok=True)
    for user, text in per_user.items():
        (users / user).write_text(text + "\n")


@dataclass
class _Crash:
    """Ends the gateway at once: a clean stop takes 1.6 s, and other tests hold that one."""

    gateway: Gateway

    def close(self) -> None:
        if self.gateway.program.running():
            self.gateway.crash()


@contextlib.contextmanager
def frozen(gateway: Gateway) -> Iterator[None]:
    """Control stands still (SIGSTOP): what is broken inside stays broken until the end."""
    pid = gateway.pid(CONTROL_PID)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def take_guard_away(gateway: Gateway) -> None:
    """Remove our table and our policy rules, all that keeps a client's address from leaving."""
    gateway.netns.nft(f"delete table {TABLE}")
    for family in ("-4", "-6"):
        gateway.netns.run(["ip", family, "rule", "flush", "protocol", str(ROUTE_PROTOCOL)])


def counters(gateway: Gateway, table: str) -> dict[str, int]:
    """Packets of each named counter of `table`; empty where it is gone."""
    done = gateway.netns.run(
        ["nft", "-j", "list", "counters", "table", *table.split()], check=False
    )
    items = json.loads(done.stdout)["nftables"] if done.returncode == 0 else []
    return {i["counter"]["name"]: i["counter"]["packets"] for i in items if "counter" in i}


def packets(src: Address, dst: Address, marker: bytes, *, sport: int = 40000) -> list[bytes]:
    """A UDP datagram, a TCP SYN and an echo request, each carrying the marker."""
    kind = (8, 0) if src.version == 4 else (128, 0)
    return [
        build_udp(src, dst, sport, 9, marker),
        build_tcp(src, dst, sport, 9, flags=SYN, data=marker),
        build_icmp(src, dst, kind, b"\x00\x01\x00\x01" + marker),
    ]

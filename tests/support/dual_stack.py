"""What the IPv6 scenarios share: a gateway with an operator's ocserv.conf, and a dual-stack app."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network

from lab import client, gateway
from lab.client import Client
from lab.gateway import Gateway
from lab.ocserv import VPN_NET6, write_config_dir
from lab.topology import RESOLVER6, SERVICE, SERVICE6, Host, Lab
from lab.traffic import AT_ONCE_SECONDS, Verdict, ask_tcp, ask_udp
from ocgate.netlab.namespace import Namespace
from ocgate.netlab.services import ECHO_PORT, Services

USERS = {"alice": "a secret", "bob": "another"}
FULL = ("route = default", f"dns = {RESOLVER6}")
ULA = VPN_NET6  # IPV6_SUBNET's default
GLOBAL = IPv6Network("2001:db8:7::/64")  # what a provider routes to gw

# Several times what the kernel's ICMP rate limit lets through at once (6, XRLIM_BURST_FACTOR).
BURST = 30

REREAD = "ocserv re-reads its configuration"

Address = IPv4Address | IPv6Address


class _Crash:
    """Ends a gateway at once: an orderly stop takes 2 s and is not what most tests are about."""

    def __init__(self, made: Gateway) -> None:
        self._made = made

    def close(self) -> None:
        self._made.crash()


def with_services(lab: Lab) -> Lab:
    lab.own(Services(lab.inet.netns, (SERVICE, SERVICE6)))
    return lab


def start(
    lab: Lab,
    *,
    settings: Mapping[str, str | None] | None = None,
    lines: Sequence[str] = FULL,
    **environ: str,
) -> Gateway:
    """Start ocgate with an operator's config dir (see `write_config_dir`), without waiting."""
    directory = lab.path("etc")
    write_config_dir(lab, directory, USERS, settings=settings, lines=lines)
    told = {"IPV6_PROBE": f"[{SERVICE6}]:443", "IPV6_PROBE_INTERVAL": "1", **environ}
    made = gateway.start(lab, told, directory)
    lab.own(_Crash(made))
    return made


def serve(
    lab: Lab,
    *,
    settings: Mapping[str, str | None] | None = None,
    lines: Sequence[str] = FULL,
    **environ: str,
) -> Gateway:
    """The same, and wait until it serves."""
    made = start(lab, settings=settings, lines=lines, **environ)
    made.wait_ready()
    return made


def join(
    made: Gateway,
    host: Host,
    user: str = "alice",
    *,
    dtls: bool = False,
    server: Address | None = None,
) -> Client:
    """Connect (TLS only, unless told) to the published address, or to `server`."""
    login = made.login(user, USERS[user])
    return client.connect(made.lab, host, login, dtls=dtls, server=server)


def ipv6_mode(made: Gateway) -> str:
    return str(made.status()["network"]["ipv6_mode"])


def blocked(made: Gateway, reason: str) -> int:
    """Packets that were counted for `reason`."""
    counted = {entry["reason"]: entry["packets"] for entry in made.status()["blocked"]}
    return int(counted[reason])


def goes_by(netns: Namespace, to: Address) -> str:
    """The device by which `netns` would send to `to`."""
    words = netns.run(["ip", "-o", "route", "get", str(to)]).stdout.split()
    return words[words.index("dev") + 1]


@dataclass(frozen=True)
class Fallback:
    """seconds: until connected, over all addresses tried. by: the address that answered."""

    seconds: float
    by: Address | None


def connect_dual_stack(netns: Namespace, *, timeout: float = 5.0) -> Fallback:
    """What socket.create_connection does with a name that has an AAAA and an A record: one address
    after the other, so that each millisecond of the first one counts. No racing as in RFC 8305."""
    started = time.monotonic()
    for to in (SERVICE6, SERVICE):
        family = socket.AF_INET6 if to.version == 6 else socket.AF_INET
        with netns.entered():
            sock = socket.socket(family, socket.SOCK_STREAM)
        with sock:
            sock.settimeout(timeout)
            try:
                sock.connect((str(to), ECHO_PORT))
            except OSError:
                continue
            return Fallback(time.monotonic() - started, to)
    return Fallback(time.monotonic() - started, None)


def assert_rejected_at_once(netns: Namespace) -> dict[str, float]:
    """TCP and UDP over IPv6 are told no, and a dual-stack program is on IPv4, each at once;
    so is each of many, as when a browser tries QUIC. Returns what was measured, in seconds."""
    tcp = ask_tcp(netns, SERVICE6)
    assert tcp.verdict is Verdict.REFUSED, tcp
    udp = ask_udp(netns, SERVICE6)
    assert (udp.verdict, udp.kind) == (Verdict.REJECTED, (1, 1)), udp  # admin-prohibited
    burst = [ask_udp(netns, SERVICE6, timeout=AT_ONCE_SECONDS) for _ in range(BURST)]
    assert [answer for answer in burst if answer.verdict is not Verdict.REJECTED] == []
    application = connect_dual_stack(netns)
    assert application.by == SERVICE
    measured = {"tcp": tcp.seconds, "udp": udp.seconds, "fallback": application.seconds}
    assert max(measured.values()) < AT_ONCE_SECONDS, measured
    return measured

"""The ground of the exit role's tests: `ocgate exit`, a real provider, and a host that uses it.

    neighbour1 -- docker -- router -- uplink, inet --- services      see lab.topology
                    |          |                |                     and lab.upstream
                  exit (upstream) ===(OpenVPN)=== provider

neighbour1's default route is the exit. What the exit hands to the ISP is captured at the router's
`docker` (coming in) and `uplink` (going out), and on the exit's own eth0. Nothing may pass there
but the tunnel to its provider, neighbour discovery, and what a test allows with a reason.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab import exit_role
from lab.addresses import DOCKER_NET, DOCKER_NET6, PROVIDER, UPSTREAM, UPSTREAM6, Host
from lab.capture import Capture, now
from lab.exit_role import ExitRole
from lab.gateway import Gateway
from lab.openvpn import OPENVPN_PORT, Provider, run_provider
from lab.streams import new_marker
from lab.topology import SERVICE, SERVICE6, Lab, Options
from lab.traffic import Answer, Verdict, ask_tcp, ask_udp, ping
from ocgate.names import NFT_TABLE_EXIT, ROUTE_PROTOCOL
from ocgate.netlab.packet import ETH_ARP, Packet, Predicate, any_of, match
from ocgate.netlab.services import Services
from ocgate.netlab.wait import wait_until
from ocgate.plan.facts import Address

LabFactory = Callable[..., Lab]

# Link-local chatter of the kernel: router and neighbour discovery, listener reports.
_CHATTER6 = {133, 134, 135, 136, 137, 143}

TUNNEL = match(dst=PROVIDER, protocol="udp", dport=OPENVPN_PORT)

# The router has nothing to say to the internet by itself (see support.gateway_mode).
_MUTE = """
table inet mute {
    chain output {
        type filter hook output priority filter;
        oifname "uplink" meta l4proto { tcp, udp, icmp } drop
        oifname "uplink" icmpv6 type < 128 drop
    }
}
"""

# A repair takes tens of milliseconds; the rest is for busy cores.
REPAIR_SECONDS = 5.0


def is_chatter(packet: Packet) -> bool:
    """Is it between neighbours only?"""
    if packet.ethertype == ETH_ARP:
        return True
    return packet.protocol == "icmp6" and packet.kind is not None and packet.kind[0] in _CHATTER6


@dataclass
class Ground:
    """user: the host whose default route is the exit. allowed: what else may go to the ISP."""

    lab: Lab
    exit: ExitRole
    provider: Provider
    user: Host
    uplink: Capture
    docker: Capture
    allowed: list[Predicate] = field(default_factory=lambda: [TUNNEL])

    def leaks(self, packet: Packet) -> bool:
        """Is it something that the ISP must not see?"""
        return not is_chatter(packet) and not any_of(*self.allowed)(packet)

    def assert_nothing_by_isp(self, since: float) -> None:
        """What went to the ISP since then is what is allowed."""
        leaving = lambda packet: packet.outgoing and self.leaks(packet)  # noqa: E731
        handed = lambda packet: not packet.outgoing and self.leaks(packet)  # noqa: E731
        self.uplink.assert_none(leaving, "what the ISP must not see", since=since)
        self.docker.assert_none(handed, "what the ISP must not see", since=since)

    def prove_leaks_are_seen(self) -> None:
        """Positive control: without tables and rules of ours, the user's packets go by the ISP, and
        both captures call that a leak."""
        with frozen(self.exit):
            take_everything_away(self.exit)
            started, marker = now(), new_marker()
            ask_udp(self.user.netns, SERVICE, data=marker, timeout=0.5)
            for capture in (self.uplink, self.docker):
                seen = capture.prove_sees(match(marker=marker), "the user's", since=started)
                assert self.leaks(seen)
        wait_until(self.intact, REPAIR_SECONDS, "the kill switch to be back")

    def intact(self) -> bool:
        """Does the kernel hold what was planned?"""
        return bool(self.exit.status().get("switch", {}).get("intact", False))

    def blocked(self, reason: str) -> int:
        """Packets that were counted for this reason."""
        counted = {each["reason"]: each["packets"] for each in self.exit.status()["blocked"]}
        return int(counted[reason])

    def answers(self, *, timeout: float = 2.0) -> list[Answer]:
        """One question each over UDP, TCP and ICMP."""
        return [
            ask_udp(self.user.netns, SERVICE, timeout=timeout),
            ask_tcp(self.user.netns, SERVICE, timeout=timeout),
            ping(self.user.netns, SERVICE, timeout=timeout),
        ]

    def leaves_by_the_provider(self) -> bool:
        """Does the service see the user as the provider, over UDP, TCP and with its pings?"""
        found = self.answers()
        right = all(found) and {answer.seen_as for answer in found} <= {PROVIDER, None}
        if not right:
            print("not by the provider:", *found, self.exit.output, sep="\n  ")
        return right

    def rejected_at_once(self) -> bool:
        """Is each kind of question answered by an error, at once?"""
        told, found = (Verdict.REJECTED, Verdict.REFUSED), self.answers()
        right = all(answer.verdict in told and answer.at_once for answer in found)
        if not right:
            print("not rejected at once:", *found, sep="\n  ")
        return right


def ground(
    lab: LabFactory,
    *,
    environ: Mapping[str, str] | None = None,
    config: str = "",
    users: Mapping[str, str] | None = None,
    server: Sequence[str] = (),
    resolv_conf: str = "",
    options: Options | None = None,
    between: Callable[[Lab], object] = lambda _: None,
    wait: bool = True,
) -> Ground:
    """Build a lab with provider, exit and user; wait until the exit is healthy, unless told not to.

    environ: on top of OVPN_CONFIG. config: the client's file; default the provider's own.
    users: who may log in at the provider. server: further options of it.
    between: done when the provider serves, before the exit starts.
    """
    built = lab(options or Options(upstream=True, neighbours=1, clients=0))
    built.own(Services(built.inet.netns, (SERVICE, SERVICE6)))
    built.router.netns.nft(_MUTE)
    provider = run_provider(built, users, server)
    between(built)
    path = write_config(built, config or provider.config())
    user = built.neighbours[0]
    user.netns.ip(f"route replace default via {UPSTREAM}", f"route replace ::/0 via {UPSTREAM6}")
    built.upstream.netns.sysctl("net/ipv4/conf/all/send_redirects", 0)
    uplink, docker = built.capture(built.router, "uplink"), built.capture(built.router, "docker")
    given = {"OVPN_CONFIG": str(path), **(environ or {})}
    served = exit_role.start(built, given, resolv_conf=resolv_conf)
    g = Ground(built, served, provider, user, uplink, docker)
    if wait:
        served.wait_healthy()
    return g


def write_config(lab: Lab, text: str) -> Path:
    """A client's file, as a mounted one is."""
    path = lab.path("vpn.ovpn")
    path.write_text(text)
    return path


@contextlib.contextmanager
def frozen(exit_role: ExitRole) -> Iterator[None]:
    """Control stands still: what is broken inside stays broken until the end."""
    pid = exit_role.control_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def take_everything_away(exit_role: ExitRole) -> None:
    """Remove the table and the policy rules."""
    exit_role.netns.run(["nft", "delete", "table", "inet", NFT_TABLE_EXIT], check=False)
    for family in ("-4", "-6"):
        exit_role.netns.run(["ip", family, "rule", "flush", "protocol", str(ROUTE_PROTOCOL)])


STOLEN, STOLEN6 = DOCKER_NET[66], DOCKER_NET6[66]  # nobody's in the lab


def answered_by_the_exit(g: Ground, address: Address) -> bool:
    """Does a neighbour that looks for the address find the exit?"""
    netns = g.user.netns
    netns.run(["ip", "neigh", "flush", "to", str(address)], check=False)
    ping(netns, address, timeout=0.3)
    known = netns.run(["ip", "neigh", "show", "to", str(address)]).stdout
    return "lladdr" in known


BOTH_FAMILIES = {"FORWARD_FROM": f"{DOCKER_NET},{DOCKER_NET6}"}


class Crash:
    """Ends the gateway at once: a clean stop takes 1.6 s, and other tests hold that one."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    def close(self) -> None:
        if self.gateway.program.running():
            self.gateway.crash()

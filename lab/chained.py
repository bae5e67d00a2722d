"""An example whose clients leave by another container: what is watched, what is done to it.

    client1 === inet === host1 -- front -- server -- vpn -- exit        === a tunnel === provider
                           └──────────────────────── vpn ────┘  (the exit's own way out)

`uplink` and the two bridges are captured on the docker host. A client's packet may be seen on `vpn`
alone, on its way to the exit; on `front` and `uplink` it is a leak, whoever let it out.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

from lab import client as vpn
from lab.addresses import SERVICE
from lab.capture import Capture, Leaked, now
from lab.client import Client
from lab.compose import Project
from lab.docker_host import DockerHosts
from lab.example import join, wait_serving
from lab.ocserv import VPN_NET
from lab.streams import new_marker
from lab.traffic import Answer, ask_tcp, ask_udp
from ocgate.names import ROUTE_PROTOCOL
from ocgate.netlab.inject import into_tun
from ocgate.netlab.namespace import Namespace
from ocgate.netlab.packet import any_of, build_udp, match, touches
from ocgate.netlab.wait import wait_until

# A container comes back in a few seconds; four tests on two cores make that many more.
BACK_SECONDS = 90.0

# How often a client asks while it waits: also how exact a figure can be.
_ASK_SECONDS = 0.05
_ANSWER_SECONDS = 0.3


@dataclass
class Chained:
    """The running example, with its first client connected and seen as `expected`.

    expected: as whom the services see clients: the VPN provider, or a far docker host.
    recoveries: what was done -> seconds until clients' packets passed again.
    """

    site: DockerHosts
    project: Project
    client: Client
    expected: IPv4Address
    uplink: Capture
    front: Capture
    vpn: Capture
    server: str = "server"
    exit: str = "exit"
    recoveries: dict[str, float] = field(default_factory=dict)

    # --- as a client sees it ------------------------------------------------------------------

    def ask(self) -> Answer:
        """One question of the client to the services, by UDP."""
        return ask_udp(self.client.netns, SERVICE, timeout=_ANSWER_SECONDS)

    def passes(self) -> bool:
        """Is the client answered? Seen as somebody else than it should be it raises Leaked."""
        answer = self.ask()
        if answer and answer.seen_as != self.expected:
            raise Leaked(f"seen as {answer.seen_as} instead of {self.expected}")
        return bool(answer)

    def wait_passing(self, what: str, *, since: float) -> None:
        """Wait until clients' packets pass; `since` (monotonic) begins the recovery `what`."""
        wait_until(self.passes, BACK_SECONDS, f"clients to get out after: {what}",
                   interval=_ASK_SECONDS)  # fmt: skip
        self.recoveries[what] = time.monotonic() - since

    def rejected_after(self, what: str, act: Callable[[], object]) -> None:
        """Do it, and wait until TCP and UDP of clients are refused at once."""
        since = time.monotonic()
        act()
        wait_until(self._rejected, BACK_SECONDS, "clients to be rejected", interval=_ASK_SECONDS)
        self.recoveries[f"{what}: clients are rejected"] = time.monotonic() - since

    def _rejected(self) -> bool:
        answers = [self.ask(), ask_tcp(self.client.netns, SERVICE, timeout=_ANSWER_SECONDS)]
        return all(answer.verdict.value in ("rejected", "refused") for answer in answers)

    # --- what must not be seen ----------------------------------------------------------------

    def prove_leaks_are_seen(self) -> None:
        """Positive control: with all locks of the server taken away, a client's packet is seen on
        `front` and `uplink`; with those of the exit, one that the server hands on."""
        with self._unlocked(self.server):
            self._see((self.front, self.uplink), "a client's packet past the exit")
        self._wait_locked()
        with self._unlocked(self.exit):
            self._see((self.vpn, self.uplink), "a client's packet out of the exit in clear")
        self._wait_locked()

    def assert_nothing_leaked(self, since: float) -> None:
        """On `uplink` and `front`: no client's address, and nothing for the services in clear."""
        leak = any_of(touches(VPN_NET), touches(SERVICE))
        for capture in (self.uplink, self.front):
            capture.assert_none(leak, "what belongs into the tunnel", since=since)

    def assert_silent(self, marker: bytes, since: float) -> None:
        """Nor on the network that server and exit share: the server rejects while it is down."""
        self.vpn.assert_none(match(marker=marker), "a client's packet for no exit", since=since)

    def _see(self, captures: tuple[Capture, ...], what: str) -> None:
        since, marker, source = now(), new_marker(), self.client.address
        assert source is not None
        into_tun(self.client.netns, vpn.TUN, build_udp(source, SERVICE, 4000, 9, marker))
        for capture in captures:
            capture.prove_sees(match(marker=marker), what, since=since)

    def _wait_locked(self) -> None:
        wait_until(self.passes_or_none, BACK_SECONDS, "the locks to be back", interval=0.1)

    def passes_or_none(self) -> bool:
        """As `passes`, while repairs may still be under way."""
        answer = self.ask()
        return bool(answer) and answer.seen_as == self.expected

    @contextlib.contextmanager
    def _unlocked(self, service: str) -> Iterator[None]:
        """The service's control plane stands still, and its tables, rules and routes are gone."""
        container = self.project.container(service)
        with self.project.engine.network_of(container) as netns:
            control = _control_pid(netns)
            os.kill(control, signal.SIGSTOP)
            try:
                _take_locks_away(netns)
                yield
            finally:
                os.kill(control, signal.SIGCONT)

    # --- what is done -------------------------------------------------------------------------

    def kill(self, service: str) -> None:
        """kill -9 of its first process, and with it the whole container; it is dead on return."""
        pid = self.project.engine.pid(self.project.container(service))
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{pid}/ns/net").exists(), 5.0, f"the end of {service}")

    def renew_server(self, what: str) -> None:
        """A new container for the server; the client, whose session went with the old one, logs
        in anew."""
        since = time.monotonic()
        self.project.up(self.server, recreate=True)
        self.client.program.kill()
        self.client = join(self.site, self.project, self.server)
        self.wait_passing(what, since=since)

    def measured(self, what: str, act: Callable[[], object]) -> None:
        """Do it, and wait until clients' packets pass again."""
        since = time.monotonic()
        act()
        self.wait_passing(what, since=since)


def chained(
    site: DockerHosts, project: Project, expected: IPv4Address, *, exit_service: str = "exit"
) -> Chained:
    """Start the example, connect its first client, and wait until that leaves by the exit."""
    since = time.monotonic()
    project.up()
    wait_serving(project, "server")
    client = join(site, project, "server")
    host, engine = project.engine.host, project.engine
    bridges = [engine.bridge(f"{project.directory.name}_{name}") for name in ("front", "vpn")]
    uplink, front, vpn_net = (site.capture(host, device) for device in ("uplink", *bridges))
    made = Chained(site, project, client, expected, uplink, front, vpn_net, exit=exit_service)
    wait_until(made.passes_or_none, BACK_SECONDS, "clients to get out", interval=_ASK_SECONDS)
    made.recoveries["first start"] = time.monotonic() - since
    return made


def _control_pid(netns: Namespace) -> int:
    """Of the role's daemon in that network namespace, as this machine numbers it."""
    for pid in netns.pids():
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if any(word in words for word in (b"ocgate.server.daemon", b"ocgate.exit_node.daemon")):
            return pid
    raise AssertionError("no control plane runs there")


def _take_locks_away(netns: Namespace) -> None:
    netns.nft("flush ruleset")
    for family in ("-4", "-6"):
        for kind in (["rule", "flush"], ["route", "flush", "table", "all"]):
            netns.run(["ip", family, *kind, "protocol", str(ROUTE_PROTOCOL)], check=False)

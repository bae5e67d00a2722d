"""The network every lab test runs in, built in a fraction of a second and removed without trace.

    gw            the container under test          neighbour1..N   others on the docker network
    eth0 172.28.0.10      eth1 172.29.0.10 (opt.)   eth0 172.28.0.20..
     2001:db8:28::10       2001:db8:29::10           2001:db8:28::20..
      |                     |                          |
      +---------------------|--------------------------+
      |                     |
    docker 172.28.0.1     docker2 172.29.0.1
     2001:db8:28::1        2001:db8:29::1
    router        docker host and ISP router: publishes port 443 of gw, masquerades the docker
      |           networks (and nothing else: a packet with a client's address stays visible)
    uplink 203.0.113.1, 2001:db8:113::1
      |
    router 203.0.113.254, 2001:db8:113::fe
    inet          the internet: routes between router and clients, and is the services' host:
      |           198.51.100.10, 2001:db8:51::10 (services)   198.51.100.53, 2001:db8:51::53 (DNS)
    client1..N 192.0.2.9, .17, …   2001:db8:c:1::1, 2001:db8:c:2::1, …
      |
    eth0 192.0.2.10 (roams to .11), .18, …   2001:db8:c:1::2 (roams to ::3), …
    client1..N    laptops with addresses of their own in both families

With `Options(upstream=True)` there are an upstream VPN container on the docker network and its
provider on the internet, too; `lab.upstream` draws them.

Only documentation prefixes (RFC 5737, RFC 3849) and RFC 1918 ones. gw's IPv4 forwarding starts
at 0 and its reverse path filter is off: the hardest case for what is tested. Everything here is
plain kernel configuration; `Lab` is the context manager that owns it all.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from types import TracebackType
from typing import Protocol, TypeVar

from ocgate.lab import namespace
from ocgate.lab.addresses import (
    PORT,
    RESOLVER,
    RESOLVER6,
    SECOND_NET,
    SECOND_NET6,
    SERVICE,
    SERVICE6,
    Host,
    Ipv6,
    Options,
)
from ocgate.lab.capture import Capture
from ocgate.lab.namespace import Namespace
from ocgate.lab.network import Network, build_network
from ocgate.lab.program import Mount, Program, spawn
from ocgate.lab.wait import TimedOut, wait_until
from ocgate.lab.wiring import router_ipv6

# A test needs no second import for what it reads in the drawing.
__all__ = [
    "PORT",
    "RESOLVER",
    "RESOLVER6",
    "SERVICE",
    "SERVICE6",
    "Host",
    "Ipv6",
    "Lab",
    "Options",
    "sweep",
]

# ocserv's workers are gone 50 ms after a killed main; what lives much longer was forgotten.
GRACE_SECONDS = 0.5

# A test's work directory holds Unix sockets, whose paths may have 107 bytes: pytest's tmp_path is
# too long for ocserv's, which get a suffix of their own.
WORK_ROOT = Path(tempfile.gettempdir())


class Closable(Protocol):
    """What a lab closes at its end."""

    def close(self) -> None: ...


Owned = TypeVar("Owned", bound=Closable)


class Lab:
    """Context manager that builds the drawing above and owns all that is started inside."""

    network: Network

    def __init__(self, options: Options | None = None) -> None:
        self.options = options or Options()
        self.leftovers: list[str] = []  # what was still alive when the lab was closed
        self.captures: list[Capture] = []
        self._prefix = namespace.next_prefix()
        self._stack = contextlib.ExitStack()
        self._serial = 0
        self.work = WORK_ROOT / self._prefix.rstrip("-")

    def __enter__(self) -> Lab:
        sweep()
        self.work.mkdir(mode=0o755)  # ocserv's workers run as nobody and pass through here
        self._stack.callback(shutil.rmtree, self.work, ignore_errors=True)
        try:
            self.network = build_network(self.options, self._create)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop what was started, latest first, then delete the namespaces; twice is fine."""
        self._stack.close()

    # --- what a test adds ---------------------------------------------------------------------

    def own(self, thing: Owned) -> Owned:
        """Close `thing` when the lab closes, before what was owned earlier; returns it."""
        self._stack.callback(thing.close)
        return thing

    def spawn(
        self,
        host: Host,
        argv: Sequence[str],
        *,
        environ: Mapping[str, str] | None = None,
        text: str = "",
        mounts: Sequence[Mount] | None = None,
    ) -> Program:
        """Start a program in `host`'s namespace (see `program.spawn`); killed at the end."""
        log = self.path(f"{host.role}-{Path(argv[0]).name}")
        program = spawn(host.netns, argv, log=log, environ=environ, text=text, mounts=mounts)
        self._stack.callback(program.stop)
        return program

    def capture(self, host: Host, interface: str | None = None) -> Capture:
        """Capture on `host`'s interface (None: on all) from now on; closed at the end."""
        made = Capture(host.netns, interface, name=f"{host.role}-{interface or 'all'}")
        self.captures.append(made)
        return self.own(made)

    def save_evidence(self, directory: Path) -> None:
        """Copy all captures (as pcap) and programs' output to `directory`, for after a failure."""
        directory.mkdir(parents=True, exist_ok=True)
        for number, capture in enumerate(self.captures):
            capture.save(directory / f"{number}-{capture.name}.pcap")
        for log in (*self.work.glob("*.out"), *self.work.glob("*.err")):
            shutil.copy(log, directory)

    def path(self, name: str) -> Path:
        """A path in the work directory that was not given out before."""
        self._serial += 1
        return self.work / f"{self._serial}-{name}"

    # --- who is there -------------------------------------------------------------------------

    @property
    def gw(self) -> Host:
        return self.network.gw

    @property
    def router(self) -> Host:
        return self.network.router

    @property
    def inet(self) -> Host:
        return self.network.inet

    @property
    def clients(self) -> tuple[Host, ...]:
        return self.network.clients

    @property
    def neighbours(self) -> tuple[Host, ...]:
        return self.network.neighbours

    @property
    def upstream(self) -> Host:
        """The upstream VPN container (needs Options(upstream=True), as does `provider`)."""
        return self.network.chain[0]

    @property
    def provider(self) -> Host:
        return self.network.chain[1]

    def hosts(self) -> tuple[Host, ...]:
        return self.network.hosts()

    # --- how clients reach the server ---------------------------------------------------------

    @property
    def server(self) -> IPv4Address:
        """The address that clients connect to."""
        return self.router.address if self.options.docker_nat else self.gw.address

    @property
    def server6(self) -> IPv6Address | None:
        """The same for IPv6; always gw's own (there is no NAT66 on the way in)."""
        return self.gw.address6

    # --- faults and changes -------------------------------------------------------------------

    def move_wan(self) -> None:
        """gw's default routes move from eth0 to eth1 (needs `second_uplink`)."""
        self.gw.netns.ip(f"route replace default via {SECOND_NET[1]} dev eth1")
        if self.options.ipv6 is not Ipv6.NONE:
            self.gw.netns.ip(f"route replace ::/0 via {SECOND_NET6[1]} dev eth1")

    def set_ipv6_egress(self, *, works: bool) -> None:
        """Let the router pass gw's IPv6, or drop it silently as a broken provider does."""
        self.router.netns.nft(router_ipv6(blocked=not works))

    def route_to_gw(self, prefix: IPv4Network | IPv6Network) -> None:
        """Route `prefix` from the internet to gw, as a provider does with a delegated one."""
        is_v4 = isinstance(prefix, IPv4Network)
        router = self.router.address if is_v4 else self.router.address6
        gw = self.gw.address if is_v4 else self.gw.address6
        self.inet.netns.ip(f"route replace {prefix} via {router}")
        self.router.netns.ip(f"route replace {prefix} via {gw}")

    # --- the end and the beginning ------------------------------------------------------------

    def _create(self, role: str) -> Namespace:
        made = namespace.create(self._prefix + role)
        self._stack.callback(self._delete, role, made)
        return made

    def _delete(self, role: str, netns: Namespace) -> None:
        """Everything owned was stopped before; what still runs is told, killed and waited for."""
        with contextlib.suppress(TimedOut):
            wait_until(lambda: not netns.pids(), GRACE_SECONDS, "children to follow their parents")
        pids = netns.pids()
        self.leftovers += [f"{role}: {_describe(pid)}" for pid in pids]
        namespace.kill(pids)
        with contextlib.suppress(TimedOut):
            wait_until(lambda: not netns.pids(), 2.0, "killed processes to go")
        netns.close()


def sweep() -> None:
    """Remove what crashed runs left: namespaces, their processes, work directories."""
    namespace.sweep()
    for path in WORK_ROOT.glob(f"{namespace.PREFIX}*"):
        if namespace.is_stale(path.name):
            shutil.rmtree(path, ignore_errors=True)


def _describe(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
    except OSError:
        words = b"(gone)"
    return f"{pid} {words.decode(errors='replace').strip()}"

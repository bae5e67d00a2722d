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

Only documentation prefixes (RFC 5737, RFC 3849) and RFC 1918 ones. gw's IPv4 forwarding starts
at 0 and its reverse path filter is off: the hardest case for what is tested. Everything here is
plain kernel configuration; `Lab` is the context manager that owns it all.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from types import TracebackType
from typing import Protocol, TypeVar

from ocgate.lab import namespace
from ocgate.lab.capture import Capture
from ocgate.lab.namespace import Namespace
from ocgate.lab.program import Mount, Program, spawn
from ocgate.lab.wait import TimedOut, wait_until

DOCKER_NET = IPv4Network("172.28.0.0/24")
DOCKER_NET6 = IPv6Network("2001:db8:28::/64")
SECOND_NET = IPv4Network("172.29.0.0/24")
SECOND_NET6 = IPv6Network("2001:db8:29::/64")
UPLINK_NET = IPv4Network("203.0.113.0/24")
UPLINK_NET6 = IPv6Network("2001:db8:113::/64")
SERVICE = IPv4Address("198.51.100.10")
SERVICE6 = IPv6Address("2001:db8:51::10")
RESOLVER = IPv4Address("198.51.100.53")
RESOLVER6 = IPv6Address("2001:db8:51::53")
CLIENT_NET = IPv4Network("192.0.2.0/24")
CLIENT_NET6 = IPv6Network("2001:db8:c::/48")

PORT = 443  # of the server, TCP and UDP
MAX_CLIENTS = 31  # CLIENT_NET cut in /29s (two addresses each), without the first
MAX_NEIGHBOURS = 200

# ocserv's workers are gone 50 ms after a killed main; what lives much longer was forgotten.
GRACE_SECONDS = 0.5

# A test's work directory holds Unix sockets, whose paths may have 107 bytes: pytest's tmp_path is
# too long for ocserv's, which get a suffix of their own.
WORK_ROOT = Path(tempfile.gettempdir())

# DAD would keep every new address unusable for a second; router discovery would only add noise.
_QUIET_IPV6 = {"accept_dad": 0, "accept_ra": 0, "autoconf": 0, "router_solicitations": 0}


class Ipv6(Enum):
    """What the docker network offers to gw; the clients' own IPv6 always works."""

    NONE = "none"  # no address, as on a docker network without IPv6
    NO_EGRESS = "no-egress"  # address and default route, but the router drops silently
    WORKS = "works"


@dataclass(frozen=True)
class Options:
    """What may differ from lab to lab.

    clients:       1..31
    neighbours:    0..200 other containers on gw's docker network
    docker_nat:    True: router masquerades and publishes 203.0.113.1:443. False: it only routes,
                   and clients reach gw by its own address.
    second_uplink: gw has eth1 to `docker2`, without a default route: see `Lab.move_wan`.
    mtu:           bytes, 1280..65535; of gw's docker link and its neighbours'.
    """

    clients: int = 1
    neighbours: int = 0
    ipv6: Ipv6 = Ipv6.WORKS
    docker_nat: bool = True
    second_uplink: bool = False
    mtu: int = 1500

    def __post_init__(self) -> None:
        if not 0 <= self.clients <= MAX_CLIENTS:
            raise ValueError(f"clients: got {self.clients}; expected 0..{MAX_CLIENTS}")
        if not 0 <= self.neighbours <= MAX_NEIGHBOURS:
            raise ValueError(f"neighbours: got {self.neighbours}; expected 0..{MAX_NEIGHBOURS}")


@dataclass(frozen=True)
class Host:
    """One namespace with the addresses by which others know it.

    second, second6: where a client roams to, gw's eth1, router's docker side, inet's resolver.
    next_hop:        its default gateway; None for router and inet, which have none.
    """

    role: str
    netns: Namespace
    address: IPv4Address
    address6: IPv6Address | None
    second: IPv4Address | None = None
    second6: IPv6Address | None = None
    next_hop: IPv4Address | None = None
    next_hop6: IPv6Address | None = None


class Closable(Protocol):
    def close(self) -> None: ...


Owned = TypeVar("Owned", bound=Closable)


class Lab:
    """Context manager that builds the drawing above and owns all that is started inside."""

    gw: Host
    router: Host
    inet: Host
    clients: tuple[Host, ...]
    neighbours: tuple[Host, ...]

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
            self._build()
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

    def hosts(self) -> tuple[Host, ...]:
        return (self.gw, self.router, self.inet, *self.clients, *self.neighbours)

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
        self.router.netns.nft(_router_ipv6(blocked=not works))

    def route_to_gw(self, prefix: IPv4Network | IPv6Network) -> None:
        """Route `prefix` from the internet to gw, as a provider does with a delegated one."""
        is_v4 = isinstance(prefix, IPv4Network)
        router = self.router.address if is_v4 else self.router.address6
        gw = self.gw.address if is_v4 else self.gw.address6
        self.inet.netns.ip(f"route replace {prefix} via {router}")
        self.router.netns.ip(f"route replace {prefix} via {gw}")

    # --- building -----------------------------------------------------------------------------

    def _build(self) -> None:
        self.gw = self._gw()
        self.router = Host(
            "router",
            self._create("router"),
            UPLINK_NET[1],
            UPLINK_NET6[1],
            DOCKER_NET[1],
            DOCKER_NET6[1],
        )
        self.inet = Host("inet", self._create("inet"), SERVICE, SERVICE6, RESOLVER, RESOLVER6)
        self.clients = tuple(self._client(i + 1) for i in range(self.options.clients))
        self.neighbours = tuple(self._neighbour(i + 1) for i in range(self.options.neighbours))
        for host in self.hosts():
            _set_defaults(host.netns)
        self._connect()
        self._configure()
        self._wait_for_links()

    def _create(self, role: str) -> Namespace:
        made = namespace.create(self._prefix + role)
        self._stack.callback(self._delete, role, made)
        return made

    def _gw(self) -> Host:
        has_v6 = self.options.ipv6 is not Ipv6.NONE
        second = self.options.second_uplink
        return Host(
            "gw",
            self._create("gw"),
            DOCKER_NET[10],
            DOCKER_NET6[0x10] if has_v6 else None,
            SECOND_NET[10] if second else None,
            SECOND_NET6[0x10] if second and has_v6 else None,
            DOCKER_NET[1],
            DOCKER_NET6[1] if has_v6 else None,
        )

    def _neighbour(self, number: int) -> Host:
        return Host(
            f"neighbour{number}",
            self._create(f"neighbour{number}"),
            DOCKER_NET[19 + number],
            DOCKER_NET6[0x1F + number],
            next_hop=DOCKER_NET[1],
            next_hop6=DOCKER_NET6[1],
        )

    def _client(self, number: int) -> Host:
        base, base6 = 8 * number, number << 64
        return Host(
            f"client{number}",
            self._create(f"client{number}"),
            CLIENT_NET[base + 2],
            CLIENT_NET6[base6 + 2],
            CLIENT_NET[base + 3],
            CLIENT_NET6[base6 + 3],
            CLIENT_NET[base + 1],
            CLIENT_NET6[base6 + 1],
        )

    def _connect(self) -> None:
        """All links, created straight in their namespaces: nothing appears in the machine's own."""
        lines = ["link add docker type bridge stp_state 0 forward_delay 0 mcast_snooping 0"]
        for host in (self.gw, *self.neighbours):
            lines += [
                _veth("eth0", host, host.role, self.router),
                f"link set {host.role} master docker mtu {self.options.mtu} up",
            ]
        if self.options.second_uplink:
            lines.append(_veth("eth1", self.gw, "docker2", self.router))
        lines.append(_veth("uplink", self.router, "router", self.inet))
        lines += [_veth("eth0", client, client.role, self.inet) for client in self.clients]
        self.router.netns.ip(*lines)

    def _configure(self) -> None:
        self._configure_router()
        self._configure_inet()
        for host in (self.gw, *self.neighbours):
            if host.address6 is None:
                host.netns.sysctl("net/ipv6/conf/eth0/disable_ipv6", 1)
            host.netns.ip(f"link set eth0 mtu {self.options.mtu}", *_leaf(host))
        if self.options.second_uplink:
            self.gw.netns.ip(*_addresses("eth1", self.gw.second, self.gw.second6))
        for host in self.clients:
            host.netns.ip(*_addresses("eth0", host.second, host.second6, 29), *_leaf(host, 29))

    def _configure_router(self) -> None:
        router = self.router.netns
        _forward(router)
        lines = [
            *_addresses("docker", DOCKER_NET[1], DOCKER_NET6[1]),
            *_addresses("uplink", self.router.address, self.router.address6),
            f"route add default via {UPLINK_NET[254]}",
            f"route add ::/0 via {UPLINK_NET6[0xFE]}",
        ]
        if self.options.second_uplink:
            lines += _addresses("docker2", SECOND_NET[1], SECOND_NET6[1])
        router.ip(*lines)
        blocked = self.options.ipv6 is Ipv6.NO_EGRESS
        nat = _router_nat(self.gw) if self.options.docker_nat else ""
        router.nft(nat + _router_ipv6(blocked=blocked))

    def _configure_inet(self) -> None:
        inet = self.inet.netns
        _forward(inet)
        lines = [
            *(f"address add {a}/32 dev lo" for a in (SERVICE, RESOLVER)),
            *(f"address add {a}/128 dev lo nodad" for a in (SERVICE6, RESOLVER6)),
            *_addresses("router", UPLINK_NET[254], UPLINK_NET6[0xFE]),
            *(f"route add {n} via {self.router.address6}" for n in (DOCKER_NET6, SECOND_NET6)),
        ]
        if not self.options.docker_nat:
            nets = (DOCKER_NET, SECOND_NET)
            lines += [f"route add {net} via {self.router.address}" for net in nets]
        for client in self.clients:
            lines += _addresses(client.role, client.next_hop, client.next_hop6, 29)
        inet.ip(*lines)

    def _wait_for_links(self) -> None:
        """The kernel's link watcher may take its time; a lost first packet would be a flake."""
        for host in self.hosts():
            wait_until(functools.partial(_links_up, host), 5.0, f"links of {host.role}")

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


def _set_defaults(netns: Namespace) -> None:
    for scope in ("all", "default"):
        netns.sysctl(f"net/ipv4/conf/{scope}/rp_filter", 0)
        for key, value in _QUIET_IPV6.items():
            netns.sysctl(f"net/ipv6/conf/{scope}/{key}", value)
    netns.sysctl("net/ipv4/ip_forward", 0)


def _forward(netns: Namespace) -> None:
    netns.sysctl("net/ipv4/ip_forward", 1)
    netns.sysctl("net/ipv6/conf/all/forwarding", 1)


def _veth(name: str, host: Host, peer_name: str, peer: Host) -> str:
    return (
        f"link add {name} netns {host.netns.name} type veth "
        f"peer name {peer_name} netns {peer.netns.name}"
    )


def _addresses(
    device: str, address: IPv4Address | None, address6: IPv6Address | None, length: int = 24
) -> list[str]:
    """Addresses (IPv4 with prefix `length`, IPv6 with 64) on `device`, and the device up."""
    lines = [f"link set {device} up"]
    if address is not None:
        lines.append(f"address add {address}/{length} dev {device}")
    if address6 is not None:
        lines.append(f"address add {address6}/64 dev {device} nodad")
    return lines


def _leaf(host: Host, length: int = 24) -> list[str]:
    """Its first address, preferred as source, and its default routes.

    Their metric leaves room for a VPN client to put better ones in front, and to fall back to
    these when it ends, as NetworkManager's (100 and more) do on a laptop.
    """
    lines = _addresses("eth0", host.address, host.address6, length)
    lines.append(f"route add default via {host.next_hop} dev eth0 src {host.address} metric 100")
    if host.address6 is not None:
        lines.append(
            f"route add ::/0 via {host.next_hop6} dev eth0 src {host.address6} metric 1024"
        )
    return lines


def _router_nat(gw: Host) -> str:
    """What docker does for a published port: only its own networks are masqueraded."""
    return f"""
    table ip docker {{
        chain prerouting {{
            type nat hook prerouting priority dstnat;
            iifname "uplink" tcp dport {PORT} dnat to {gw.address}
            iifname "uplink" udp dport {PORT} dnat to {gw.address}
        }}
        chain postrouting {{
            type nat hook postrouting priority srcnat;
            ip saddr {{ {DOCKER_NET}, {SECOND_NET} }} oifname "uplink" masquerade
        }}
    }}
    """


def _router_ipv6(*, blocked: bool) -> str:
    rule = 'iifname { "docker", "docker2" } drop' if blocked else ""
    return f"""
    table ip6 provider
    delete table ip6 provider
    table ip6 provider {{
        chain forward {{ type filter hook forward priority filter; {rule}; }}
    }}
    """


def _links_up(host: Host) -> bool:
    shown = host.netns.run(["ip", "-o", "link", "show", "up"]).stdout
    return "NO-CARRIER" not in shown and "LOWERLAYERDOWN" not in shown

"""The twin's namespaces and links: built and mended by the harness, removed without trace."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable
from ipaddress import ip_interface
from pathlib import Path

from ocgate.netlab import namespace
from ocgate.netlab.dns import DnsServer
from ocgate.netlab.namespace import Namespace
from ocgate.netlab.wait import TimedOut, wait_until
from ocgate.plan.facts import Address, DefaultRoute
from ocgate.prove.tun import QUEUE_PACKETS, open_tun
from ocgate.prove.twin import Segment, Twin, Upstream

# DAD would keep a new address unusable for a second; discovery would bring unwanted routes.
_QUIET_IPV6 = {"accept_dad": 0, "accept_ra": 0, "autoconf": 0, "router_solicitations": 0}

# The last byte of every MAC address tells whose it is: the second witness reads it.
ROLES = ("gw", "isp", "neighbour", "up4", "up6")

# In an upstream: what drops its packets during a fault.
FAULT_TABLE = "fault"

# A name that moves is noticed when this has passed; a real one's is a minute or an hour.
DNS_TTL = 1  # seconds

INTERNET = "inet0"  # the tun behind which every address answers


Furnish = Callable[["World", Upstream], None]


def mac(role: str, segment: int) -> str:
    """The address of that role's port on that segment; locally administered."""
    return f"02:6f:63:00:{segment:02x}:{ROLES.index(role) + 1:02x}"


def role_of(address: bytes) -> str:
    """The role that a destination address names; `all` for broadcast and multicast."""
    if address[0] & 1:
        return "all"
    known = address[:3] == b"\x02oc" and 1 <= address[5] <= len(ROLES)
    return ROLES[address[5] - 1] if known else "unknown"


class World:
    """Context manager that owns the namespaces, what runs in them, and a work directory.

    furnish: makes an upstream of a namespace that is on its segment and holds nothing else yet; by
             default one behind whose tun every address answers.
    """

    def __init__(self, twin: Twin, *, furnish: Furnish | None = None) -> None:
        self.twin = twin
        self._furnish = furnish or World.plain_upstream
        self._prefix = namespace.next_prefix()
        self._stack = contextlib.ExitStack()
        self.work = Path(tempfile.gettempdir()) / self._prefix.rstrip("-")
        self.internets: list[tuple[str, int]] = []  # role and descriptor of each INTERNET
        self.spaces: dict[str, Namespace] = {}
        self.dns: DnsServer | None = None

    def __enter__(self) -> World:
        namespace.sweep()
        self.work.mkdir(mode=0o755)
        self._stack.callback(shutil.rmtree, self.work, ignore_errors=True)
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop what was started, latest first, and delete the namespaces; twice is fine."""
        self._stack.close()

    def callback(self, function: Callable[[], object]) -> None:
        """Call `function` when the world closes, before what was set up earlier is taken down."""
        self._stack.callback(function)

    @property
    def gw(self) -> Namespace:
        return self.spaces["gw"]

    # --- building -----------------------------------------------------------------------------

    def _build(self) -> None:
        roles = ["switch", "gw", "isp", "neighbour", *(up.role for up in self.twin.upstreams)]
        for role in roles:
            self.add(role)
        for segment in (*self.twin.segments, self.twin.spare):
            self._wire(segment)
        for segment in self.twin.segments:
            self.plug(segment)
        self.internet("isp")
        for up in self.twin.upstreams:
            self._place(up)
            self._furnish(self, up)
        self._resolver()
        for scope in self.twin.without_ipv6:
            self.gw.sysctl(f"net/ipv6/conf/{scope}/disable_ipv6", 1)
        wait_until(self._links_up, 5.0, "the links of the twin")

    def add(self, role: str) -> Namespace:
        """Another namespace, that forwards nothing and is on no segment."""
        made = namespace.create(self._prefix + role)
        self._stack.callback(_delete, made)
        _quiet(made)
        self.spaces[role] = made
        return made

    def _wire(self, segment: Segment) -> None:
        """A bridge with everybody's ports but gw's."""
        bridge = f"b{segment.number}"
        self.spaces["switch"].ip(
            f"link add {bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
            f"link set {bridge} mtu {segment.mtu} up",
        )
        self._port("isp", segment, f"seg{segment.number}")
        self._port("neighbour", segment, f"seg{segment.number}")
        for role, addresses in (("isp", segment.isp), ("neighbour", segment.neighbour)):
            self.spaces[role].ip(*(f"address add {a} dev seg{segment.number}" for a in addresses))
        for text in segment.own:  # of a router off-link, or of a network too small for anybody
            if not any(ip_interface(text).ip in ip_interface(a).network for a in segment.isp):
                length = ip_interface(text).max_prefixlen
                self.spaces["isp"].ip(
                    f"route add {ip_interface(text).ip}/{length} dev seg{segment.number}"
                )

    def _port(self, role: str, segment: Segment, device: str) -> None:
        port = f"{role}{segment.number}"
        end = f"name {device} netns {self.spaces[role].name} address {mac(role, segment.number)}"
        self.spaces["switch"].ip(
            f"link add {port} mtu {segment.mtu} type veth peer {end} mtu {segment.mtu}",
            f"link set {port} master b{segment.number} up",
        )
        self.spaces[role].ip(f"link set {device} up")

    def _place(self, up: Upstream) -> None:
        self._port(up.role, up.segment, "eth0")
        self.spaces[up.role].ip(f"address add {up.address}/{up.length} dev eth0")

    def plain_upstream(self, up: Upstream) -> None:
        """Every address answers behind it, and what passes on to it is all that it does."""
        family = "ip" if up.family == 4 else "ip6"
        net = ip_interface(f"{up.address}/{up.length}").network
        # As real ones do: what does not come from its own network gets no tunnel.
        self.spaces[up.role].nft(f"""
            table inet upstream {{
                chain forward {{
                    type filter hook forward priority filter; policy drop;
                    iifname "{INTERNET}" accept
                    {family} saddr {net} oifname "{INTERNET}" accept
                }}
            }}""")
        self.internet(up.role)

    def internet(self, role: str) -> None:
        """Every address that isn't on a segment answers behind a tun of this namespace."""
        netns = self.spaces[role]
        descriptor = open_tun(netns, INTERNET)
        self._stack.callback(os.close, descriptor)
        self.internets.append((role, descriptor))
        netns.sysctl("net/ipv4/ip_forward", 1)
        netns.sysctl("net/ipv6/conf/all/forwarding", 1)
        netns.ip(f"link set {INTERNET} up txqueuelen {QUEUE_PACKETS}")
        for v6 in (False, True):
            # What comes out of it goes to segments only, or answers to forged sources would circle.
            netns.ip(
                f"route add default dev {INTERNET} metric 4000",
                f"rule add pref 100 iif {INTERNET} lookup main suppress_prefixlength 0",
                f"rule add pref 101 iif {INTERNET} blackhole",
                v6=v6,
            )

    def _resolver(self) -> None:
        """On the ISP's side: knows the gateways' names."""
        isp = self.spaces["isp"]
        isp.ip(f"address add {self.twin.resolver}/32 dev lo")
        self.dns = DnsServer(isp, [self.twin.resolver], {}, ttl=DNS_TTL)
        self._stack.callback(self.dns.close)
        for up in self.twin.upstreams:
            self.name(up.name, up.address)

    def name(self, name: str | None, *addresses: Address) -> None:
        """From now on the twin's resolver answers `name` with these."""
        if name and self.dns is not None:
            others = [
                a for a in self.dns.table.get(_key(name), ()) if a.version != addresses[0].version
            ]
            self.dns.table[_key(name)] = (*others, *addresses)

    def _links_up(self) -> bool:
        for role, netns in self.spaces.items():
            if role != "switch":
                shown = netns.run(["ip", "-o", "link", "show", "up"]).stdout
                if "NO-CARRIER" in shown or "LOWERLAYERDOWN" in shown:
                    return False
        return True

    # --- gw's interfaces ----------------------------------------------------------------------

    def plug(self, segment: Segment) -> None:
        """gw gets the interface of this segment, with addresses and default routes."""
        self._port("gw", segment, segment.device)
        self.lay(segment)

    def unplug(self, segment: Segment) -> None:
        """It is gone, with all that hung on it; twice is fine."""
        self.spaces["switch"].run(["ip", "link", "del", f"gw{segment.number}"], check=False)

    def lay_upstream(self, up: Upstream) -> None:
        """The upstream reachable under its own address, its tunnel up; idempotent."""
        netns, address = self.spaces[up.role], f"{up.address}/{up.length}"
        netns.run(["nft", "delete", "table", "inet", FAULT_TABLE], check=False)
        netns.run(["ip", "address", "del", f"{up.free}/{up.length}", "dev", "eth0"], check=False)
        self.spaces["switch"].ip(f"link set {up.role}{up.segment.number} up")
        netns.ip(
            f"link set eth0 up arp on address {mac(up.role, up.segment.number)}",
            f"address replace {address} dev eth0{_nodad(address)}",
        )
        self.name(up.name, up.address)

    def lay(self, segment: Segment, device: str = "") -> None:
        """Its interface up, addresses and default routes as they are meant to be; idempotent."""
        name = device or segment.device
        lines = [f"link set {name} up"]
        lines += [f"address replace {text} dev {name}{_nodad(text)}" for text in segment.own]
        self.gw.ip(*lines)
        for route in segment.defaults:
            self.gw.ip(f"route replace {default_route(route, name)}", v6=route.family == 6)


def _key(name: str) -> str:
    return name.rstrip(".").lower()


def default_route(route: DefaultRoute, device: str = "") -> str:
    """What follows `ip route add` for it."""
    via = f"via {route.gateway} " if route.gateway else ""
    metric = f" metric {route.metric}" if route.metric else ""
    # onlink: the router may stand outside of the interface's own network.
    onlink = " onlink" if route.gateway else ""
    return f"default {via}dev {device or route.device}{metric}{onlink}"


def _nodad(text: str) -> str:
    return " nodad" if ":" in text else ""


def _quiet(netns: Namespace) -> None:
    for scope in ("all", "default"):
        netns.sysctl(f"net/ipv4/conf/{scope}/rp_filter", 0)
        netns.sysctl(f"net/ipv4/conf/{scope}/send_redirects", 0)
        for key, value in _QUIET_IPV6.items():
            netns.sysctl(f"net/ipv6/conf/{scope}/{key}", value)
    netns.sysctl("net/ipv4/ip_forward", 0)


def _delete(netns: Namespace) -> None:
    """Kill what still runs in it, then let it go."""
    with contextlib.suppress(TimedOut):
        wait_until(lambda: _killed(netns), 3.0, "processes of the twin to go")
    netns.close()


def _killed(netns: Namespace) -> bool:
    pids = netns.pids()
    namespace.kill(pids)
    return not pids

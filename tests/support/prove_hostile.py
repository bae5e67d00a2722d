"""An exit between two adversaries: its provider, and a container on its network (`prove_exit`).

neighbour --- eth0  exit  tun0 ====== provider, which pushes what it likes, routes into the
gw, isp -----                         tunnel what it likes (iroute), and is found by a name

FORWARD_FROM is gw's half of the docker network and its clients' subnet: the neighbour may not
use the exit. Both families outside and inside; users have IPv4 alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_interface
from pathlib import Path

from ocgate.netlab.dns import DnsServer
from ocgate.netlab.inject import mac_of
from ocgate.netlab.program import Mount, Program
from ocgate.netlab.wait import wait_until
from ocgate.plan.facts import Address, Family
from ocgate.prove.twin import Upstream
from ocgate.prove.world import World
from support.prove_exit import PROVIDER, READY_SECONDS, ExitRole

PROVIDER6, ISP_END6 = IPv6Address("2001:db8:c8::200"), IPv6Address("2001:db8:c8::201")
EXIT6 = "2001:db8:28::2/64"
NOBODYS6 = IPv6Address("2001:db8:28::66")
NAME = "vpn.provider.example"
RESOLVER = IPv4Address("198.51.100.54")  # the ISP's: the twin's own begins later than the exit
INSIDE = "172.28.0.0/25,10.10.10.0/24"
PROVIDERS_END, TUN6 = IPv4Address("10.8.0.1"), "tun1"  # in the tunnel; the one over IPv6

# What an honest provider gives, and on the server's side: that everything is at the client.
HONEST: tuple[str, ...] = ()
_REACH = ("iroute 0.0.0.0 128.0.0.0", "iroute 128.0.0.0 128.0.0.0", "iroute-ipv6 ::/0")


def stolen(address: Address) -> tuple[str, str]:
    """Options that give this to the client, and of IPv6 one of the docker network."""
    return (f"ifconfig-push {address} 255.255.255.0", f"ifconfig-ipv6-push {NOBODYS6}/64")


@dataclass
class HostileExit(ExitRole):
    """As `ExitRole`; what its provider pushes can be changed."""

    remote: str = NAME
    further: tuple[str, ...] = ()  # options of the provider's server over IPv4
    server6: Program = field(init=False)
    dns: DnsServer = field(init=False)
    router6: IPv6Address = field(init=False)

    def furnish(self, world: World, up: Upstream) -> None:
        """With IPv6 on both sides, and a resolver that somebody else has the say of."""
        self.environ = {"FORWARD_FROM": INSIDE, **self.environ}
        isp = world.spaces["isp"]
        isp.ip(f"address add {RESOLVER}/32 dev lo")
        self.dns = DnsServer(isp, [RESOLVER], {NAME: (PROVIDER,)}, ttl=1)
        world.callback(self.dns.close)
        self.router6 = _router6(world)
        world.spaces[up.role].ip(
            f"address add {EXIT6} dev eth0", f"route add ::/0 via {self.router6} dev eth0"
        )
        super().furnish(world, up)

    def mounts(self) -> Sequence[Mount] | None:
        """Its resolv.conf."""
        path = self.work / "resolv.conf"
        path.write_text(f"nameserver {RESOLVER}\n")
        return [Mount(path, Path("/etc/resolv.conf").resolve(), read_only=True)]

    # --- the provider ---------------------------------------------------------------------------

    def server_options(self) -> str:
        """With what is pushed in a file that is read at each connection."""
        self.pushes = self.work / "ccd"
        self.pushes.mkdir(exist_ok=True)
        self.write_pushes(*HONEST)
        inside6 = ("server-ipv6 fd99:8::/64",) if not self.further else ()  # no MTU below 1280
        also = (*inside6, f"client-config-dir {self.pushes}", *self.further)
        return "\n".join([super().server_options(), *also, ""])

    @contextlib.contextmanager
    def serving(self, *options: str) -> Iterator[None]:
        """The provider's server with these inside of the block: no push can say them."""
        try:
            self._served(options)
            yield
        finally:
            self._served(())

    def _served(self, options: tuple[str, ...]) -> None:
        self.further = options
        self.server.kill()
        super().serve()

    def serve(self) -> None:
        """A second one over IPv6."""
        isp = self.world.spaces["isp"]
        self.provider.ip(f"address add {PROVIDER6}/127 dev eth0")
        isp.ip(f"address add {ISP_END6}/127 dev provider")
        self.provider.ip(f"route add {ip_interface(EXIT6).ip}/128 via {ISP_END6} dev eth0")
        super().serve()
        options = self.server_options().replace("dev tun0", f"dev {TUN6}")
        options = options.replace("proto udp4", "proto udp6").replace(str(PROVIDER), str(PROVIDER6))
        path = self.work / "server6.conf"
        path.write_text(options.replace("10.8.0.0", "10.8.1.0").replace("fd99:8:", "fd99:9:"))
        argv = ["openvpn", "--config", str(path)]
        self.server6 = self._spawn(self.provider, argv, "provider6")
        self.server6.wait_for_output("Initialization Sequence Completed", READY_SECONDS)

    def write_pushes(self, *lines: str) -> None:
        """What the next client gets."""
        text = "".join(f"{line}\n" for line in (*_REACH, *lines))
        (self.pushes / "DEFAULT").write_text(text)

    @contextlib.contextmanager
    def pushing(self, *lines: str) -> Iterator[None]:
        """These, to the client that connects inside of the block."""
        self.write_pushes(*lines)
        try:
            yield
        finally:
            self.write_pushes(*HONEST)

    def leads_to(self, *addresses: Address) -> None:
        """From now on the provider's name does."""
        self.dns.table[NAME] = addresses

    # --- the exit -------------------------------------------------------------------------------

    def ready(self) -> bool:
        """Whether the tunnel carries its users' family."""
        return super().ready() and any("." in each for each in self.tunnel().get("addresses", ()))

    def again(self) -> None:
        """The next connection, at once (`ocgate reload`)."""
        self.ask("reload")

    def until(self, met: Callable[[], bool], what: str) -> None:
        """Wait, with its own words where that is in vain."""
        wait_until(met, READY_SECONDS, f"{what}; {self.tunnel()}")

    def reconnected(self) -> None:
        """Another connection stands."""
        before = self.tunnel().get("attempts", 0)
        self.again()
        self.until(lambda: self.ready() and self.tunnel()["attempts"] != before, "a new tunnel")

    def by(self, family: Family) -> None:
        """Over IPv4 or IPv6, which the name decides."""
        self.leads_to(PROVIDER if family == 4 else PROVIDER6)
        if self.endpoint_family() != family or not self.ready():
            self.again()
            self.until(lambda: self.ready() and self.endpoint_family() == family, f"IPv{family}")

    def endpoint_family(self) -> int:
        """Of the tunnel's server, 0 without one."""
        endpoint = self.tunnel().get("endpoint") or ""
        return 0 if not endpoint else 6 if endpoint.startswith("[") else 4

    @property
    def mac(self) -> str:
        """Of its network device, as it is now."""
        return mac_of(self.netns, "eth0")

    def blocked(self, reason: str) -> int:
        """Packets that it has counted for this reason."""
        shown = self.netns.run(["nft", "list", "counter", "inet", "ocgate_exit", reason]).stdout
        return int(shown.split("packets ")[1].split()[0])


def _router6(world: World) -> IPv6Address:
    """The ISP as a router advertises itself: a redirect is believed of no other next hop."""
    shown = world.spaces["isp"].run(["ip", "-6", "-o", "addr", "show", "dev", "seg1"]).stdout
    return IPv6Address(next(w for w in shown.split() if w.startswith("fe80")).partition("/")[0])

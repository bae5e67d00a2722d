"""Where the kill switch is tested: an exit between a docker network and an uplink, and its tunnel.

    peer        172.28.0.3, 2001:db8:28::3        may use the tunnel (FORWARD_FROM: 172.28.0.0/25)
    stranger    172.28.0.130, 2001:db8:28:0:1::82 may not
      eth0
       |
      br0  172.28.0.1, 2001:db8:28::1      host   docker host, ISP and internet in one: what gets
       |                                          here has leaked. 172.29.0.1 with two interfaces
      eth0 172.28.0.2, 2001:db8:28::2      exit   its default route by eth0, or by eth1 172.29.0.2
      tun0 10.8.0.2, fd9c:41d7:58a2:8::2   .....  a thread is the tunnel's client, its other end and
                                                  the internet beyond it

Everything beyond is on the host's loopback, so an answer would come if a packet got there.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

from lab.capture import Capture
from ocgate.kernel.apply import Applied, apply, counters
from ocgate.kernel.nft import Nft
from ocgate.names import TUNNEL_UID
from ocgate.netlab import inject, namespace
from ocgate.netlab.namespace import Namespace
from ocgate.netlab.packet import (
    ACK,
    SYN,
    Packet,
    Predicate,
    build_icmp,
    build_tcp,
    build_udp,
    checksum,
    parse,
)
from ocgate.netlab.wait import wait_until
from ocgate.tunnel.killswitch import plan
from ocgate.tunnel.model import Carried, Endpoint, ExitIntent

PEER, PEER6 = "172.28.0.3", "2001:db8:28::3"
STRANGER, STRANGER6 = "172.28.0.130", "2001:db8:28:0:1::82"
UPLINK_NETS = ("172.29.0", "2001:db8:29")
EXIT, EXIT6 = "172.28.0.2", "2001:db8:28::2"
HOST, HOST6 = "172.28.0.1", "2001:db8:28::1"

SERVICE, SERVICE6 = "198.51.100.10", "2001:db8:51::10"
RESOLVER, RESOLVER6 = "198.51.100.53", "2001:db8:51::53"  # of the ISP
SERVER, SERVER6 = "198.51.100.200", "2001:db8:c8::8"
OTHER_SERVER = "198.51.100.201"
LAN = "192.168.1.9"  # behind the docker host
BEYOND = (SERVICE, SERVICE6, RESOLVER, RESOLVER6, SERVER, SERVER6, OTHER_SERVER, LAN)

TUNNEL_RESOLVER, TUNNEL_RESOLVER6 = "10.8.0.1", "fd9c:41d7:58a2:8::1"
CARRIED = Carried((ip_interface("10.8.0.2/24"),), 1400, (ip_address(TUNNEL_RESOLVER),))
CARRIED_BOTH = Carried(
    (*CARRIED.addresses, ip_interface("fd9c:41d7:58a2:8::2/64")),
    1400,
    (*CARRIED.resolvers, ip_address(TUNNEL_RESOLVER6)),
)
ENDPOINT = Endpoint(ip_address(SERVER), 1194, ("udp",))
CLOSED = ExitIntent(
    device="tun0",
    uplinks=("eth0",),
    forward_from=(ip_network("172.28.0.0/25"), ip_network("2001:db8:28::/80")),
    local=(ip_network("172.28.0.0/24"), ip_network("2001:db8:28::/64")),
    client_uid=TUNNEL_UID,
)
CONNECTING = replace(CLOSED, endpoint=ENDPOINT)
UP = replace(CONNECTING, carried=CARRIED)
UP_BOTH = replace(CONNECTING, carried=CARRIED_BOTH)

SOMEBODY = 1000  # a uid that is neither root nor the client
_LIBC = ctypes.CDLL(None)

# IEEE's ethertype for local experiments: nothing else uses it.
FENCE = 0x88B5
_ETH_P_ALL = 0x0003


# --- the tunnel's other end ---------------------------------------------------------------------


class TunnelEnd:
    """Reads the tun as its client does, keeps what was sent there, and answers as the internet."""

    def __init__(self, netns: Namespace, device: str = "tun0") -> None:
        self.answering = True
        self._seen: list[Packet] = []
        self._lock = threading.Lock()
        with netns.entered():
            self._tun = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        request = struct.pack("16sH22x", device.encode(), 0x1001)  # IFF_TUN | IFF_NO_PI
        fcntl.ioctl(self._tun, 0x4004_54CA, request)  # TUNSETIFF
        self._over, self._end = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def packets(self, predicate: Predicate) -> list[Packet]:
        """What was sent into the tunnel so far, of one kind."""
        with self._lock:
            return [packet for packet in self._seen if predicate(packet)]

    def send(self, *packets: bytes) -> None:
        """Let these come out of the tunnel."""
        for packet in packets:
            os.write(self._tun, packet)

    def close(self) -> None:
        """Detach; twice is fine."""
        if self._thread.is_alive():
            os.write(self._end, b"x")
            self._thread.join()
            for descriptor in (self._tun, self._over, self._end):
                os.close(descriptor)

    def _run(self) -> None:
        while True:
            ready, _, _ = select.select([self._tun, self._over], [], [])
            if self._over in ready:
                return
            try:
                raw = os.read(self._tun, 65536)
            except BlockingIOError:
                continue
            except OSError:  # the device was deleted
                os.read(self._over, 1)
                return
            ethertype = 0x0800 if raw[0] >> 4 == 4 else 0x86DD
            packet = parse(Packet(0.0, "tun0", outgoing=True, ethertype=ethertype, raw=raw))
            with self._lock:
                self._seen.append(packet)
            if self.answering and (answer := _answer(packet)):
                with contextlib.suppress(OSError):
                    os.write(self._tun, answer)


def _answer(packet: Packet) -> bytes:
    if packet.src is None or packet.dst is None:
        return b""
    start = 20 if packet.dst.version == 4 else 40
    body, sport, dport = packet.raw[start:], packet.sport or 0, packet.dport or 0
    if packet.protocol == "udp":
        return build_udp(packet.dst, packet.src, dport, sport, body[8:])
    if packet.protocol == "tcp" and packet.flags & (SYN | ACK) == SYN:
        ack = struct.unpack_from("!I", body, 4)[0] + 1
        return syn_ack(packet, ack)
    if packet.kind in ((8, 0), (128, 0)):
        kind = (0, 0) if packet.kind == (8, 0) else (129, 0)
        return build_icmp(packet.dst, packet.src, kind, body[4:])
    return b""


def syn_ack(syn: Packet, ack: int) -> bytes:
    """The answer to a SYN, announcing an MSS of 1460."""
    assert syn.dst is not None and syn.src is not None
    made = build_tcp(
        syn.dst, syn.src, syn.dport or 0, syn.sport or 0, flags=SYN | ACK, ack=ack,
        data=struct.pack("!BBH", 2, 4, 1460),
    )  # fmt: skip
    start = 20 if syn.dst.version == 4 else 40
    head, tcp = made[:start], bytearray(made[start:])
    tcp[12] = 6 << 4  # the four bytes of data are an option
    tcp[16:18] = bytes(2)
    pseudo = syn.dst.packed + syn.src.packed + struct.pack("!II", len(tcp), 6)
    tcp[16:18] = struct.pack("!H", checksum(pseudo + bytes(tcp)))
    return head + bytes(tcp)


def mss_of(packet: Packet) -> int:
    """The MSS that a SYN announces."""
    start = (20 if packet.ethertype == 0x0800 else 40) + 20
    options = packet.raw[start:]
    while options and options[0] != 2:
        options = options[1:] if options[0] == 1 else options[options[1] :]
    return int(struct.unpack_from("!H", options, 2)[0])


# --- the site -----------------------------------------------------------------------------------


@dataclass
class Site:
    """The drawing above, and the exit's kernel state."""

    exit: Namespace
    peer: Namespace
    stranger: Namespace
    host: Namespace
    uplink: str
    run_dir: Path
    nft: Nft
    capture: Capture = field(init=False)
    end: TunnelEnd | None = None
    serial: int = 0

    def apply(self, intent: ExitIntent) -> Applied:
        """Put a state of the exit in force; read back and verified."""
        intent = replace(intent, uplinks=(self.uplink,))
        with self.exit.entered():
            return apply(self.nft, plan(intent), {}, run_dir=self.run_dir)

    def connect(self, intent: ExitIntent) -> TunnelEnd:
        """The same with a client at the tun."""
        self.apply(intent)
        if self.end is not None:
            self.end.close()
        self.end = TunnelEnd(self.exit)
        # Until the kernel has seen the carrier, all that is sent there is dropped.
        wait_until(lambda: "NO-CARRIER" not in self._link(), 5.0, "the tun to have a carrier")
        return self.end

    def _link(self) -> str:
        return self.exit.run(["ip", "link", "show", "tun0"]).stdout

    def ways(self) -> dict[str, str]:
        """The uplink, its gateway and a second one, as a fault's commands name them."""
        net, net6 = ("172.28.0", "2001:db8:28") if self.uplink == "eth0" else UPLINK_NETS
        return {
            "uplink": self.uplink,
            "gateway": f"{net}.1",
            "gateway6": f"{net6}::1",
            "second": f"{net}.254",
            "second6": f"{net6}::fe",
        }

    def counted(self, reason: str) -> int:
        """Packets of one reason so far."""
        with self.exit.entered():
            return counters(self.nft)[reason][0]

    def fence(self) -> None:
        """Return when what was sent before has passed the exit: a frame that no rule knows goes the
        same way behind it."""
        self.serial += 1
        word = b"fence %d." % self.serial
        for netns in (self.peer, self.exit):
            with (
                netns.entered(),
                socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as raw,
            ):
                raw.sendto(word, ("eth0", FENCE, 0, 0, b"\xff" * 6))
        self.inside.wait_for(
            lambda p: word in p.raw and not p.outgoing, "the peer's frame at the exit"
        )

    @property
    def inside(self) -> Capture:
        """Captures on eth0, which with one interface is the uplink, too."""
        return self._inside or self.capture

    _inside: Capture | None = None

    def close(self) -> None:
        if self.end is not None:
            self.end.close()
        for capture in {self.capture, self.inside}:
            capture.close()
        self.nft.close()
        for netns in (self.exit, self.peer, self.stranger, self.host):
            netns.close()


def build(run_dir: Path, *, interfaces: int = 1, ipv6: bool = True) -> Site:
    """The whole site, nothing of ours applied; the exit forwards, as any docker host's would."""
    namespace.sweep()
    prefix = namespace.next_prefix()
    exit_, peer, stranger, host = (
        namespace.create(prefix + role) for role in ("exit", "peer", "stranger", "host")
    )
    host.ip("link add br0 type bridge mcast_snooping 0", "link set br0 up")
    for number, netns in enumerate((exit_, peer, stranger)):
        host.ip(
            f"link add p{number} type veth peer name eth0 netns {netns.name}",
            f"link set p{number} master br0 up",
        )
    hosts = [(host, "br0", HOST, HOST6), (exit_, "eth0", EXIT, EXIT6)]
    hosts += [(peer, "eth0", PEER, PEER6), (stranger, "eth0", STRANGER, STRANGER6)]
    for netns, device, address, address6 in hosts:
        netns.sysctl("net/ipv6/conf/all/disable_ipv6", 0 if ipv6 else 1)
        netns.ip(f"link set {device} up", f"address add {address}/24 dev {device}")
        if ipv6:
            netns.ip(f"address add {address6}/64 dev {device} nodad")
    for netns in (peer, stranger):
        _default(netns, EXIT, EXIT6 if ipv6 else None)
    for address in BEYOND:
        if ipv6 or ":" not in address:
            host.ip(f"address add {address} dev lo")
    via, via6 = HOST, HOST6
    if interfaces == 2:
        via, via6 = "172.29.0.1", "2001:db8:29::1"
        host.ip(
            f"link add p9 type veth peer name eth1 netns {exit_.name}",
            "link set p9 up",
            f"address add {via}/24 dev p9",
        )
        exit_.ip("link set eth1 up", "address add 172.29.0.2/24 dev eth1")
        if ipv6:
            host.ip(f"address add {via6}/64 dev p9 nodad")
            exit_.ip("address add 2001:db8:29::2/64 dev eth1 nodad")
    _default(exit_, via, via6 if ipv6 else None)
    exit_.sysctl("net/ipv4/ip_forward", 1)
    if ipv6:
        exit_.sysctl("net/ipv6/conf/all/forwarding", 1)
    with exit_.entered():
        nft = Nft()
    uplink = "eth1" if interfaces == 2 else "eth0"
    net, net6 = UPLINK_NETS if interfaces == 2 else ("172.28.0", "2001:db8:28")
    device = "p9" if interfaces == 2 else "br0"
    host.ip(f"address add {net}.254/24 dev {device}")
    if ipv6:
        host.ip(f"address add {net6}::fe/64 dev {device} nodad")
    site = Site(exit_, peer, stranger, host, uplink, run_dir, nft)
    site.capture = Capture(exit_, uplink)
    site._inside = Capture(exit_, "eth0") if interfaces == 2 else None
    return site


def _default(netns: Namespace, gateway: str, gateway6: str | None) -> None:
    netns.ip(f"route add default via {gateway}")
    if gateway6 is not None:
        netns.ip(f"route add ::/0 via {gateway6}")


class Asker:
    """One socket that asks the same one again and again."""

    def __init__(self, netns: Namespace, to: str, port: int) -> None:
        with netns.entered():
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._to = (to, port)

    def __enter__(self) -> Asker:
        self._socket.connect(self._to)
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def say(self) -> None:
        """Ask and don't wait."""
        with contextlib.suppress(OSError):
            self._socket.send(b"hello")

    def ask(self) -> bool:
        """Ask; whether an answer came and no error, within five seconds."""
        self._socket.settimeout(5.0)
        try:
            self._socket.send(b"hello")
            return bool(self._socket.recv(100))
        except OSError:
            return False


class Echo:
    """A service that sends datagrams back, for the length of a `with`."""

    def __init__(self, netns: Namespace, address: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with netns.entered():
            self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.bind((address, port))
        self._over, self._end = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Echo:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.write(self._end, b"x")
        self._thread.join()
        self._socket.close()
        os.close(self._over)
        os.close(self._end)

    def _run(self) -> None:
        waited: list[socket.socket | int] = [self._socket, self._over]
        while self._over not in (ready := select.select(waited, [], [])[0]):
            assert ready
            words, sender = self._socket.recvfrom(2000)
            with contextlib.suppress(OSError):  # whoever asked may not hear
                self._socket.sendto(words, sender)


# --- what is sent ---------------------------------------------------------------------------------


@contextlib.contextmanager
def as_uid(uid: int) -> Iterator[None]:
    """Sockets made within are this uid's: of this thread only, so setfsuid(2)."""
    _LIBC.setfsuid(uid)
    try:
        yield
    finally:
        _LIBC.setfsuid(0)


def say(
    netns: Namespace,
    to: str,
    port: int,
    words: bytes = b"hello",
    *,
    uid: int = 0,
    tcp: bool = False,
) -> str:
    """Send a datagram, or begin a connection; what the kernel said at once, "" for nothing."""
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
    with netns.entered(), as_uid(uid), socket.socket(family, kind | socket.SOCK_NONBLOCK) as made:
        try:
            if tcp:
                made.connect((to, port))
            else:
                made.sendto(words, (to, port))
        except BlockingIOError:
            return ""
        except OSError as refused:
            return os.strerror(refused.errno or 0)
    return ""


def ask(
    netns: Namespace, to: str, port: int, *, tcp: bool = False, uid: int = 0, seconds: float = 5.0
) -> str:
    """Who answered a datagram (or a SYN), as `address`; the error's name where nobody did."""
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
    with netns.entered(), as_uid(uid), socket.socket(family, kind) as made:
        made.settimeout(seconds)
        try:
            made.connect((to, port))
            if not tcp:
                made.send(b"hello")
                made.recv(100)
            return str(made.getpeername()[0])
        except TimeoutError:
            return "timed out"
        except OSError as refused:
            return os.strerror(refused.errno or 0)


def pings(netns: Namespace, to: str) -> bool:
    """Whether it answers an echo request, within five seconds."""
    return netns.run(["ping", "-c1", "-W5", to], check=False).returncode == 0


FORGED = ("10.66.0.9", "203.0.113.9", EXIT, HOST, SERVER, "10.8.0.1")
FORGED6 = ("2001:db8:66::9", "fd9c:41d7:58a2:8::1", SERVER6)


def everything(site: Site) -> None:
    """All that could leave by the uplink and must not: of clients, of strangers, of forged sources,
    of this host itself by three uids; both families. Ends when it has passed the exit."""
    for netns, own, own6 in ((site.peer, PEER, PEER6), (site.stranger, STRANGER, STRANGER6)):
        inject.routed(netns, *clients_packets(own, SERVICE))
        inject.routed(netns, build_udp(own, SERVER, 4000, 1194, b"to the endpoint"))
        inject.routed(netns, build_udp(own, RESOLVER, 4000, 53, b"to a resolver"))
        inject.routed(netns, build_udp(own, "169.254.169.254", 4000, 80, b"metadata"))
        inject.routed(netns, *clients_packets(own6, SERVICE6))
        inject.routed(netns, build_udp(own6, RESOLVER6, 4000, 53, b"to a resolver"))
    for source in FORGED:
        inject.routed(site.peer, *clients_packets(source, SERVICE))
    for source in FORGED6:
        inject.routed(site.peer, *clients_packets(source, SERVICE6))
    for uid in (0, TUNNEL_UID, SOMEBODY):
        for to in (SERVICE, SERVICE6, OTHER_SERVER, RESOLVER, RESOLVER6):
            say(site.exit, to, 53, uid=uid)
            say(site.exit, to, 443, uid=uid, tcp=True)
        say(site.exit, SERVER, 53, uid=uid)
        say(site.exit, SERVER, 1194, uid=uid, tcp=True)
    for uid in (0, SOMEBODY):
        say(site.exit, SERVER, 1194, uid=uid)
    site.fence()


def clients_packets(source: str, to: str) -> Sequence[bytes]:
    """A datagram, a SYN, an ACK of no known flow and an echo request."""
    echo = (8, 0) if "." in source else (128, 0)
    return (
        build_udp(source, to, 4000, 7, b"a datagram"),
        build_tcp(source, to, 4001, 80, flags=SYN),
        build_tcp(source, to, 4002, 80, flags=ACK, ack=1),
        build_icmp(source, to, echo, b"\0\1\0\1ping"),
    )


def never(_: Packet) -> bool:
    """No packet is this one."""
    return False


ON_LINK = tuple(
    ip_network(net)
    for net in (
        *("172.28.0.0/24", "172.29.0.0/24", "224.0.0.0/4"),
        *("2001:db8:28::/64", "2001:db8:29::/64", "fe80::/10", "ff00::/8"),
    )
)


def beyond(packet: Packet) -> bool:
    """Leaving by the captured uplink, to somewhere that is not on its link."""
    to = packet.dst
    return (
        packet.outgoing
        and to is not None
        and not any(to.version == net.version and to in net for net in ON_LINK)
    )

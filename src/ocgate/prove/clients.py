"""Synthetic sessions: a tun as ocserv makes it, a live process as its worker, admitted by the
subject's own hook, speaking by `traffic`."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network

from ocgate.plan.facts import Address
from ocgate.prove.packets import Identity, Targets
from ocgate.prove.subject import ClientNets, Lease, Subject
from ocgate.prove.traffic import Station, Traffic
from ocgate.prove.tun import QUEUE_PACKETS, open_tun
from ocgate.prove.twin import Twin, address_of
from ocgate.prove.world import World

TUN_MTU = 1400  # what ocserv settles for with DTLS over an Ethernet of 1500
FIRST_HOST, LAST_HOST = 10, 69  # clients' addresses within a subnet, given out in turn
USERS = ("alice", "alice", "bob")


class Refused(Exception):
    """The subject did not let a session in."""


@dataclass
class Client:
    """A live session, or one that has ended (`live`)."""

    lease: Lease
    me: Identity
    station: Station
    worker: subprocess.Popen[bytes] = field(repr=False)
    live: bool = True


class Clients:
    """All synthetic sessions of one subject."""

    def __init__(self, world: World, subject: Subject, traffic: Traffic) -> None:
        self._world = world
        self._subject = subject
        self._traffic = traffic
        self._sessions = 0
        self._device = 0
        self._host = FIRST_HOST - 1
        self.live: list[Client] = []
        world.callback(self.close)

    def close(self) -> None:
        """End all of them without a word to anybody."""
        for client in tuple(self.live):
            self._silence(client)
            _end(client.worker)

    def connect(self, user: str, host: int, *, like: Client | None = None) -> Client:
        """A new session of `user` with the addresses numbered `host`; raises Refused.

        like: the addresses of that session instead.
        """
        nets = self._subject.nets
        addresses = like.me.addresses if like else addresses_of(nets, host)
        self._sessions = self._sessions % 255 + 1
        me = Identity(self._sessions, addresses)
        lease, worker, descriptor = self._open(user, addresses)
        self._let_in(lease, worker, descriptor)
        station = self._traffic.add(me, descriptor, self.targets(me))
        client = Client(lease, me, station, worker)
        self.live.append(client)
        return client

    def connect_all(self) -> None:
        """Those of the usual three (alice twice, bob) who are missing."""
        for user in USERS[len(self.live) :]:
            self.connect(user, self.next_host())

    def next_host(self) -> int:
        """A number of an address that nobody had for long; below the forged ones."""
        self._host = self._host + 1 if self._host < LAST_HOST else FIRST_HOST
        return self._host

    def disconnect(self, client: Client) -> None:
        """The user logs off: the worker ends, the tun goes, the hook runs."""
        self._silence(client)
        _end(client.worker)
        self._subject.end(client.lease)

    def vanish(self, client: Client) -> None:
        """The same without a hook, as where the server itself died."""
        self._silence(client)
        _end(client.worker)

    def roam(self, client: Client) -> None:
        """The same client comes by another way: connect(new) before disconnect(old), as ocserv does
        for a cookie that is used again; its flows go on."""
        lease, worker, descriptor = self._open(client.lease.user, client.me.addresses, of=client)
        _end(client.worker)  # ocserv has told the old worker to end before it runs the hook
        self._let_in(lease, worker, descriptor)
        old, old_lease = self._traffic.move(client.station, descriptor), client.lease
        client.lease, client.worker = lease, worker
        os.close(old)
        self._subject.end(old_lease)

    def targets(self, me: Identity) -> Targets:
        """Whom that client talks to: everybody of the twin, and the clients who are there."""
        twin = self._world.twin
        others = [a for client in self.live for a in client.me.addresses]
        peers = others or list(addresses_of(self._subject.nets, 11))
        return targets(twin, self._subject.nets, [a for a in peers if a not in me.addresses])

    # --- tunnels ------------------------------------------------------------------------------

    def _open(
        self, user: str, addresses: tuple[Address, ...], *, of: Client | None = None
    ) -> tuple[Lease, subprocess.Popen[bytes], int]:
        device = f"{self._subject.nets.device}{self._device}"
        self._device += 1
        descriptor = open_tun(self._world.gw, device)
        try:
            self._address(device, addresses, roaming=of is not None)
            worker = subprocess.Popen(["sleep", "infinity"], stdin=subprocess.DEVNULL)
        except BaseException:
            os.close(descriptor)
            raise
        return Lease(worker.pid, user, device, addresses), worker, descriptor

    def _address(self, device: str, addresses: tuple[Address, ...], *, roaming: bool) -> None:
        """As ocserv 1.1 does it (tun.c): our address with the client's as peer; for IPv6 our
        address and a route to the client's."""
        nets = self._subject.nets
        lines = [f"link set {device} up mtu {TUN_MTU} txqueuelen {QUEUE_PACKETS}"]
        for address in addresses:
            server = next(g for g in nets.gateways if g.version == address.version)
            if address.version == 4:
                lines.append(f"address add {server} peer {address}/32 dev {device}")
            else:
                lines.append(f"address add {server}/128 dev {device} nodad")
                verb = "replace" if roaming else "add"
                lines.append(f"route {verb} {prefix_of(nets, address)} dev {device}")
        self._world.gw.ip(*lines)

    def _let_in(self, lease: Lease, worker: subprocess.Popen[bytes], descriptor: int) -> None:
        why = self._subject.admit(lease)
        if why:
            os.close(descriptor)
            _end(worker)
            raise Refused(f"{lease.user} on {lease.device}: {why}")

    def _silence(self, client: Client) -> None:
        self._traffic.remove(client.station)
        with contextlib.suppress(OSError):
            os.close(client.station.descriptor)
        client.live = False
        if client in self.live:
            self.live.remove(client)


def _end(worker: subprocess.Popen[bytes]) -> None:
    worker.kill()
    worker.wait()


def addresses_of(nets: ClientNets, host: int) -> tuple[Address, ...]:
    """Addresses of the client numbered `host`, one of each family that clients are given."""
    found: list[Address] = []
    for net in _firsts(nets):
        if isinstance(net, IPv4Network):
            found.append(net[host])
        else:
            share = host << (128 - nets.prefix6)
            found.append(net[share if nets.prefix6 == 128 else share + 1])
    return tuple(found)


def prefix_of(nets: ClientNets, address: Address) -> IPv6Network:
    """What of IPv6 the session with this address owns."""
    return IPv6Network((address, nets.prefix6), strict=False)


def _firsts(nets: ClientNets) -> Iterator[IPv4Network | IPv6Network]:
    """The first subnet of each family."""
    for version in (4, 6):
        yield from [net for net in nets.subnets if net.version == version][:1]


def targets(twin: Twin, nets: ClientNets, peers: list[Address]) -> Targets:
    """Everybody of the twin as a client may address or forge them."""
    docker = [address_of(a) for s in twin.segments for a in (*s.isp, *s.neighbour)]
    docker = [a for a in docker if not a.is_link_local]
    upstreams = [up.address for up in twin.upstreams]
    free = addresses_of(nets, 77)  # in the subnet, nobody's
    return Targets(
        services=twin.services,
        forged=(*twin.foreign, *twin.own(), *peers, *free, *docker, *nets.gateways),
        docker=tuple(a for a in docker if a not in upstreams),
        exits=tuple(upstreams),
        peers=(*peers, *free),
        broadcast=tuple(
            net.broadcast_address
            for net in (*nets.subnets, *(n for s in twin.segments for n in s.networks))
            if isinstance(net, IPv4Network)
        ),
    )

"""Nudges: a segment into a client's own tunnel that makes its TCP acknowledge what it has, once.

    a client that waits for the rest of a download says nothing, and nothing says anything to it:
    what its far end has sent is lost, and the far end may have given up, or be told by an exit that
    was made anew that there is no such connection. It would wait for ever (without keep-alive).

TCP answers a segment that it can't accept with an acknowledgement of what it has (RFC 9293,
3.10.7.4). So the client is sent one in its far end's name, without data and with a sequence number
drawn by chance, and what it answers takes the way of any of its packets: to its far end, which
knows nothing of it and resets it, or goes on; or, where the flow was cut, to the rule of
`plan.first_packets` that resets it. No number has to be known for this, and nothing is changed by
it: should chance hit the window, the acknowledgement it carries is one that TCP answers, too.

It goes to the client's device and not through this host's rules: it can't leave by any other, and
connection tracking takes no notice. Whose device that is, the kernel's route for the address says,
as for any packet. Needs NET_RAW. Edge; the wiring imports it.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import struct
import time
from collections.abc import Callable, Iterable
from itertools import groupby

from ocgate.kernel.conntrack import TcpFlow
from ocgate.kernel.route_lookup import look_up
from ocgate.plan.facts import Address

_TCP, _ACK, _HOPS = 6, 0x10, 64
_ETHERTYPE = {4: 0x0800, 6: 0x86DD}

# A tun holds 500 packets (linux/if_tun.h, TUN_READQ_SIZE) until ocserv reads them, 0.1 ms each.
AT_ONCE, PAUSE = 100, 0.02  # segments; seconds


def nudge(
    flows: Iterable[TcpFlow],
    *,
    tunnels: str,
    sleep: Callable[[float], object] = time.sleep,
) -> int:
    """One segment to each flow's client, at a pace; how many went out. A client whose session is
    gone is passed over. tunnels: what names of clients' devices begin with. Raises OSError where no
    such socket can be made."""
    sent = 0
    for client, own in groupby(sorted(flows, key=_client), key=lambda flow: flow.client):
        with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as sock:
            if not _bound(sock, client, tunnels):
                continue
            for number, flow in enumerate(own, 1):
                with contextlib.suppress(OSError):  # its session has ended meanwhile
                    sent += bool(sock.send(segment(flow)))
                if number % AT_ONCE == 0:
                    sleep(PAUSE)
    return sent


def _client(flow: TcpFlow) -> tuple[int, int]:
    return flow.client.version, int(flow.client)


def _bound(sock: socket.socket, client: Address, tunnels: str) -> bool:
    """Bind to the device that leads to the client; False where none does. A bound socket sends by
    that device and by no later one of its name, so what is right afterwards stays so: nobody reads
    what was meant for an address' last owner."""
    try:
        name = _device(client)
        if not name.startswith(tunnels):
            return False
        sock.bind((name, _ETHERTYPE[client.version]))
        return bool(sock.getsockname()[0] == name == _device(client))
    except OSError:
        return False


def _device(client: Address) -> str:
    """Which one leads to it, '' for none."""
    route = look_up([client]).get(client)
    return socket.if_indextoname(route.index) if route else ""


def segment(flow: TcpFlow) -> bytes:
    """The packet, from its IP header on: from the far end to the client."""
    numbers = (secrets.randbits(32), secrets.randbits(32))
    header = struct.pack(">HHIIBBHHH", flow.far_port, flow.port, *numbers, 5 << 4, _ACK, 0, 0, 0)
    length = len(header)
    pseudo = flow.far.packed + flow.client.packed + struct.pack(">HH", _TCP, length)
    header = header[:16] + struct.pack(">H", _checksum(pseudo + header)) + header[18:]
    return _ip(flow.far, flow.client, length) + header


def _ip(source: Address, to: Address, length: int) -> bytes:
    """RFC 791, RFC 8200."""
    if source.version == 6:
        return struct.pack(">IHBB", 6 << 28, length, _TCP, _HOPS) + source.packed + to.packed
    head = struct.pack(">BBHHHBBH", 4 << 4 | 5, 0, 20 + length, 0, 0, _HOPS, _TCP, 0)
    head += source.packed + to.packed
    return head[:10] + struct.pack(">H", _checksum(head)) + head[12:]


def _checksum(data: bytes) -> int:
    """RFC 1071; of an even number of bytes."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF

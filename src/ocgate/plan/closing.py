"""Table `inet ocserv_closing`: how a stop of gateway mode answers what comes late. Pure.

The flows of clients are cut, the guard stands for some seconds more. What an exit still sends for a
flow of before (a download in flight, the SYN/ACK of a probe) would be dropped there, and be sent
again when nothing of ours is left: then the host itself would answer, by the ISP. So it is answered
now, by the exit it came from: it gets that exit's mark, and the kernel's reset or ICMP error has
the mark of what it answers (sysctl `fwmark_reflect`). Where that can't be set, it is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

from ocgate.names import MARK_GATEWAY, NFT_FAMILY, NFT_TABLE_CLOSING, NFT_TABLE_GATEWAY
from ocgate.plan.facts import Family
from ocgate.plan.intent import Intent
from ocgate.plan.sysctls import Sysctl

LATE = "late"  # the counter of what came
RAW = -300  # netfilter_ipv4.h; before anything looks at marks

# One per family; what the kernel answers without a socket has the mark of what it answers.
REFLECT = tuple(
    Sysctl(f"net.ipv{version}.fwmark_reflect", "1", "late packets are answered by their exit")
    for version in (4, 6)
)


@dataclass(frozen=True)
class Closing:
    """What a stop waits for.

    ways: family and device by which an exit's late packets come; what else comes by that device (of
    a family that leaves by this host itself) is nothing to wait for.  ports: first and last of
    translated flows and of probes.  wait: how long.
    """

    ways: tuple[tuple[Family, str], ...]
    ports: tuple[int, int]
    wait: Wait


@dataclass(frozen=True)
class Wait:
    """Seconds: for so long at the least, and then until so long nothing came, but no longer."""

    least: float
    quiet: float
    most: float


def closing(intent: Intent, wait: Wait) -> Closing | None:
    """None where clients were never sent to a gateway, so that nothing can come."""
    strays = intent.steering.strays if intent.steering else ()
    ways = {(stray.address.version, stray.device) for stray in strays}
    return Closing(tuple(sorted(ways)), intent.ports, wait) if ways else None


def text(wanted: Closing) -> str:
    """One transaction: late packets get the exit's mark, and the guard lets this host see them."""
    first, last = wanted.ports
    at = f"{NFT_FAMILY} {NFT_TABLE_CLOSING}"
    lines = [
        f"add table {at}",
        f"add counter {at} {LATE}",
        f"add chain {at} prerouting {{ type filter hook prerouting priority {RAW}; }}",
        f"flush chain {at} prerouting",
    ]
    for family, device in wanted.ways:
        for proto in ("tcp", "udp"):
            lines.append(
                f"add rule {at} prerouting meta nfproto ipv{family} "
                f'iifname "{device}" {proto} dport {first}-{last} '
                f"counter name {LATE} meta mark set 0x{MARK_GATEWAY:08x}"
            )
    return "\n".join((*lines, f"flush chain {NFT_FAMILY} {NFT_TABLE_GATEWAY} input", ""))

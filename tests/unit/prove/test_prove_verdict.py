"""What a captured packet means: by the right exit, a leak, or nothing of ours."""

from __future__ import annotations

import struct
from ipaddress import ip_address, ip_network

import pytest

from ocgate.netlab.packet import RST, build_icmp, build_tcp, build_udp
from ocgate.plan.exits import ExitKind
from ocgate.prove import marker
from ocgate.prove.marker import Kind
from ocgate.prove.subject import Ways
from ocgate.prove.verdict import Judge, Leak, Seen

OWN, CLIENT, SERVICE = "172.28.0.10", "10.10.10.5", "198.51.100.10"
FOREIGN, PUBLIC = "203.0.113.77", "192.0.2.99"
GATEWAY = Ways(ExitKind.GATEWAY, ExitKind.BLOCK)
DIRECT = Ways(ExitKind.DIRECT, ExitKind.BLOCK)
BESIDE = Ways(ExitKind.DIRECT, ExitKind.GATEWAY)  # the other family leaves by a gateway


class _Ring:
    """Stands for a capture of one role."""

    def __init__(self, role: str) -> None:
        self.role = role


def block(packet: bytes, mac: bytes = b"\x02ocg\x01\x04") -> bytes:
    """One frame as the kernel lays it out (tpacket_block_desc, tpacket3_hdr)."""
    frame = mac + bytes(6) + struct.pack("!H", 0x0800) + packet
    header = struct.pack("=IIIIIIHH", 0, 1, 0, len(frame), len(frame), 0, 80, 94)
    return (
        struct.pack("=IIIIIIQ", 0, 0, 1, 1, 48, 0, 0).ljust(48, b"\0")
        + header.ljust(80, b"\0")
        + frame
    )


def seen(packet: bytes, role: str, ways: Ways = GATEWAY, **unmarked: object) -> Seen:
    judge = Judge(
        ways,
        [ip_network("10.10.10.0/24")],
        [ip_address(SERVICE)],
        [ip_address(FOREIGN)],
        {"up4": 4} if ways is GATEWAY else {},
    )
    judge.unguarded = [(0.5, 1.5)] if unmarked.get("stopped") else []
    return judge.judge({_Ring(role): [block(packet)]}, [ip_address(OWN)], 9)  # type: ignore[dict-item]


def udp(src: str, dst: str, kind: Kind | None = Kind.UDP) -> bytes:
    data = marker.build(kind, 1, 9, 1) if kind else b"nobody's"
    return build_udp(src, dst, 4000, 7, data)


ERROR = build_icmp(OWN, SERVICE, (3, 3), bytes(4) + udp(SERVICE, OWN, Kind.DOWNLOAD))
RESET = build_tcp(OWN, SERVICE, 4000, 80, flags=RST)


@pytest.mark.parametrize(
    ("packet", "role", "ways", "leak"),
    [
        (udp(OWN, SERVICE), "up4", GATEWAY, None),
        (udp(CLIENT, SERVICE), "up4", GATEWAY, Kind.UDP),  # untranslated
        (udp(OWN, SERVICE, Kind.SPOOF), "up4", GATEWAY, Kind.SPOOF),
        (udp(OWN, SERVICE), "isp", GATEWAY, Kind.UDP),  # translated, by the wrong exit
        (udp(OWN, "172.28.0.200", Kind.DOCKER), "neighbour", GATEWAY, Kind.DOCKER),
        (udp(OWN, SERVICE), "isp", DIRECT, None),
        (udp(CLIENT, SERVICE), "isp", DIRECT, Kind.UDP),
        (udp(OWN, "172.28.0.200", Kind.DOCKER), "neighbour", DIRECT, None),
        (udp(OWN, "172.28.0.200", Kind.DOCKER), "neighbour", BESIDE, Kind.DOCKER),
        (udp(OWN, "172.28.0.3", Kind.EXIT), "isp", BESIDE, Kind.EXIT),
        (udp(OWN, "172.29.0.20", Kind.DOCKER), "isp", BESIDE, None),  # a network that gw has lost
        (udp(CLIENT, PUBLIC, None), "isp", GATEWAY, Kind.UNMARKED),
        (udp(PUBLIC, CLIENT, None), "isp", GATEWAY, Kind.UNMARKED),  # a download, going on
        (udp(FOREIGN, PUBLIC, None), "isp", GATEWAY, Kind.SPOOF),
        (RESET, "isp", GATEWAY, Kind.HOST),
        (ERROR, "isp", GATEWAY, Kind.HOST),
        (RESET, "up4", GATEWAY, None),
        (RESET, "isp", DIRECT, None),
        (udp(OWN, PUBLIC, None), "isp", GATEWAY, None),  # the host's own business
    ],
)
def test_each_packet_by_who_sees_it(
    packet: bytes, role: str, ways: Ways, leak: Kind | None
) -> None:
    found = seen(packet, role, ways)
    expected = {} if leak is None else {Leak(role, leak, 4, 9): 1}
    assert found.leaked() == expected
    assert found.sights == 1


def test_the_witness_judges_by_the_ethernet_destination() -> None:
    """Leaving gw for the isp's port, also where nobody there received it."""
    packet = udp(OWN, SERVICE)
    judge = Judge(GATEWAY, [ip_network("10.10.10.0/24")], [], [], {"up4": 4})
    for role, mac, leaks in (("isp", b"\x02oc\0\x01\x02", 1), ("up4", b"\x02oc\0\x01\x04", 0)):
        found = judge.judge({_Ring("gw"): [block(packet, mac)]}, [ip_address(OWN)], 9)  # type: ignore[dict-item]
        assert sum(found.leaked().values()) == leaks, role
        assert not found.right  # counted by who received it


def test_what_the_host_says_while_nothing_runs_is_told_apart() -> None:
    assert seen(RESET, "isp", stopped=True).unguarded == 1
    assert not seen(RESET, "isp", stopped=True).leaked()
    assert seen(udp(CLIENT, SERVICE), "isp", stopped=True).leaked()


@pytest.mark.parametrize("ways", [GATEWAY, DIRECT])
@pytest.mark.parametrize(
    ("packet", "role", "segment", "leaks"),
    [
        (udp(OWN, "10.77.0.200", Kind.DOCKER), "neighbour", 2, False),
        (udp(CLIENT, "10.77.0.200", Kind.DOCKER), "neighbour", 2, True),  # untranslated
        (udp(OWN, "10.77.0.200", Kind.DOCKER), "neighbour", 1, True),
        (udp(OWN, "10.77.0.200", Kind.DOCKER), "isp", 1, True),
        (udp(OWN, "10.77.0.200", Kind.DOCKER), "up4", 1, True),
        (udp(OWN, "10.77.0.200", Kind.DOCKER), "gw", 2, False),
        (udp(OWN, "10.77.0.200", Kind.DOCKER), "gw", 1, True),
    ],
)
def test_a_permitted_network_is_reached_by_its_own_segment(
    packet: bytes, role: str, segment: int, leaks: bool, ways: Ways
) -> None:
    """Whatever the exit: by any other it is a leak, also where that is this host's own way."""
    judge = Judge(
        ways,
        [ip_network("10.10.10.0/24")],
        [ip_address(SERVICE)],
        [ip_address(FOREIGN)],
        {"up4": 4} if ways is GATEWAY else {},
        [(ip_network("10.77.0.0/24"), 2)],
    )
    mac = bytes([2, 0x6F, 0x63, 0, segment, 3])
    found = judge.judge({_Ring(role): [block(packet, mac)]}, [ip_address(OWN)], 9)  # type: ignore[dict-item]
    assert bool(found.leaked()) == leaks

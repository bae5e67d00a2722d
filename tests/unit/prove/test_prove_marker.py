"""Markers: found anywhere, and harmless to the checksums of the packets that carry them."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from ocgate.netlab.packet import SYN, build_tcp, build_udp, checksum
from ocgate.prove import marker
from ocgate.prove.marker import Kind
from ocgate.prove.packets import Identity, Targets, cycle, template

CLIENT, SERVICE = ip_address("10.10.10.5"), ip_address("198.51.100.10")
FAULTS, NUMBERS = st.integers(0, 0xFFFF), st.integers(0, 0xFFFF_FFFF)


def transport_sum(packet: bytes) -> int:
    """0 where the checksum of an IPv4 packet's UDP or TCP is right."""
    pseudo = packet[12:20] + len(packet[20:]).to_bytes(4, "big") + packet[9].to_bytes(4, "big")
    return checksum(pseudo + packet[20:])


@given(FAULTS, NUMBERS)
def test_fault_and_sequence_are_told_and_leave_the_checksum_right(fault: int, number: int) -> None:
    packet = build_udp(CLIENT, SERVICE, 4000, 7, marker.build(Kind.UDP, 3))
    made = template(Kind.UDP, packet)
    for at in made.marks:
        marker.pack_changing(made.packet, at, fault, number, marker.filler(fault, number))
    found = marker.find(bytes(made.packet))
    assert found == marker.Marker(Kind.UDP, 3, fault, number)
    assert transport_sum(bytes(made.packet)) == 0


@given(FAULTS, NUMBERS, st.integers(1, 0xFFFF))
def test_a_new_source_port_is_made_up_for(fault: int, number: int, port: int) -> None:
    packet = build_tcp(CLIENT, SERVICE, 0, 443, flags=SYN, data=marker.build(Kind.TCP_NEW, 1))
    made = template(Kind.TCP_NEW, packet, port=20)
    made.packet[20:22] = port.to_bytes(2, "big")
    for at in made.marks:
        marker.pack_changing(made.packet, at, fault, number, marker.filler(fault, number, port))
    assert transport_sum(bytes(made.packet)) == 0


def test_what_carries_no_marker_or_half_of_one_is_none() -> None:
    assert marker.find(b"") is None
    assert marker.find(marker.build(1, 1)[:-1]) is None


def test_every_packet_of_a_client_carries_a_marker_of_its_kind_and_session() -> None:
    """Both families, also forged sources of a family that the session has no address of."""
    services = (SERVICE, ip_address("2001:db8:51::10"))
    targets = Targets(services, forged=(ip_address("203.0.113.77"), ip_address("2001:db8:113::77")))
    made = cycle(Identity(7, (CLIENT,)), targets)
    for one in made:
        found = marker.find(bytes(one.packet))
        assert found is not None
        assert (found.kind, found.session) == (one.kind, 7)
    assert {one.kind for one in made if one.family == 6} == {Kind.SPOOF}

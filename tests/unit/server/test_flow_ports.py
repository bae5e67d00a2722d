"""Clients' flows get ports that no socket of this host listens on or sends from, in both modes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocgate.plan.facts import Facts
from ocgate.server.desired.flow_ports import FEWEST_PORTS, HIGHEST_PORT, FlowPorts, choose
from ocgate.server.desired.prepare import Ipv6Egress, prepare, problems
from support.sources import CONF, IPV6_ON, facts, interface, sources

FACTS = replace(
    facts(
        interface(2, "eth0", "172.28.0.10/24"),
        default4="eth0",
        connected={"172.28.0.0/24": "eth0"},
    ),
    own_namespace=True,
)
MODES = {
    "standalone": {},
    "direct": {"VPN_GATEWAY": "direct"},
    "gateway": {"VPN_GATEWAY": "172.28.0.3"},
}


def machine(kernel: str, *, exclusive: bool = True, reserved: str = "") -> Facts:
    values = {
        "net.ipv4.ip_local_port_range": kernel,
        "net.ipv4.ip_local_reserved_ports": reserved,
    }
    return replace(FACTS, sysctls={**IPV6_ON, **values}, own_namespace=exclusive)


def conf(tcp: int = 443, udp: int = 443) -> str:
    return CONF.replace("tcp-port = 443", f"tcp-port = {tcp}").replace(
        "udp-port = 443", f"udp-port = {udp}"
    )


@pytest.mark.parametrize(
    ("kernel", "tcp", "udp", "exclusive", "ports"),
    [
        ("32768\t60999", 443, 443, True, (10240, 32767)),
        ("32768 60999", 443, 443, False, (61000, 65534)),
        ("32768 60999", 30000, 443, True, (10240, 29999)),
        ("32768 60999", 443, 10443, True, (10444, 32767)),
        ("32768 60999", 62000, 443, False, (62001, 65534)),
        ("32768 60999", 62000, 65000, False, (62001, 64999)),
        ("1024 60999", 443, 443, True, (61000, 65534)),
        ("1024 9999", 443, 443, True, (10240, 65534)),
        ("1024 9999", 443, 443, False, (61000, 65534)),
        ("15000 50000", 443, 443, False, (61000, 65534)),
        ("65000 65535", 443, 443, False, (61000, 64999)),
        ("", 443, 443, True, (10240, 32767)),
    ],
)
def test_flows_get_ports_that_no_socket_of_this_host_has(
    kernel: str, tcp: int, udp: int, exclusive: bool, ports: tuple[int, int]
) -> None:
    found = choose(sources(conf(tcp, udp)), machine(kernel, exclusive=exclusive))
    assert found == FlowPorts(ports)


@pytest.mark.parametrize(
    ("exclusive", "held", "ports", "reserved"),
    [
        (True, "", (10240, 32767), "10240-32767"),
        (False, "", (61000, 65534), "61000-65534"),
        (False, "8080,60000-60999", (61000, 65534), "8080,60000-65534"),
        (True, "10240-32767", (10240, 32767), "10240-32767"),
        (True, "9000-9001,9003", (10240, 32767), "9000-9001,9003,10240-32767"),
    ],
)
def test_where_the_kernel_s_own_ports_leave_no_room_they_are_made_to(
    exclusive: bool, held: str, ports: tuple[int, int], reserved: str
) -> None:
    """A server with `ip_local_port_range = 1024 65535`, as many are tuned: what others have
    reserved stays so, and the second look wishes what the first has written."""
    found = machine("1024 65535", exclusive=exclusive, reserved=held)
    assert choose(sources(), found) == FlowPorts(ports, reserved)


@pytest.mark.parametrize("kernel", ["60000 65535", "61000 65535", "62000 65535"])
def test_a_reservation_leaves_the_kernel_ports_of_its_own(kernel: str) -> None:
    """With all of them reserved this host could open no connection any more (EADDRNOTAVAIL)."""
    found = choose(sources(), machine(kernel, exclusive=False))
    first, last = found.ports
    assert found.reserved == f"{first}-{last}"
    assert first - int(kernel.split()[0]) >= FEWEST_PORTS - 24
    assert last - first + 1 >= FEWEST_PORTS
    again = choose(sources(), machine(kernel, exclusive=False, reserved=found.reserved))
    assert again == found


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_s_plan_has_the_ports_and_the_reservation(mode: str) -> None:
    made = prepare(sources(**MODES[mode]), machine("1024 65535"), Ipv6Egress(None))
    assert made.intent.ports == (10240, 32767)
    asked = {s.key: (s.value, s.required) for s in made.plan.sysctls}
    assert asked["net.ipv4.ip_local_reserved_ports"] == ("10240-32767", True)
    assert not problems(made)
    plain = prepare(sources(**MODES[mode]), machine("32768 60999"), Ipv6Egress(None))
    assert "net.ipv4.ip_local_reserved_ports" not in {s.key for s in plain.plan.sysctls}


@given(
    st.tuples(st.integers(1, 65535), st.integers(1, 65535)).map(sorted),
    st.integers(0, 65535), st.integers(0, 65535), st.booleans(),
)  # fmt: skip
def test_there_are_ports_on_every_machine(
    kernel: list[int], tcp: int, udp: int, exclusive: bool
) -> None:
    """Whatever the kernel's own and the listener's: enough, never a listener's, never the kernel's
    own unless reserved. So no plan ever says `masquerade to :0-0`."""
    found = choose(
        sources(conf(tcp or 443, udp)), machine(f"{kernel[0]} {kernel[1]}", exclusive=exclusive)
    )
    first, last = found.ports
    assert 1024 <= first <= last <= HIGHEST_PORT
    assert last - first + 1 >= FEWEST_PORTS
    assert not first <= (tcp or 443) <= last
    assert not first <= udp <= last
    if first <= kernel[1] and kernel[0] <= last:
        assert found.reserved == f"{first}-{last}"

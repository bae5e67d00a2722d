"""The gate: of a tunnel server's report nothing is taken that belongs to somebody else here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocgate.outside import NOBODYS
from ocgate.plan.facts import Address, Network
from ocgate.tunnel import openconnect, openvpn
from ocgate.tunnel.gate import (
    LEAST_MTU6,
    MOST_REFUSALS,
    MOST_RESOLVERS,
    Reported,
    fitting,
    quoted,
    read,
)
from ocgate.tunnel.model import Carried, Endpoint, ExitIntent
from ocgate.tunnel.nordvpn import NordVpn

INTENT = ExitIntent(
    device="tun0",
    uplinks=("eth0",),
    forward_from=(ip_network("172.28.0.0/24"), ip_network("10.20.0.0/16")),
    local=(ip_network("172.28.0.0/24"), ip_network("fd00:28::/64")),
    networks=(ip_network("192.168.1.0/24"),),
    own=(ip_address("203.0.113.9"),),
    endpoint=Endpoint(ip_address("198.51.100.200"), 1194, ("udp",)),
)
REPORTED = Reported(
    mtu="1500",
    address4="10.8.0.2",
    address6="fd00:8::1000",
    resolvers=("10.8.0.1", "fd00:8::1"),
)


def test_a_usual_report_is_taken_whole() -> None:
    """Addresses without their network: no server can lay a route over docker's networks."""
    taken = read(REPORTED, INTENT)
    assert taken.refused == ()
    assert taken.carried == Carried(
        (ip_interface("10.8.0.2/32"), ip_interface("fd00:8::1000/128")),
        1500,
        (ip_address("10.8.0.1"), ip_address("fd00:8::1")),
    )


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("172.28.0.20", "172.28.0.0/24, a network that this host is attached to"),
        ("172.28.0.3", "attached"),
        ("10.20.7.7", "FORWARD_FROM"),
        ("192.168.1.5", "NETWORK"),
        ("198.51.100.200", "the tunnel's server"),
        ("203.0.113.9", "another device"),
        ("127.0.0.53", "loopback"),
        ("224.0.0.1", "multicast"),
        ("169.254.169.254", "link alone"),
        ("255.255.255.255", "reserved"),
        ("0.0.0.0", "no host"),
        ("fd00:8::2", "no IPv4 address"),
        ("10.8.0.2/8", "no address"),
        ("10.8.0.2;reboot", "no address"),
    ],
)
def test_an_address_of_somebody_else_is_refused(address: str, why: str) -> None:
    """As ours and as a resolver; what else was reported is taken, and clients' loss is said."""
    taken = read(replace(REPORTED, address4=address), INTENT)
    assert taken.carried is not None
    assert [a.version for a in taken.carried.addresses] == [6]
    (refusal,) = taken.refused
    assert refusal.loses
    assert why in str(refusal)
    if "IPv4" not in why:
        asked = read(replace(REPORTED, resolvers=(address, "10.8.0.1")), INTENT)
        assert asked.carried is not None
        assert asked.carried.resolvers == (ip_address("10.8.0.1"),)
        assert [each.loses for each in asked.refused] == [False]


@pytest.mark.parametrize("text", ["fd00:28::5", "fe80::1", "fe80::1%};drop", "::1", "ff02::1",
                                  "::ffff:172.28.0.20", "::", "10.8.0.2"])  # fmt: skip
def test_the_same_of_ipv6(text: str) -> None:
    taken = read(replace(REPORTED, address6=text), INTENT)
    assert taken.carried is not None
    assert taken.carried.addresses == (ip_interface("10.8.0.2/32"),)
    assert [each.loses for each in taken.refused] == [True]


@pytest.mark.parametrize("mtu", ["", "0", "575", "65536", "-1500", "1500 ", "１５００", "9" * 400])
def test_without_a_usable_mtu_nothing_is_taken(mtu: str) -> None:
    taken = read(replace(REPORTED, mtu=mtu), INTENT)
    assert taken.carried is None
    assert "MTU" in taken.said
    assert len(taken.said) < 200


def test_ipv6_needs_an_mtu_that_carries_it() -> None:
    """Which is a tunnel's nature, and nothing to be put right."""
    taken = read(replace(REPORTED, mtu=str(LEAST_MTU6 - 1)), INTENT)
    assert taken.carried is not None
    assert taken.carried.addresses == (ip_interface("10.8.0.2/32"),)
    assert [each.loses for each in taken.refused] == [False]


PUSHED = {"tun_mtu": "1500", "ifconfig_local": "172.28.0.66", "ifconfig_ipv6_local": "fd00:28::66",
          "foreign_option_1": "dhcp-option DNS 172.28.0.67"}  # fmt: skip
GIVEN = {"INTERNAL_IP4_MTU": "1500", "INTERNAL_IP4_ADDRESS": "172.28.0.66",
         "INTERNAL_IP6_ADDRESS": "fd00:28::66", "INTERNAL_IP4_DNS": "172.28.0.67"}  # fmt: skip


@pytest.mark.parametrize(
    ("reported", "environment"),
    [(openvpn.reported, PUSHED), (NordVpn().reported, PUSHED), (openconnect.reported, GIVEN)],
    ids=["openvpn", "nordvpn", "openconnect"],
)
def test_no_kind_takes_an_address_of_an_attached_network(
    reported: Callable[[Mapping[str, str]], Reported], environment: Mapping[str, str]
) -> None:
    """WireGuard has no report: its file's are judged in the same place (`test_wireguard`)."""
    taken = read(reported(environment), INTENT)
    assert taken.carried is None
    refused = {refusal.what for refusal in taken.refused}
    assert refused >= {"address 172.28.0.66", "address fd00:28::66", "resolver 172.28.0.67"}


def test_no_address_is_nothing() -> None:
    taken = read(Reported(mtu="1500"), INTENT)
    assert (taken.carried, taken.said.endswith("no address: the server gave none")) == (None, True)


def test_our_own_end_is_no_resolver() -> None:
    taken = read(replace(REPORTED, resolvers=("10.8.0.2",)), INTENT)
    assert taken.carried is not None
    assert taken.carried.resolvers == ()


def test_routes_and_names_are_never_used_and_said_once() -> None:
    routes = tuple(f"10.{n}.0.0" for n in range(200))
    taken = read(
        replace(REPORTED, routes=routes, names=("dhcp-option DOMAIN evil\x1b[2J",)), INTENT
    )
    assert [each.what for each in taken.refused] == [
        "routes (10.0.0.0 and 199 more)",
        "options (dhcp-option DOMAIN evil\\x1b[2J)",
    ]
    assert taken.carried is not None
    assert taken.carried.resolvers == read(REPORTED, INTENT).carried.resolvers  # type: ignore[union-attr]


def test_a_flood_of_reports_is_bounded() -> None:
    many = tuple(f"10.9.{n // 250}.{n % 250 + 1}" for n in range(5000))
    taken = read(replace(REPORTED, resolvers=("bad", *many)), INTENT)
    assert taken.carried is not None
    assert len(taken.carried.resolvers) == MOST_RESOLVERS
    assert len(taken.refused) == MOST_REFUSALS + 1
    assert str(taken.refused[-1]) == "4978 more: for reasons like these"


def test_a_network_that_comes_later_takes_the_address_back() -> None:
    """A container was attached to a network that holds what the tunnel carries."""
    carried = read(REPORTED, INTENT).carried
    assert carried is not None
    assert fitting(carried, INTENT).carried == carried
    later = replace(INTENT, local=(*INTENT.local, ip_network("10.8.0.0/24")))
    narrowed = fitting(carried, later)
    assert narrowed.carried is not None
    assert narrowed.carried.addresses == (ip_interface("fd00:8::1000/128"),)
    assert fitting(narrowed.carried, later).carried == narrowed.carried
    both = replace(later, local=(*later.local, ip_network("fd00:8::/32")))
    assert fitting(carried, both).carried is None
    assert "10.8.0.0/24" in fitting(carried, both).said


# --- laws ----------------------------------------------------------------------------------------

ADDRESSES = st.ip_addresses().map(str) | st.sampled_from(
    ["172.28.0.20", "10.20.1.1", "192.168.1.1", "198.51.100.200", "203.0.113.9", "fd00:28::9"]
)
TEXTS = ADDRESSES | st.text(max_size=80) | ADDRESSES.map(lambda text: f"{text}%eth0")
REPORTS = st.builds(
    Reported,
    mtu=st.integers(-1, 70_000).map(str) | st.text(max_size=8),
    address4=TEXTS,
    address6=TEXTS,
    resolvers=st.lists(TEXTS, max_size=8).map(tuple),
    routes=st.lists(TEXTS, max_size=4).map(tuple),
    names=st.lists(TEXTS, max_size=4).map(tuple),
)
NETWORKS = st.lists(
    ADDRESSES.flatmap(
        lambda text: st.integers(8, ip_address(text).max_prefixlen).map(
            lambda length: ip_network(f"{text}/{length}", strict=False)
        )
    ),
    max_size=4,
).map(tuple)


def taken_of(carried: Carried | None) -> list[Address]:
    return [] if carried is None else [*(a.ip for a in carried.addresses), *carried.resolvers]


@given(REPORTS, NETWORKS, NETWORKS, NETWORKS)
def test_nothing_taken_is_anybody_elses(
    reported: Reported,
    local: tuple[Network, ...],
    forward_from: tuple[Network, ...],
    networks: tuple[Network, ...],
) -> None:
    """Whatever was reported, on whatever host; and what was taken stays so, judged again."""
    intent = replace(INTENT, local=local, forward_from=forward_from, networks=networks)
    taken = read(reported, intent)
    assert intent.endpoint is not None
    nobodys = [net for nets in NOBODYS.values() for net, _ in nets]
    closed = [*local, *forward_from, *networks, *nobodys]
    for address in taken_of(taken.carried):
        assert not any(address in net for net in closed if net.version == address.version)
        assert address not in (intent.endpoint.address, *intent.own)
    assert taken.carried is not None or taken.refused
    for refusal in taken.refused:
        assert str(refusal).isprintable()
        assert len(str(refusal)) < 300
    if taken.carried is not None:
        assert fitting(taken.carried, intent).carried == taken.carried


@given(st.text())
def test_a_quoted_text_is_one_short_printable_line(text: str) -> None:
    assert quoted(text).isprintable()
    assert quoted(text).isascii()
    assert len(quoted(text)) <= 63

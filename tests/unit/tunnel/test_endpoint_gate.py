"""Where a tunnel's client may be sent by a name: no forged answer leads to somebody near."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocgate import outside
from ocgate.plan.facts import Address, Network
from ocgate.tunnel.endpoint_gate import MOST_ADDRESSES, NotThere, judged, refusal, required
from ocgate.tunnel.model import ExitIntent

INTENT = ExitIntent(
    device="tun0",
    uplinks=("eth0",),
    forward_from=(ip_network("172.28.0.0/24"), ip_network("198.51.100.0/25")),
    local=(ip_network("172.28.0.0/24"), ip_network("2001:db8:28::/64")),
    networks=(ip_network("203.0.113.0/24"), ip_network("192.168.1.0/24")),
    own=(ip_address("172.28.0.2"), ip_address("198.51.100.250"), ip_address("2001:db8:28::2")),
)
NAME = "vpn.example.org"


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("224.0.0.1", "it is a multicast address"),
        ("169.254.169.254", "it is an address of the link alone"),
        ("127.0.0.1", "it is a loopback address"),
        ("0.0.0.0", "it means this network, and no host"),
        ("255.255.255.255", "it is reserved, and no host's"),
        ("::1", "it is a loopback address"),
        ("fe80::1", "it is an address of the link alone"),
        ("ff02::1", "it is a multicast address"),
        ("::ffff:198.51.100.200", "it is an IPv4 address in IPv6's writing"),
        ("64:ff9b::a9fe:a9fe", "it stands for 169.254.169.254, and it is an address of the link"),
        ("172.28.0.66", "it lies in 172.28.0.0/24, a network that this host is attached to"),
        ("172.28.0.1", "it lies in 172.28.0.0/24, a network that this host is attached to"),
        ("2001:db8:28::66", "it lies in 2001:db8:28::/64, a network that this host is attached to"),
        ("172.28.0.2", "it is this host's own"),
        ("198.51.100.250", "it is this host's own"),
        ("203.0.113.7", "it lies in 203.0.113.0/24 of NETWORK"),
        ("198.51.100.7", "it lies in 198.51.100.0/25 of FORWARD_FROM"),
        ("10.0.0.7", "it is a private address"),
        ("fd00::7", "it is a private address"),
        ("100.100.100.100", "it is a private address"),
    ],
)
def test_who_is_no_server_is_refused_with_the_reason(address: str, why: str) -> None:
    found = refusal(NAME, ip_address(address), INTENT)
    assert found.startswith(why)
    assert refusal("", ip_address(address), INTENT) == found  # of a provider's list


@pytest.mark.parametrize("address", ["198.51.100.200", "8.8.8.8", "2606:4700::1", "2001:db8::1"])
def test_a_server_of_the_internet_is_taken(address: str) -> None:
    assert refusal(NAME, ip_address(address), INTENT) == ""


def test_a_name_of_dockers_may_lead_to_a_neighbour_and_nowhere_else() -> None:
    """A service of the same compose file; docker answers for it itself."""
    assert refusal("node-b", ip_address("172.28.0.66"), INTENT) == ""
    assert refusal("node-b", ip_address("2001:db8:28::66"), INTENT) == ""
    for address in ("172.28.0.2", "172.28.0.0", "172.28.0.255", "10.0.0.7", "192.168.1.5"):
        assert refusal("node-b", ip_address(address), INTENT)
    for address in ("127.0.0.1", "169.254.169.254", "224.0.0.1"):
        attached = replace(INTENT, local=(ip_network("0.0.0.0/1"), ip_network("128.0.0.0/1")))
        assert refusal("node-b", ip_address(address), attached)


def test_nothing_left_is_an_error_that_says_what_to_do() -> None:
    answer = [ip_address("224.0.0.1"), ip_address("10.0.0.7")]
    with pytest.raises(NotThere) as caught:
        required(NAME, answer, INTENT)
    assert caught.value.message.startswith(
        "vpn.example.org resolves to 224.0.0.1 (it is a multicast address), 10.0.0.7 (it is"
    )
    assert "--add-host NAME:ADDRESS" in caught.value.message


def test_a_thousand_addresses_are_not_all_tried() -> None:
    answer = [ip_address("8.8.0.0") + n for n in range(1000)]
    assert len(judged(NAME, answer, INTENT).addresses) == MOST_ADDRESSES
    forged = [ip_address("10.0.0.0") + n for n in range(1000)]
    with pytest.raises(NotThere, match="and 997 more"):
        required(NAME, forged, INTENT)


def networks() -> st.SearchStrategy[Network]:
    lengths = {4: st.integers(4, 32), 6: st.integers(16, 128)}
    return st.sampled_from([4, 6]).flatmap(
        lambda v: st.tuples(st.ip_addresses(v=v), lengths[v]).map(
            lambda pair: ip_network(pair, strict=False)
        )
    )


@given(
    st.lists(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)), max_size=30),
    st.lists(networks(), max_size=5),
    st.lists(networks(), max_size=5),
    st.lists(networks(), max_size=5),
)
def test_nothing_taken_is_near(
    answer: list[Address], local: list[Network], own: list[Network], inside: list[Network]
) -> None:
    """Whatever is answered on whatever host."""
    intent = replace(INTENT, local=tuple(local), networks=tuple(own), forward_from=tuple(inside))
    near = [*local, *own, *inside]
    for address in judged(NAME, answer, intent).addresses:
        assert not any(address.version == n.version and address in n for n in near)
        assert outside.not_public(address) == ""

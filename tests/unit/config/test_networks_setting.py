"""OCGATE_NETWORKS: what an entry is, and every fault of all entries at once."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocgate.config import Settings, load
from ocgate.config.permitted import NETWORKS, Reached, entries
from ocgate.config.values import Rejected, written
from ocgate.errors import ConfigurationError

LAN = Reached(ip_network("10.77.0.0/24"), "lan0")
FAR = Reached(ip_network("10.78.0.0/16"), "lan0", ip_address("10.77.0.1"))
SIX = Reached(ip_network("fd00:77::/64"), "eth1.20", ip_address("fe80::1"))


def refused(environ: dict[str, str], directory: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load({"OCGATE_CONFIG_DIR": str(directory), **environ})
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10.77.0.0/24 dev lan0", (LAN,)),
        ("  10.77.0.0/255.255.255.0   dev lan0 ,", (LAN,)),
        ("10.78.0.0/16 dev lan0 via 10.77.0.1", (FAR,)),
        (
            "10.77.0.0/24 dev lan0\n10.78.0.0/16 via 10.77.0.1 dev lan0; "
            "fd00:77::/64 via fe80::1 dev eth1.20",
            (LAN, FAR, SIX),
        ),
        ("off", ()),
    ],
)
def test_what_is_accepted(text: str, value: tuple[Reached, ...]) -> None:
    assert entries(text) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("10.77.0.1/24 dev lan0", "Write 10.77.0.0/24"),
        ("10.77.0.0 dev lan0", "write 10.77.0.0/24, say"),
        ("10.77.0.0/24", "write 10.77.0.0/24 dev lan0"),
        ("10.77.0.0", "write 10.77.0.0/24 dev lan0"),
        ("fe80::1%eth0/64 dev lan0", "an IPv4 or IPv6 network"),
        ("fd00:78::/64 via fe80::1%lan0 dev lan0", "without length and zone"),
        ("10.77.0.0/24 lan0", "like 10.77.0.0/24 dev lan0"),
        ("10.77.0.0/24 dev lan0 dev lan1", "like 10.77.0.0/24 dev lan0"),
        ("10.77.0.0/24 dev lan0 metric 5", "like 10.77.0.0/24 dev lan0"),
        ("10.77.0.0/24 dev lo", "leads outside"),
        ('10.77.0.0/24 dev "lan0"', "an interface name"),
        ("10.77.0.0/24 dev a-name-that-is-too-long", "at most 15"),
        ("10.78.0.0/16 via fd00::1 dev lan0", "router's IPv4 address"),
        ("10.78.0.0/16 via 10.77.0.1/24 dev lan0", "without length"),
        ("10.78.0.0/16 via 0.0.0.0 dev lan0", "router's own address"),
        ("0.0.0.0/0 dev lan0", "VPN_GATEWAY"),
        ("::/0 dev lan0", "VPN_GATEWAY"),
        ("64.0.0.0/2 dev lan0", "/8 or longer"),
        ("127.0.0.0/8 dev lan0", "loopback"),
        ("169.254.0.0/16 dev lan0", "link-local"),
        ("224.0.1.0/24 dev lan0", "multicast"),
        ("fe80::/64 dev lan0", "link-local"),
        ("ff05::/16 dev lan0", "multicast"),
        ("10.77.0.0/24 dev lan0, 10.77.0.0/24 dev lan0", "no other entry holds"),
        ("10.77.0.0/24 dev lan0, 10.0.0.0/8 dev lan1", "no other entry holds"),
        ("", "off"),
    ],
)
def test_what_is_refused(text: str, words: str) -> None:
    with pytest.raises(Rejected) as caught:
        entries(text)
    said = [f"{fault.got} {fault.expected} {fault.remedy}" for fault in caught.value.faults]
    assert any(words.lower() in one.lower() for one in said), said


def test_all_faults_at_once(tmp_path: Path) -> None:
    said = refused(
        {"OCGATE_NETWORKS": "10.77.0.1/24 dev l?n0, 10.78.0.0/16, 0.0.0.0/0 dev lan0"}, tmp_path
    )
    assert said.count("OCGATE_NETWORKS") >= 4


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"VPN_SUBNET": "10.77.0.0/25"}, "outside of the clients' 10.77.0.0/25 (VPN_SUBNET)"),
        ({"VPN_IF": "lan+"}, "an interface outside of VPN_IF=lan+"),
        ({"VPN_GATEWAY": "10.77.0.3"}, "without the upstream's 10.77.0.3 (VPN_GATEWAY)"),
        ({"IPV6_SUBNET": "fd00:77::/64"}, "outside of the clients' fd00:77::/64 (IPV6_SUBNET)"),
        ({"IPV6_FORWARD": "0"}, "no IPv6 network with IPV6_FORWARD=0"),
    ],
)
def test_what_does_not_go_together(environ: dict[str, str], words: str, tmp_path: Path) -> None:
    given = {"OCGATE_NETWORKS": "10.77.0.0/24 dev lan0, fd00:77::/64 dev eth1"}
    assert words in refused(given | environ, tmp_path)


NETS = st.builds(
    lambda number, bits: ip_network((number >> (32 - bits) << (32 - bits), bits)),
    st.integers(int(ip_address("10.0.0.0")), int(ip_address("10.255.255.255"))),
    st.integers(24, 32),
)
VIAS = st.one_of(st.none(), st.just(ip_address("192.168.1.1")))
REACHED = st.builds(Reached, NETS, st.sampled_from(["lan0", "eth1.7"]), VIAS)


@given(given_=st.lists(REACHED, max_size=4, unique_by=lambda one: one.network))
def test_what_is_written_reads_as_it_was(given_: list[Reached]) -> None:
    """Also by way of the snapshot, which is JSON."""
    try:
        value = entries(written(tuple(given_)))
    except Rejected:  # two that overlap
        return
    assert value == tuple(given_)
    dumped = Settings(networks=value).model_dump(mode="json", exclude={"password"})
    assert Settings.model_validate(dumped).networks == value
    assert NETWORKS.parse(written(value)) == value

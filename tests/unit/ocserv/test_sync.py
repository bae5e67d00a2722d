"""VPN_SUBNET, IPV6_SUBNET and VPN_IF against ocserv.conf: taken from it, equal, or refused."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

import pytest

from ocgate.errors import Problem
from ocgate.ocserv.ini_parser import parse
from ocgate.ocserv.reading import Supplement, read_view
from ocgate.ocserv.releases import DEBIAN_12
from ocgate.ocserv.sync import Synced, sync
from ocgate.ocserv.view import ScopeKind

SIX = IPv6Network("fda9:4efe:7e3b:3ea::/64")
CONF = "device = vpns\nipv4-network = 10.10.10.0/24\n"


@dataclass(frozen=True)
class Wishes:
    vpn_subnet: tuple[IPv4Network, ...] | None = None
    ipv6_subnet: IPv6Network = SIX
    vpn_if: str = "vpns+"


@dataclass(frozen=True)
class At:
    source: str = "environment"
    line: int = 0


SET = {name: At() for name in ("VPN_SUBNET", "IPV6_SUBNET", "VPN_IF")}


def synced(conf: str, wishes: Wishes, *users: str) -> Synced:
    origins = SET if wishes != Wishes() else {}
    extra = [
        Supplement(ScopeKind.USER, parse(user.encode(), f"user{rank}"))
        for rank, user in enumerate(users)
    ]
    return sync(read_view(parse(conf.encode(), "conf"), extra, release=DEBIAN_12), wishes, origins)


def subnets(*texts: str) -> tuple[IPv4Network, ...]:
    return tuple(IPv4Network(text) for text in texts)


def test_unset_is_taken_from_everywhere() -> None:
    """Main, virtual hosts and per-user files: whoever hands out an address is masqueraded."""
    conf = CONF + "[vhost:a]\nipv4-network = 10.20.0.0\nipv4-netmask = 255.255.0.0\n"
    found = synced(conf, Wishes(), "ipv4-network = 10.30.0.0/24\n")
    assert found.subnets4 == subnets("10.10.10.0/24", "10.20.0.0/16", "10.30.0.0/24")
    assert not found.problems


def test_nothing_anywhere() -> None:
    """The reference's default, and the effective file will carry it."""
    found = synced("device = vpns\n", Wishes())
    assert found.subnets4 == (found.ipv4_network,) == subnets("10.10.10.0/24")


def test_only_the_setting() -> None:
    """The effective file carries VPN_SUBNET."""
    found = synced("device = vpns\n", Wishes(subnets("10.9.0.0/24")))
    assert found.subnets4 == (found.ipv4_network,) == subnets("10.9.0.0/24")
    assert not found.problems


def test_main_gets_what_the_vhosts_left() -> None:
    """Of two subnets, the one that no section names."""
    conf = "device = vpns\n[vhost:a]\nipv4-network = 10.9.0.0/24\n"
    found = synced(conf, Wishes(subnets("10.9.0.0/24", "10.8.0.0/24")))
    assert found.ipv4_network == IPv4Network("10.8.0.0/24")
    assert not found.problems


@pytest.mark.parametrize(
    "wanted", [("10.10.10.0/24",), ("10.10.10.0/25", "10.10.10.128/25")], ids=str
)
def test_same_coverage_agrees(wanted: tuple[str, ...]) -> None:
    """How it is cut does not matter."""
    found = synced(CONF, Wishes(subnets(*wanted)))
    assert found.subnets4 == subnets("10.10.10.0/24")
    assert not found.problems


def only(found: Synced) -> Problem:
    (problem,) = found.problems
    return problem


@pytest.mark.parametrize(
    ("wanted", "word"),
    [
        (("10.10.10.0/25",), "narrower"),
        (("10.10.0.0/16",), "wider"),
        (("10.99.0.0/24",), "another network"),
        (("10.10.10.0/24", "10.11.0.0/24"), "wider"),
    ],
    ids=str,
)
def test_different_names_both_places(wanted: tuple[str, ...], word: str) -> None:
    """The setting's and ocserv.conf's, and what to write."""
    problem = only(synced(CONF, Wishes(subnets(*wanted))))
    assert (problem.source, problem.key) == ("environment", "VPN_SUBNET")
    assert "10.10.10.0/24 (conf:2 ipv4-network)" in problem.expected
    assert word in problem.expected
    assert "VPN_SUBNET=10.10.10.0/24" in problem.remedy
    assert "conf:2" in problem.remedy


def test_a_user_file_outside_of_the_setting() -> None:
    """Its clients would leave unmasqueraded."""
    problem = only(synced(CONF, Wishes(subnets("10.10.10.0/24")), "ipv4-network = 10.30.0.0/24\n"))
    assert "user0:1" in problem.expected


def test_ipv6_differs() -> None:
    """The same for IPV6_SUBNET, if it is set."""
    conf = CONF + "ipv6-network = fd00::/64\n"
    assert synced(conf, Wishes()).ipv6_network == IPv6Network("fd00::/64")
    assert not synced(conf, Wishes()).problems
    problem = only(synced(conf, Wishes(ipv6_subnet=IPv6Network("fd00::/48"))))
    assert problem.key == "IPV6_SUBNET"
    assert "fd00::/64 (conf:3 ipv6-network)" in problem.expected


def test_ipv6_subnets_cover_what_is_filled_in() -> None:
    """A virtual host without a network of its own gets main's."""
    conf = CONF + "[vhost:a]\nipv6-network = fd00::/64\nipv4-network = 10.1.0.0/24\n"
    assert synced(conf, Wishes()).subnets6 == (IPv6Network("fd00::/64"),)
    assert synced(CONF, Wishes()).subnets6 == (SIX,)


def test_device() -> None:
    """Unset: ocserv.conf's. Set: the same, or refused with both places."""
    conf = CONF.replace("vpns", "tun")
    assert synced(conf, Wishes()).device == "tun"
    assert not synced(conf, Wishes(vpn_if="tun+")).problems
    problem = only(synced(conf, Wishes(vpn_if="vpn+")))
    assert problem.key == "VPN_IF"
    assert "conf:1 says device = tun" in problem.expected

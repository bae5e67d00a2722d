"""Facts read through netlink agree with what `ip` shows, and say what planning asks."""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from ocgate.kernel import facts
from ocgate.plan.facts import Connected, DefaultRoute, ForeignRule

pytestmark = pytest.mark.kernel
Shell = Callable[[str], str]


def test_links_and_addresses_are_those_of_ip(uplink: str, sh: Shell) -> None:
    sh("ip link set wan0 mtu 1400; ip link add off0 type veth peer name off1")
    found = facts.observe()
    shown = json.loads(sh("ip -j addr"))
    assert [(i.index, i.name, i.mtu) for i in found.interfaces] == [
        (link["ifindex"], link["ifname"], link["mtu"]) for link in shown
    ]
    wan = found.interface("wan0")
    assert wan is not None
    assert wan.up
    assert not wan.loopback
    assert ip_interface("192.0.2.2/24") in wan.own(4)
    assert ip_interface("2001:db8::2/64") in wan.own(6)
    off, lo = found.interface("off0"), found.interface("lo")
    assert off is not None
    assert lo is not None
    assert not off.up
    assert lo.loopback
    assert found.interface("absent") is None


def test_the_default_route_is_the_lowest_metric_of_a_link_that_is_up(
    uplink: str, sh: Shell
) -> None:
    sh(
        "ip link add wan1 type veth peer name isp1; ip link set wan1 up; ip link set isp1 up;"
        "ip addr add 198.51.100.2/24 dev wan1;"
        "ip route add default via 198.51.100.1 metric 50; ip route add default via 192.0.2.1"
        " metric 100; ip -6 route add default via 2001:db8::1;"
        "ip route add default via 198.51.100.9 table 100"
    )
    found = facts.observe()
    assert len(found.routes4) == 2
    route = found.default_route(4)
    assert route is not None
    assert (route.device, route.metric, route.gateway) == ("wan1", 50, ip_address("198.51.100.1"))
    sixth = found.default_route(6)
    assert sixth is not None
    assert (sixth.device, sixth.metric, sixth.gateway) == ("wan0", 1024, ip_address("2001:db8::1"))
    assert found.wan_interface == found.interface("wan1")

    sh("ip link set isp1 down")  # takes the carrier; IPv4 keeps the route as linkdown
    moved = facts.observe()
    assert moved.wan_interface == moved.interface("wan0")


def test_gatewayless_multipath_and_foreign_family_gateways(uplink: str, sh: Shell) -> None:
    sh(
        "ip tuntap add ppp0 mode tun; ip link set ppp0 up; ip route add default dev ppp0 metric 7;"
        "ip route add default metric 8 nexthop via 192.0.2.1 dev wan0"
        " nexthop via 192.0.2.3 dev wan0;"
        "ip -4 route add default via inet6 2001:db8::1 dev wan0 metric 9"
    )
    found = facts.observe()
    hops = [(r.metric, r.device, r.gateway and str(r.gateway)) for r in found.routes4]
    assert hops == [
        (7, "ppp0", None),
        (8, "wan0", "192.0.2.1"),
        (8, "wan0", "192.0.2.3"),
        (9, "wan0", "2001:db8::1"),
    ]


def test_without_a_default_route_there_is_no_wan(uplink: str) -> None:
    found = facts.observe()
    assert found.default_route(4) is None
    assert found.default_route(6) is None
    assert found.wan_interface is None


def test_an_empty_namespace_has_empty_facts(sh: Shell) -> None:
    """A table that never held a route does not exist, and the kernel says so with an error."""
    sh("ip link set lo down")
    found = facts.observe()
    assert (found.routes4, found.routes6, found.connected) == ((), (), ())


def test_an_ipv6_only_host_has_a_wan(uplink: str, sh: Shell) -> None:
    sh("ip -6 route add default via 2001:db8::1")
    found = facts.observe()
    assert found.wan_interface == found.interface("wan0")
    assert found.default_route(6) == DefaultRoute(
        6,
        1024,
        found.interface("wan0").index,
        "wan0",
        ip_address("2001:db8::1"),  # type: ignore[union-attr]
    )


def test_connected_networks_and_own_addresses(uplink: str, sh: Shell) -> None:
    sh(
        "ip route add 192.0.2.128/25 dev isp0; ip route add 10.0.0.0/8 via 192.0.2.1;"
        "ip route add 198.51.100.0/24 dev isp0;"
        "ip route add 10.5.0.0/16 dev wan0 proto 143; ip route add blackhole 10.6.0.0/16"
    )
    found = facts.observe()
    assert Connected(ip_network("192.0.2.0/24"), "wan0") in found.connected
    assert Connected(ip_network("2001:db8::/64"), "wan0") in found.connected
    assert not [c for c in found.connected if str(c.network).startswith("10.")]
    assert not [c for c in found.connected if c.network.is_multicast]
    # Where this host has an address, whatever route is more specific; else where a route says.
    near = found.connected_network_of(ip_address("192.0.2.200"))
    assert near == Connected(ip_network("192.0.2.0/24"), "wan0")
    far = found.connected_network_of(ip_address("198.51.100.7"))
    assert far == Connected(ip_network("198.51.100.0/24"), "isp0")
    assert found.connected_network_of(ip_address("203.0.113.1")) is None
    assert found.is_local(ip_address("192.0.2.2"))
    assert found.is_local(ip_address("127.0.0.53"))
    assert not found.is_local(ip_address("192.0.2.1"))


def test_tentative_and_duplicate_addresses_are_left_out(uplink: str, sh: Shell) -> None:
    sh("sysctl -qw net.ipv6.conf.wan0.accept_dad=1")
    sh("ip addr add 2001:db8::7/64 dev wan0")  # in duplicate detection for a second or so
    sh("ip addr add 2001:db8::8/64 dev wan0 optimistic nodad")
    wan = facts.observe().interface("wan0")
    assert wan is not None
    assert ip_interface("2001:db8::7/64") not in wan.addresses
    assert ip_interface("2001:db8::8/64") in wan.addresses


def test_client_tunnels_are_left_out_with_all_that_hangs_on_them(uplink: str, sh: Shell) -> None:
    sh(
        "ip tuntap add vpns0 mode tun; ip link set vpns0 up;"
        "ip addr add 10.9.0.1 peer 10.9.0.2 dev vpns0"
    )
    all_of_it, without = facts.observe(), facts.observe(session_prefix="vpns")
    tunnel = all_of_it.interface("vpns0")
    assert tunnel is not None
    assert tunnel.own(4) == (ip_interface("10.9.0.1/32"),)
    assert without.interface("vpns0") is None
    assert not [c for c in without.connected if c.device == "vpns0"]


def test_sysctls_are_read_and_absent_ones_are_absent(netns: object) -> None:
    found = facts.observe(sysctls=["net.ipv4.ip_forward", "net.ipv4.conf.no/such.forwarding"])
    assert found.sysctls["net.ipv4.ip_forward"] == "0"
    assert "net.ipv4.conf.no/such.forwarding" not in found.sysctls


def test_only_foreign_rules_are_told(uplink: str, sh: Shell) -> None:
    assert facts.observe().rules == ()
    sh(
        "ip rule add from 10.0.0.0/8 lookup 9; ip rule add from 10.0.0.0/8 lookup 9 proto 143;"
        "ip -6 rule add from fda9::/64 lookup 9 proto static; ip -6 rule add iif lo lookup 9"
    )
    assert facts.observe().rules == (
        ForeignRule(4, 32765, "from 10.0.0.0/8 lookup 9", 9),
        ForeignRule(6, 32764, "from all iif lo lookup 9", 9),
        ForeignRule(6, 32765, "from fda9::/64 lookup 9", 9),
    )


def test_a_flush_of_all_rules_that_took_main_away_is_told(uplink: str, sh: Shell) -> None:
    sh("ip route replace default dev lo; ip rule add pref 1000 lookup main proto 143")
    assert facts.observe().without_main == ()
    sh("ip rule flush; ip rule add pref 1000 lookup main proto 143")
    assert facts.observe().without_main == (4,)
    sh("ip rule add pref 32766 lookup main")
    assert facts.observe().without_main == ()


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("from 172.28.0.10 lookup 77", "from 172.28.0.10/32 lookup 77"),
        ("not fwmark 0x4000/0xff00 lookup main", "not from all fwmark 0x4000/0xff00 lookup main"),
        ("uidrange 100-200 dport 53 lookup 9", "from all lookup 9 uidrange 100-200 dport 53-53"),
        ("to 10.0.0.0/8 blackhole", "from all to 10.0.0.0/8 blackhole"),
        ("tos 0x10 lookup 9", "from all lookup 9 tos 0x10"),
        ("from all lookup local", "from all lookup local"),
        ("goto 32766", "of action 2 goto 32766"),
    ],
)
def test_a_foreign_rule_is_told_as_ip_rule_shows_it(
    netns: object, sh: Shell, rule: str, text: str
) -> None:
    sh(f"ip rule add pref 900 {rule}")
    (found,) = facts.observe().rules
    assert str(found) == f"900: {text}"


def test_a_namespace_of_its_own_is_told_from_the_machine_s(netns: object) -> None:
    """A container's: nothing but clients is forwarded there."""
    assert facts.observe().own_namespace

"""No packet of a client, and none for one, leaves by a way it must not: real ocserv and openconnect.

    client1, client2 ==== router ======== gw (ocgate run, vpns0, vpns1)    ocgate.lab.topology
                          | uplink  docker | eth0
                     inet (services)    neighbour1

Every "nothing left" is asserted on captures at gw's eth0, the router's docker side and its uplink
that have seen such a packet before, with the lock taken away.
"""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from t3_ground import (
    TABLE,
    Ground,
    LabFactory,
    counters,
    ground,
    packets,
)

from ocgate.lab import client as vpn
from ocgate.lab.capture import now
from ocgate.lab.inject import into_tun
from ocgate.lab.packet import match
from ocgate.lab.streams import new_marker
from ocgate.lab.topology import SERVICE, SERVICE6, Options
from ocgate.lab.traffic import ping

pytestmark = pytest.mark.lab

GATEWAY4 = ip_address("10.10.10.1")

# --- spoofed sources ----------------------------------------------------------------------------

# What a client may put into its tun as a source; more are made from the live addresses.
FORGED4 = (
    "10.10.10.250",  # in the subnet, nobody's
    "10.10.10.1",  # the gateway's own in the tunnel
    "10.10.10.0",
    "10.10.10.255",
    "198.51.100.200",  # somebody on the internet
    "172.28.0.77",  # the docker network
    "172.28.0.10",  # gw's own
    "172.28.0.1",  # the docker host
    "203.0.113.1",
    "127.0.0.1",
    "0.0.0.0",
    "255.255.255.255",
    "224.0.0.5",
    "169.254.1.1",
)
FORGED6 = (
    "fda9:4efe:7e3b:3ea::dead",
    "2001:db8:c:1::2",  # the laptop's own, outside of the tunnel
    "2001:db8:28::77",
    "2001:db8:28::10",
    "fe80::1",
    "::",
)
# The kernel drops these before any hook (ipv6_rcv): nothing to count.
FORGED6_UNCOUNTED = ("::1", "ff02::1", "::ffff:198.51.100.200", "::ffff:10.10.10.250")

_PROBE = "inet t3_probe"


def watch_input(g: Ground) -> None:
    """Count what comes to gw's input from tunnels, in front of everybody's rules."""
    g.gateway.netns.nft(f"""
    table {_PROBE} {{
        counter from_tunnels {{ }}
        chain input {{
            type filter hook input priority -500; iifname "vpns*" counter name from_tunnels
        }}
    }}""")


def test_forged_sources_neither_leave_nor_reach_the_host(lab: LabFactory) -> None:
    """A client's packets with any source but its own are dropped and counted, to the internet, to
    the host and to another client alike; with its own source the same packets pass."""
    g = ground(lab, Options(clients=2))
    alice, bob = g.connect(0, "alice", dtls=False), g.connect(1, "bob", dtls=False)
    at_bob = g.lab.capture(g.lab.clients[1], vpn.TUN)
    watch_input(g)
    g.prove_leaks_are_seen(alice)

    own = new_marker()
    assert alice.address and alice.address6 and bob.address and bob.address6
    into_tun(alice.netns, vpn.TUN, *packets(alice.address, SERVICE, own))
    into_tun(alice.netns, vpn.TUN, *packets(alice.address6, SERVICE6, own))
    for capture in g.captures:
        for protocol in ("udp", "tcp", "icmp", "icmp6"):
            capture.prove_sees(match(marker=own, protocol=protocol), f"{protocol}, own source")
    assert ping(alice.netns, GATEWAY4)
    assert ping(bob.netns, GATEWAY4)
    at_bob.prove_sees(match(src=GATEWAY4), "what bob gets")

    heard, before, since = counters(g.gateway, _PROBE)["from_tunnels"], g.blocked(), now()
    assert heard >= 2
    forged = new_marker()
    sent = 0
    for source in (*FORGED4, str(bob.address)):
        for to in (SERVICE, GATEWAY4, g.lab.gw.address, bob.address):
            assert to is not None
            made = packets(ip_address(source), to, forged)
            into_tun(alice.netns, vpn.TUN, *made)
            sent += len(made)
    local = 0
    for source in (*FORGED6, str(bob.address6)):
        for to in (SERVICE6, g.lab.gw.address6, bob.address6):
            assert to is not None
            made = packets(ip_address(source), to, forged)
            into_tun(alice.netns, vpn.TUN, *made)
            sent += len(made)
            local += len(made) * (source in ("fe80::1", "::"))
    for source in FORGED6_UNCOUNTED:
        into_tun(alice.netns, vpn.TUN, *packets(ip_address(source), SERVICE6, forged))
    g.settle(alice)

    g.assert_none(match(marker=forged), "forged packets")
    g.assert_no_client_address(since)
    at_bob.assert_none(match(marker=forged), "forged packets")
    assert counters(g.gateway, _PROBE)["from_tunnels"] == heard
    after = g.blocked()
    assert after["spoofed"] - before["spoofed"] == sent - local
    # The clients' own systems send link-local chatter too.
    assert after["link_local"] - before["link_local"] >= local
    assert TABLE

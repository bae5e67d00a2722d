"""NordVPN from its API to the first packet of its client: see support.exit_node.

The lab's provider has not NordVPN's keys, so no tunnel comes up here. What is shown is that the
list is asked for by the uplink while the switch is open for that alone, that the chosen server is
spoken to and nobody else, and that a start without the API goes by the kept copy.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import exit_role, nordvpn_api, privileges
from lab.addresses import PROVIDER
from lab.capture import now
from lab.topology import RESOLVER
from ocgate.netlab.dns import DnsServer
from ocgate.netlab.packet import match
from ocgate.netlab.wait import wait_until
from support.exit_node import TUNNEL, Ground, LabFactory, ground

pytestmark = pytest.mark.lab

SERVERS = (
    nordvpn_api.server("nl742.nordvpn.com", str(PROVIDER), 25, "NL", "Amsterdam"),
    nordvpn_api.server("de1001.nordvpn.com", "198.51.100.201", 5, "DE", "Berlin"),
)
DOOR = match(dst=RESOLVER, protocol="tcp", dport=443)

# An answer of the API takes milliseconds; the rest is for busy cores.
LISTED_SECONDS = 20.0


def started(g: Ground, authority: Path, cache: Path) -> None:
    """The ground's exit again, as a customer of NordVPN in the Netherlands."""
    environ = {
        "USER": "service-user",
        "PASS": "hunter2",
        "COUNTRY": "Netherlands",
        "OCGATE_CACHE_DIR": str(cache),
        "SSL_CERT_FILE": str(authority),
    }
    g.exit.stop()
    g.exit = exit_role.start(g.lab, environ, resolv_conf=f"nameserver {RESOLVER}\n")


def connects(g: Ground) -> bool:
    """Is the chosen server being spoken to?"""
    tunnel = g.exit.status().get("tunnel", {})
    return bool(tunnel.get("endpoint") == f"{PROVIDER}:1194/udp")


def test_the_list_is_asked_for_through_its_own_door_and_kept(lab: LabFactory) -> None:
    g = ground(lab)
    g.prove_leaks_are_seen()
    g.lab.own(DnsServer(g.lab.inet.netns, (RESOLVER,), {nordvpn_api.HOST: (RESOLVER,)}, ttl=1))
    directory, cache = g.lab.path("api"), g.lab.path("cache")
    directory.mkdir()
    with g.lab.inet.netns.entered():
        api = g.lab.own(nordvpn_api.Api(directory, str(RESOLVER), 443))
    api.behaviour.servers = SERVERS
    g.allowed += [match(dst=RESOLVER, dport=53), DOOR]
    since = now()
    started(g, api.authority, cache)
    wait_until(lambda: connects(g), LISTED_SECONDS, "the server of the list")
    g.uplink.prove_sees(DOOR, "the question for servers", since=since)
    g.uplink.prove_sees(TUNNEL, "the client's first packet", since=since)
    processes = lambda: [Path("/proc", str(pid)) for pid in g.exit.netns.pids()]  # noqa: E731
    wait_until(lambda: not privileges.deviations(processes(), privileges.EXIT), 10.0, "the table")
    assert [path.partition("?")[0].rpartition("/")[2] for path in api.behaviour.asked] == [
        "countries",
        "recommendations",
    ]
    g.assert_nothing_by_isp(since)
    assert "hunter2" not in g.exit.output

    api.close()
    again = now()
    started(g, api.authority, cache)
    wait_until(lambda: connects(g), LISTED_SECONDS, "the server of the kept list")
    g.exit.wait_said("servers are chosen from the list of")
    g.assert_nothing_by_isp(again)

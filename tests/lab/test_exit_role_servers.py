"""Which server an exit takes, by which name, and what it says when it can't."""

from __future__ import annotations

import time
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from lab.addresses import DOCKER_NET, PROVIDER
from lab.capture import now
from lab.exit_role import ExitRole
from lab.topology import RESOLVER
from ocgate.netlab.dns import DnsServer
from ocgate.netlab.packet import match
from ocgate.netlab.wait import wait_until
from support.exit_node import TUNNEL, Ground, LabFactory, ground

pytestmark = pytest.mark.lab

NAME = "vpn.example"
RESOLV_CONF = f"nameserver {RESOLVER}\n"
ELSEWHERE = IPv4Address("198.51.100.201")  # of the provider's network; nobody's

# A client without an answer gives up after ten seconds; and its server comes again in turn.
NEXT_SECONDS = 60.0


def named(g: Ground) -> str:
    """The provider's configuration with its name instead of its address."""
    return g.provider.config().replace(f"remote {PROVIDER}", f"remote {NAME}")


def restarted(g: Ground, config: str, **environ: str) -> ExitRole:
    """The ground's exit again, with this configuration."""
    from lab import exit_role
    from support.exit_node import write_config

    path = write_config(g.lab, config)
    g.exit.stop()
    given = {"OVPN_CONFIG": str(path), **environ}
    g.exit = exit_role.start(g.lab, given, resolv_conf=RESOLV_CONF)
    return g.exit


def test_a_name_is_looked_up_before_the_tunnel_and_never_beside_it(lab: LabFactory) -> None:
    """Its nameserver is asked by the uplink while the switch is open for that alone; when the
    server moves to another address, the exit follows."""
    g = ground(lab)
    g.prove_leaks_are_seen()
    dns = g.lab.own(DnsServer(g.lab.inet.netns, (RESOLVER,), {NAME: (PROVIDER,)}, ttl=1))
    g.allowed.append(match(dst=RESOLVER, dport=53))
    since = now()
    restarted(g, named(g)).wait_healthy()
    assert {query.name for query in dns.queries} == {NAME}
    assert g.exit.status()["tunnel"]["endpoint"] == f"{PROVIDER}:1194/udp"
    up = now()
    g.allowed.pop()
    assert g.leaves_by_the_provider()
    g.assert_nothing_by_isp(up)
    g.allowed.append(match(dst=RESOLVER, dport=53))
    g.allowed.append(match(dst=ELSEWHERE, protocol="udp", dport=1194))
    dns.table[NAME] = (ELSEWHERE,)
    g.exit.kill_client()
    endpoint = f"{ELSEWHERE}:1194/udp"
    wait_until(lambda: g.exit.status()["tunnel"]["endpoint"] == endpoint, 15.0, "the new address")
    dns.table[NAME] = (PROVIDER,)
    g.exit.wait_healthy(NEXT_SECONDS)
    g.assert_nothing_by_isp(since)


def test_a_name_that_does_not_resolve_is_said_and_asked_again(lab: LabFactory) -> None:
    g = ground(lab)
    dns = g.lab.own(DnsServer(g.lab.inet.netns, (RESOLVER,), {}))
    restarted(g, named(g)).wait_state("waiting")
    wait_until(lambda: g.exit.status()["tunnel"]["failures"] >= 2, 15.0, "another attempt")
    assert "NXDOMAIN" in g.exit.status()["tunnel"]["last_failure"]
    dns.table[NAME] = (PROVIDER,)
    g.exit.wait_healthy(30.0)


def test_a_wrong_password_is_said_and_not_repeated_at_once(lab: LabFactory) -> None:
    login = {"USER": "alice", "PASS": "wrong"}
    g = ground(lab, users={"alice": "right"}, environ=login, wait=False)
    g.exit.wait_state("waiting")
    assert g.exit.status()["tunnel"]["last_failure"] == "the server refused user and password"
    began = time.monotonic()
    wait_until(lambda: g.exit.status()["tunnel"]["failures"] >= 3, 30.0, "three attempts")
    assert time.monotonic() - began > 2.5  # pauses of 1 s and 2 s lie between
    assert "wrong" not in g.exit.output.replace("wrong.", "")
    assert "refused user and password" in g.exit.output


def test_the_right_password_gets_in_and_stands_in_nobody_elses_sight(lab: LabFactory) -> None:
    """Neither arguments nor environment of any process in the container, nor a readable file."""
    secret = "correct-horse-battery"
    login = {"USER": "alice", "PASS": secret}
    g = ground(lab, users={"alice": secret}, environ=login)
    assert g.leaves_by_the_provider()
    holders = [
        pid
        for pid in g.exit.netns.pids()
        for name in ("cmdline", "environ")
        if secret.encode() in Path(f"/proc/{pid}/{name}").read_bytes()
    ]
    assert holders == []
    open_files = [
        path
        for path in g.exit.run_dir.rglob("*")
        if path.is_file() and path.stat().st_mode & 0o077 and secret.encode() in path.read_bytes()
    ]
    assert open_files == []
    assert secret not in g.exit.output


def test_of_several_servers_the_next_is_taken_when_one_is_dead(lab: LabFactory) -> None:
    g = ground(lab)
    g.prove_leaks_are_seen()
    config = g.provider.config()
    both = config.replace(
        f"remote {PROVIDER} 1194", f"remote {ELSEWHERE} 1194\nremote {PROVIDER} 1194"
    )
    g.allowed.append(match(dst=ELSEWHERE, protocol="udp", dport=1194))
    since = now()
    restarted(g, both).wait_healthy(NEXT_SECONDS)
    status = g.exit.status()["tunnel"]
    assert status["endpoint"] == f"{PROVIDER}:1194/udp"
    assert (status["attempts"], status["servers"]) == (2, 2)
    # The provider's router says so by ICMP, or nobody says anything.
    silent = ("the network does not reach the server", "the server does not answer")
    assert status["last_failure"] in silent
    g.assert_nothing_by_isp(since)
    g.allowed[:] = [TUNNEL]
    up = now()
    assert g.leaves_by_the_provider()
    g.assert_nothing_by_isp(up)


def test_the_operator_and_the_clock_turn_to_the_next_server(lab: LabFactory) -> None:
    """`ocgate reload` takes the next one; the tunnel is back within a second or so."""
    g = ground(lab)
    client = g.exit.client_pid()
    answer = g.exit.ask("reload").decode()
    assert answer.startswith("ok\n")
    g.exit.wait_healthy()
    assert g.exit.client_pid() not in (None, client)
    assert g.leaves_by_the_provider()


def test_a_configuration_that_became_wrong_is_refused_by_a_reload(lab: LabFactory) -> None:
    g = ground(lab)
    client = g.exit.client_pid()
    path = next(g.lab.work.glob("*vpn.ovpn"))
    path.write_text("client\ndev tap\n")
    assert g.exit.ask("reload").decode().startswith("refused\n")
    assert g.exit.client_pid() == client
    assert g.leaves_by_the_provider()


def test_what_is_wrong_is_said_before_anything_is_started(lab: LabFactory) -> None:
    """Exit status 2, with the file, the line and the remedy; the network stays as it was."""
    g = ground(lab, config="client\ndev tap\n", wait=False)
    assert g.exit.program.wait(15.0) == 2
    assert "vpn.ovpn:2: dev: " in g.exit.output
    assert str(DOCKER_NET) not in g.exit.netns.run(["nft", "list", "ruleset"]).stdout

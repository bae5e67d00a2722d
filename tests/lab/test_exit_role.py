"""`ocgate exit` end to end with a real OpenVPN provider: what uses it leaves by the tunnel or not.

neighbour1 -- exit (ocgate exit) === OpenVPN === provider --- services       see support.exit_node
"""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from lab.addresses import PROVIDER
from lab.capture import now
from lab.openvpn import OPENVPN_PORT
from lab.streams import UdpStream, new_marker
from lab.topology import SERVICE
from lab.traffic import ask_tcp, ask_udp
from ocgate.names import TUNNEL_UID
from ocgate.netlab.packet import match
from ocgate.netlab.wait import wait_until
from support.exit_node import LabFactory, ground

pytestmark = pytest.mark.lab


def test_who_uses_the_exit_leaves_by_the_provider_and_by_nothing_else(lab: LabFactory) -> None:
    """UDP, TCP and ping of a host of FORWARD_FROM, and the exit's own, are seen as the provider's;
    the ISP sees the tunnel to the endpoint alone."""
    g = ground(lab)
    g.prove_leaks_are_seen()
    since = now()
    assert g.leaves_by_the_provider()
    own = [ask_udp(g.exit.netns, SERVICE), ask_tcp(g.exit.netns, SERVICE)]
    assert [answer.seen_as for answer in own] == [PROVIDER, PROVIDER]
    with UdpStream(g.user.netns, SERVICE, rate=500, count=500, size=1200) as stream:
        assert stream.wait(10.0).lost == 0
    g.uplink.prove_sees(match(dst=PROVIDER, dport=OPENVPN_PORT), "the tunnel", since=since)
    g.assert_nothing_by_isp(since)


def test_the_client_is_an_unprivileged_process_and_alone_may_talk_to_the_server(
    lab: LabFactory,
) -> None:
    g = ground(lab)
    g.prove_leaks_are_seen()
    pid = g.exit.client_pid()
    proc = Path(f"/proc/{pid}")
    lines = (proc / "status").read_text().splitlines()
    fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert fields["Uid"].split("\t") == [str(TUNNEL_UID)] * 4
    assert fields["Gid"].split("\t") == [str(TUNNEL_UID)] * 4
    assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0
    assert b"PRIVATE KEY" not in (proc / "cmdline").read_bytes()
    since, marker = now(), new_marker()
    with g.exit.netns.entered():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sock, pytest.raises(PermissionError):
        sock.sendto(marker, (str(PROVIDER), OPENVPN_PORT))
    g.uplink.assert_none(match(marker=marker), "what root sent to the endpoint", since=since)


def test_a_killed_client_is_replaced_at_once_and_nothing_leaks_meanwhile(lab: LabFactory) -> None:
    g = ground(lab)
    g.prove_leaks_are_seen()
    since, before = now(), g.exit.client_pid()
    with UdpStream(g.user.netns, SERVICE, rate=500, count=2500, size=200) as stream:
        stream.wait_for(200)
        g.exit.kill_client()
        tally = stream.wait(15.0)
    assert g.exit.client_pid() not in (None, before)
    assert 0 < tally.lost < 2000  # the tunnel was away, and came back within the stream's 5 s
    assert g.leaves_by_the_provider()
    assert g.exit.status()["tunnel"]["last_failure"] == "its client was ended by signal 9"
    g.assert_nothing_by_isp(since)


def test_while_the_tunnel_is_down_users_are_told_at_once_and_nothing_leaks(lab: LabFactory) -> None:
    """The provider is gone; it is back, and so is the exit, by itself."""
    g = ground(lab, environ={"EXIT_PROBE_FAILURES": "2"})
    g.prove_leaks_are_seen()
    since = now()
    g.provider.close()
    g.exit.wait_state("degraded")
    g.exit.wait_state("connecting", 30.0)
    assert g.rejected_at_once()
    assert g.blocked("tunnel_down") >= 3
    assert "the tunnel is not up" in g.exit.status()["reasons"][0]
    g.provider.start()
    g.exit.wait_healthy(60.0)
    assert g.leaves_by_the_provider()
    g.assert_nothing_by_isp(since)


def test_a_control_that_is_killed_adopts_the_tunnel_and_nobody_notices(lab: LabFactory) -> None:
    g = ground(lab)
    g.prove_leaks_are_seen()
    since, client, control = now(), g.exit.client_pid(), g.exit.control_pid()
    with UdpStream(g.user.netns, SERVICE, rate=500, count=2000, size=200) as stream:
        stream.wait_for(200)
        os.kill(control, signal.SIGKILL)
        wait_until(lambda: g.exit.state() == "up" and g.exit.control_pid() != control, 10.0, "it")
        assert stream.wait(15.0).lost == 0
    assert g.exit.client_pid() == client
    g.exit.wait_said("tunnel adopted")
    g.exit.wait_healthy()
    g.assert_nothing_by_isp(since)


def test_a_client_that_ended_while_control_was_away_is_replaced(lab: LabFactory) -> None:
    g = ground(lab)
    control, client = g.exit.control_pid(), g.exit.client_pid()
    os.kill(control, signal.SIGKILL)
    g.exit.kill_client()
    wait_until(lambda: g.exit.client_pid() not in (None, client), 15.0, "a new client")
    g.exit.wait_healthy()
    assert g.leaves_by_the_provider()


def test_a_stop_leaves_the_switch_closed_and_the_next_start_opens_it(lab: LabFactory) -> None:
    g = ground(lab)
    g.prove_leaks_are_seen()
    since = now()
    g.exit.stop()
    assert g.rejected_at_once()
    assert not ask_udp(g.exit.netns, SERVICE, timeout=0.5)
    assert not [path for path in g.exit.run_dir.glob("tunnel*") if path.name != "tunnel"]
    g.assert_nothing_by_isp(since)


def test_a_stop_can_come_at_any_moment(lab: LabFactory) -> None:
    """While the client connects: nothing of it is left, and the switch is closed."""
    g = ground(lab, config=dead_server(), wait=False)
    g.exit.wait_state("connecting")
    g.exit.stop()
    assert g.rejected_at_once()
    assert not g.exit.netns.pids()


def test_the_switch_is_back_at_once_when_somebody_flushes_it(lab: LabFactory) -> None:
    g = ground(lab)
    began = time.monotonic()
    g.exit.netns.run(["nft", "flush", "ruleset"])
    wait_until(g.intact, 5.0, "the repair")
    assert time.monotonic() - began < 2.0
    g.exit.wait_said("drift repaired")
    assert g.leaves_by_the_provider()


def test_only_networks_of_forward_from_get_out(lab: LabFactory) -> None:
    g = ground(lab, environ={"FORWARD_FROM": "172.28.0.128/25"})
    assert not ask_udp(g.user.netns, SERVICE, timeout=0.5)
    assert g.blocked("not_allowed") >= 1


def dead_server() -> str:
    """A configuration whose server nobody is."""
    return (
        "client\ndev tun\nproto udp\nremote 198.51.100.201 1194\nremote-cert-tls server\n"
        "<ca>\n-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n</ca>\n"
    )

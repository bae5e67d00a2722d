"""What people ask an exit, with the same commands as a server; see support.exit_node."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from lab.addresses import DOCKER_NET
from lab.gateway import command
from ocgate.netlab.program import BASE_ENVIRON
from support.exit_node import Ground, LabFactory, ground

pytestmark = pytest.mark.lab


def ocgate(g: Ground, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of the command line, as `docker exec` runs it."""
    environ = {**BASE_ENVIRON, "OCGATE_RUN_DIR": str(g.exit.run_dir)}
    with g.exit.netns.entered():
        return subprocess.run(
            command(*arguments), env=environ, capture_output=True, text=True, timeout=60
        )


def test_status_metrics_and_healthcheck_tell_of_a_tunnel_that_is_up(lab: LabFactory) -> None:
    g = ground(lab)
    assert g.leaves_by_the_provider()
    shown = ocgate(g, "status")
    assert shown.returncode == 0, shown.stderr
    for words in ("healthy", "openvpn, by tun0", "198.51.100.200:1194/udp", "10.8.0.2/32"):
        assert words in shown.stdout
    told = json.loads(ocgate(g, "status", "--json").stdout)
    assert (told["schema"], told["role"], told["healthy"], told["reasons"]) == (1, "exit", True, [])
    assert told["tunnel"]["state"] == "up"
    assert told["tunnel"]["bytes_in"] > 0
    assert told["switch"]["forward_from"] == [str(DOCKER_NET)]
    assert told["switch"]["intact"]
    assert told["probe"]["state"] == "up"
    assert {each["reason"] for each in told["blocked"]} > {"tunnel_down", "by_uplink"}
    page = ocgate(g, "metrics").stdout
    assert 'ocgate_tunnel_up{kind="openvpn"} 1.0' in page
    assert 'ocgate_tunnel_state{state="up"} 1.0' in page
    assert "ocgate_tunnel_attempts_total 1.0" in page
    assert re.search(r'ocgate_blocked_packets_total\{reason="tunnel_down"\} \d', page)
    health = ocgate(g, "healthcheck")
    assert (health.returncode, health.stdout) == (0, "healthy\n")
    findings = json.loads(ocgate(g, "doctor", "--json").stdout)["findings"]
    assert [(each["check"], each["verdict"]) for each in findings] == [("exit", "ok")]
    again = ocgate(g, "reload")
    assert again.returncode == 0, again.stderr
    assert "read anew" in again.stdout


def test_they_say_why_a_tunnel_is_not_up(lab: LabFactory) -> None:
    login = {"USER": "alice", "PASS": "wrong"}
    g = ground(lab, users={"alice": "right"}, environ=login, wait=False)
    g.exit.wait_said("no tunnel")
    health = ocgate(g, "healthcheck")
    assert health.returncode == 1
    assert "the server refused user and password" in health.stdout
    shown = ocgate(g, "status")
    assert shown.returncode == 1
    assert "NOT HEALTHY" in shown.stdout
    assert "the server refused user and password" in shown.stdout
    assert 'ocgate_tunnel_up{kind="openvpn"} 0.0' in ocgate(g, "metrics").stdout


def test_an_exit_refuses_the_machines_own_network(tmp_path: Path) -> None:
    """Its kill switch would cut the machine off; exit status 1, with what to do."""
    if not Path("/proc/sys/net/core/netdev_max_backlog").exists():
        pytest.skip("this machine is a container, whose network is its own")
    path = tmp_path / "vpn.ovpn"
    path.write_text("client\ndev tun\nremote 192.0.2.1\nremote-cert-tls server\n<ca>\nx\n</ca>\n")
    environ = {**BASE_ENVIRON, "OVPN_CONFIG": str(path), "OCGATE_RUN_DIR": str(tmp_path / "run")}
    done = subprocess.run(command("exit"), env=environ, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "cut the machine off" in done.stderr
    assert "run it in a container" in done.stderr

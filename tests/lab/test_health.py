"""The container's health against a dead exit, and the history of real sessions.

client1 === inet === router -- gw (ocgate) -- upstream === OpenVPN === provider --- services
                                                 see lab.upstream, support.gateway_mode
"""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

from lab.gateway import Gateway
from lab.streams import UdpStream
from lab.topology import SERVICE
from ocgate import names
from ocgate.netlab.wait import wait_until
from support.gateway_mode import chain
from support.lifecycle import LabFactory, log_in, ocgate, serve, two_clients

pytestmark = pytest.mark.lab

WHOAMI = f"http://{SERVICE}/whoami"


def health(gw: Gateway) -> tuple[int, str]:
    done = ocgate(gw, "healthcheck")
    return done.returncode, done.stdout.strip()


def test_a_dead_exit_fails_the_container_only_where_that_was_asked_for(lab: LabFactory) -> None:
    """Unset, off, on without and with `direct`: healthy with the upstream dead; with `default`
    unhealthy, with the reason, and healthy again when the upstream is back. With a URL the same,
    fetched by each way: the whoami service tells that it was."""
    asks: dict[str, tuple[dict[str, str], bool]] = {
        "unset": ({}, True),
        "off": ({"HEALTH_CHECK_ENABLED": "false", "HEALTH_CHECK_EGRESS": "all"}, True),
        "on": ({"HEALTH_CHECK_ENABLED": "true"}, True),
        "direct": ({"HEALTH_CHECK_ENABLED": "true", "HEALTH_CHECK_EGRESS": "direct"}, True),
        "default": ({"HEALTH_CHECK_ENABLED": "true", "HEALTH_CHECK_EGRESS": "default"}, False),
        "url": (
            {
                "HEALTH_CHECK_ENABLED": "true",
                "HEALTH_CHECK_EGRESS": "direct+default",
                "HEALTH_CHECK_URL": WHOAMI,
            },
            False,
        ),
    }
    g = chain(lab, environ={"VPN_GATEWAY": "172.28.0.3"}, toml={"health_check_enabled": "0"})
    for name, (settings, _) in asks.items():
        g.reload(**settings)
        assert health(g.gateway) == (0, "healthy"), name
    g.upstream.stop()
    g.wait_down()
    for name, (settings, survives) in asks.items():
        g.reload(**settings)
        code, said = health(g.gateway)
        assert (code == 0) is survives, f"{name}: {said}"
        if not survives:
            assert said.startswith("egress by gateway 172.28.0.3 (IPv4) does not work: "), name
    assert json.loads(ocgate(g.gateway, "status", "--json").stdout)["healthy"]


def test_each_session_is_in_the_history_with_its_bytes(lab: LabFactory) -> None:
    """alice disconnects, bob is killed while control is away, and alice is there again when
    the server is stopped: three lines, the first with the bytes of her stream, in a file of mode
    0600. `ocgate sessions` tells live and completed ones, filtered and as JSON."""
    built = two_clients(lab)
    path = built.path("history")
    gw = serve(built, {"SESSION_HISTORY_FILE": str(path)})
    alice = log_in(gw, 0, "alice")
    with UdpStream(alice.netns, SERVICE, rate=500) as stream:
        stream.wait_for(200)
    bob = log_in(gw, 1, "bob")
    alice.disconnect()
    wait_until(lambda: len(lines(path)) == 1, 10.0, "the first line")
    (first,) = lines(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert (first["user"], first["exit"], first["reason"]) == ("alice", "direct", "disconnected")
    assert first["peer"] == str(built.clients[0].address)
    assert first["address4"] == str(alice.address)
    for count in (first["bytes_in"], first["bytes_out"]):
        assert count is not None
        assert count > 200 * 28

    live = report(gw)
    assert [found["user"] for found in live["live"]] == ["bob"]
    assert [found["user"] for found in live["completed"]] == ["alice"]
    assert report(gw, "--user", "bob")["completed"] == []
    shown = ocgate(gw, "sessions").stdout
    assert "alice" in shown
    assert "bob" in shown

    worker = gw.status()["sessions"][0]["worker"]
    control = gw.pid(names.CONTROL_PID)
    os.kill(control, signal.SIGSTOP)
    bob.vanish()
    os.kill(worker, signal.SIGKILL)
    os.kill(control, signal.SIGKILL)
    gw.wait_replaced(names.CONTROL_PID, control)
    wait_until(lambda: len(lines(path)) == 2, 15.0, "bob's line")
    assert lines(path)[1]["user"] == "bob"
    again = log_in(gw, 0, "alice")
    gw.stop()
    again.vanish()
    assert [found["user"] for found in lines(path)] == ["alice", "bob", "alice"]


def lines(path: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def report(gw: Gateway, *options: str) -> dict[str, Any]:
    done = ocgate(gw, "sessions", "--json", *options)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found

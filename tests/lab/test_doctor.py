"""`ocgate doctor` and `ocgate explain` against what really happens.

client1 === inet === router -- gw (ocgate) -- upstream === OpenVPN === provider --- services
                                                 see lab.upstream, support.gateway_mode
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from lab.addresses import UPSTREAM
from lab.gateway import Gateway
from lab.topology import SERVICE
from lab.traffic import ask_tcp
from support.gateway_mode import PROVIDER, chain, rejected_at_once, seen_as
from support.lifecycle import LabFactory, log_in, ocgate, serve, two_clients

pytestmark = pytest.mark.lab


def explained(gw: Gateway, to: object, user: str = "alice") -> tuple[int, dict[str, Any]]:
    done = ocgate(gw, "explain", user, str(to), "--json")
    (found,) = json.loads(done.stdout)["explanations"]
    return done.returncode, found


def blocked(gw: Gateway, reason: str) -> int:
    return sum(c["packets"] for c in gw.status()["blocked"] if c["reason"] == reason)


def doctor(gw: Gateway) -> tuple[int, list[dict[str, str]]]:
    done = ocgate(gw, "doctor", "--json")
    document = json.loads(done.stdout)
    assert document["to_do"] == sum(
        each["verdict"] in ("warning", "error") for each in document["findings"]
    )
    return done.returncode, document["findings"]


def test_what_is_explained_is_what_happens(lab: LabFactory) -> None:
    """By the gateway and seen as the provider's; to the upstream's own network rejected, as is
    everything with the upstream dead; doctor then names the exit and what to do."""
    g = chain(lab)
    client = g.connect(0)
    code, found = explained(g.gateway, SERVICE)
    assert (code, found["verdict"], found["session"]) == (0, "gateway", "vpns0")
    assert found["way"] == f"via {UPSTREAM} dev {found['way'].rpartition(' ')[2]}"
    assert seen_as(client) == {PROVIDER}
    code, found = explained(g.gateway, UPSTREAM)
    assert (code, found["verdict"], found["reason"]) == (1, "rejected", "local_destination")
    assert blocked(g.gateway, found["reason"]) == 0
    assert not ask_tcp(client.netns, UPSTREAM)
    assert blocked(g.gateway, found["reason"]) > 0
    g.upstream.stop()
    g.wait_down()
    code, found = explained(g.gateway, SERVICE)
    assert (code, found["reason"]) == (1, "exit_closed")
    assert rejected_at_once(client)
    code, findings = doctor(g.gateway)
    assert code == 1
    (exit,) = [each for each in findings if each["check"] == "exit default IPv4"]
    assert exit["verdict"] == "warning"
    assert exit["remedy"].startswith("Start the upstream")
    shown = ocgate(g.gateway, "doctor")
    assert shown.returncode == 1
    assert "Start the upstream" in shown.stdout


def test_a_sound_server_is_told_so(lab: LabFactory) -> None:
    """What it does warn of is the lab's own: no internet behind the resolver that is pushed, and a
    certificate for a day. With nobody running it says so, and no more than that of the server."""
    gw = serve(two_clients(lab))
    log_in(gw, 0, "alice")
    code, findings = doctor(gw)
    checks = {each["check"]: each["verdict"] for each in findings}
    assert checks["machine"] == checks["server"] == checks["guard"] == "ok"
    assert not [each for each in findings if each["verdict"] == "error"]
    assert code == 1  # the lab's certificate ends tomorrow
    assert any("it ends in" in each["says"] for each in findings)
    code, found = explained(gw, SERVICE)
    assert (code, found["verdict"]) == (0, "direct")
    gw.stop()
    code, findings = doctor(gw)
    assert code == 1
    assert any(each["check"] == "server" and each["verdict"] == "error" for each in findings)

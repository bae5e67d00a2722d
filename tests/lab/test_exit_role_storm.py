"""Faults of every kind, one upon the other, while a host sends without end."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from collections.abc import Callable

import pytest

from lab.addresses import DOCKER_NET
from lab.capture import now
from lab.streams import UdpStream
from lab.topology import SERVICE, SERVICE6
from lab.traffic import ask_tcp
from ocgate.netlab.wait import wait_until
from support.exit_node import BOTH_FAMILIES, Ground, LabFactory, ground

pytestmark = [pytest.mark.lab, pytest.mark.long]

ROUNDS = 25
CALM = 0.2  # of the faults hit an exit that has come back from the one before


def kill_client(g: Ground) -> None:
    with contextlib.suppress(AssertionError, ProcessLookupError):  # it is just away
        g.exit.kill_client()


def kill_control(g: Ground) -> None:
    with contextlib.suppress(OSError, ValueError):
        os.kill(g.exit.control_pid(), signal.SIGKILL)


def kill_both(g: Ground) -> None:
    kill_control(g)
    kill_client(g)


def restart_provider(g: Ground) -> None:
    g.provider.close()
    g.provider.start()


def flush_rules_of_routing(g: Ground) -> None:
    """Lock 2 alone; the ruleset stands."""
    for family in ("-4", "-6"):
        g.exit.netns.run(["ip", family, "rule", "flush", "protocol", "143"], check=False)


def delete_device(g: Ground) -> None:
    g.exit.netns.run(["ip", "link", "delete", "tun0"], check=False)


def lose_uplink(g: Ground) -> None:
    g.exit.netns.run(["ip", "link", "set", "eth0", "down"])
    g.exit.netns.ip(
        "link set eth0 up",
        f"route replace default via {DOCKER_NET[1]}",
    )


def reload(g: Ground) -> None:
    with contextlib.suppress(OSError):
        g.exit.ask("reload", timeout=5.0)


FAULTS: list[Callable[[Ground], None]] = [
    kill_client,
    kill_control,
    kill_both,
    restart_provider,
    flush_rules_of_routing,
    delete_device,
    lose_uplink,
    reload,
]


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_leaks_in_a_storm_of_faults_and_the_exit_comes_back(
    lab: LabFactory, seed: int
) -> None:
    g = ground(lab, environ=BOTH_FAMILIES)
    g.prove_leaks_are_seen()
    since, chance = now(), random.Random(seed)
    with (
        UdpStream(g.user.netns, SERVICE, rate=500, count=60_000, size=100) as four,
        UdpStream(g.user.netns, SERVICE6, rate=500, count=60_000, size=100),
    ):
        four.wait_for(100)
        for _ in range(ROUNDS):
            chance.choice(FAULTS)(g)
            ask_tcp(g.user.netns, SERVICE, timeout=0.3)
            ask_tcp(g.exit.netns, SERVICE, timeout=0.3)
            if chance.random() < CALM:
                g.exit.wait_state("up", 90.0)
    wait_until(g.leaves_by_the_provider, 90.0, "the way out after the storm")
    g.exit.wait_healthy()
    g.assert_nothing_by_isp(since)

"""What an exit does when the machine around it refuses space, or puts a rule before its own.

neighbour1 -- exit (ocgate exit) === OpenVPN === provider --- services       see support.exit_node
"""

from __future__ import annotations

import os
import signal

import pytest

from lab.addresses import DOCKER_NET
from lab.capture import now
from lab.exit_role import ExitRole
from lab.gateway import command
from lab.streams import new_marker
from lab.topology import SERVICE, Options
from lab.traffic import ask_udp
from ocgate.names import NFT_TABLE_EXIT, ROUTE_PROTOCOL, TUNNEL_RULE_PRIO
from ocgate.netlab.packet import match
from ocgate.netlab.program import BASE_ENVIRON
from ocgate.netlab.wait import wait_until
from ocgate.plan.reasons import REJECTS4_UNLIMITED
from ocgate.tunnel import routing
from support.exit_node import Ground, LabFactory, frozen, ground
from support.small_disk import SmallDisk

pytestmark = pytest.mark.lab

# A rule of another program before ours, and one before which there is no room for ten.
FOREIGN, NO_ROOM, FOREIGN_TABLE = TUNNEL_RULE_PRIO - 100, 5, 77


def reasons(g: Ground) -> str:
    return "; ".join(g.exit.status().get("reasons", []))


def last_failure(g: Ground) -> str:
    return g.exit.status().get("tunnel", {}).get("last_failure") or ""


def healthcheck(exit_role: ExitRole) -> tuple[int, str]:
    """`ocgate healthcheck`: exit status and words."""
    environ = [f"{k}={v}" for k, v in BASE_ENVIRON.items()]
    argv = ["env", "-i", *environ, f"OCGATE_RUN_DIR={exit_role.run_dir}", *command("healthcheck")]
    done = exit_role.netns.run(argv, check=False, timeout=40)
    return done.returncode, done.stdout + done.stderr


# --- no space ------------------------------------------------------------------------------------


def test_a_full_run_dir_of_an_exit(lab: LabFactory) -> None:
    """T14. It is said; a tunnel that stands goes on, also over a kill of control. One whose client
    died is not made anew: users are rejected, the kill switch is repaired, nothing leaks. With
    space again the tunnel is back by itself."""
    built = lab(Options(upstream=True, neighbours=1, clients=0))
    disk = built.own(SmallDisk(built.path("small")))
    run_dir = disk.path / "run"
    g = ground(lambda _: built, environ={"OCGATE_RUN_DIR": str(run_dir)}, wait=False)
    g.exit.run_dir = run_dir
    g.exit.wait_healthy()
    g.prove_leaks_are_seen()
    since, control = now(), g.exit.control_pid()

    disk.fill()
    why = f"nothing can be written in {run_dir} (No space left on device): no tunnel is made anew"
    assert why in reasons(g)
    code, said = healthcheck(g.exit)
    assert (code, why in said) == (1, True)
    assert f"writing in {run_dir}: No space left on device".encode() in g.exit.ask("reload")
    os.kill(control, signal.SIGKILL)
    g.exit.wait_said("tunnel adopted")
    wait_until(lambda: g.exit.state() == "up", 15.0, "control to answer again")
    disk.fill()  # without control.pid of the former one there is a page again
    assert why in reasons(g)
    assert g.leaves_by_the_provider()

    g.exit.kill_client()
    wait_until(lambda: "No space left" in last_failure(g), 20.0, "an attempt in vain")
    assert g.rejected_at_once()
    g.exit.netns.run(["nft", "flush", "ruleset"])
    wait_until(g.intact, 10.0, "the kill switch to be repaired")
    assert g.rejected_at_once()

    disk.empty()
    g.exit.wait_healthy(60.0)
    assert g.leaves_by_the_provider()
    assert healthcheck(g.exit)[0] == 0
    assert "Traceback" not in g.exit.output
    g.assert_nothing_by_isp(since)


@pytest.mark.parametrize("up", [True, False], ids=["with a tunnel", "without one"])
def test_control_that_is_restarted_in_a_full_run_dir_ends_in_no_loop(
    up: bool, lab: LabFactory
) -> None:
    """T25. A sysctl that was right at the start has to be set and what it was can't be noted: that
    one is left alone. Killed with a tunnel, control adopts it; without one it waits, with the
    switch closed; both are said, and all is back by itself."""
    built = lab(Options(upstream=True, neighbours=1, clients=0))
    built.upstream.netns.sysctl("net/ipv4/icmp_ratemask", REJECTS4_UNLIMITED.value)
    disk = built.own(SmallDisk(built.path("small")))
    run_dir = disk.path / "run"
    g = ground(lambda _: built, environ={"OCGATE_RUN_DIR": str(run_dir)}, wait=False)
    g.exit.run_dir = run_dir
    g.exit.wait_healthy()
    g.prove_leaks_are_seen()
    since = now()
    if not up:
        g.provider.close()
        wait_until(lambda: g.exit.state() == "waiting", 40.0, "the loss of the tunnel")

    with frozen(g.exit):
        disk.fill()
        built.upstream.netns.sysctl("net/ipv4/icmp_ratemask", 6168)
        os.kill(g.exit.control_pid(), signal.SIGKILL)
    wait_until(lambda: "nothing can be written in" in reasons(g), 20.0, "control to say why")
    control = g.exit.status()["since"]
    if up:
        wait_until(g.leaves_by_the_provider, 10.0, "the tunnel")
        assert "tunnel adopted" in g.exit.output
    else:
        assert g.rejected_at_once()
    built.upstream.netns.run(["nft", "flush", "ruleset"])
    wait_until(g.intact, 10.0, "the kill switch to be repaired")
    assert g.exit.status()["since"] == control, "it is the same control all the time"

    disk.empty()
    if up:
        g.exit.wait_healthy(60.0)
    wait_until(lambda: "nothing can be written" not in reasons(g), 10.0, "room again")
    assert "Traceback" not in g.exit.output
    g.assert_nothing_by_isp(since)


# --- a rule of another program before ours -------------------------------------------------------


def test_a_rule_of_another_program_is_never_asked_before_ours(lab: LabFactory) -> None:
    """T6. Such a rule leads users out by the ISP: ours move in front of it and hold without the
    ruleset, too; where there is no room the switch closes. When it is gone all is as before."""
    g = ground(lab)
    assert last_of_ours(g) == TUNNEL_RULE_PRIO + routing.LAST
    prove_that_a_rule_leads_out(g)
    wait_until(lambda: last_of_ours(g) == FOREIGN - 1, 10.0, "the block to move")
    wait_until(g.intact, 10.0, "the kill switch")
    since = now()
    assert f"`{FOREIGN}: from {DOCKER_NET} lookup {FOREIGN_TABLE}`" in reasons(g)
    assert f"ours were moved and begin at {FOREIGN - 1 - routing.LAST}" in reasons(g)
    assert healthcheck(g.exit)[0] == 1
    assert g.leaves_by_the_provider()
    with frozen(g.exit):
        g.exit.netns.nft(f"delete table inet {NFT_TABLE_EXIT}")
        ask_udp(g.user.netns, SERVICE, timeout=0.5)
    wait_until(g.intact, 10.0, "the kill switch to be repaired")
    g.assert_nothing_by_isp(since)

    # While that rule is asked first, an error of the exit's own to its user takes that way, too.
    g.allowed.append(match(src=DOCKER_NET[3], dst=g.user.address, protocol="icmp"))
    foreign(g, "add", NO_ROOM)
    wait_until(lambda: "the kill switch stays closed" in reasons(g), 10.0, "the reason")
    assert g.rejected_at_once()

    foreign(g, "del", NO_ROOM)
    foreign(g, "del", FOREIGN)
    usual = TUNNEL_RULE_PRIO + routing.LAST
    wait_until(lambda: last_of_ours(g) == usual, 10.0, "the block to move back")
    g.exit.wait_healthy(60.0)
    wait_until(g.leaves_by_the_provider, 10.0, "the switch to be open again")
    g.assert_nothing_by_isp(since)


def prove_that_a_rule_leads_out(g: Ground) -> None:
    """Positive control: while it is asked first and the ruleset is gone, the ISP sees the user. The
    rule stays."""
    way = f"route add default via {DOCKER_NET[1]} dev eth0 table {FOREIGN_TABLE}"
    with frozen(g.exit):
        g.exit.netns.ip(way)
        foreign(g, "add", FOREIGN)
        g.exit.netns.nft(f"delete table inet {NFT_TABLE_EXIT}")
        started, marker = now(), new_marker()
        ask_udp(g.user.netns, SERVICE, data=marker, timeout=0.5)
        for capture in (g.uplink, g.docker):
            assert g.leaks(capture.prove_sees(match(marker=marker), "the user's", since=started))


def foreign(g: Ground, verb: str, priority: int) -> None:
    rule = f"pref {priority} from {DOCKER_NET} lookup {FOREIGN_TABLE}"
    g.exit.netns.ip(f"rule {verb} {rule}")


def last_of_ours(g: Ground) -> int:
    """The highest priority among our IPv4 rules."""
    lines = g.exit.netns.run(["ip", "rule", "show"]).stdout.splitlines()
    ours = [line for line in lines if f"proto {ROUTE_PROTOCOL}" in line]
    return max((int(line.split(":")[0]) for line in ours), default=0)

"""Somebody else changes our kernel state: it is put back at once, and a fight is survived.

client1 --- inet --- router --- gw (ocgate, ocserv, vpns0)    lab/topology.py
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.gateway import Gateway
from lab.topology import SERVICE
from lab.traffic import ask_udp
from ocgate.netlab.wait import wait_until
from support.lifecycle import LabFactory, elements, log_in, ocgate, serve, sessions, with_services

pytestmark = pytest.mark.lab

# kind of damage -> (shell command, a word of what must be logged as found)
DAMAGE = {
    "table flushed": ("nft flush table inet ocserv", "rules were removed"),
    "table deleted": ("nft delete table inet ocserv", "table ocserv is gone"),
    "ruleset flushed": ("nft flush ruleset", "table ocserv is gone"),
    "rule edited, same comment": (
        "h=$(nft -a list chain inet ocserv forward_to_client"
        " | sed -n '/answers to an admitted client/s/.*handle //p');"
        "nft replace rule inet ocserv forward_to_client handle $h accept"
        ' comment \\"answers to an admitted client\\"',
        "a rule was edited",
    ),
    "element deleted": (
        "nft flush map inet ocserv sessions4",
        "elements of sessions differ",
    ),
    "element added": (
        "nft add element inet ocserv sessions4 '{ \"vpns7\" . 10.10.10.99 : 0x01000000 }'",
        "elements of sessions differ",
    ),
    "blackhole deleted": ("ip route del blackhole 10.10.10.0/24", "10.10.10.0/24"),
    "forwarding turned off": ("sysctl -qw net.ipv4.ip_forward=0", "net.ipv4.ip_forward is 0"),
}


def kernel(gw: Gateway) -> tuple[str, ...]:
    """What the damage is done to, as text; read by one process, so that 10 ms are seen."""
    script = (
        "nft -s list table inet ocserv; ip route show type blackhole;"
        "cat /proc/sys/net/ipv4/ip_forward"
    )
    done = gw.netns.run(["sh", "-c", script], check=False)
    return tuple(line.split("expires")[0] for line in done.stdout.splitlines())


def processor_time(gw: Gateway) -> float:
    """Seconds that control has used so far."""
    fields = Path(f"/proc/{gw.pid()}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def repaired_after(gw: Gateway, damage: str) -> float:
    """Seconds of control's processor time from the damage until the kernel is as before: those of
    the clock are other tests', too."""
    before, repairs = kernel(gw), gw.status()["network"]["repairs"]
    started = processor_time(gw)
    with gw.netns.entered():
        subprocess.run(["sh", "-ec", damage], check=True, capture_output=True)
    wait_until(lambda: kernel(gw) == before, 5.0, f"repair of: {damage}", interval=0.002)
    seconds = processor_time(gw) - started
    wait_until(lambda: gw.status()["network"]["repairs"] > repairs, 5.0, "the repair to be counted")
    return seconds


def test_damage_is_repaired_and_logged(lab: LabFactory) -> None:
    """Each kind of damage by another process is undone, said in the log, and the session goes on.
    Printed is how much of the processor control takes for it, 30 to 110 ms."""
    gw = serve(with_services(lab()))
    client = log_in(gw, 0, "alice")
    took = {}
    for kind, (damage, words) in DAMAGE.items():
        said = gw.output.count(words)
        took[kind] = repaired_after(gw, damage)
        wait_until(
            lambda words=words, said=said: gw.output.count(words) > said,
            *(2.0, f"{words!r} in the log, after {kind}"),
        )
        assert ask_udp(client.netns, SERVICE)
    print("\n".join(f"{kind}: {seconds * 1000:.0f} ms" for kind, seconds in took.items()))
    assert [session["user"] for session in sessions(gw)] == ["alice"]


def test_a_tunnel_that_is_taken_out_of_its_group_is_back_and_status_says_so(
    lab: LabFactory,
) -> None:
    """Positive control: while control stands still, what is for its client goes nowhere."""
    gw = serve(with_services(lab()), environ={"VPN_GATEWAY": "direct"})
    client = log_in(gw, 0, "alice")
    assert ask_udp(client.netns, SERVICE)
    (device,) = (session["device"] for session in sessions(gw))
    control = gw.pid()
    os.kill(control, signal.SIGSTOP)
    try:
        gw.netns.ip(f"link set {device} group default")
        assert not ask_udp(client.netns, SERVICE)
    finally:
        os.kill(control, signal.SIGCONT)
    wait_until(lambda: gw.status()["network"]["repairs"] == 1, 5.0, "the repair to be counted")
    said = f"tunnel {device} was taken out of its interface group"
    assert gw.status()["network"]["last_repair"] == said
    assert said in gw.output
    assert ask_udp(client.netns, SERVICE)
    assert gw.pid() == control


def undo(gw: Gateway, times: int) -> Callable[[], None]:
    """Delete the table `times` times, every 50 ms, whatever ocgate does meanwhile."""

    def loop() -> None:
        for _ in range(times):
            gw.netns.run(["nft", "delete", "table", "inet", "ocserv"], check=False)
            time.sleep(0.05)

    return loop


def test_a_fight_is_slowed_down_and_control_stays_responsive(lab: LabFactory) -> None:
    """Another process deletes our table 100 times in a row: repairs are rate-limited, status keeps
    answering, healthcheck says unhealthy, a client that logs in meanwhile is not let in half; when
    the other gives up, all is as before and the client works."""
    gw = serve(with_services(lab()))
    before = kernel(gw)
    started = time.monotonic()
    fight = threading.Thread(target=undo(gw, 100))
    fight.start()
    answers, reasons = [], []
    checked = None
    while fight.is_alive():
        asked = time.monotonic()
        status = gw.status()
        answers.append(time.monotonic() - asked)
        reasons += status["reasons"]
        if checked is None and "somebody keeps changing our kernel state" in gw.output:
            checked = ocgate(gw, "healthcheck")
    seconds = time.monotonic() - started
    assert checked is not None
    assert checked.returncode == 1
    assert "the kernel differs from the plan" in checked.stdout
    assert reasons
    assert max(answers) < 6.0
    # 20 at once, then one every 0.5 s, and one for the edge of the window.
    repairs = gw.status()["network"]["repairs"]
    print(f"{repairs} repairs in {seconds:.1f} s; slowest status {max(answers) * 1000:.0f} ms")
    assert repairs <= 20 + seconds / 0.5 + 1
    assert "somebody keeps changing our kernel state" in gw.output
    wait_until(lambda: kernel(gw) == before, 5.0, "the last repair")
    client = log_in(gw, 0, "alice")
    assert ask_udp(client.netns, SERVICE)
    assert len(elements(gw)) == 1
    assert ocgate(gw, "healthcheck").returncode == 0

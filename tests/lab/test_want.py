"""Control under want: the guard stands, new sessions are refused with a reason, live ones go on, it
is told, and everything is back by itself. And two of them where there may be one.

client1, client2 --- inet --- router (docker) --- gw (ocgate, ocserv, vpns*)    lab/topology.py
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from lab import gateway
from lab.client import Refused
from lab.exit_role import start as start_exit
from lab.gateway import Gateway
from lab.topology import SERVICE, Lab
from lab.traffic import ask_udp
from ocgate import names
from ocgate.netlab.wait import wait_until
from support.lifecycle import (
    LabFactory,
    elements,
    journal,
    log_in,
    ocgate,
    operator_conf,
    serve,
    sessions,
    two_clients,
)
from support.small_disk import SmallDisk

pytestmark = pytest.mark.lab


def healthy(gw: Gateway) -> bool:
    status = gw.status_or_none()
    return status is not None and bool(status["healthy"])


def refused(gw: Gateway, number: int, user: str) -> None:
    before = len(elements(gw))
    with pytest.raises(Refused):
        log_in(gw, number, user)
    assert len(elements(gw)) == before


# --- no space ------------------------------------------------------------------------------------


def test_a_full_run_dir(lab: LabFactory) -> None:
    """The reason is in the log of a refused login, in status, healthcheck and doctor; a killed
    control is back and has the live session; with space again the next login gets in."""
    built = two_clients(lab)
    disk = built.own(SmallDisk(built.path("small")))
    run_dir = disk.path / "run"
    gw = gateway.start(built, {"OCGATE_RUN_DIR": str(run_dir)}, operator_conf(built))
    gw.run_dir = run_dir
    gw.wait_ready()
    alice = log_in(gw, 0, "alice")
    assert healthy(gw)

    disk.fill()
    refused(gw, 1, "bob")
    assert "it can't be noted in the run dir: No space left on device" in gw.output
    reason = f"nothing can be written in {run_dir} (No space left on device)"
    assert any(said.startswith(reason) for said in gw.status()["reasons"])
    checked = ocgate(gw, "healthcheck")
    assert (checked.returncode, reason in checked.stdout + checked.stderr) == (1, True)
    findings = json.loads(ocgate(gw, "doctor", "--json").stdout)
    assert reason in json.dumps(findings)

    assert "Free some space there" in json.dumps(findings)
    checked = ocgate(gw, "check")
    assert (checked.returncode, reason in checked.stdout + checked.stderr) == (0, True)

    reloaded = ocgate(gw, "reload")
    assert reloaded.returncode != 0
    assert f"writing in {run_dir}: No space left on device" in reloaded.stderr

    killed = gw.kill()
    wait_until(lambda: gw.status_or_none() is not None, 10.0, "control to answer again")
    assert not Path(f"/proc/{killed}").exists()
    assert [session["user"] for session in sessions(gw)] == ["alice"]
    assert (len(elements(gw)), len(journal(gw))) == (1, 1)
    assert ask_udp(alice.netns, SERVICE)
    disk.fill()  # without control.pid of the former one there is a page again
    refused(gw, 1, "bob")

    disk.empty()
    wait_until(lambda: healthy(gw), 5.0, "its health")
    gw.wait_replaced(names.CONTROL_PID, killed)  # written when there was room again
    assert ask_udp(log_in(gw, 1, "bob").netns, SERVICE)
    assert len(elements(gw)) == 2
    assert "Traceback" not in gw.output


def test_a_start_in_a_full_run_dir(lab: LabFactory) -> None:
    """Of either role: refused with the directory and the reason, and nothing is left."""
    built = two_clients(lab)
    disk = built.own(SmallDisk(built.path("small")))
    disk.fill()
    run_dir = disk.path / "run"
    wireguard = built.path("wg0.conf")
    wireguard.write_text(WIREGUARD)
    gw = gateway.start(built, {"OCGATE_RUN_DIR": str(run_dir)}, operator_conf(built))
    assert gw.program.wait(15.0) == 1
    assert gw.left_behind() == []
    exit_role = start_exit(built, {"WG_CONFIG": str(wireguard)}, run_dir=run_dir, host=built.gw)
    assert exit_role.program.wait(15.0) == 1
    for said in (gw.output, exit_role.output):
        assert f"writing in {run_dir}: No space left on device" in said
        assert "mistake" not in said


# --- no descriptors ------------------------------------------------------------------------------


def test_no_descriptors(lab: LabFactory) -> None:
    """`ulimit -n 256` and 500 silent connections, which is below what control was started with:
    status answers, a client logs in, the log gets some lines and not megabytes."""
    gw = serve(two_clients(lab))
    control = gw.pid()
    subprocess.run(["prlimit", f"--pid={control}", "--nofile=256:256"], check=True)
    logged = len(gw.output)
    with ExitStack() as held:
        for _ in range(500):
            peer = held.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            peer.settimeout(10)
            wait_until(lambda peer=peer: connected(peer, gw), 10.0, "a place in the queue")
        began = time.monotonic()
        assert gw.ask("status", timeout=15.0)
        print(f"status after {time.monotonic() - began:.1f} s")
        alice = log_in(gw, 0, "alice")
        assert ask_udp(alice.netns, SERVICE)
        assert any("control.sock" in said for said in gw.status()["reasons"])
    assert gw.pid() == control
    assert len(gw.output) - logged < 20_000
    assert "Traceback" not in gw.output


def connected(peer: socket.socket, gw: Gateway) -> bool:
    try:
        peer.connect(str(gw.run_dir / names.CONTROL_SOCKET))
    except BlockingIOError:
        return False
    return True


# --- what somebody removed -----------------------------------------------------------------------


@pytest.mark.parametrize("file", [names.EFFECTIVE_CONF, names.CONTROL_SOCKET, names.HOOK_CONNECT])
def test_a_file_of_ours_that_is_removed_is_back(lab: LabFactory, file: str) -> None:
    """Control neither ends nor stays without it, and nobody is disconnected."""
    gw = serve(two_clients(lab))
    alice, control = log_in(gw, 0, "alice"), gw.pid()
    (gw.run_dir / file).unlink()
    wait_until(lambda: (gw.run_dir / file).exists(), 5.0, f"{file}")
    wait_until(lambda: healthy(gw), 5.0, "its health")
    assert gw.pid() == control
    assert ask_udp(alice.netns, SERVICE)
    assert ask_udp(log_in(gw, 1, "bob").netns, SERVICE)


# --- two where there may be one ------------------------------------------------------------------


def test_two_in_one_network(lab: LabFactory) -> None:
    """A second server with another run dir, port and subnet, and an exit, are told who is first and
    change nothing; after kill -9 of everything the network is free."""
    gw = serve(two_clients(lab))
    kernel = gw.state()
    first = f"server, {gw.config_dir}, {gw.run_dir}, pid "

    other = operator_conf(gw.lab, tcp_port="8443", udp_port="8443", ipv4_network="10.20.20.0")
    second = gateway.start(gw.lab, {}, other)
    assert second.program.wait(15.0) == 1
    assert first[:60] in second.output  # the kernel keeps a hundred characters of it
    assert "OCGATE_RUN_DIR" not in second.output

    wireguard = gw.lab.path("wg0.conf")
    wireguard.write_text(WIREGUARD)
    third = start_exit(gw.lab, {"WG_CONFIG": str(wireguard)}, host=gw.host)
    assert third.program.wait(15.0) == 1
    assert first[:60] in third.output

    assert kernel.differences(gw.state()) == []
    assert ask_udp(log_in(gw, 0, "alice").netns, SERVICE)
    gw.crash()
    again = gateway.run(gw.lab, {}, gw.config_dir)
    assert len(sessions(again)) == 0


WIREGUARD = """[Interface]
PrivateKey = aN0AXUdvqQxEDyqiuTIRmVG8Pt4zTE9gH9hVdBkw0lI=
Address = 10.99.0.2/32
[Peer]
PublicKey = 3bhT8Z1q7Jm0iT9o0l7s0VxpKjTvE3r7m1m0mXb8uW0=
Endpoint = 192.0.2.1:51820
AllowedIPs = 0.0.0.0/0
"""


SITE = """import sys
with open({file!r}, "a") as file:
    print(*sys.orig_argv, file=file)
"""


def test_the_environment_puts_no_code_into_control(lab: LabFactory) -> None:
    """PYTHONPATH of whoever starts it counts for the command that he types and no further."""
    built = two_clients(lab)
    site, seen = built.path("site"), built.path("seen")
    site.mkdir()
    (site / "sitecustomize.py").write_text(SITE.format(file=str(seen)))
    gateway.run(built, {"PYTHONPATH": str(site)}, operator_conf(built))
    ran = seen.read_text().splitlines()
    assert any("-m ocgate run" in line for line in ran)
    assert not any("ocgate.control" in line for line in ran)


EXIT = {"URL": "https://192.0.2.1", "USER": "u", "PASS": "p"}


def test_a_run_dir_of_somebody_else_s(lab: LabFactory) -> None:
    """nobody could have root run his program: refused with status 2, naming what it is, and nothing
    is written through his links. `check` says the same."""
    built: Lab = two_clients(lab)
    run_dir, treasure = built.path("run"), built.path("shadow")
    treasure.write_text("root:secret")
    (run_dir / "hooks").mkdir(parents=True)
    for name in ("applied.json", "applied.json.new", ".applied.json.new"):
        (run_dir / name).symlink_to(treasure)
    subprocess.run(["chown", "-Rh", "65534:65534", run_dir], check=True)
    gw = gateway.start(built, {"OCGATE_RUN_DIR": str(run_dir)}, operator_conf(built))
    gw.run_dir = run_dir
    assert gw.program.wait(15.0) == 2
    assert f"OCGATE_RUN_DIR: got '{run_dir}'" in gw.output
    assert f"{run_dir} belongs to uid 65534" in gw.output
    assert treasure.read_text() == "root:secret"
    assert gw.left_behind() == []
    checked = ocgate(gw, "check")
    assert checked.returncode == 2
    assert "belongs to uid 65534" in checked.stdout + checked.stderr

    exit_role = start_exit(built, EXIT, run_dir=run_dir, host=built.gw)
    assert exit_role.program.wait(15.0) == 2
    assert f"{run_dir} belongs to uid 65534" in exit_role.output


def test_a_run_dir_that_the_tunnel_s_client_cannot_go_to(lab: LabFactory) -> None:
    """Its client is not root, and would be called wrong for a file that it can't open."""
    built: Lab = two_clients(lab)
    closed = built.path("closed")
    closed.mkdir(0o700)
    exit_role = start_exit(built, EXIT, run_dir=closed / "a" / "run", host=built.gw)
    assert exit_role.program.wait(15.0) == 2
    said = f"({closed} has mode 0700). Use /run/ocgate, or: chmod o+x {closed}"
    assert said in exit_role.output
    assert not any(closed.iterdir())

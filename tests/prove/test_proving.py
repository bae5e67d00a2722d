"""`ocgate prove` as a command, and what makes its word worth something."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lab import gateway as gateways
from lab.ocserv import write_config_dir
from lab.topology import WORK_ROOT, Lab
from ocgate.netlab import namespace
from ocgate.netlab.namespace import Namespace
from ocgate.netlab.program import BASE_ENVIRON, Program, spawn
from ocgate.netlab.wait import wait_until
from ocgate.prove import lock_faults
from ocgate.prove.engine import Broken
from ocgate.prove.fault import Fault, nothing
from support.prove_configs import ON_ITS_OWN, prove

pytestmark = pytest.mark.lab

QUICK = ("--only", "client spoofs")
SECONDS = 60.0


@pytest.fixture
def machine() -> Any:
    """A namespace that looks like a container on a docker network."""
    made = namespace.create(f"{namespace.next_prefix()}machine")
    made.ip(
        "link add eth0 type veth peer name docker",
        "link set eth0 up",
        "link set docker up",
        "address add 172.28.0.10/24 dev eth0",
        "route add default via 172.28.0.1 dev eth0",
    )
    yield made
    namespace.kill(made.pids())
    made.close()


def run(
    netns: Namespace, config_dir: Path, *arguments: str, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """`ocgate prove ARGUMENTS` in a namespace."""
    with netns.entered():
        return subprocess.run(
            gateways.command("prove", *arguments),
            env={**BASE_ENVIRON, "OCGATE_CONFIG_DIR": str(config_dir), **(environ or {})},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )


def left_by(pid: int) -> list[str]:
    """Namespaces and work directories of a process that has ended."""
    directories = (namespace.NETNS_DIR, WORK_ROOT)
    return [p.name for d in directories for p in d.glob(f"{namespace.PREFIX}{pid}-*")]


def test_it_proves_what_would_be_run_here_and_says_so(machine: Namespace, config_dir: Path) -> None:
    """The verdict first, the figures last, no line beyond 80 columns; 0 when nothing leaked."""
    done = run(machine, config_dir, *QUICK, environ={"VPN_GATEWAY": "172.28.0.2"})
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.strip().splitlines()
    assert lines[0].startswith("HOLDS: 0 of ")
    assert lines[0].endswith("leaked, in 1 fault.")
    assert "Positive control" in done.stdout
    assert lines[-1].startswith("1 fault, ")
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in done.stdout
    assert "ocgate: clients: 1 fault, 0 leaked" in done.stderr
    assert ", 0 leaked, " in lines[-1]


def test_a_leak_is_told_in_words_with_what_closes_it(machine: Namespace, config_dir: Path) -> None:
    """One screen: what leaked, which layer was away, why, which setting helps; each packet only on
    request."""
    leaking = ("--only", "our tables deleted, frozen")
    done = run(machine, config_dir, *leaking)
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("LEAKED: ")
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert "With the nftables layer taken away (1 fault, " in done.stdout
    assert "VPN_GATEWAY=direct adds that layer" in done.stdout
    assert "seen by" not in done.stdout
    closed = run(machine, config_dir, *leaking, environ={"VPN_GATEWAY": "direct"})
    assert closed.returncode == 0, closed.stdout


def test_a_leak_is_exit_status_1_and_in_the_json(machine: Namespace, config_dir: Path) -> None:
    """The standalone server with its table gone and nobody to repair it."""
    done = run(machine, config_dir, "--only", "our tables deleted, frozen", "--json")
    assert done.returncode == 1, done.stderr
    document = json.loads(done.stdout)
    (fault,) = document["faults"]
    assert document["holds"] is False
    assert fault["leaked"] == document["leaked"] > 0
    assert {"udp", "icmp", "tcp new"} <= {leak["kind"] for leak in fault["leaks"]}
    assert fault["leaks"][0]["examples"]
    assert document["schema"] == 2
    assert document["guard"]["layers"] == ["nftables", "blackhole"]
    assert fault["id"] == "our-tables-deleted-frozen"
    (group,) = document["summary"]["leaks"]
    assert group["layers_taken_away"] == fault["layers_taken_away"] == ["nftables"]
    assert (group["packets"], group["faults"]) == (fault["leaked"], [fault["id"]])
    assert {"client", "forged"} <= {what["what"] for what in group["what"]}
    (remedy,) = document["summary"]["remedies"]
    assert remedy["name"] == group["closed_by"] == "policy-routing"
    assert (remedy["setting"], remedy["value"]) == ("VPN_GATEWAY", "direct")
    assert sum(kind["sent"] for kind in fault["kinds"]) == fault["sent"]


def test_captures_are_kept_on_request(machine: Namespace, config_dir: Path, tmp_path: Path) -> None:
    """One file per fault and way out, which tcpdump reads."""
    done = run(machine, config_dir, *QUICK, "--pcap", str(tmp_path / "kept"))
    assert done.returncode == 0, done.stderr
    kept = list((tmp_path / "kept").glob("*client_spoofs*isp-in.pcap"))
    assert len(kept) == 1
    shown = subprocess.run(
        ["tcpdump", "-nr", str(kept[0])], capture_output=True, text=True, check=True
    )
    assert "198.51.100.10" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "environ", "words"),
    [
        (("--only", "no such fault"), {}, "no fault is called no such fault"),
        ((), {"VPN_GATEWAY": "2001:db8::1"}, "VPN_GATEWAY"),
        ((), {"VPN_SUBNET": "nonsense"}, "VPN_SUBNET"),
    ],
)
def test_what_cannot_be_proven_is_exit_status_2(
    machine: Namespace,
    config_dir: Path,
    arguments: tuple[str, ...],
    environ: Mapping[str, str],
    words: str,
) -> None:
    """Usage and configuration, with the word that is wrong."""
    done = run(machine, config_dir, *arguments, environ=environ)
    assert done.returncode == 2
    assert words in done.stderr


def test_a_machine_without_a_network_is_told_what_to_do(netns: Namespace, config_dir: Path) -> None:
    done = run(netns, config_dir, *QUICK)
    assert done.returncode == 1
    assert "nothing to copy" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_leaves_nothing_behind_when_it_is_ended(
    number: signal.Signals, machine: Namespace, config_dir: Path, tmp_path: Path
) -> None:
    """Ctrl-C and SIGTERM in the middle of the traffic: no namespace, process or directory stays."""
    program = started(machine, config_dir, tmp_path)
    program.send(number)
    assert program.wait(20.0) != 0
    assert not left_by(program.pid)


def started(netns: Namespace, config_dir: Path, tmp_path: Path) -> Program:
    """A run that has come as far as real packets."""
    program = spawn(
        netns,
        # As a terminal leaves it: a shell's background job ignores SIGINT.
        ["env", "--default-signal=INT", *gateways.command("prove", "--pcap", f"{tmp_path}/kept")],
        log=tmp_path / "prove",
        environ={"OCGATE_CONFIG_DIR": str(config_dir)},
    )
    wait_until(lambda: any((tmp_path / "kept").glob("002-*")), 30.0, "the first fault")
    return program


def test_it_leaves_an_operating_server_alone(tmp_path: Path) -> None:
    """`ocgate prove` beside `ocgate run`, in one container with one config dir: the server goes on,
    its kernel state untouched."""
    with Lab() as lab:
        directory = lab.path("etc")
        write_config_dir(lab, directory, {"alice": "a secret"})
        served = gateways.run(lab, {}, directory)
        before, pid = served.state(), served.pid()
        done = run(lab.gw.netns, directory, *QUICK, "--only", "container*")
        assert done.returncode == 0, done.stdout + done.stderr
        status = served.status()
        assert status["healthy"], status["reasons"]
        assert status["network"]["repairs"] == 0
        assert served.pid() == pid
        assert not before.differences(served.state())


def test_a_proof_that_sees_no_leak_without_locks_refuses(
    config_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The positive control: locks that stay where they should be gone are a broken proof."""
    standing = Fault("no layer at all", "control", nothing, frozen=True)
    monkeypatch.setattr(lock_faults, "POSITIVE_CONTROL", standing)
    monkeypatch.setattr("ocgate.prove.engine.CONTROL_SECONDS", 1.0)
    with pytest.raises(Broken, match="the proof itself is broken"):
        prove(config_dir, {"VPN_GATEWAY": ON_ITS_OWN}, only=("client spoofs",))


def test_a_captured_packet_that_was_lost_makes_the_proof_worthless(
    config_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the kernel could not hand over might have been the leak."""
    monkeypatch.setattr("ocgate.prove.ring.Captures.dropped", 1)
    with pytest.raises(Broken, match="missed 1 packets"):
        prove(config_dir, {}, only=("client spoofs",))


def test_an_exception_in_the_middle_leaves_nothing_behind(
    config_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fixture of this directory looks for what is left."""

    def fail(*_: object) -> None:
        raise RuntimeError("in the middle")

    monkeypatch.setattr("ocgate.prove.engine.Engine._cells", fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        prove(config_dir, {}, only=("client spoofs",))

"""What the supervised processes may do, read from the kernel while they run: less than root.

Run in a network namespace of its own, as in a container, and on the machine itself, where s6 and
what it starts keep what root has, because the operator's scripts run below them.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.privileges import CONTAINER, NAMES, NONE, Held, held
from ocgate import supervision
from ocgate.netlab.wait import wait_until

pytestmark = pytest.mark.kernel

STUB = """#!/bin/sh
case "$*" in
*daemon*) echo $$ >@RUN@/control.started && exec sleep 600 ;;
*teardown*) exec grep -E '^(Cap(Eff|Bnd)|NoNew)' /proc/self/status >@RUN@/teardown.status ;;
esac
"""
RUN = """
import sys
from pathlib import Path
from ocgate.supervision import exec_supervisor
exec_supervisor(Path(sys.argv[1]))
"""
SOURCE = Path(supervision.__file__).parents[2]
HOLDS = frozenset({"net_admin", "dac_override"})

# There only in the machine's first network namespace.
FIRST = Path("/proc/sys/net/core/netdev_max_backlog")

Start = Callable[..., Path]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start(*words)`: the run dir of a supervised stub; words: before the command."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*words: str) -> Path:
        stub = tmp_path / "stub"
        stub.write_text(STUB.replace("@RUN@", str(tmp_path)))
        stub.chmod(0o700)
        role = supervision.Role(
            "daemon", "teardown", "reload", tuple(HOLDS), (), (supervision.CONTROL,)
        )
        supervision.write(tmp_path, role, python=str(stub), log_format="human")
        command = [*words, sys.executable, "-c", RUN, str(tmp_path)]
        with (tmp_path / "log").open("wb") as log:
            started.append(
                subprocess.Popen(
                    command,
                    stdout=log,
                    stderr=log,
                    env={"PYTHONPATH": str(SOURCE), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
                    start_new_session=True,
                )
            )
        (tmp_path / "supervisor.pid").write_text(str(started[0].pid))
        wait_until(lambda: supervision.status(tmp_path, "control").up, 10, "control")
        wait_until((tmp_path / "control.started").exists, 10, "the stub")
        return tmp_path

    yield begin
    for process in started:
        process.terminate()
        process.wait(10)


def of(run_dir: Path, service: str) -> Held:
    pid = supervision.status(run_dir, service).pid
    return held(Path(f"/proc/{pid}"))


def of_relay(run_dir: Path) -> Held:
    pid = supervision.status(run_dir, "control/log").pid
    wait_until(lambda: b"relay" in Path(f"/proc/{pid}/cmdline").read_bytes(), 10, "the relay")
    return of(run_dir, "control/log")


def of_supervisor(run_dir: Path) -> Held:
    return held(Path("/proc", (run_dir / "supervisor.pid").read_text()))


def test_control_holds_what_its_role_says_and_no_more(start: Start) -> None:
    """Nor does what it executes, or the teardown."""
    run_dir = start("unshare", "--net")
    control = of(run_dir, "control")
    assert control.permitted == control.effective == control.bounding == HOLDS
    assert control.inheritable == control.ambient == NONE
    assert control.no_new_privs
    subprocess.run([run_dir / "services/.s6-svscan/stop"], check=True, capture_output=True)
    wait_until((run_dir / "teardown.status").exists, 10, "the teardown")
    fields = (run_dir / "teardown.status").read_text().split()[1::2]
    mask = sum(1 << NAMES.index(name) for name in HOLDS)
    assert fields == [f"{mask:016x}", f"{mask:016x}", "1"]


def test_a_log_relay_holds_nothing(start: Start) -> None:
    relay = of_relay(start("unshare", "--net"))
    assert relay.permitted == relay.bounding == NONE
    assert relay.no_new_privs


def test_the_supervisor_of_a_container_gives_up_what_no_service_needs(start: Start) -> None:
    """And nothing below it gains a privilege by executing a program."""
    supervisor = of_supervisor(start("unshare", "--net"))
    assert supervisor.permitted == supervisor.bounding == CONTAINER
    assert supervisor.no_new_privs


def test_a_container_without_setpcap_bounds_all_and_none_gains_a_privilege(start: Start) -> None:
    """Then what root may can't be narrowed for any one: `--cap-drop ALL` and a list without it."""
    given = "--bounding-set=-all,+net_admin,+dac_override,+kill,+chown"
    run_dir = start("unshare", "--net", "setpriv", given, "--inh-caps=-all")
    everything = [of_supervisor(run_dir), of(run_dir, "control"), of_relay(run_dir)]
    assert {each.bounding for each in everything} == {HOLDS | {"kill", "chown"}}
    assert all(each.no_new_privs for each in everything)


@pytest.mark.skipif(not FIRST.exists(), reason="runs in a network namespace of its own")
def test_on_a_host_control_and_relays_are_limited_all_the_same(start: Start) -> None:
    """The supervisor is not: below it ocserv runs the operator's scripts."""
    run_dir = start()
    supervisor, control = of_supervisor(run_dir), of(run_dir, "control")
    assert supervisor.bounding == held(Path("/proc/self")).bounding
    assert not supervisor.no_new_privs
    assert control.permitted == control.bounding == HOLDS
    assert control.no_new_privs
    assert of_relay(run_dir).bounding == NONE

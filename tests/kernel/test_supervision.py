"""Supervision with the real s6: what starts, what survives, and in which order it all ends.

    pytest ── s6-svscan (or its stand-in in a pty) ─┬─ control: a stub that records, starts ocserv
                                                    └─ ocserv:  a stub that records its signals

The stubs append a line to `events` at each start, signal and end; the order of lines is the proof.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from ocgate import names, supervision
from ocgate.errors import MissingRequirement, OcgateError, ServerRefused
from ocgate.netlab.wait import TimedOut, wait_until
from ocgate.ocserv import dryrun, services

pytestmark = pytest.mark.skipif(
    shutil.which("s6-svscan") is None and os.environ.get("CI") != "true", reason="needs s6"
)

EXEC = "import sys; from pathlib import Path; from ocgate.ocserv.services import exec_supervisor"
RUN = f"{EXEC}; exec_supervisor(Path(sys.argv[1]))"

STUB = r"""#!/usr/bin/perl
use strict;
my $run = '@RUN@';
sub event { open my $f, '>>', "$run/events"; syswrite $f, "$_[0]\n" }
sub serve {
    my ($name, $slow) = @_;
    $SIG{INT} = sub { event("$name SIGINT") };
    $SIG{HUP} = sub { event("$name SIGHUP") };
    $SIG{TERM} = sub { return if -e "$run/deaf-$name"; event("$name stop"); exit 0 };
    event("$name start");
    print STDERR "$name is \"up\"\n";
    sleep 1 while 1;
}
if ("@ARGV" =~ /--help/) { print "  -e, --log-stderr\n"; exit }
if ("@ARGV" =~ /ocgate\.server\.daemon/) {
    event('control has the secret') if $ENV{OCGATE_TEST_SECRET};
    my $ocserv = "$run/services/ocserv";
    select undef, undef, undef, 0.02 while system 's6-svok', $ocserv;
    unless (-e "$run/no-ocserv") { # a supervisor that has just come up may not listen yet
        select undef, undef, undef, 0.02 while system 's6-svc', '-u', $ocserv;
    }
    serve('control');
}
if ("@ARGV" =~ /ocgate\.server\.teardown (\S+) when-input-ends/) {
    1 while <STDIN>;
    event($1 eq $run ? 'teardown' : "? $1");
    exit;
}
if ("@ARGV" =~ /ocgate\.\w+\.reload/) { event('reload'); exit }
exit 7 if -e "$run/broken-ocserv";
open my $env, '>', "$run/ocserv.environ"; print $env "$_\n" for sort keys %ENV; close $env;
my ($file) = "@ARGV" =~ / -p (.*)/;
open my $pid, '>', $file; print $pid $$; close $pid;
event("ocserv sees @ARGV") if -e "$run/show-arguments";
serve('ocserv');
"""


class Supervised:
    """One run dir with stub services, and the process that supervises it."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.process: subprocess.Popen[bytes] | None = None
        self.terminal = -1
        stub = run_dir / "stub"
        stub.write_text(STUB.replace("@RUN@", str(run_dir)))
        stub.chmod(0o700)
        self.write()

    def write(self, log_format: str = "human") -> None:
        stub = str(self.run_dir / "stub")
        services.write(
            self.run_dir,
            python=stub,
            ocserv=stub,
            ocserv_arguments=["-d", "1"],
            log_format=log_format,
        )

    def start(self, *, terminal: bool = False, ready: str = "ocserv start") -> None:
        command = [sys.executable, "-c", RUN, str(self.run_dir)]
        environment = {**os.environ, "OCGATE_TEST_SECRET": "hunter2"}
        if terminal:
            self.terminal, other = pty.openpty()
            self.process = subprocess.Popen(
                command,
                env=environment,
                stdin=other,
                stdout=other,
                stderr=other,
                start_new_session=True,
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0) and None,
            )
            os.close(other)
        else:
            log = (self.run_dir / "log").open("ab")
            self.process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True
            )
            log.close()
        if ready:
            self.wait_for(ready)

    @property
    def events(self) -> list[str]:
        try:
            return (self.run_dir / "events").read_text().splitlines()
        except FileNotFoundError:
            return []

    @property
    def log(self) -> str:
        log = self.run_dir / "log"  # absent with a terminal
        return log.read_text() if log.exists() else ""

    def wait_for(self, event: str, times: int = 1) -> None:
        try:
            wait_until(lambda: self.events.count(event) >= times, 10, repr(event))
        except TimedOut as error:
            raise AssertionError(f"{error}\nevents: {self.events}\nlog: {self.log}") from error

    def pid(self, service: str) -> int:
        pid = services.status(self.run_dir)[service].pid
        assert pid is not None
        return pid

    def ended(self, timeout: float = 5) -> int:
        assert self.process is not None
        return self.process.wait(timeout)

    def left(self) -> list[str]:
        """Processes that stand in the run dir or name it; all of ours do one or the other."""
        return [proc.name for proc in self._processes()]

    def _processes(self) -> list[Path]:
        found = Path("/proc").glob("[0-9]*")
        mine = str(self.run_dir)
        return [p for p in found if _cwd(p).startswith(mine) or mine in _command(p)]

    def _all_killed(self) -> bool:
        """Supervisors first, or they start anew what is killed below them."""
        found = self._processes()
        for proc in sorted(found, key=lambda proc: not _is_supervisor(proc)):
            _kill(proc)
        return not found

    def close(self) -> None:
        """Until nothing runs: a supervisor that is killed a moment after its service has started
        that again, and a process that was just forked is in no listing of before."""
        wait_until(self._all_killed, 10, "the end of all that stands in the run dir")
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        if self.terminal >= 0:
            os.close(self.terminal)


def _is_supervisor(proc: Path) -> bool:
    with contextlib.suppress(OSError):
        return (proc / "comm").read_text().startswith("s6-")
    return False


def _kill(proc: Path) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(proc.name), signal.SIGKILL)


def _command(proc: Path) -> str:
    try:
        return (proc / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def _cwd(proc: Path) -> str:
    try:
        return str((proc / "cwd").readlink())
    except OSError:
        return ""


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Supervised]:
    made = Supervised(tmp_path)
    yield made
    made.close()


IN_ORDER = ["ocserv stop", "control stop", "teardown"]


def _after(events: list[str], first: str) -> list[str]:
    return events[events.index(first) :]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_stops_everything_in_order_within_5_seconds(
    supervised: Supervised, number: signal.Signals
) -> None:
    supervised.start()
    assert supervised.process is not None
    supervised.process.send_signal(number)
    supervised.process.send_signal(number)  # one too many is neither an error nor a line
    assert supervised.ended(5) == 0
    assert "s6-" not in supervised.log
    assert _after(supervised.events, "ocserv stop") == IN_ORDER
    assert supervised.left() == []


def test_ctrl_c_is_one_ordered_stop_and_a_second_one_changes_nothing(
    supervised: Supervised,
) -> None:
    supervised.start(terminal=True)
    for _ in range(3):
        os.write(supervised.terminal, b"\x03")
        time.sleep(0.05)
    assert supervised.ended(5) == 0
    assert _after(supervised.events, "ocserv start") == ["ocserv start", *IN_ORDER]
    assert supervised.left() == []


def test_a_closed_terminal_is_a_stop_and_not_a_reload(supervised: Supervised) -> None:
    supervised.start(terminal=True)
    os.close(supervised.terminal)
    supervised.terminal = -1
    assert supervised.ended(5) == 0
    assert _after(supervised.events, "ocserv stop") == IN_ORDER
    assert "reload" not in supervised.events


def test_a_killed_terminal_stand_in_is_an_ordered_stop(supervised: Supervised) -> None:
    supervised.start(terminal=True)
    assert supervised.process is not None
    supervised.process.kill()
    supervised.wait_for("teardown")
    assert _after(supervised.events, "ocserv stop") == IN_ORDER
    wait_until(lambda: not supervised.left(), 3, "the supervisors' end")


def test_a_killed_s6_svscan_under_a_terminal_is_an_ordered_stop(supervised: Supervised) -> None:
    supervised.start(terminal=True)
    assert supervised.process is not None
    children = Path(f"/proc/{supervised.process.pid}/task/{supervised.process.pid}/children")
    os.kill(int(children.read_text()), signal.SIGKILL)
    assert supervised.ended(8) == 1
    assert _after(supervised.events, "ocserv stop") == IN_ORDER
    wait_until(lambda: not supervised.left(), 3, "the supervisors' end")


@pytest.mark.parametrize("terminal", [False, True])
def test_sighup_asks_control_to_reload_and_nothing_else(
    supervised: Supervised, terminal: bool
) -> None:
    supervised.start(terminal=terminal)
    before = supervised.pid("ocserv"), supervised.pid("control")
    assert supervised.process is not None
    supervised.process.send_signal(signal.SIGHUP)
    supervised.wait_for("reload")
    assert (supervised.pid("ocserv"), supervised.pid("control")) == before
    assert not [event for event in supervised.events if event.endswith("SIGHUP")]


def test_services_deaf_to_sigterm_do_not_hold_up_the_stop(supervised: Supervised) -> None:
    supervised.start()
    for name in ("ocserv", "control"):
        (supervised.run_dir / f"deaf-{name}").touch()
    assert supervised.process is not None
    supervised.process.terminate()
    assert supervised.ended(5) == 0
    assert supervised.events[-1] == "teardown"
    assert supervised.left() == []


def test_a_process_left_by_a_hook_does_not_hold_up_the_stop(supervised: Supervised) -> None:
    supervised.start()
    with _stderr_of(
        supervised, "ocserv"
    ):  # as an operator's script in the background would hold it
        assert supervised.process is not None
        supervised.process.terminate()
        assert supervised.ended(5) == 0


def test_a_stop_during_the_start_leaves_nothing(supervised: Supervised) -> None:
    supervised.start(ready="")
    control = supervised.run_dir / names.SERVICES / "control/supervise"
    wait_until(control.exists, 5, "the first supervisor")
    assert supervised.process is not None
    supervised.process.terminate()
    assert supervised.ended(6) == 0
    assert supervised.events[-1] == "teardown"
    assert supervised.left() == []


def test_ocserv_waits_for_control_and_gets_none_of_its_environment(supervised: Supervised) -> None:
    (supervised.run_dir / "no-ocserv").touch()
    supervised.start(ready="control start")
    assert "control has the secret" in supervised.events
    assert not services.status(supervised.run_dir)["ocserv"].up
    assert services.ocserv_pid(supervised.run_dir) is None
    (supervised.run_dir / "show-arguments").touch()
    (supervised.run_dir / "ocserv.sock.abc.0").touch()
    services.start_ocserv(supervised.run_dir)
    supervised.wait_for("ocserv start")
    run = supervised.run_dir
    assert f"ocserv sees -f -d 1 -c {run}/ocserv.conf -p {run}/ocserv.pid" in supervised.events
    assert not (run / "ocserv.sock.abc.0").exists()
    environ = (run / "ocserv.environ").read_text().split()
    assert set(environ) <= {"PATH", "PWD", "SHLVL", "_"}


def test_orders_to_ocserv(supervised: Supervised) -> None:
    supervised.start()
    pid = services.ocserv_pid(supervised.run_dir)
    assert pid == supervised.pid("ocserv")
    services.reload_ocserv(supervised.run_dir)
    supervised.wait_for("ocserv SIGHUP")
    assert "control SIGHUP" not in supervised.events
    services.start_ocserv(supervised.run_dir)  # runs already
    assert services.ocserv_pid(supervised.run_dir) == pid
    services.stop_ocserv(supervised.run_dir, 4)
    assert services.status(supervised.run_dir)["ocserv"] == services.ServiceStatus(
        up=False, pid=None, wanted_up=False
    )
    with pytest.raises(ServerRefused, match="does not run"):
        services.reload_ocserv(supervised.run_dir)


def test_without_supervisor_orders_fail_and_status_is_down(supervised: Supervised) -> None:
    with pytest.raises(ServerRefused, match="starting ocserv"):
        services.start_ocserv(supervised.run_dir)
    assert not services.status(supervised.run_dir)["control"].up


def test_a_killed_control_is_back_and_ocserv_does_not_notice(
    supervised: Supervised,
) -> None:
    supervised.start()
    ocserv = supervised.pid("ocserv")
    os.kill(supervised.pid("control"), signal.SIGKILL)
    supervised.wait_for("control start", 2)
    assert supervised.pid("ocserv") == ocserv
    assert "ocserv stop" not in supervised.events


def test_a_control_that_dies_again_and_again_is_restarted_once_a_second(
    supervised: Supervised,
) -> None:
    supervised.start()
    os.kill(supervised.pid("control"), signal.SIGKILL)
    supervised.wait_for("control start", 2)
    wait_until(lambda: services.status(supervised.run_dir)["control"].up, 2, "control")
    os.kill(supervised.pid("control"), signal.SIGKILL)
    time.sleep(0.5)
    assert supervised.events.count("control start") == 2
    supervised.wait_for("control start", 3)


def test_a_killed_ocserv_is_restarted(supervised: Supervised) -> None:
    supervised.start()
    os.kill(supervised.pid("ocserv"), signal.SIGKILL)
    supervised.wait_for("ocserv start", 2)
    wait_until(
        lambda: "svc-ocserv: ocserv was ended by signal 9 (SIGKILL: by" in supervised.log,
        2,
        "the line",
    )


@pytest.mark.parametrize("service", ["ocserv", "control"])
def test_a_killed_log_relay_neither_stops_its_service_nor_loses_lines(
    supervised: Supervised, service: str
) -> None:
    supervised.start()
    before = supervised.pid("ocserv"), supervised.pid("control")
    relay = _relay_pid(supervised, service)
    os.kill(relay, signal.SIGKILL)
    with _stderr_of(supervised, service) as stderr:
        stderr.write(b"said meanwhile\n")
    wait_until(lambda: "said meanwhile\n" in supervised.log, 3, "the line")
    assert (supervised.pid("ocserv"), supervised.pid("control")) == before


def _stderr_of(supervised: Supervised, service: str) -> BinaryIO:
    return Path(f"/proc/{supervised.pid(service)}/fd/2").open("wb")


def _relay_pid(supervised: Supervised, service: str) -> int:
    directory = supervised.run_dir / names.SERVICES / service / "log"
    shown = subprocess.run(["s6-svstat", "-p", directory], capture_output=True, text=True)
    return int(shown.stdout)


def test_an_ocserv_that_lost_its_supervisor_is_replaced(supervised: Supervised) -> None:
    supervised.start()
    orphan = supervised.pid("ocserv")
    parent = int(Path(f"/proc/{orphan}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(parent, signal.SIGKILL)
    wait_until(lambda: not services.status(supervised.run_dir)["ocserv"].up, 5, "a new supervisor")
    assert Path(f"/proc/{orphan}").exists()  # it goes on serving until it is asked for
    wait_until(lambda: _try_start(supervised), 5, "the new supervisor's ear")
    supervised.wait_for("ocserv start", 2)
    assert _after(supervised.events, "ocserv stop") == ["ocserv stop", "ocserv start"]


def _try_start(supervised: Supervised) -> bool:
    try:
        services.start_ocserv(supervised.run_dir)
    except ServerRefused:
        return False
    return True


def test_a_restart_loop_is_slowed_down_and_can_be_stopped(supervised: Supervised) -> None:
    (supervised.run_dir / "broken-ocserv").touch()
    supervised.start(ready="control start")
    wait_until(lambda: "next start in 5 s" in supervised.log, 20, "the slower loop")
    assert supervised.process is not None
    supervised.process.terminate()
    assert supervised.ended(5) == 0
    assert supervised.left() == []


def test_a_second_run_is_refused_while_one_lives(supervised: Supervised) -> None:
    supervised.start()
    with pytest.raises(OcgateError, match="another ocgate is running"):
        supervised.write()


def test_a_start_after_kill_9_of_the_supervisor_ends_what_it_left(supervised: Supervised) -> None:
    supervised.start()
    old = supervised.pid("ocserv"), supervised.pid("control")
    assert supervised.process is not None
    supervised.process.kill()
    supervised.process.wait()
    assert services.status(supervised.run_dir)["ocserv"].up  # they go on without it
    supervised.write()
    assert supervised.left() == []
    supervised.start(ready="")
    supervised.wait_for("ocserv start", 2)
    assert supervised.pid("ocserv") not in old


def test_noexec_run_dir_is_named_with_the_flag_that_mends_it(
    supervised: Supervised, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.statvfs(supervised.run_dir)

    class NoExec:
        f_flag = real.f_flag | os.ST_NOEXEC

    monkeypatch.setattr(os, "statvfs", lambda path: NoExec)
    with pytest.raises(MissingRequirement, match="noexec") as caught:
        supervised.write()
    assert "--tmpfs /run:exec" in caught.value.hint


def test_lines_are_prefixed_by_stage_or_become_json(supervised: Supervised) -> None:
    supervised.start()
    wait_until(lambda: 'svc-ocserv: ocserv is "up"\n' in supervised.log, 3, "ocserv's line")
    wait_until(lambda: 'svc-control: control is "up"\n' in supervised.log, 3, "control's line")
    assert _run_relay("-", "human", b"init-nat: as it is\nTraceback\n") == (
        b"init-nat: as it is\nsvc-control: Traceback\n"
    )
    event, stray = _run_relay("-", "json", b'{"stage": "init-nat"}\nTraceback\n').splitlines()
    assert event == b'{"stage": "init-nat"}'
    assert json.loads(stray)["stage"] == "svc-control"
    _relay = _run_relay("svc-ocserv", "json", b'user "\xff\x01" \\ J\xc3\xbcrgen\n\npartial')
    first, second = [json.loads(line) for line in _relay.splitlines()]
    assert first["event"] == 'user "?\x01" \\ J??rgen' and first["stage"] == "svc-ocserv"
    assert second["event"] == "partial" and set(second) == {"timestamp", "level", "stage", "event"}


RELAY = Path(supervision.__file__).with_name("relay.pl")
SCRIPTS = [*RELAY.parent.glob("*.sh"), *Path(services.__file__).parent.glob("*.sh")]


def _run_relay(stage: str, form: str, given: bytes) -> bytes:
    return subprocess.run(
        ["perl", "-w", RELAY, stage, form], input=given, capture_output=True, check=True
    ).stdout


@pytest.mark.parametrize("kind", ["pipe", "pty"])
def test_a_service_never_waits_for_whoever_reads_stdout(kind: str) -> None:
    reader, stdout = os.pipe() if kind == "pipe" else pty.openpty()
    process = subprocess.Popen(
        ["perl", "-w", RELAY, "svc-ocserv", "human"], stdin=subprocess.PIPE, stdout=stdout
    )
    assert process.stdin is not None
    began = time.monotonic()
    for number in range(40_000):  # 4 MB, nobody reads
        process.stdin.write(f"line {number} {'x' * 90}\n".encode())
    process.stdin.flush()
    assert time.monotonic() - began < 20
    assert os.get_blocking(stdout)  # the shared open file was left blocking
    os.close(stdout)
    shown = _read_until(reader, lambda text: b"line 0 " in text and text.count(b"\n") > 9000)
    process.stdin.write(b"the end\n")
    process.stdin.close()
    shown += _read_until(reader, lambda text: b"the end" in text)
    assert b"lines lost: nobody read them" in shown
    assert process.wait(5) == 0
    os.close(reader)


def _read_until(descriptor: int, done: Callable[[bytes], bool]) -> bytes:
    text = b""
    while not done(text):
        text += os.read(descriptor, 65536)
    return text


def test_a_relay_whose_reader_has_gone_goes_on_reading() -> None:
    reader, stdout = os.pipe()
    process = subprocess.Popen(
        ["perl", "-w", RELAY, "svc-ocserv", "human"], stdin=subprocess.PIPE, stdout=stdout
    )
    os.close(reader)
    os.close(stdout)
    assert process.stdin is not None
    process.stdin.write(b"x" * 100 + b"\n")
    process.stdin.flush()
    process.stdin.write(b"line\n" * 100_000)  # would block or break if it had died
    process.stdin.close()
    assert process.wait(10) == 0


@pytest.mark.parametrize("name", ["relay.pl", "foreground.pl"])
def test_programs_compile_under_strictures_and_fatal_warnings(name: str) -> None:
    check = ["perl", "-Mstrict", "-Mwarnings=FATAL,all", "-c", RELAY.with_name(name)]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", sorted(SCRIPTS), ids=lambda path: path.name)
def test_shell_scripts_are_what_dash_reads(path: Path) -> None:
    assert subprocess.run(["dash", "-n", path], capture_output=True).stderr == b""


CONF = """auth = "plain[passwd={0}/passwd]"
tcp-port = 4443
run-as-user = nobody
run-as-group = daemon
socket-file = {0}/ocserv.sock
occtl-socket-file = {0}/occtl.sock
use-occtl = true
server-cert = {0}/server.pem
server-key = {0}/server.key
device = vpns
ipv4-network = 10.10.10.0
ipv4-netmask = 255.255.255.0
"""


@pytest.mark.lab
def test_the_real_ocserv_logs_is_restarted_after_kill_9_and_stops(
    supervised: Supervised, netns: object
) -> None:
    run, real = supervised.run_dir, shutil.which("ocserv")
    assert real is not None
    make_key = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x"]
    make_key += ["-keyout", str(run / "server.key"), "-out", str(run / "server.pem")]
    subprocess.run(make_key, check=True, capture_output=True)
    (run / "passwd").touch()
    (run / names.EFFECTIVE_CONF).write_text(CONF.format(run))
    services.write(
        run,
        python=str(run / "stub"),
        ocserv=real,
        ocserv_arguments=services.logging_arguments(dryrun.version([real])),
        log_format="human",
    )
    supervised.start(ready="control start")
    first = wait_until(lambda: services.ocserv_pid(run), 5, "ocserv")
    assert first is not None
    wait_until(lambda: "listening (TCP)" in supervised.log, 5, "ocserv's log")
    heard = supervised.log.count("listening (TCP)")  # once for each family
    wait_until(lambda: len(_group(first)) >= 2, 5, "main and sec-mod")  # it listens before the fork
    family = _group(first)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not set(family) & set(_group(first)), 1, "sec-mod's end")
    wait_until(lambda: services.ocserv_pid(run) not in (None, first), 5, "a new ocserv")
    wait_until(lambda: supervised.log.count("listening (TCP)") > heard, 5, "its start")
    assert supervised.process is not None
    supervised.process.terminate()
    assert supervised.ended(5) == 0
    assert supervised.events[-1] == "teardown"
    assert supervised.left() == []


def _group(group: int) -> list[int]:
    """Living processes of a process group."""
    found = []
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            state, _, pgrp = (proc / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(pgrp) == group and state != "Z":
            found.append(int(proc.name))
    return found

"""The hook program and a control of every kind of behaviour: ocserv sees only the exit status.

Each test runs the installed file as ocserv does: no arguments, fd 0 a listening socket, SIGPIPE
ignored, and only the session's variables in the environment.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from ocgate import names
from ocgate.errors import OcgateError
from ocgate.netlab.wait import wait_until
from ocgate.ocserv import hooks
from ocgate.ocserv.hooks import ChainedScript
from ocgate.server.teardown import STOPPING
from ocgate.sessions.protocol import Request, RequestParser

SESSION = {
    b"REASON": b"connect",
    b"VHOST": b"default",
    b"USERNAME": b"alice",
    b"GROUPNAME": b"",
    b"DEVICE": b"vpns0",
    b"IP_REMOTE": b"10.10.10.7",
    b"OCSERV_ROUTES": b"default",
    b"PATH": b"/usr/bin:/bin",
}
STRANGE_NAMES = [
    b"two words",
    b"$(touch /tmp/owned)",
    b"*",
    b"back\\slash",
    b"-rf",
    b"a" * 100,
    "Jürgen Größe 世界".encode(),
    b"line\nID=666",
    b"not\xff\xfeutf8",
    b"`id`;|&'\"",
    b"",
]


class Control:
    """A control socket; its answer to each verb is a function of the connection."""

    def __init__(self, path: Path, **answers: bytes) -> None:
        self.requests: list[Request] = []
        self.answers: dict[str, Callable[[socket.socket], None]] = {}
        for verb, answer in answers.items():
            self.says(verb, answer)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(16)
        threading.Thread(target=self._serve, daemon=True).start()

    def says(self, verb: str, *pieces: bytes) -> None:
        self.answers[verb] = lambda peer: [peer.sendall(piece) for piece in pieces] and None

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=[peer], daemon=True).start()

    def _answer(self, peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError):  # the hook may be gone
            parser, request = RequestParser(), None
            while request is None and (piece := peer.recv(65536)):
                request = parser.feed(piece)
            if request is not None:
                self.requests.append(request)
                self.answers.get(request.verb, lambda peer: peer.sendall(b"ok\n"))(peer)

    @property
    def verbs(self) -> list[str]:
        return [request.verb for request in self.requests]

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    made = tmp_path / "it's a \\ run dir"
    made.mkdir()
    hooks.install(made, chain=[], auth_timeout=240)
    return made


@pytest.fixture
def control(run_dir: Path) -> Iterator[Control]:
    made = Control(run_dir / names.CONTROL_SOCKET)
    made.says("connect", b"admitted\n")
    yield made
    made.close()


def _start(
    run_dir: Path, verb: str = "connect", session: Mapping[bytes, bytes] = SESSION
) -> subprocess.Popen[bytes]:
    environment = {**session, b"REASON": verb.encode(), b"ID": str(os.getpid()).encode()}
    with socket.socket(socket.AF_UNIX) as occtl:
        occtl.bind("")  # autobind: any free abstract address
        occtl.listen()
        return subprocess.Popen(
            [run_dir / "hooks" / verb],
            env=environment,
            stdin=occtl,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            preexec_fn=lambda: signal.signal(signal.SIGPIPE, signal.SIG_IGN) and None,
        )


def _run(run_dir: Path, verb: str = "connect", session: Mapping[bytes, bytes] = SESSION) -> str:
    """Exit status and stderr in one line, like ``1 ocgate hook: …``."""
    process = _start(run_dir, verb, session)
    _, err = process.communicate(timeout=20)
    assert err.count(b"\n") <= 1
    return f"{process.returncode} {err.decode('ascii').strip()}".strip()


def _script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return path


def _chain(run_dir: Path, kind: str, path: Path, *, vhost: str = hooks.DEFAULT_VHOST) -> None:
    script = ChainedScript(vhost, kind, str(path))  # type: ignore[arg-type]
    hooks.install(run_dir, chain=[script], auth_timeout=12)  # the script gets 5 s


def test_program_compiles_under_strictures_and_fatal_warnings(run_dir: Path) -> None:
    check = ["perl", "-Mstrict", "-Mwarnings=FATAL,all", "-c", run_dir / "hooks" / "connect"]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_admission_is_exit_0_and_silent_and_tells_who_and_where(
    run_dir: Path, control: Control
) -> None:
    assert _run(run_dir) == "0"
    fields = control.requests[0].fields
    assert control.verbs == ["connect"]
    assert fields["USERNAME"] == b"alice" and fields["IP_REMOTE"] == b"10.10.10.7"
    assert "OCSERV_ROUTES" not in fields and "PATH" not in fields
    assert fields["GROUPNAME"] == b"" and "IPV6_REMOTE" not in fields


def test_the_workers_start_time_tells_reused_pids_apart(run_dir: Path, control: Control) -> None:
    assert _run(run_dir) == "0"
    own = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    assert control.requests[0].fields["WORKER_STARTED"] == own.encode()


@pytest.mark.parametrize("name", STRANGE_NAMES)
def test_user_names_are_data(run_dir: Path, control: Control, name: bytes) -> None:
    session = {**SESSION, b"USERNAME": name, b"USER_AGENT": name, b"HOSTNAME": name}
    assert _run(run_dir, session=session) == "0"
    assert _run(run_dir, "disconnect", session) == "0"
    assert [request.fields["USERNAME"] for request in control.requests] == [name, name]
    assert control.requests[0].fields["ID"] == str(os.getpid()).encode()


def test_a_refusal_carries_controls_reason_as_one_clean_line(
    run_dir: Path, control: Control
) -> None:
    control.says("connect", "refused 10.10.10.7 is \x1b[31mtaken — by 4711\n".encode())
    status, _, line = _run(run_dir).partition(" ")
    assert status == "1" and "\x1b" not in line
    assert line.startswith(f"ocgate hook: connect of ID {os.getpid()}: refused: 10.10.10.7 is ")
    assert control.verbs == ["connect"]  # what control refused has nothing to give back


def test_without_control_nobody_is_admitted(run_dir: Path) -> None:
    assert _run(run_dir).startswith("1 ") and "No such file" in _run(run_dir)
    Control(run_dir / names.CONTROL_SOCKET).close()
    assert "1 " in _run(run_dir) and "Connection refused" in _run(run_dir)


@pytest.mark.parametrize(
    "reply",
    [
        [b""],
        [b"admitted"],
        [b"admitted\n", b"x"],
        [b"admitted\n", b"admitted\n"],
        [b"Admitted\n"],
        [b" admitted\n"],
        [b"ok\n"],
        [b"refused"],
        [b"\0" * 10_000],
        [b"error no such verb\n"],
    ],
)
def test_anything_but_the_whole_verdict_refuses(
    run_dir: Path, control: Control, reply: list[bytes]
) -> None:
    control.says("connect", *reply)
    assert _run(run_dir).startswith("1 ")
    wait_until(lambda: "refused" in control.verbs, 2, "the session being given back")
    assert control.requests[-1].fields["ID"] == control.requests[0].fields["ID"]


def test_a_verdict_in_pieces_counts(run_dir: Path, control: Control) -> None:
    def slowly(peer: socket.socket) -> None:
        for byte in b"admitted\n":
            peer.sendall(bytes([byte]))
            time.sleep(0.01)

    control.answers["connect"] = slowly
    assert _run(run_dir) == "0"


def test_silence_is_refused_at_the_time_limit_and_given_back(
    run_dir: Path, control: Control
) -> None:
    control.answers["connect"] = lambda peer: time.sleep(8)
    began = time.monotonic()
    assert "no verdict from control in 5 s" in _run(run_dir)
    assert time.monotonic() - began > 4.5
    wait_until(lambda: "refused" in control.verbs, 2, "the session being given back")


def test_sigterm_is_a_refusal_and_not_a_death_by_signal(run_dir: Path, control: Control) -> None:
    control.answers["connect"] = lambda peer: time.sleep(8)
    process = _start(run_dir)
    wait_until(lambda: control.verbs, 5, "the request")
    began = time.monotonic()
    process.terminate()
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1 and b"SIGTERM" in err
    assert time.monotonic() - began < 4  # and not at the limit of 5 s
    wait_until(lambda: "refused" in control.verbs, 2, "the session being given back")


def test_sigterm_ends_even_when_control_no_longer_accepts(run_dir: Path) -> None:
    with socket.socket(socket.AF_UNIX) as full:
        full.bind(str(run_dir / names.CONTROL_SOCKET))
        full.listen(0)
        process = _start(run_dir)
        wait_until(
            lambda: (
                "unix" in Path(f"/proc/{process.pid}/wchan").read_text()
                or Path(f"/proc/{process.pid}/syscall").read_text().startswith("0 ")
            ),
            5,
            "the hook waiting for its verdict",
        )
        process.terminate()
        process.communicate(timeout=20)
        assert process.returncode == 1


@pytest.mark.parametrize(
    ("called", "reason"), [("connect", b"disconnect"), ("disconnect", b"connect"), ("connect", b"")]
)
def test_name_and_reason_must_agree(
    run_dir: Path, control: Control, called: str, reason: bytes
) -> None:
    environment = {**SESSION, b"REASON": reason, b"ID": b"7"}
    done = subprocess.run([run_dir / "hooks" / called], env=environment, capture_output=True)
    assert done.returncode == 1 and not control.requests


def test_operators_script_runs_after_admission_with_the_unchanged_environment(
    run_dir: Path, control: Control, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    script = _script(
        tmp_path / "own script", f"cat /proc/$$/environ >'{seen}'; ls -l /proc/$$/fd/0 >&2"
    )
    _chain(run_dir, "connect", script)
    session = {**SESSION, b"USERNAME": b'we"ird $x\n\xff', b"IPV6_LOCAL": b"fd00::1%\x01junk"}
    assert "/dev/null" in _run(run_dir, session=session)
    environment = {**session, b"ID": str(os.getpid()).encode()}
    found = dict(item.split(b"=", 1) for item in seen.read_bytes().split(b"\0") if item)
    assert found == environment
    assert control.verbs == ["connect"]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("exit 3", "exited with 3"),
        ("kill -TERM $$", "killed by signal 15"),  # success to ocserv, were it not for us
        ("kill -KILL $$", "killed by signal 9"),
    ],
)
def test_operators_refusal_refuses_and_gives_the_session_back(
    run_dir: Path, control: Control, tmp_path: Path, text: str, word: str
) -> None:
    _chain(run_dir, "connect", _script(tmp_path / "own", text))
    assert word in _run(run_dir)
    assert control.verbs == ["connect", "refused"]


def test_operators_script_is_not_asked_about_a_refused_session(
    run_dir: Path, control: Control, tmp_path: Path
) -> None:
    control.says("connect", b"refused full\n")
    _chain(run_dir, "connect", _script(tmp_path / "own", f"touch '{tmp_path}/ran'"))
    assert _run(run_dir).startswith("1 ")
    assert not (tmp_path / "ran").exists()


def test_missing_script_refuses(run_dir: Path, control: Control, tmp_path: Path) -> None:
    _chain(run_dir, "connect", tmp_path / "gone")
    process = _start(run_dir)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1 and b"No such file" in err
    assert control.verbs == ["connect", "refused"]


@pytest.mark.parametrize("how", ["limit", "SIGTERM"])
def test_a_script_that_hangs_ends_with_all_its_children(
    run_dir: Path, control: Control, tmp_path: Path, how: str
) -> None:
    pids = tmp_path / "pids"
    text = f"trap '' TERM; sleep 600 & echo $$ $! >'{pids}.new'; mv '{pids}.new' '{pids}'; wait"
    _chain(run_dir, "connect", _script(tmp_path / "own", text))
    process = _start(run_dir)
    wait_until(pids.exists, 4, "the script's start")
    if how == "SIGTERM":
        process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 1
    for pid in pids.read_text().split():
        wait_until(lambda pid=pid: not _alive(int(pid)), 2, f"{pid} being killed")
    wait_until(lambda: "refused" in control.verbs, 2, "the session being given back")


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_script_of_the_sessions_own_vhost_is_taken(
    run_dir: Path, control: Control, tmp_path: Path
) -> None:
    refusing = _script(tmp_path / "own", "exit 9")
    _chain(run_dir, "connect", refusing, vhost="other.example")
    assert _run(run_dir) == "0"
    assert "exited with 9" in _run(run_dir, session={**SESSION, b"VHOST": b"other.example"})


def test_an_unreadable_chain_hides_a_gate_and_so_refuses(run_dir: Path, control: Control) -> None:
    chain = run_dir / names.HOOK_CHAIN
    chain.write_text("default connect /no/tabs\n")
    assert "not understood" in _run(run_dir)
    chain.unlink()
    assert "No such file" in _run(run_dir)


def test_disconnect_reports_then_becomes_the_operators_script(
    run_dir: Path, control: Control, tmp_path: Path
) -> None:
    _chain(run_dir, "disconnect", _script(tmp_path / "own", f"touch '{tmp_path}/ran'; exit 5"))
    session = {**SESSION, b"STATS_BYTES_IN": b"12", b"STATS_DURATION": b"3"}
    assert _run(run_dir, "disconnect", session) == "5"
    assert (tmp_path / "ran").exists()
    assert control.requests[0].verb == "disconnect"
    assert control.requests[0].fields["STATS_BYTES_IN"] == b"12"


def test_disconnect_runs_the_operators_script_even_without_control(
    run_dir: Path, tmp_path: Path
) -> None:
    _chain(run_dir, "disconnect", _script(tmp_path / "own", f"touch '{tmp_path}/ran'"))
    assert "not reported" in _run(run_dir, "disconnect")
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("verb", ["connect", "disconnect"])
def test_a_hook_survives_a_restart_of_control(run_dir: Path, verb: str) -> None:
    """A session that comes or roams in the gap is not logged out for it."""
    process = _start(run_dir, verb)
    time.sleep(0.8)  # the gap itself is what is tested
    answers = {"connect": b"admitted\n", "disconnect": b"ok\n"}
    control = Control(run_dir / names.CONTROL_SOCKET, **answers)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, b"")
    assert control.verbs == [verb]
    control.close()


@pytest.mark.parametrize("verb", ["connect", "disconnect"])
def test_a_hook_waits_for_no_control_during_a_stop(run_dir: Path, verb: str) -> None:
    """It would be the last process left: without a stop it asks again, for 2.5 s."""
    stopping = run_dir / STOPPING
    stopping.parent.mkdir(parents=True)
    stopping.touch()
    process = _start(run_dir, verb)
    try:
        process.communicate(timeout=2.0)  # of 2.5; it takes 10 ms
    finally:
        process.kill()
    assert process.returncode == 1


@pytest.mark.parametrize("path", ["relative", "/with\ttab", "/with\nnewline"])
def test_a_script_that_cannot_be_chained_is_an_error(run_dir: Path, path: str) -> None:
    with pytest.raises(OcgateError, match="can't be chained"):
        hooks.install(run_dir, chain=[ChainedScript("default", "connect", path)], auth_timeout=240)

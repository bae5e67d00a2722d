"""What a running gateway tells, and what it keeps to itself: health, status, logs, secrets.

client1 --- inet --- router --- gw (ocgate, ocserv, vpns0)    lab/topology.py
"""

from __future__ import annotations

import json
import re
import signal
import stat
import types
import typing
from pathlib import Path
from typing import Any

import pytest

from lab import gateway
from lab.client import Login, Refused, connect
from lab.gateway import Gateway
from lab.topology import SERVICE, Lab
from lab.traffic import ask_udp
from ocgate import names
from ocgate.netlab.wait import wait_until
from ocgate.server.status.schema import Status
from support.lifecycle import (
    STAGES,
    LabFactory,
    fields,
    log_in,
    ocgate,
    operator_conf,
    order,
    serve,
    with_services,
)

pytestmark = pytest.mark.lab


def test_healthcheck_and_status(lab: LabFactory) -> None:
    """healthcheck exits 0 while all is well, 1 with its reason once control is dead; `status
    --json` has exactly the fields and types of its schema, and `metrics` says the same."""
    gw = serve(with_services(lab()))
    client = log_in(gw, 0, "alice")
    assert ask_udp(client.netns, SERVICE)
    healthy = ocgate(gw, "healthcheck")
    assert (healthy.returncode, healthy.stdout) == (0, "healthy\n")
    shown = ocgate(gw, "status", "--json")
    assert shown.returncode == 0
    status = json.loads(shown.stdout)
    assert list(violations(status, Status, "status")) == []
    assert status["healthy"]
    assert status["reasons"] == []
    (session,) = status["sessions"]
    assert (session["user"], session["address4"]) == ("alice", str(client.address))
    assert session["bytes_in"] > 0
    assert session["bytes_out"] > 0
    figures = ocgate(gw, "metrics")
    assert figures.returncode == 0
    lines = set(figures.stdout.splitlines())
    assert {"ocgate_sessions 1.0", "ocgate_guard_intact 1.0", "ocgate_healthy 1.0"} <= lines
    order(gw, "-wd", "-d", service="ocserv")
    half = ocgate(gw, "healthcheck")
    assert (half.returncode, half.stdout) == (1, "ocserv does not run\n")
    order(gw, "-wd", "-d")
    dead = ocgate(gw, "healthcheck")
    assert dead.returncode == 1
    assert "does not answer" in dead.stdout
    assert "Traceback" not in dead.stderr
    assert ocgate(gw, "status").returncode == 1


def violations(value: Any, wanted: Any, at: str) -> typing.Iterator[str]:
    """Where `value` has not the shape of a TypedDict (or list, union, literal, class)."""
    origin, inner = typing.get_origin(wanted), typing.get_args(wanted)
    if typing.is_typeddict(wanted):
        hints = typing.get_type_hints(wanted)
        if set(value) != set(hints):
            yield f"{at}: keys {sorted(set(value) ^ set(hints))}"
            return
        for key, hint in hints.items():
            yield from violations(value[key], hint, f"{at}.{key}")
    elif origin is list:
        for number, item in enumerate(value):
            yield from violations(item, inner[0], f"{at}[{number}]")
    elif origin in (types.UnionType, typing.Union):
        if all(list(violations(value, one, at)) for one in inner):
            yield f"{at}: {value!r} is none of {inner}"
    elif origin is typing.Literal:
        if value not in inner:
            yield f"{at}: {value!r}"
    elif type(value) is not wanted:
        yield f"{at}: {value!r} is no {wanted.__name__}"


def eventful(gw: Gateway) -> None:
    """A life with everything that is logged: logins, a refusal, a reload, crashes, a stop."""
    for times in range(2):
        log_in(gw, 0, "alice", dtls=bool(times)).disconnect()
    with pytest.raises(Refused):
        connect(gw.lab, gw.lab.clients[0], Login("alice", "wrong", gw.login("alice", "").pin))
    assert ocgate(gw, "reload").returncode == 0
    gw.program.send(signal.SIGHUP)
    wait_until(lambda: gw.output.count("reloaded") == 2, 10.0, "the reload by signal")
    conf = gw.config_dir / "ocserv.conf"
    conf.write_text(conf.read_text().replace("device = vpns", "device = more\nroute = garbage"))
    assert ocgate(gw, "reload").returncode == 1
    control = gw.kill()
    gw.wait_replaced(names.CONTROL_PID, control)
    gw.netns.run(["nft", "flush", "ruleset"])
    wait_until(lambda: "drift repaired" in gw.output, 5.0, "a repair")
    ocserv = gw.kill(names.OCSERV_PID)
    gw.wait_replaced(names.OCSERV_PID, ocserv)
    wait_until(gw.ready, 10.0, "ocserv to listen again")
    gw.stop(15.0)


def test_every_log_line_is_one_event_with_its_stage(lab: LabFactory) -> None:
    """In the human format every line of a whole life begins with the name of its stage."""
    gw = serve(with_services(lab()))
    eventful(gw)
    strange = [line for line in gw.output.splitlines() if not line.startswith(STAGES)]
    assert strange == []
    for stage in STAGES:
        assert stage in gw.output


def test_json_logs_parse_line_by_line(lab: LabFactory) -> None:
    """With OCGATE_LOG_FORMAT=json every line of a whole life, ocserv's too, is one JSON object with
    timestamp, level, stage and event."""
    gw = serve(with_services(lab()), {"OCGATE_LOG_FORMAT": "json"})
    eventful(gw)
    strange, stages = [], set()
    for line in gw.output.splitlines():
        try:
            event = json.loads(line)
            stages.add(event["stage"])
            assert {"timestamp", "level", "stage", "event"} <= set(event)
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", event["timestamp"])
        except (ValueError, KeyError, TypeError, AssertionError):
            strange.append(line)
    assert strange == []
    assert stages == {stage.removesuffix(": ") for stage in STAGES}


# --- secrets -------------------------------------------------------------------------------------

DUMP = """#!/bin/sh
tr '\\0' '\\n' </proc/self/environ >>@FILE@
tr '\\0' '\\n' </proc/$PPID/environ >>@FILE@
"""


def leaks_of(gw: Gateway, secret: str) -> list[str]:
    """Where `secret` can be read by others: argv, environ of ocserv's, files, logs."""
    found = []
    for pid in gw.netns.pids():
        command = fields(pid, "cmdline")
        if secret in command:
            found.append(f"argv of {command!r}")
        if fields(pid, "comm").startswith("ocserv") and secret in fields(pid, "environ"):
            found.append(f"environ of {command!r}")
    for path in gw.run_dir.rglob("*"):
        if path.is_file() and secret.encode() in path.read_bytes():
            mode = stat.S_IMODE(path.stat().st_mode)
            found.append(f"{path} mode {mode:o}")
    return found


def test_a_given_password_is_nowhere_to_be_read(lab: LabFactory) -> None:
    """OCGATE_PASSWORD of a first start: in no log, argv, environment of ocserv or its hooks, or
    file of the run dir, with a session of that user running."""
    secret = "correct-horse-battery-staple"
    built = with_services(lab())
    gw = gateway.run(built, {"OCGATE_USER": "carol", "OCGATE_PASSWORD": secret})
    client = connect(built, built.clients[0], gw.login("carol", secret))
    assert ask_udp(client.netns, SERVICE)
    assert leaks_of(gw, secret) == []
    assert secret not in gw.output
    gw.kill()
    wait_until(lambda: gw.status_or_none() is not None, 10.0, "control to answer again")
    assert leaks_of(gw, secret) == []
    assert secret not in gw.output


def test_hooks_and_scripts_of_the_operator_see_no_secret(lab: LabFactory) -> None:
    """The operator's connect and disconnect scripts, and ocserv which started them, have nothing
    of OCGATE_PASSWORD or any other variable of ours in their environment."""
    built = with_services(lab())
    dumped, script = built.path("environs"), built.path("script")
    dumped.touch(mode=0o666)
    script.write_text(DUMP.replace("@FILE@", str(dumped)))
    script.chmod(0o755)
    lines = ("route = default", f"connect-script = {script}", f"disconnect-script = {script}")
    secret = "correct-horse-battery-staple"
    environ = {"OCGATE_PASSWORD": secret, "OCGATE_USER": "carol"}
    gw = gateway.run(built, environ, operator_conf(built, lines))
    log_in(gw, 0, "alice").disconnect()
    wait_until(lambda: "REASON=disconnect" in dumped.read_text(), 5.0, "the disconnect script")
    seen = dumped.read_text()
    assert "REASON=connect" in seen
    assert secret not in seen
    assert "OCGATE_" not in seen
    assert leaks_of(gw, secret) == []
    assert secret not in gw.output


def as_nobody(gw: Gateway) -> str:
    """What a process of nobody's gets from the control socket."""
    path = gw.run_dir / names.CONTROL_SOCKET
    program = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        "s.sendall(b'ocgate/1 status\\0\\0'); print(s.recv(100))"
    )
    argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
    done = gw.netns.run([*argv, "/usr/bin/python3", "-c", program, str(path)], check=False)
    return done.stdout + done.stderr


def test_the_control_socket_turns_others_away(lab: LabFactory) -> None:
    """Only root can open control.sock; and where its mode is changed by mistake, the kernel's word
    about the peer still decides."""
    gw = serve(with_services(lab()))
    assert "PermissionError" in as_nobody(gw)
    (gw.run_dir / names.CONTROL_SOCKET).chmod(0o666)
    answer = as_nobody(gw)
    assert "b''" in answer or "ConnectionResetError" in answer or "BrokenPipeError" in answer
    assert "peer turned away uid=65534" in gw.output
    assert gw.status()["healthy"]


def is_log(line: str) -> bool:
    return line.startswith(STAGES)


def first_start_card(lab: Lab) -> tuple[Gateway, str]:
    gw = gateway.run(lab)
    found = re.search(r"Password\s+(\S+)", gw.program.stdout)
    assert found
    return gw, found[1]


def test_the_random_password_is_shown_once_and_kept_nowhere(lab: LabFactory) -> None:
    """A first start's random password stands in the card on stdout (as a word, and in the line to
    be pasted), never in a log line, argv or file."""
    gw, password = first_start_card(with_services(lab()))
    connect(gw.lab, gw.lab.clients[0], gw.login("vpn", password)).disconnect()
    assert not [line for line in gw.output.splitlines() if password in line and is_log(line)]
    gw.stop()
    again = gateway.start(gw.lab, {"OCGATE_RUN_DIR": str(gw.run_dir)}, gw.config_dir)
    again.run_dir = gw.run_dir
    again.wait_ready()
    assert password not in again.output
    assert leaks_of(again, password) == []
    readable = [p for p in Path(gw.config_dir).rglob("*") if p.is_file() and p.stat().st_mode & 4]
    assert not [path for path in readable if password.encode() in path.read_bytes()]

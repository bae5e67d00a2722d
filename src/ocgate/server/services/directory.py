"""Writes the s6 service directory, after ending what a killed run left behind in it."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from ocgate import names
from ocgate.errors import MissingRequirement, OcgateError

# Milliseconds from SIGTERM to SIGKILL, chosen so that both together and the teardown (0.5 s) stay
# below 5 s. ocserv 1.1.6 itself waits up to 5 s for disconnect hooks; ours take milliseconds, and
# workers end with main, however it ends. Control has nothing to do but to close its sockets.
_KILL_OCSERV_AFTER = 1500
_KILL_CONTROL_AFTER = 1000

# A finish script here only prints; s6's own default.
_FINISH_LIMIT = 5000

# Seconds for supervisors of a killed run to end their services: the two limits above, and margin.
_LEFTOVER_LIMIT = 6.0
_LEFTOVER_POLL = 0.05

_SERVICES = ("control", "ocserv")  # logs are subdirectories of these
_SUPERVISED = (*_SERVICES, "control/log", "ocserv/log")


def logging_arguments(ocserv: str) -> tuple[str, ...]:
    """What makes this ocserv write its log to stderr, level info.

    1.1.6 does so whenever `-d` is given; 1.3 writes to syslog unless told `--log-stderr`, which
    1.1.6 does not know. Asks the program's own help. Raises MissingRequirement if it can't be run.
    """
    try:
        help_text = subprocess.run([ocserv, "--help"], capture_output=True, text=True, timeout=10)
    except OSError as error:
        raise MissingRequirement(f"{ocserv}: {error.strerror}", hint="install ocserv") from error
    known = "--log-stderr" in help_text.stdout + help_text.stderr
    return ("-d", "1", "--log-stderr") if known else ("-d", "1")


def write(
    run_dir: Path,
    *,
    python: str,
    ocserv: str,
    ocserv_arguments: Sequence[str],
    log_format: str,
    ocserv_directory: Path = Path("/"),
) -> None:
    """Write RUN_DIR/services anew.

    python:           interpreter of control; absolute.
    ocserv:           the server; absolute, it runs with an empty environment.
    ocserv_arguments: between `-f` and our own `-c` and `-p`, e.g. `logging_arguments(ocserv)`.
    ocserv_directory: where ocserv is started; relative paths in its configuration begin there.
    log_format:       human | json, for ocserv's lines; control's pass unchanged.

    Raises OcgateError if another ocgate runs there or what it left can't be ended, and
    MissingRequirement where programs can't be executed (noexec).
    """
    if os.statvfs(run_dir).f_flag & os.ST_NOEXEC:
        raise MissingRequirement(
            f"{run_dir} is on a file system mounted noexec; hooks and services run from there",
            hint="docker: --tmpfs /run:exec",
        )
    services = run_dir / names.SERVICES
    _end_leftovers(services)
    shutil.rmtree(services, ignore_errors=True)
    values = _values(run_dir, python, ocserv, ocserv_arguments, log_format, ocserv_directory)
    for path, text, executable in _files(values):
        _write_file(services / path, text, executable=executable)


def _values(
    run_dir: Path,
    python: str,
    ocserv: str,
    arguments: Sequence[str],
    log_format: str,
    ocserv_directory: Path,
) -> Mapping[str, str]:
    """What stands for @NAME@ in the scripts, quoted for the shell."""
    words = {
        "RUN_DIR": str(run_dir.absolute()),
        "SERVICES": names.SERVICES,
        "PYTHON": python,
        "OCSERV": ocserv,
        "CONF": names.EFFECTIVE_CONF,
        "PID_FILE": names.OCSERV_PID,
        "OCCTL_SOCKET": names.OCCTL_SOCKET,
        "OCSERV_SOCKET": names.OCSERV_SOCKET,
        "LOG_FORMAT": log_format,
        "OCSERV_DIRECTORY": str(ocserv_directory.absolute()),
    }
    quoted = {name: shlex.quote(word) for name, word in words.items()}
    return quoted | {"ARGUMENTS": shlex.join(arguments)}


def _files(values: Mapping[str, str]) -> list[tuple[str, str, bool]]:
    """All files of the directory: path, content, whether it is executable."""
    # Only the first gets the lock; s6-setlock's complaint about the others is no news.
    locked = "exec s6-setlock -n .s6-svscan/stop.lock .s6-svscan/stop"
    stop = f"#!/bin/sh\n{locked} 3>&2 2>/dev/null\n"
    ask = _fill("#!/bin/sh\nexec @PYTHON@ -P -m ocgate.control.ask reload @RUN_DIR@\n", values)
    found = [
        (".s6-svscan/stop", _script("stop.sh", values), True),
        (".s6-svscan/pause", _script("pause.sh", values), False),
        (".s6-svscan/relay", _script("relay.pl", values), False),
        (".s6-svscan/foreground", _script("foreground.pl", values), False),
        (".s6-svscan/SIGHUP", ask, True),
        *((f".s6-svscan/{signal}", stop, True) for signal in ("SIGTERM", "SIGINT", "SIGQUIT")),
        ("ocserv/down", "", False),  # control starts it
        ("ocserv/timeout-kill", f"{_KILL_OCSERV_AFTER}\n", False),
        ("control/timeout-kill", f"{_KILL_CONTROL_AFTER}\n", False),
    ]
    for service, stage in (("control", "-"), ("ocserv", "svc-ocserv")):
        log = _script("log-run.sh", {**values, "STAGE": stage})
        found += [
            (f"{service}/run", _script(f"{service}-run.sh", values), True),
            (f"{service}/finish", _script(f"{service}-finish.sh", values), True),
            (f"{service}/timeout-finish", f"{_FINISH_LIMIT}\n", False),
            (f"{service}/log/run", log, True),
        ]
    return found


def _script(name: str, values: Mapping[str, str]) -> str:
    return _fill(files(__package__).joinpath(name).read_text("utf-8"), values)


def _fill(text: str, values: Mapping[str, str]) -> str:
    for name, word in values.items():
        text = text.replace(f"@{name}@", word)
    return text


def _write_file(path: Path, text: str, *, executable: bool) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    path.chmod(stat.S_IRWXU if executable else stat.S_IRUSR | stat.S_IWUSR)


def _end_leftovers(services: Path) -> None:
    """End supervisors whose s6-svscan was killed; their services go on without it."""
    if _listened(services / ".s6-svscan" / "control"):
        raise OcgateError(
            f"another ocgate is running in {services.parent}",
            hint="stop it first, or choose another OCGATE_RUN_DIR",
        )
    deadline = time.monotonic() + _LEFTOVER_LIMIT
    for name in _alive(services):  # s6-svc: x = leave when the service is down, d = down
        subprocess.run(["s6-svc", "-xd", str(services / name)], check=False)
    while left := _alive(services):
        if time.monotonic() > deadline:
            raise OcgateError(
                f"{services}: still supervised from a killed run: {', '.join(left)}",
                hint="end these s6-supervise processes",
            )
        time.sleep(_LEFTOVER_POLL)


def _alive(services: Path) -> list[str]:
    return [name for name in _SUPERVISED if _listened(services / name / "supervise" / "control")]


def _listened(fifo: Path) -> bool:
    """Whether a supervisor reads this fifo: opening it for writing fails without a reader."""
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:  # ENXIO, or no such file
        return False
    return True

"""Writes the s6 service directory, after ending what a killed run left behind in it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from ocgate import names, own_files
from ocgate.errors import MissingRequirement, OcgateError

CONTROL = "control"  # the one service that every role has
CONTROL_STAGE = "-"  # to the relay: control writes its events by itself

# Milliseconds from SIGTERM to SIGKILL: control has nothing to do but to close its sockets.
_KILL_CONTROL_AFTER = 1000

# At SIGHUP. It reads ocgate's own code, which may lie in somebody's home directory.
_ASK_RELOAD = """#!/bin/sh
. .s6-svscan/privileges
hold_only -all,+dac_override @PYTHON@ -I -m @RELOAD@ @RUN_DIR@
"""

# A finish script here only prints, or tells control; s6's own default.
_FINISH_LIMIT = 5000

# Seconds for supervisors of a killed run to end their services: a kill limit each, and margin.
_LEFTOVER_LIMIT = 6.0
_LEFTOVER_POLL = 0.05


@dataclass(frozen=True)
class Service:
    """One supervised program, which is a role's own.

    name:       of its directory, and in the log. run, finish: its scripts, whole.
    kill_after: milliseconds from SIGTERM to SIGKILL.
    stage:      what its lines in the log begin with.
    kept:       a file that its lines are added to as well, where there is one; "" for none.
    It does not start with the others: control starts it when the guard has been verified.
    """

    name: str
    run: str
    finish: str
    kill_after: int
    stage: str
    kept: str = ""


@dataclass(frozen=True)
class Role:
    """What is supervised, and how it ends.

    control:  module of the control plane, run with the run dir as its argument.
    teardown: module that is run, likewise, when all services are down.
    reload:   module that is run, likewise, at SIGHUP.
    holds:    capabilities of the first two, as setpriv(1) names them; they can't get others.
    services: all but control. order: names in which a stop ends them.
    """

    control: str
    teardown: str
    reload: str
    holds: tuple[str, ...]
    services: tuple[Service, ...]
    order: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of all services."""
        return (CONTROL, *(service.name for service in self.services))


def write(run_dir: Path, role: Role, *, python: str, log_format: str) -> None:
    """Write RUN_DIR/services anew.

    python:     interpreter of control; absolute.
    log_format: human | json, for the services' lines; control's pass unchanged.

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
    values = _values(run_dir, role, python, log_format)
    for path, text, executable in _files(role, values):
        _write_file(services, path, text, executable=executable)


def script(package: str, name: str, values: Mapping[str, str]) -> str:
    """A script of `package` with its @NAME@ replaced by `values`, quoted for the shell."""
    quoted = {name: shlex.quote(word) for name, word in values.items()}
    return _fill(files(package).joinpath(name).read_text("utf-8"), quoted)


def _values(run_dir: Path, role: Role, python: str, log_format: str) -> Mapping[str, str]:
    """What stands for @NAME@ in the scripts, quoted for the shell."""
    words = {
        "RUN_DIR": str(run_dir.absolute()),
        "SERVICES": names.SERVICES,
        "PYTHON": python,
        "MODULE": role.control,
        "TEARDOWN": role.teardown,
        "RELOAD": role.reload,
        "HOLDS": ",+".join(("-all", *role.holds)),
        "LOG_FORMAT": log_format,
    }
    quoted = {name: shlex.quote(word) for name, word in words.items()}
    lists = {  # names of ours, a word each
        "NAMES": " ".join(role.names),
        "ORDER": " ".join(role.order),
        "SUPERVISED": " ".join(_supervised(role.names)),
    }
    return quoted | lists


def _supervised(services: Sequence[str]) -> list[str]:
    """The services and their logs, which are subdirectories of them."""
    return [*services, *(f"{name}/log" for name in services)]


def _files(role: Role, values: Mapping[str, str]) -> Iterator[tuple[str, str, bool]]:
    """All files of the directory: path, content, whether it is executable."""
    # Only the first gets the lock; s6-setlock's complaint about the others is no news.
    locked = "exec s6-setlock -n .s6-svscan/stop.lock .s6-svscan/stop"
    stop = f"#!/bin/sh\n{locked} 3>&2 2>/dev/null\n"
    ask = _fill(_ASK_RELOAD, values)
    yield ".s6-svscan/stop", _own("stop.sh", values), True
    for name in ("pause.sh", "orphan.sh", "privileges.sh", "relay.pl", "foreground.pl"):
        yield f".s6-svscan/{Path(name).stem}", _own(name, values), False
    yield ".s6-svscan/SIGHUP", ask, True
    for signal in ("SIGTERM", "SIGINT", "SIGQUIT"):
        yield f".s6-svscan/{signal}", stop, True
    for service in (_control(values), *role.services):
        yield from _service(service, values)
    for service in role.services:
        yield f"{service.name}/down", "", False  # control starts it


def _control(values: Mapping[str, str]) -> Service:
    run, finish = _own("control-run.sh", values), _own("control-finish.sh", values)
    return Service(CONTROL, run, finish, _KILL_CONTROL_AFTER, CONTROL_STAGE)


def _service(service: Service, values: Mapping[str, str]) -> Iterator[tuple[str, str, bool]]:
    log = {"STAGE": shlex.quote(service.stage), "KEPT": shlex.quote(service.kept)}
    name = service.name
    yield f"{name}/run", service.run, True
    yield f"{name}/finish", service.finish, True
    yield f"{name}/timeout-kill", f"{service.kill_after}\n", False
    yield f"{name}/timeout-finish", f"{_FINISH_LIMIT}\n", False
    yield f"{name}/log/run", _own("log-run.sh", {**values, **log}), True


def _own(name: str, values: Mapping[str, str]) -> str:
    return _fill(files(__package__).joinpath(name).read_text("utf-8"), values)


def _fill(text: str, values: Mapping[str, str]) -> str:
    for name, word in values.items():
        text = text.replace(f"@{name}@", word)
    return text


def _write_file(services: Path, name: str, text: str, *, executable: bool) -> None:
    path = services / name
    for parent in reversed([*path.relative_to(services).parents]):
        own_files.make_directory(services / parent, 0o700)
    own_files.write(path, text.encode(), mode=0o700 if executable else 0o600)


def is_left_over(run_dir: Path) -> bool:
    """Whether services of a run go on there whose s6-svscan was killed."""
    services = run_dir / names.SERVICES
    return not _listened(services / ".s6-svscan" / "control") and bool(_alive(services))


def _end_leftovers(services: Path) -> None:
    """End supervisors whose s6-svscan was killed; their services go on without it."""
    if _listened(services / ".s6-svscan" / "control"):
        raise OcgateError(
            f"another ocgate is running in {services.parent}",
            hint="stop it first; a second one needs a network (a container) of its own as well",
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
    """Whatever role the killed run had."""
    here = [path.name for path in services.glob("[a-z]*") if path.is_dir()]
    return [
        name for name in _supervised(here) if _listened(services / name / "supervise" / "control")
    ]


def _listened(fifo: Path) -> bool:
    """Whether a supervisor reads this fifo: opening it for writing fails without a reader."""
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:  # ENXIO, or no such file
        return False
    return True

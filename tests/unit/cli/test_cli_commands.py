"""The command line: exit statuses, words on stderr, start-up cost, and what is printed where."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ocgate import __main__, __version__
from ocgate.cli import failures, places, shown
from ocgate.config import Settings
from ocgate.errors import ConfigurationError, MissingRequirement, Problem

Invoke = Callable[..., int]

STATUS: dict[str, Any] = {
    "schema": 1,
    "at": "2026-03-01T12:00:00Z",
    "healthy": True,
    "reasons": [],
    "server": {
        "version": "0.1.0",
        "since": "2026-03-01T10:00:00Z",
        "ocserv_version": "1.1.6",
        "ocserv_since": "2026-03-01T10:00:01Z",
        "listening": ["tcp 443", "udp 443"],
        "config_dir": "/etc/ocserv",
        "run_dir": "/run/ocgate",
        "url": None,
    },
    "network": {
        "wan_if": "eth0",
        "vpn_if": "vpns+",
        "subnets4": ["10.10.10.0/24"],
        "subnets6": [],
        "ipv6_mode": "rejected",
        "ipv6_reason": "no route",
        "forwarding4": True,
        "forwarding6": False,
        "guard": True,
        "repairs": 0,
        "last_repair": "",
    },
    "networks": [
        {
            "network": "10.77.0.0/24",
            "device": "lan0",
            "via": None,
            "state": "up",
            "why": "",
            "packets": 7,
            "bytes": 700,
        }
    ],
    "exits": [
        {
            "exit": "default",
            "family": 4,
            "gateway": "nl.example",
            "address": "172.28.0.3",
            "device": "eth1",
            "state": "down",
            "since": "2026-03-01T11:55:00Z",
            "why": "no answer to ARP from 172.28.0.3 on eth1",
            "rtt": 0.0123,
            "heard": 12.5,
            "late": 2,
            "transitions": 3,
        },
        {
            "exit": "default",
            "family": 6,
            "gateway": "block",
            "address": None,
            "device": None,
            "state": "block",
            "since": None,
            "why": "rejected, as configured",
            "rtt": None,
            "heard": None,
            "late": 0,
            "transitions": 0,
        },
    ],
    "flows": {
        "entries": 1234,
        "most": 262144,
        "per_session": 4096,
        "ports": 22528,
        "ports_used": None,
        "busiest": "",
    },
    "session_count": 1,
    "sessions": [
        {
            "worker": 7,
            "user": "a[red]b\x1b[2J" + "x" * 40,
            "vhost": "default",
            "device": "vpns0",
            "address4": "10.10.10.5",
            "address6": None,
            "peer": "192.0.2.9",
            "since": "2026-03-01T11:00:00Z",
            "bytes_in": 1536,
            "bytes_out": 3 * 1024**3,
            "limited": True,
        }
    ],
    "blocked": [
        {"reason": "spoofed", "packets": 12345, "bytes": 700, "explanation": "not its address"},
        {"reason": "invalid", "packets": 0, "bytes": 0, "explanation": ""},
    ],
    "certificates": [
        {
            "vhost": "default",
            "file": "/etc/ocserv/server-cert.pem",
            "names": ["vpn.example.org"],
            "not_after": "2026-06-01T12:00:00Z",
            "since": "2026-03-01T10:00:01Z",
        }
    ],
    "certificate_trouble": "",
    "history": {
        "file": "/run/ocgate/sessions.history",
        "written": 3,
        "waiting": 0,
        "lost": 0,
        "trouble": "",
    },
}


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Invoke:
    """Run `ocgate ARGS` in this process, with a config dir and a run dir of its own."""
    monkeypatch.setenv("OCGATE_CONFIG_DIR", str(tmp_path / "etc"))
    monkeypatch.setenv("OCGATE_RUN_DIR", str(tmp_path / "run"))

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["ocgate", *arguments])
        return __main__.main()

    return run


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put a function in the place of one of the wiring's."""

    def replace(module: str, **functions: Callable[..., Any]) -> None:
        fake = types.ModuleType(module)
        fake.__dict__.update(functions)
        monkeypatch.setitem(sys.modules, module, fake)

    return replace


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_arguments: object, **_options: object) -> None:
        raise error

    return fail


PROBLEMS = [
    Problem("environment", 0, "MSS", "x", "a number", "Set one"),
    Problem("/etc/ocserv/ocgate.toml", 3, "wan_iff", None, "a known name", "Write wan_if"),
]


def test_version(invoke: Invoke, capsys: pytest.CaptureFixture[str]) -> None:
    """The same on the quick way and on the long one."""
    assert invoke("--version") == 0
    assert invoke("--debug", "--version") == 0
    assert capsys.readouterr().out == f"ocgate {__version__}\n" * 2


@pytest.mark.parametrize("arguments", [["--version"], ["healthcheck"]])
def test_frequent_commands_import_little(arguments: list[str], tmp_path: Path) -> None:
    """Neither the command-line library nor the settings model: containers run them all the time."""
    code = (
        "import sys; from ocgate import __main__\n"
        f"sys.argv = ['ocgate', *{arguments!r}]; __main__.main()\n"
        "print({'typer', 'rich', 'pydantic', 'cryptography'} & set(sys.modules))"
    )
    environment = {"OCGATE_RUN_DIR": str(tmp_path), "OCGATE_CONFIG_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["plan", "--json", "--diff"], ["user"], ["user", "add"]]
)
def test_usage_errors_are_2(invoke: Invoke, arguments: list[str]) -> None:
    """As for every configuration error."""
    assert invoke(*arguments) == 2


def test_problems_stand_on_lines_of_their_own(
    invoke: Invoke, control: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """All of them, on stderr, with exit status 2."""
    control("ocgate.server.run", run=raising(ConfigurationError(PROBLEMS)))
    assert invoke("run") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [
        "ocgate: /etc/ocserv/ocgate.toml:3: wan_iff: expected a known name. Write wan_if",
        "ocgate: environment: MSS: got 'x'; expected a number. Set one",
    ]


def test_errors_keep_their_status_and_hint(
    invoke: Invoke, control: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """No traceback; with --debug there is one."""
    error = MissingRequirement("no tun device", hint="--device /dev/net/tun")
    control("ocgate.server.run", run=raising(error))
    assert invoke("run") == 1
    assert capsys.readouterr().err == "ocgate: no tun device\n  --device /dev/net/tun\n"
    with pytest.raises(MissingRequirement):
        invoke("--debug", "run")


def test_mistakes_of_ours_are_named_as_such(
    invoke: Invoke, control: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """An operator should know that it isn't theirs."""
    control("ocgate.server.run", run=raising(KeyError("x")))
    assert invoke("run") == 1
    assert "mistake in ocgate" in capsys.readouterr().err


def test_interrupt_is_130(invoke: Invoke, control: Callable[..., None]) -> None:
    """As shells report it."""
    control("ocgate.server.run", run=raising(KeyboardInterrupt()))
    assert invoke("run") == 130
    assert failures.guarded(raising(KeyboardInterrupt()), debug=False) == 130


def test_check(
    invoke: Invoke, control: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Problems are 2, warnings alone 0."""
    report = types.SimpleNamespace(
        problems=(), warnings=("careful",), notices=(), meanings=(), ocserv="1.3.0"
    )
    control("ocgate.server.check_and_plan", check=lambda _environ: report)
    assert invoke("check") == 0
    printed = capsys.readouterr()
    assert printed.err == "warning: careful\n"
    assert "can be used (1 warning)" in printed.out
    report.problems = (PROBLEMS[0],)
    assert invoke("check") == 2
    assert "error: environment: MSS" in capsys.readouterr().err


def test_plan(
    invoke: Invoke, control: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Text unwrapped, the diff, and JSON."""
    text = "table inet ocserv {" + " " * 300 + "[x]\n}"
    report = types.SimpleNamespace(text=text, diff="", data={"tables": ["ü"]})
    control("ocgate.server.check_and_plan", plan_text=lambda _environ: report)
    assert invoke("plan") == 0
    assert capsys.readouterr().out == text + "\n"
    assert invoke("plan", "--diff") == 0
    assert "exactly this plan" in capsys.readouterr().out
    report.diff = "+ [a]\n- b"
    assert invoke("plan", "--diff") == 0
    assert capsys.readouterr().out == "+ [a]\n- b\n"
    assert invoke("plan", "--json") == 0
    assert json.loads(capsys.readouterr().out) == report.data


def test_healthcheck(
    invoke: Invoke, control: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Reasons, one a line, and 1; the same with and without the command-line library."""
    reasons: list[str] = []
    control("ocgate.server.status.health", healthcheck=lambda _run_dir: reasons)
    assert invoke("healthcheck") == 0
    reasons += ["no guard", "no ocserv"]
    assert invoke("healthcheck") == 1
    assert invoke("--debug", "healthcheck") == 1
    assert capsys.readouterr().out == "healthy\n" + "no guard\nno ocserv\n" * 2


def test_reload(
    invoke: Invoke, control: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """A refused one shows the reasons as they are; an order to learn anew is handed on."""
    answer, asked = b"ok\n", list[dict[str, str]]()

    def ask(_run_dir: object, _verb: str, fields: dict[str, str]) -> bytes:
        asked.append(fields)
        return answer

    control("ocgate.runtime.control_client", ask=ask)
    assert invoke("reload") == 0
    assert invoke("reload", "--learn-mac") == 0
    assert asked == [{}, {"LEARN_MAC": "1"}]
    answer = b"refused\nocserv.conf:3: route: bad\nsecond"
    assert invoke("reload") == 1
    assert "ocserv.conf:3: route: bad\nsecond\n" in capsys.readouterr().err


def test_status(
    invoke: Invoke, control: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Tables for people, whole and without escape codes in a pipe; the document with --json."""
    control(
        "ocgate.runtime.control_client", ask=lambda _run_dir, _verb: json.dumps(STATUS).encode()
    )
    assert invoke("status") == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    for expected in ("a[red]b�[2J" + "x" * 40, "1 h 0 min", "1.5 KiB", "3.0 GiB", "12,345"):
        assert expected in printed
    assert "invalid" not in printed
    for expected in ("DOWN", "nl.example", "5 min", "12.3 ms", "blocked", "no answer to ARP"):
        assert expected in printed
    assert invoke("status", "--json") == 0
    assert json.loads(capsys.readouterr().out) == STATUS


def test_status_of_an_unhealthy_server_is_1(
    invoke: Invoke, control: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """And says why."""
    document = STATUS | {"healthy": False, "reasons": ["ocserv is not listening"]}
    control(
        "ocgate.runtime.control_client", ask=lambda _run_dir, _verb: json.dumps(document).encode()
    )
    assert invoke("status") == 1
    assert "ocserv is not listening" in capsys.readouterr().out


@pytest.mark.parametrize("answer", [b"", b"[", b'{"schema": 2}'])
def test_status_of_another_version(
    invoke: Invoke, control: Callable[..., None], answer: bytes
) -> None:
    """An answer that we don't understand is an error, not a traceback."""
    control("ocgate.runtime.control_client", ask=lambda _run_dir, _verb: answer)
    assert invoke("status") == 1


def test_metrics_are_printed_as_they_come(
    invoke: Invoke, control: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """And an answer that is none is an error."""
    page = b'# HELP x\nocgate_build_info{version="1"} 1.0\n'
    control("ocgate.runtime.control_client", ask=lambda _run_dir, _verb: page)
    assert invoke("metrics") == 0
    assert capsys.readouterr().out == page.decode()
    page = b"error unknown verb metrics\n"
    assert invoke("metrics") == 1


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-3, "0 s"), (59, "59 s"), (60, "1 min"), (3700, "1 h 1 min"), (90000, "1 d 1 h")],
)
def test_duration(seconds: float, words: str) -> None:
    """Two units at most."""
    assert shown.duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (2**60, "1024.0 PiB")]
)
def test_size(count: int, words: str) -> None:
    """1024 apart."""
    assert shown.size(count) == words


def test_run_help_shows_every_setting(invoke: Invoke, capsys: pytest.CaptureFixture[str]) -> None:
    """One table feeds it."""
    assert invoke("run", "--help") == 0
    printed = capsys.readouterr().out
    for name in ("VPN_SUBNET", "WAN_IF", "IPV6_PROBE_INTERVAL", "OCGATE_PASSWORD"):
        assert name in printed


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["init", "-h"], ["user", "--help"], ["user", "add", "--help"], ["plan", "-h"]],
)
def test_help_teaches_by_example(
    invoke: Invoke, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """Lines that can be typed as they are."""
    assert invoke(*arguments) == 0
    assert "ocgate " in capsys.readouterr().out.partition("Examples")[2]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_there(shell: str) -> None:
    """The script that the shell sources asks us for the words."""
    command = [sys.executable, "-m", "ocgate"]
    environment = {"_OCGATE_COMPLETE": f"source_{shell}"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert "_OCGATE_COMPLETE" in done.stdout


def test_places_agree_with_the_settings_model(tmp_path: Path) -> None:
    """The short cut knows the same defaults and the same order of sources."""
    assert Path(places.DEFAULT_CONFIG_DIR) == Settings.model_fields["config_dir"].default
    assert Path(places.DEFAULT_RUN_DIR) == Settings.model_fields["run_dir"].default
    environ = {"OCGATE_CONFIG_DIR": str(tmp_path)}
    assert places.run_dir(environ) == Path(places.DEFAULT_RUN_DIR)
    (tmp_path / "ocgate.toml").write_text('ocgate_run_dir = "/run/other"\n')
    assert places.run_dir(environ) == Path("/run/other")
    assert places.run_dir(environ | {"OCGATE_RUN_DIR": "/run/env"}) == Path("/run/env")

"""Lines of the services as they come to a terminal or collector: nothing of a client is obeyed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

import ocgate.supervision
from ocgate.supervision.supervisor import trusted

RELAY = Path(ocgate.supervision.__file__).with_name("relay.pl")


def relayed(line: bytes, form: str, stage: str = "svc-ocserv") -> str:
    done = subprocess.run(
        ["perl", "-w", RELAY, stage, form, ""], input=line + b"\n", capture_output=True, check=True
    )
    assert done.stderr == b""
    return done.stdout.decode()


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (b"user 'caf\xc3\xa9'", "user 'café'"),
        (b"\x1b[2J\x1b]0;owned\x07", "\\x1b[2J\\x1b]0;owned\\x07"),
        (b"a\rsvc-control: forged", "a\\x0dsvc-control: forged"),
        (b"tab\there", "tab\\x09here"),
        (b"\xff\x1b", "\\xff\\x1b"),
        ("c1 \x9b31m".encode(), "c1 \\x9b31m"),
        ("\u202eright to left".encode(), "\\u202eright to left"),
        ("zero\u200bwidth".encode(), "zero\\u200bwidth"),
    ],
)
def test_what_a_terminal_would_obey_is_shown_instead(said: bytes, shown: str) -> None:
    assert relayed(said, "human") == f"svc-ocserv: {shown}\n"


def test_control_s_own_lines_are_no_exception() -> None:
    assert relayed(b"svc-control: a \x1b[0m", "human", "-") == "svc-control: a \\x1b[0m\n"


def test_json_holds_the_same_and_no_control_character() -> None:
    text = relayed("\x1b[2J \x9b31m \u202e é".encode(), "json")
    assert json.loads(text)["event"] == "\x1b[2J \x9b31m \u202e é"
    assert all(c.isprintable() for c in text.rstrip("\n"))


def test_the_environment_loads_no_code_into_root_s_programs() -> None:
    bad = dict.fromkeys(
        (
            *("LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONSTARTUP", "PERL5LIB"),
            *("PERL5OPT", "BASH_ENV", "ENV", "GCONV_PATH", "OPENSSL_CONF", "GLIBC_TUNABLES"),
            "TMPDIR",
        ),
        "/tmp/evil",
    )
    good = {"VPN_SUBNET": "10.0.0.0/24", "OCGATE_RUN_DIR": "/run/ocgate", "HOME": "/root"}
    path = {"PATH": ".:/usr/bin::bin:/sbin"}
    assert trusted({**bad, **good, **path}) == {**good, "PATH": "/usr/bin:/sbin"}

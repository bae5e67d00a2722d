"""One event is one line, whatever a client chose as a name."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocgate.runtime import log as logs

texts = st.one_of(
    st.text(max_size=60),
    st.text(st.sampled_from("\n\r\t\x00\x1b\x7f\x85\u2028\u2029\u202e\"'\\= \udcff\U0001f600")),
    st.binary(max_size=30).map(lambda raw: raw.decode("utf-8", "surrogateescape")),
)
fixture_is_fine = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def said(capsys: pytest.CaptureFixture[str], form: str, event: str, **values: object) -> str:
    logs.configure(form, "info")
    logs.stage("svc-control").info(event, **values)
    return capsys.readouterr().err


@given(event=texts, value=texts)
@fixture_is_fine
def test_human_lines_are_one_line_of_printable_text(
    capsys: pytest.CaptureFixture[str], event: str, value: str
) -> None:
    line = said(capsys, "human", event, user=value)
    assert line.startswith("svc-control: ")
    assert line.endswith("\n")
    assert len(line.splitlines()) == 1
    assert not [c for c in line[:-1] if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
    line.encode()  # any terminal and any file takes it


@given(event=texts, value=texts)
@fixture_is_fine
def test_json_lines_parse_and_carry_the_value(
    capsys: pytest.CaptureFixture[str], event: str, value: str
) -> None:
    line = said(capsys, "json", event, user=value)
    assert line.count("\n") == 1
    assert line.isascii()
    found = json.loads(line)
    assert found["stage"] == "svc-control"
    assert found["level"] == "info"
    assert found["timestamp"].endswith("Z")
    # Bytes that are no UTF-8 are spelled out; all else is as it was.
    assert found["user"] == value.encode("utf-8", "surrogateescape").decode(
        "utf-8", "backslashreplace"
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("alice", "alice"),
        ("müller", "müller"),
        ("", '""'),
        ("two words", '"two words"'),
        ("a=b", '"a=b"'),
        ('quo"te', '"quo\\"te"'),
        ("line\nbreak", '"line\\nbreak"'),
        (7, "7"),
        (None, "None"),
    ],
)
def test_values_are_quoted_where_they_could_be_misread(
    capsys: pytest.CaptureFixture[str], value: object, shown: str
) -> None:
    assert said(capsys, "human", "session admitted", user=value) == (
        f"svc-control: session admitted user={shown}\n"
    )


def test_levels(capsys: pytest.CaptureFixture[str]) -> None:
    """Loud ones say so; quieter ones than asked for are not said."""
    logs.configure("human", "warning")
    log = logs.stage("init-nat")
    log.info("nothing")
    log.warning("look")
    log.error("look here")
    assert capsys.readouterr().err == "init-nat: warning: look\ninit-nat: error: look here\n"

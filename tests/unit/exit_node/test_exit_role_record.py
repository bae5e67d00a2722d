"""What a restarted control is told: whatever machine there was, it comes back as it was."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocgate.exit_node.client import Running
from ocgate.exit_node.record import Record, forget_record, read_record, write_record
from ocgate.exit_node.state_machine import Machine, Phase
from ocgate.names import EXIT_RECORD
from ocgate.tunnel.model import Carried, Endpoint, Remote

REMOTE = st.builds(
    Remote,
    st.sampled_from(["a.example", "2001:db8::1"]),
    st.integers(1, 65535),
    st.sampled_from([("udp",), ("tcp", "udp")]),
    st.text(max_size=5),
)
ENDPOINT = st.builds(
    Endpoint,
    st.sampled_from([ip_address("192.0.2.1"), ip_address("2001:db8::1")]),
    st.integers(1, 65535),
    st.sampled_from([("udp",), ("tcp", "udp")]),
)
CARRIED = st.builds(
    Carried,
    st.sampled_from([(ip_interface("10.8.0.2/32"),), (ip_interface("fd00::2/128"),)]),
    st.integers(576, 65535),
    st.sampled_from([(), (ip_address("10.8.0.1"),)]),
)
MACHINE = st.builds(
    Machine,
    st.lists(REMOTE, max_size=3).map(tuple),
    st.floats(0, 1e6),
    index=st.integers(0, 5),
    phase=st.sampled_from(Phase),
    since=st.floats(0, 1e6),
    until=st.none() | st.floats(0, 1e6),
    endpoint=st.none() | ENDPOINT,
    carried=st.none() | CARRIED,
    attempts=st.integers(0, 99),
    failures=st.integers(0, 99),
    why=st.text(max_size=9),
    answered=st.booleans(),
    unanswered=st.integers(0, 9),
)


@given(MACHINE, st.none() | st.builds(Running, st.integers(1, 9), st.integers(0, 9)))
def test_it_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, machine: Machine, running: Running | None
) -> None:
    run_dir = tmp_path_factory.mktemp("run")
    write_record(run_dir, Record(machine, running))
    assert read_record(run_dir) == Record(machine, running)
    assert (run_dir / EXIT_RECORD).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"machine": {}}', "\x00"])
def test_what_is_no_record_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / EXIT_RECORD).write_text(text)
    assert read_record(tmp_path) is None


def test_a_former_runs_record_is_forgotten(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None
    forget_record(tmp_path)
    (tmp_path / EXIT_RECORD).write_text("{}")
    forget_record(tmp_path)
    assert not (tmp_path / EXIT_RECORD).exists()

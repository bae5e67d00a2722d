"""What is missing here is named at once, each thing with the flag and the key that give it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ocgate.plan.requirements import (
    CAPABILITIES,
    FEWEST_FILES,
    FEWEST_TASKS,
    Place,
    Setting,
    Surroundings,
    Tun,
    hint,
    lacking,
    message,
)

ENOUGH = Surroundings(
    capabilities=frozenset(CAPABILITIES),
    tun=Tun.USABLE,
    sysctls={"net.ipv4.ip_forward": Setting("1", may_set=False)},
    run_dir=Place(Path("/run/ocgate"), writable=True),
    config_dir=None,
)
FORWARD_OFF = {"net.ipv4.ip_forward": Setting("0", may_set=False)}


def test_what_has_all_lacks_nothing() -> None:
    assert lacking(ENOUGH) == ()


@pytest.mark.parametrize(
    ("change", "flag", "compose"),
    [
        (
            {"capabilities": frozenset(CAPABILITIES) - {"NET_ADMIN"}},
            "--cap-add NET_ADMIN",
            "cap_add: [NET_ADMIN]",
        ),
        ({"capabilities": frozenset(CAPABILITIES) - {"KILL"}}, "--cap-add KILL", "cap_add: [KILL]"),
        ({"tun": Tun.ABSENT}, "--device /dev/net/tun", "devices: [/dev/net/tun]"),
        ({"tun": Tun.FORBIDDEN}, "--device /dev/net/tun", "devices: [/dev/net/tun]"),
        (
            {"sysctls": FORWARD_OFF},
            "--sysctl net.ipv4.ip_forward=1",
            "sysctls: { net.ipv4.ip_forward: 1 }",
        ),
        (
            {"run_dir": Place(Path("/run/ocgate"), writable=True, executable=False)},
            "--tmpfs /run:exec",
            'tmpfs: ["/run:exec"]',
        ),
        (
            {"run_dir": Place(Path("/run/ocgate"), writable=False)},
            "--tmpfs /run:exec",
            'tmpfs: ["/run:exec"]',
        ),
        (
            {"config_dir": Place(Path("/etc/ocserv"), writable=False)},
            "-v ocgate:/etc/ocserv",
            'volumes: ["ocgate:/etc/ocserv"]',
        ),
        ({"tasks": FEWEST_TASKS - 1}, "--pids-limit 1024", "pids_limit: 1024"),
        ({"files": FEWEST_FILES - 1}, "--ulimit nofile=4096", "ulimits: { nofile: 4096 }"),
    ],
)
def test_each_lack_names_the_flag_of_docker_and_the_key_of_compose(
    change: dict[str, Any], flag: str, compose: str
) -> None:
    (lack,) = lacking(replace(ENOUGH, **change))
    assert lack.flag == flag
    assert lack.compose.startswith(compose)
    assert flag in message([lack])
    assert compose in message([lack])


def test_all_that_is_missing_is_told_at_once_with_one_line_to_add() -> None:
    found = replace(ENOUGH, capabilities=frozenset(), tun=Tun.ABSENT, sysctls=FORWARD_OFF)
    lacks = lacking(found)
    assert len(lacks) == len(CAPABILITIES) + 2
    assert message(lacks).startswith(f"{len(lacks)} things are missing here")
    line = hint(lacks)
    for flag in ("--cap-add NET_ADMIN", "--device /dev/net/tun", "--sysctl net.ipv4.ip_forward=1"):
        assert flag in line


def test_forwarding_that_we_may_turn_on_ourselves_is_no_lack() -> None:
    found = replace(ENOUGH, sysctls={"net.ipv4.ip_forward": Setting("0", may_set=True)})
    assert lacking(found) == ()


def test_forwarding_that_is_on_already_needs_no_writing() -> None:
    assert lacking(ENOUGH) == ()


def test_a_configuration_that_is_there_may_be_read_only() -> None:
    assert lacking(replace(ENOUGH, config_dir=None)) == ()


def test_a_device_without_its_driver_names_the_module_for_a_host() -> None:
    (lack,) = lacking(replace(ENOUGH, tun=Tun.UNSUPPORTED))
    assert "modprobe tun" in message([lack])

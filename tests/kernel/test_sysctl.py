"""Sysctls: set, verified, recorded before the first change and put back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ocgate.errors import MissingRequirement, OcgateError
from ocgate.kernel import sysctl
from ocgate.names import SYSCTLS_BEFORE
from ocgate.plan.sysctls import Sysctl

pytestmark = pytest.mark.kernel
Shell = Callable[[str], str]

FORWARD = Sysctl("net.ipv4.ip_forward", "1", "clients' packets are forwarded")
FORWARD6 = Sysctl("net.ipv6.conf.all.forwarding", "1", "clients' IPv6 packets are forwarded")


def test_set_verified_recorded_and_put_back(netns: object, tmp_path: Path) -> None:
    assert sysctl.differing([FORWARD]) == ["sysctl net.ipv4.ip_forward is 0; expected 1"]
    assert sysctl.ensure([FORWARD, FORWARD6], run_dir=tmp_path) == [FORWARD, FORWARD6]
    assert sysctl.read(FORWARD.key) == "1"
    assert sysctl.differing([FORWARD, FORWARD6]) == []
    assert sysctl.ensure([FORWARD, FORWARD6], run_dir=tmp_path) == []
    assert sysctl.restore(run_dir=tmp_path) == [FORWARD6.key, FORWARD.key]
    assert (sysctl.read(FORWARD.key), sysctl.read(FORWARD6.key)) == ("0", "0")
    assert not (tmp_path / SYSCTLS_BEFORE).exists()
    assert sysctl.restore(run_dir=tmp_path) == []


def test_the_first_recorded_value_wins_over_a_crashed_runs_own(
    netns: object, tmp_path: Path
) -> None:
    sysctl.ensure([FORWARD], run_dir=tmp_path)
    # The run crashes; somebody turns it off; the next run sets it again.
    Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
    sysctl.ensure([FORWARD, FORWARD6], run_dir=tmp_path)
    record = json.loads((tmp_path / SYSCTLS_BEFORE).read_text())
    assert record[FORWARD.key] == {"before": "0", "ours": "1"}
    sysctl.restore(run_dir=tmp_path)
    assert sysctl.read(FORWARD.key) == "0"


def test_what_another_has_changed_since_is_left_alone(netns: object, tmp_path: Path) -> None:
    strict = Sysctl("net.ipv4.conf.all.rp_filter", "1", "a test")
    sysctl.ensure([strict], run_dir=tmp_path)
    Path("/proc/sys/net/ipv4/conf/all/rp_filter").write_text("2")
    assert sysctl.restore(run_dir=tmp_path) == []
    assert sysctl.read(strict.key) == "2"


def test_a_dot_in_an_interface_name_is_a_slash_in_the_key(sh: Shell, tmp_path: Path) -> None:
    sh("ip link add eth0.100 type veth peer name other")
    loose = Sysctl("net.ipv4.conf.eth0/100.rp_filter", "2", "a test")
    assert loose.path == "net/ipv4/conf/eth0.100/rp_filter"
    sysctl.ensure([loose], run_dir=tmp_path)
    assert sh("cat /proc/sys/net/ipv4/conf/eth0.100/rp_filter") == "2\n"
    sh("ip link del eth0.100")
    assert sysctl.restore(run_dir=tmp_path) == []


def test_read_only_proc_sys_names_the_docker_flags_of_all(
    netns: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(path: Path, text: str) -> int:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "write_text", read_only)
    with pytest.raises(MissingRequirement) as caught:
        sysctl.ensure([FORWARD, FORWARD6], run_dir=tmp_path)
    assert (
        "docker run --sysctl net.ipv4.ip_forward=1 --sysctl net.ipv6.conf.all.forwarding=1"
        in caught.value.hint
    )
    assert "net.ipv4.ip_forward: 1" in caught.value.hint
    assert "clients' IPv6 packets are forwarded" in caught.value.message


def test_an_absent_key_is_said_before_anything_is_set(netns: object, tmp_path: Path) -> None:
    absent = Sysctl("net.ipv4.conf.nope.rp_filter", "1", "a test")
    with pytest.raises(MissingRequirement, match=r"no net.ipv4.conf.nope.rp_filter \(a test\)"):
        sysctl.ensure([FORWARD, absent], run_dir=tmp_path)
    assert sysctl.read(FORWARD.key) == "0"


def test_what_is_not_required_is_set_where_it_may_be(
    netns: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wish = Sysctl("net.ipv6.icmp.ratemask", "0,3-127", "a test", required=False)
    absent = Sysctl("net.ipv6.conf.nope.accept_ra", "2", "a test", required=False)
    before = sysctl.read(wish.key)
    assert sysctl.unmet([wish]) == [wish]
    assert sysctl.differing([wish, absent]) == []
    assert sysctl.ensure([wish, absent], run_dir=tmp_path) == [wish]
    assert sysctl.unmet([wish, FORWARD]) == []
    sysctl.restore(run_dir=tmp_path)
    assert sysctl.read(wish.key) == before

    def read_only(path: Path, text: str) -> int:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "write_text", read_only)
    with pytest.raises(MissingRequirement) as caught:
        sysctl.ensure([wish, FORWARD], run_dir=tmp_path)
    assert "ratemask" not in caught.value.hint
    assert sysctl.ensure([wish], run_dir=tmp_path) == []


def test_a_value_that_the_kernel_refuses_is_shown(netns: object, tmp_path: Path) -> None:
    bad = Sysctl("net.ipv4.ip_forward", "banana", "a test")
    with pytest.raises(OcgateError, match="ip_forward=banana: Invalid argument"):
        sysctl.ensure([bad], run_dir=tmp_path)


def test_a_broken_record_is_named(netns: object, tmp_path: Path) -> None:
    (tmp_path / SYSCTLS_BEFORE).write_text("[1, 2]")
    with pytest.raises(OcgateError, match="delete the file"):
        sysctl.restore(run_dir=tmp_path)


@pytest.mark.parametrize("before", ["0", "1"])
def test_forwarding_put_back_opens_no_redirects(netns: object, tmp_path: Path, before: str) -> None:
    """The kernel resets accept_redirects with ip_forward: to 0 when it forwards, to 1 when it does
    no more, also where somebody had refused them (inet_forward_change)."""
    refused = Sysctl("net.ipv4.conf.all.accept_redirects", "0", "a test")
    (sysctl.ROOT / refused.path).write_text(before)
    sysctl.ensure([FORWARD, refused], run_dir=tmp_path)
    assert sysctl.read(refused.key) == "0"
    sysctl.restore(run_dir=tmp_path)
    assert sysctl.read(FORWARD.key) == "0"
    assert sysctl.read(refused.key) == before


def test_where_nothing_can_be_noted_only_what_is_needed_is_refused(
    netns: object, tmp_path: Path
) -> None:
    """A full run dir: a wish stays as it is, and ends no control that is restarted just then."""
    full = tmp_path / "away"  # nothing can be written in a directory that is not there
    wish = Sysctl("net.ipv4.icmp_ratemask", "6160", "a wish", required=False)
    assert sysctl.ensure([wish], run_dir=full) == []
    assert sysctl.unmet([wish]) == [wish]
    with pytest.raises(OcgateError, match="what was there before can't be noted"):
        sysctl.ensure([wish, FORWARD], run_dir=full)
    assert sysctl.read(FORWARD.key) == "0"

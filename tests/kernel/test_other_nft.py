"""Another release of nft beside us: what it has written must not kill us, and we go on serving.

Debian testing's nft writes sets of which Debian 12's libnftables dies, in whatever process it reads
them: a container on the host's network is enough. Where this machine's libnftables reads them, the
same has to hold, and the positive control says that there was nothing to survive.
"""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from ocgate.errors import KernelRefused
from ocgate.kernel import nft_sets
from ocgate.kernel.apply import apply, compare, counters, drift, remove
from ocgate.kernel.foreign import dropping_forward_chains
from ocgate.kernel.nft import Nft
from ocgate.names import NFT_TABLE, NFT_TABLE_LIMITS
from ocgate.plan import nft as text
from ocgate.plan.fingerprint import fingerprint
from ocgate.plan.limits import LIMITED
from ocgate.plan.planner import plan
from ocgate.server.check_and_plan import difference
from tests.kernel.test_apply import ELEMENTS, INTENT, NOBODY, PLAN
from tests.kernel.test_limits import INTENT as LIMITED_INTENT

pytestmark = pytest.mark.kernel
Shell = Callable[[str], str]

# As firewalld, docker and people write it: sets and maps with plain types, and a drop of theirs.
OTHERS = """
table ip filter {
    set blocked {
        type ipv4_addr
        elements = { 192.0.2.66 }
    }
    map ways {
        type ifname . ipv4_addr : verdict
    }
    chain FORWARD {
        type filter hook forward priority 0; policy drop;
        ip saddr @blocked drop
    }
}
table inet other {
    set s {
        type ipv4_addr
    }
    set t {
        type inet_service
        flags interval
    }
}
"""


@pytest.fixture(scope="session")
def other(programs: Callable[[str], Path]) -> Path:
    """The nft of Debian testing."""
    return programs("forky") / "nft"


@pytest.fixture
def write(other: Path, netns: object) -> Callable[[str], None]:
    """Write a ruleset with it."""

    def written(ruleset: str) -> None:
        subprocess.run([other, "-f", "-"], input=ruleset, text=True, check=True)

    return written


@pytest.fixture
def nft(uplink: str) -> Iterator[Nft]:
    door = Nft()
    yield door
    door.close()


def dies() -> bool:
    """The positive control: does this machine's own nft die of what is there?"""
    done = subprocess.run(["nft", "list", "ruleset"], capture_output=True, check=False)
    return done.returncode == -signal.SIGSEGV


def held(other: Path, table: str = f"inet {NFT_TABLE}") -> str:
    shown = subprocess.run(
        [other, "list", "table", *table.split()], capture_output=True, text=True, check=True
    )
    return shown.stdout


def test_what_is_written_kills_this_machine_s_nft_or_it_can_read_it(
    nft: Nft, other: Path, write: Callable[[str], None]
) -> None:
    """Which of both is the case is what we have to know, and find out."""
    assert nft.unreadable([NFT_TABLE]) == []
    write(OTHERS)
    version = subprocess.run(["nft", "--version"], capture_output=True, text=True, check=True)
    assert dies() == ("v1.0." in version.stdout)
    assert nft.unreadable(["other"]) == (["other"] if dies() else [])


def test_control_s_work_goes_on_beside_it(
    nft: Nft, other: Path, write: Callable[[str], None], tmp_path: Path
) -> None:
    """A plan stands; then come the others' sets: all that control reads and writes is done."""
    applied = apply(nft, PLAN, NOBODY, run_dir=tmp_path)
    write(OTHERS)
    theirs = held(other, "ip filter")
    nft.run(text.sync_elements(NFT_TABLE, NOBODY, ELEMENTS))
    assert drift(nft, applied, ELEMENTS) == ()
    assert difference(PLAN) == ""
    assert set(counters(nft)) == {name for table in PLAN.tables for name in table.counters}
    assert dropping_forward_chains(nft) == ("ip filter FORWARD",)
    nft.run(text.sync_elements(NFT_TABLE, ELEMENTS, NOBODY))
    assert drift(nft, applied, NOBODY) == ()
    assert nft.exists("table", f"inet {NFT_TABLE}")
    nft.check(text.sync_elements(NFT_TABLE, NOBODY, ELEMENTS))
    assert held(other, "ip filter") == theirs


def test_a_plan_is_applied_repaired_and_removed_beside_it(
    nft: Nft, other: Path, write: Callable[[str], None], sh: Shell, tmp_path: Path
) -> None:
    """From nothing, after a change of one rule, after a flush of all, to another plan, to nothing;
    what others have is theirs."""
    write(OTHERS)
    theirs = held(other, "ip filter")
    applied = apply(nft, PLAN, ELEMENTS, run_dir=tmp_path)
    assert drift(nft, applied, ELEMENTS) == ()
    for damage in ("flush chain", "delete table"):
        chain = " forward_from_client" if damage == "flush chain" else ""
        sh(f"{other} {damage} inet {NFT_TABLE}{chain}")
        found = compare(nft, applied, ELEMENTS)
        assert found.words
        applied = apply(nft, PLAN, ELEMENTS, run_dir=tmp_path, after=found)
        assert drift(nft, applied, ELEMENTS) == ()
    narrow = plan(dataclasses.replace(INTENT, tcp_ports=(8443,)))
    applied = apply(nft, narrow, ELEMENTS, run_dir=tmp_path)
    assert drift(nft, applied, ELEMENTS) == ()
    remove(nft, run_dir=tmp_path, subnets=(IPv4Network("10.10.10.0/24"),))
    assert sh(f"{other} list tables").split("\n") == ["table ip filter", "table inet other", ""]
    assert held(other, "ip filter") == theirs


def test_tables_of_ours_that_it_has_written_are_made_anew(
    nft: Nft, write: Callable[[str], None], tmp_path: Path
) -> None:
    """By an ocgate of the image that ran in this network before, or by hand."""
    for _ in range(2):  # without a plan of ours, and over one
        write(f"table inet {NFT_TABLE} {{\n set more {{\n type ipv4_addr\n }}\n}}\n")
        applied = apply(nft, PLAN, ELEMENTS, run_dir=tmp_path)
        assert drift(nft, applied, ELEMENTS) == ()
    write(f"table inet {NFT_TABLE} {{\n set more {{\n type ipv4_addr\n }}\n}}\n")
    assert compare(nft, applied, ELEMENTS).words
    if dies():
        with pytest.raises(KernelRefused, match="another release of nft"):
            nft.list_text(f"list table inet {NFT_TABLE}")


def test_how_full_a_set_is_is_no_change_of_its_table(
    other: Path, write: Callable[[str], None], sh: Shell
) -> None:
    """A listing without elements tells their number: one session that begins flows is enough."""
    limits = next(table for table in plan(LIMITED_INTENT).tables if table.name == NFT_TABLE_LIMITS)
    write(text.recreation(limits))
    shown = f"{other} --json --terse list table inet {NFT_TABLE_LIMITS}"
    before = json.loads(sh(shown))
    write(f'add element inet {NFT_TABLE_LIMITS} {LIMITED} {{ "vpns0" }}')
    after = json.loads(sh(shown))
    assert '"count": 1' in json.dumps(after), "positive control"
    assert fingerprint(after) == fingerprint(before)


def test_what_can_t_be_asked_is_refused(nft: Nft, write: Callable[[str], None]) -> None:
    """A listing of everything."""
    write(OTHERS)
    if dies():
        with pytest.raises(KernelRefused, match="another release of nft"):
            nft.list_text("list ruleset")
    else:
        assert "blocked" in nft.list_text("list ruleset")


def test_a_child_is_asked_only_about_what_is_new(
    nft: Nft, write: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first time; then neither for changes of ours, nor for more sets of the same kind."""
    asked: list[Any] = []
    real = nft_sets.subprocess.run
    monkeypatch.setattr(
        nft_sets.subprocess, "run", lambda *a, **k: [asked.append(a), real(*a, **k)][1]
    )
    nft.run("add table inet t\nadd set inet t s { typeof ip saddr; }\n")
    write("table inet other {\n set a {\n typeof ip daddr\n }\n}\n")
    asked.clear()
    nft.run("add element inet t s { 192.0.2.1 }")
    assert len(asked) == 1
    write("table inet other {\n set b {\n typeof ip daddr\n }\n}\n")
    asked.clear()
    for octet in range(2, 9):
        nft.run(f"add element inet t s {{ 192.0.2.{octet} }}")
    assert asked == []

"""libnftables in process: one transaction at a time, errors with our line and its words."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator

import pytest

from ocgate.errors import KernelRefused, MissingRequirement
from ocgate.kernel import features
from ocgate.kernel import nft as nft_module
from ocgate.kernel.nft import Nft

pytestmark = pytest.mark.kernel
Shell = Callable[[str], str]

TABLE = """\
table inet t {
\tmap exits {
\t\ttypeof iifname . ip saddr : meta mark
\t}
\tchain c {
\t\ttype filter hook forward priority filter; policy drop;
\t}
}
"""


@pytest.fixture
def nft(netns: object) -> Iterator[Nft]:
    door = Nft()
    yield door
    door.close()
    door.close()


def test_what_is_run_is_what_nft_lists(nft: Nft, sh: Shell) -> None:
    nft.run(TABLE)
    assert nft.list_text("list ruleset") == sh("nft list ruleset")
    assert "type filter hook forward" in nft.list_text("list table inet t")
    assert nft.exists("table", "inet t")
    assert not nft.exists("table", "inet other")


def test_a_refused_transaction_changes_nothing_and_names_the_line(nft: Nft, sh: Shell) -> None:
    nft.run(TABLE)
    with pytest.raises(KernelRefused) as caught:
        nft.run("add table inet second\nadd chain inet t d\ndelete chain inet t absent\n")
    assert "input:3:" in str(caught.value)
    assert "delete chain inet t absent" in caught.value.reply
    assert "No such file or directory" in caught.value.reply
    assert "add table inet second" in caught.value.request
    assert "second" not in sh("nft list tables")


def test_a_syntax_error_names_its_line_and_column(nft: Nft) -> None:
    with pytest.raises(KernelRefused, match=r"input:2:\d+-\d+: Error: syntax error"):
        nft.run("add table inet t\nadd foo bar\n")


def test_check_lets_the_kernel_judge_without_committing(nft: Nft, sh: Shell) -> None:
    nft.check(TABLE)
    with pytest.raises(KernelRefused):
        nft.check("add table inet t\ndelete chain inet t absent")
    assert sh("nft list ruleset") == ""
    nft.run(TABLE)
    assert "exits" in sh("nft list ruleset")


def test_json_holds_elements_and_terse_leaves_them_out(nft: Nft) -> None:
    nft.run(TABLE + 'add element inet t exits { "vpns0" . 10.0.0.2 : 0x1000000 }')
    (full,) = [i["map"] for i in nft.list_json("list table inet t")["nftables"] if "map" in i]
    assert full["elem"] == [[{"concat": ["vpns0", "10.0.0.2"]}, 0x1000000]]
    answer = nft.list_json("list table inet t", terse=True)
    (terse,) = [i["map"] for i in answer["nftables"] if "map" in i]
    assert "elem" not in terse


def test_another_process_may_change_the_ruleset_between_our_calls(nft: Nft, sh: Shell) -> None:
    nft.run(TABLE)
    nft.list_text("list ruleset")
    sh("nft delete table inet t; nft add table inet t; nft add set inet t s '{type ipv4_addr;}'")
    nft.run("add element inet t s { 10.0.0.9 }")
    assert "10.0.0.9" in nft.list_text("list ruleset")
    assert "exits" not in nft.list_text("list ruleset")


def test_ten_thousand_elements_go_in_one_transaction(nft: Nft) -> None:
    elements = ", ".join(f'"vpns{i}" . 10.1.{i >> 8}.{i & 255} : 0x1000000' for i in range(10_000))
    nft.run(TABLE + f"add element inet t exits {{ {elements} }}")
    (held,) = [i["map"] for i in nft.list_json("list map inet t exits")["nftables"] if "map" in i]
    assert len(held["elem"]) == 10_000


def test_own_commits_are_told_from_others(nft: Nft, sh: Shell) -> None:
    from ocgate.kernel import netlink, nftgen

    def generation() -> int:
        with netlink.Netlink(netlink.NETFILTER) as door:
            return nftgen.generation(door)

    nft.run(TABLE)
    assert nft.is_own(generation())
    sh("nft add table inet others")
    assert not nft.is_own(generation())


def test_threads_may_share_one_door(nft: Nft) -> None:
    nft.run(TABLE)
    refused: list[Exception] = []

    def add(base: int) -> None:
        try:
            for i in range(100):
                nft.run(f'add element inet t exits {{ "v{base}x{i}" . 10.{base}.0.{i} : 0x1 }}')
        except KernelRefused as problem:
            refused.append(problem)

    threads = [threading.Thread(target=add, args=(base,)) for base in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused == []
    assert nft.list_text("list ruleset").count(" . 10.") == 400


def test_a_writer_beside_us_costs_no_transaction(nft: Nft, sh: Shell) -> None:
    nft.run(TABLE)
    other = subprocess.Popen(
        ["/bin/sh", "-c", "for i in $(seq 150); do nft add chain inet t o$i || exit 1; done"]
    )
    count = 0
    while other.poll() is None:
        nft.run(f'add element inet t exits {{ "v{count}" . 10.0.0.1 : 0x1 }}')
        nft.list_text("list map inet t exits")
        count += 1
    assert other.returncode == 0
    assert count > 20


def test_an_interrupted_transaction_is_sent_again(
    nft: Nft, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = "netlink: Error: cache initialization failed: Interrupted system call\n"
    answers = iter([(True, "", words), (True, "", words), (False, "", "")])
    monkeypatch.setattr(nft, "_once", lambda text, flags: next(answers))
    nft.run("add table inet t")


def test_a_lost_answer_is_not_sent_again_and_says_so(
    nft: Nft, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = "netlink: Error: Could not process rule: No buffer space available\n"
    answers = iter([(True, "", words)])
    monkeypatch.setattr(nft, "_once", lambda text, flags: next(answers))
    with pytest.raises(KernelRefused, match="read back"):
        nft.run("add table inet t")


def test_without_the_capability_the_docker_flag_is_named(
    nft: Nft, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = "netlink: Error: cache initialization failed: Operation not permitted\n"
    monkeypatch.setattr(nft, "_once", lambda text, flags: (True, "", words))
    monkeypatch.setattr(nft_module, "_may_admin", lambda: False)
    with pytest.raises(MissingRequirement, match="--cap-add NET_ADMIN"):
        nft.run("add table inet t")


def test_a_missing_kernel_feature_is_named(nft: Nft, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel without CONFIG_NFT_MASQ, as it answers: the words alone help nobody."""
    words = "input:1:1-9: Error: Could not process rule: No such file or directory\n"

    def without_masquerade(text: str, flags: int) -> tuple[bool, str, str]:
        return ("masquerade" in text, "", words)

    monkeypatch.setattr(nft, "_once", without_masquerade)
    with pytest.raises(MissingRequirement, match="no nftables masquerade") as caught:
        nft.run("add rule inet t c ct state new reject\nadd rule inet t n masquerade")
    assert "CONFIG_NFT_MASQ" in caught.value.hint


@pytest.mark.parametrize("feature", features.FEATURES, ids=lambda feature: feature.name)
def test_this_kernel_has_each_feature_and_its_probe_is_sound(
    nft: Nft, feature: features.Feature, sh: Shell
) -> None:
    nft.check(feature.lines)
    assert feature.used.search(feature.lines)
    assert sh("nft list ruleset") == ""


def test_a_refusal_leaves_dry_run_behind(nft: Nft, sh: Shell) -> None:
    """The probes after a refusal are dry; the next transaction must not be."""
    with pytest.raises(KernelRefused):
        nft.run("add chain inet absent c")
    nft.run("add table inet t")
    assert sh("nft list tables") == "table inet t\n"


def test_a_missing_library_names_the_package(
    netns: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nft_module, "LIBRARY", "libnftables.so.999")
    with pytest.raises(MissingRequirement, match="apt-get install libnftables1"):
        Nft()

"""A plan is put in place, read back and verified, whatever the kernel held; and taken out."""

from __future__ import annotations

import dataclasses
import json
import re
import textwrap
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path

import pytest

from ocgate.errors import KernelRefused, OcgateError, VerificationFailed
from ocgate.kernel import apply as apply_module
from ocgate.kernel import nftgen, routes, sysctl
from ocgate.kernel.apply import apply, compare, counters, drift, read_table, remove
from ocgate.kernel.netlink import NETFILTER, Netlink
from ocgate.kernel.nft import Nft
from ocgate.names import MARK_DIRECT, NFT_TABLE
from ocgate.netlab.kernel_state import observe
from ocgate.netlab.namespace import Namespace
from ocgate.plan.fingerprint import fingerprint
from ocgate.plan.intent import Intent, Wan
from ocgate.plan.ipv6 import Ipv6Path
from ocgate.plan.model import Plan
from ocgate.plan.planner import plan
from ocgate.plan.reasons import COUNTERS
from ocgate.plan.routing import Route, RouteKind, Rule
from ocgate.server.check_and_plan import difference

pytestmark = pytest.mark.kernel
Shell = Callable[[str], str]

SUBNET = IPv4Network("10.10.10.0/24")
INTENT = Intent(
    device="vpns",
    subnets4=(SUBNET,),
    subnets6=(IPv6Network("fda9:4efe:7e3b:3ea::/64"),),
    prefix6=128,
    gateways=(ip_address("10.10.10.1"),),
    resolvers=(),
    tcp_ports=(443,),
    mss=1360,
    wan4=Wan("wan0", 1500),
    wan6=Wan("wan0", 1500),
    ipv6=Ipv6Path.NAT66,
    ports=(10240, 32767),
)
PLAN = plan(INTENT)
ELEMENTS = {
    "sessions4": {'"vpns0" . 10.10.10.2': f"0x{MARK_DIRECT:08x}"},
    "sessions6": {'"vpns0" . fda9:4efe:7e3b:3ea::2': f"0x{MARK_DIRECT:08x}"},
}
NOBODY: dict[str, dict[str, str]] = {"sessions4": {}, "sessions6": {}}


@pytest.fixture
def nft(uplink: str) -> Iterator[Nft]:
    door = Nft()
    yield door
    door.close()


def applied(nft: Nft, tmp_path: Path, wanted: Plan = PLAN) -> apply_module.Applied:
    return apply(nft, wanted, ELEMENTS, run_dir=tmp_path)


def generation() -> int:
    with Netlink(NETFILTER) as door:
        return nftgen.generation(door)


# --- putting it in place -------------------------------------------------------------------------


@pytest.mark.parametrize("ipv6", Ipv6Path)
@pytest.mark.parametrize("prefix6", [128, 64])
def test_every_kind_of_plan_is_taken_and_verified(
    nft: Nft, tmp_path: Path, ipv6: Ipv6Path, prefix6: int
) -> None:
    """What the planner can say, the kernel takes and reads back."""
    wanted = plan(dataclasses.replace(INTENT, ipv6=ipv6, prefix6=prefix6))
    assert drift(nft, apply(nft, wanted, NOBODY, run_dir=tmp_path), NOBODY) == ()


def test_apply_twice_is_as_once(nft: Nft, tmp_path: Path, netns: Namespace) -> None:
    """The second apply leaves the same fingerprint, elements, routes and sysctls, in one commit."""
    first = applied(nft, tmp_path)
    state, before = observe(netns), generation()
    second = applied(nft, tmp_path)
    assert second == first
    assert state.differences(observe(netns)) == []
    assert generation() == before + 1
    assert drift(nft, second, ELEMENTS) == ()


FOREIGN = {
    "an older chain of ours, and one that jumps to it": """
        add chain inet ocserv older
        add rule inet ocserv older counter drop
        add chain inet ocserv forward { type filter hook forward priority 0; }
        add rule inet ocserv forward jump older""",
    "another priority": "add chain inet ocserv forward { type filter hook forward priority 5; }",
    "another hook": "add chain inet ocserv forward { type filter hook input priority 0; }",
    "another policy": """
        add chain inet ocserv forward { type filter hook forward priority 0; policy drop; }""",
    "a regular chain in a base chain's place": """
        add chain inet ocserv forward
        add rule inet ocserv forward accept""",
    "another map type": """
        add map inet ocserv sessions4 { type ipv4_addr : mark; }
        add element inet ocserv sessions4 { 1.2.3.4 : 1 }""",
    "a set in a map's place": "add set inet ocserv sessions4 { type ipv4_addr; }",
    "a former run's elements": """
        add map inet ocserv sessions4 { typeof iifname . ip saddr : meta mark; }
        add element inet ocserv sessions4 { "vpns9" . 10.10.10.9 : 0x01000000 }
        add element inet ocserv sessions4 { "vpns0" . 10.10.10.2 : 0x02000000 }""",
    "a map that jumps to a stale chain": """
        add chain inet ocserv stale
        add rule inet ocserv stale drop
        add map inet ocserv way { type ipv4_addr : verdict; }
        add element inet ocserv way { 1.2.3.4 : jump stale }""",
    "the guard of gateway mode": """
        add table inet ocserv_gw
        add chain inet ocserv_gw c { type filter hook forward priority 1; }""",
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_whatever_stood_in_our_tables_is_replaced(
    nft: Nft, sh: Shell, tmp_path: Path, kind: str
) -> None:
    """Left by another version, or by hand: afterwards only the plan and its elements are there."""
    clean = what_apply_makes(nft, tmp_path)
    sh("nft flush ruleset")
    nft.run("add table inet ocserv\n" + textwrap.dedent(FOREIGN[kind]))
    found = applied(nft, tmp_path)
    assert drift(nft, found, ELEMENTS) == ()
    assert "ocserv_gw" not in sh("nft list tables")
    assert sorted(json.loads(found.fingerprints[NFT_TABLE]), key=str) == clean


def what_apply_makes(nft: Nft, tmp_path: Path) -> list[object]:
    """Everything in the table, in no order: chains keep the one in which they were made."""
    return sorted(json.loads(applied(nft, tmp_path).fingerprints[NFT_TABLE]), key=str)


def test_others_tables_are_left_alone(nft: Nft, sh: Shell, tmp_path: Path) -> None:
    """Replacing and removing ours does not touch a table of the host's."""
    nft.run(
        "add table inet host\nadd chain inet host c { type filter hook forward priority 7; }\n"
        "add rule inet host c counter\n"
    )
    before = sh("nft -s list table inet host")
    applied(nft, tmp_path)
    remove(nft, run_dir=tmp_path, subnets=(SUBNET,))
    assert sh("nft -s list table inet host") == before


def test_stale_routes_and_rules_of_ours_are_swept(nft: Nft, sh: Shell, tmp_path: Path) -> None:
    """What a former configuration left goes once what is wanted stands; others' routes stay."""
    sh(
        "ip route add blackhole 10.99.0.0/16 proto 143 metric 5;"
        "ip route add blackhole 10.98.0.0/16; ip rule add from 10.99.0.0/16 lookup 77 proto 143"
    )
    applied(nft, tmp_path)
    shown = sh("ip route show; ip rule show")
    assert "10.99." not in shown
    assert "blackhole 10.98.0.0/16" in shown
    assert "blackhole 10.10.10.0/24" in shown


def test_the_read_back_finds_what_another_process_altered_in_between(
    nft: Nft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rule that is taken out between the commit and the verification makes apply fail."""

    def meddled(sysctls: object, *, run_dir: Path) -> None:
        nft.run("flush chain inet ocserv forward_from_client")

    monkeypatch.setattr(sysctl, "ensure", meddled)
    with pytest.raises(VerificationFailed, match="forward_from_client"):
        applied(nft, tmp_path)
    monkeypatch.setattr(sysctl, "ensure", lambda *_, **__: nft.run("delete table inet ocserv"))
    with pytest.raises(VerificationFailed, match="not there"):
        applied(nft, tmp_path)


def test_a_table_that_goes_while_it_is_read_reads_as_gone(
    nft: Nft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between asking whether it is there and listing it another process may delete it."""
    applied(nft, tmp_path)
    really, first = apply_module._own_tables, [True]

    def overtaken(door: Nft) -> list[str]:
        found = really(door)
        if first and first.pop():
            door.run("delete table inet ocserv")
        return found

    monkeypatch.setattr(apply_module, "_own_tables", overtaken)
    assert read_table(nft, NFT_TABLE) is None
    assert counters(nft) == {}


# --- noticing ------------------------------------------------------------------------------------

EDITS = {
    "flush chain inet ocserv forward": "rules were removed",
    "delete table inet ocserv": "is gone",
    "add rule inet ocserv forward accept": "rules were removed, added or reordered",
    "insert rule inet ocserv forward_from_client accept": "rules were removed, added or reordered",
    "add chain inet ocserv more": "chain more is not ours",
    "add chain inet ocserv forward { policy drop; }": "hook, priority or policy",
    "flush map inet ocserv sessions4": "elements of sessions differ",
    'add element inet ocserv sessions4 { "vpns1" . 10.10.10.3 : 0x01000000 }': "elements",
    'delete element inet ocserv sessions6 { "vpns0" . fda9:4efe:7e3b:3ea::2 }': "elements",
    "add set inet ocserv more { type ipv4_addr; }": "a rule was edited",
}


@pytest.mark.parametrize("edit", EDITS)
def test_drift_tells_each_edit(nft: Nft, sh: Shell, tmp_path: Path, edit: str) -> None:
    """Whatever somebody does to our table is found, said, and undone by the next apply."""
    state = applied(nft, tmp_path)
    sh(f"nft '{edit}'")
    (found,) = [what for what in drift(nft, state, ELEMENTS) if EDITS[edit] in what]
    assert "ocserv" in found
    assert drift(nft, applied(nft, tmp_path), ELEMENTS) == ()


def repaired(nft: Nft, tmp_path: Path, found: apply_module.Drift) -> apply_module.Applied:
    return apply(nft, PLAN, ELEMENTS, run_dir=tmp_path, after=found)


@pytest.mark.parametrize("edit", EDITS)
def test_a_repair_after_a_comparison_undoes_each_edit(
    nft: Nft, sh: Shell, tmp_path: Path, edit: str
) -> None:
    """As a total one does, and it comes to the same."""
    state = applied(nft, tmp_path)
    sh(f"nft '{edit}'")
    assert repaired(nft, tmp_path, compare(nft, state, ELEMENTS)) == state
    assert drift(nft, state, ELEMENTS) == ()


def test_a_repair_of_routes_leaves_the_tables_alone(nft: Nft, sh: Shell, tmp_path: Path) -> None:
    """What was found to be as it should is not replaced and not read again: no commit."""
    state = applied(nft, tmp_path)
    sh("ip route del blackhole 10.10.10.0/24")
    before, found = generation(), compare(nft, state, ELEMENTS)
    assert repaired(nft, tmp_path, found) == state
    assert (drift(nft, state, ELEMENTS), generation()) == ((), before)


def test_a_repair_after_an_old_comparison_trusts_nothing(
    nft: Nft, sh: Shell, tmp_path: Path
) -> None:
    """Somebody changed the ruleset after it was compared, or the sessions are others by now."""
    state = applied(nft, tmp_path)
    found = compare(nft, state, ELEMENTS)
    sh("nft flush chain inet ocserv forward")
    assert repaired(nft, tmp_path, found) == state
    assert drift(nft, state, ELEMENTS) == ()
    found = compare(nft, state, ELEMENTS)
    apply(nft, PLAN, NOBODY, run_dir=tmp_path, after=found)
    assert drift(nft, state, NOBODY) == ()


def test_drift_tells_a_rule_edited_in_place(nft: Nft, sh: Shell, tmp_path: Path) -> None:
    """The comment kept and the rest changed: only the fingerprint can tell."""
    state = applied(nft, tmp_path)
    listing = sh("nft -a list chain inet ocserv forward_to_client")
    handle = re.search(r'comment "answers to an admitted client" # handle (\d+)', listing)
    assert handle
    sh(
        f"nft 'replace rule inet ocserv forward_to_client handle {handle[1]} accept"
        ' comment "answers to an admitted client"\''
    )
    assert drift(nft, state, ELEMENTS) == (f"table {NFT_TABLE}: a rule was edited",)


def test_drift_tells_routes_and_sysctls(nft: Nft, sh: Shell, tmp_path: Path) -> None:
    """Lock 3 and forwarding are watched as the table is."""
    state = applied(nft, tmp_path)
    sh("ip route del blackhole 10.10.10.0/24; sysctl -qw net.ipv4.ip_forward=0")
    found = "\n".join(drift(nft, state, ELEMENTS))
    assert "route 10.10.10.0/24" in found or "blackhole 10.10.10.0/24" in found
    assert "net.ipv4.ip_forward is 0; expected 1" in found


def test_a_table_of_another_mode_is_drift(nft: Nft, sh: Shell, tmp_path: Path) -> None:
    """What a stop that was killed or a reload that was refused left is found and taken out."""
    state = applied(nft, tmp_path)
    sh("nft add table inet ocserv_closing")
    assert drift(nft, state, ELEMENTS) == ("table ocserv_closing is not wanted",)
    assert "-table ocserv_closing" in difference(state.plan)
    assert drift(nft, applied(nft, tmp_path), ELEMENTS) == ()


def test_counting_is_no_drift(nft: Nft, sh: Shell, tmp_path: Path) -> None:
    """Counters that go up, and a listing at another time, change no fingerprint."""
    state = applied(nft, tmp_path)
    held = read_table(nft, NFT_TABLE)
    assert held is not None
    sh("nft 'add rule inet ocserv nat counter name \"spoofed\"'")
    assert drift(nft, state, ELEMENTS)
    applied(nft, tmp_path)
    sh("ping -c1 -W1 192.0.2.2 >/dev/null")
    again = read_table(nft, NFT_TABLE)
    assert again is not None
    assert fingerprint(again) == fingerprint(held)
    assert set(counters(nft)) == set(COUNTERS)


# --- taking it out -------------------------------------------------------------------------------


def test_remove_leaves_nothing(nft: Nft, tmp_path: Path, netns: Namespace) -> None:
    """Everything is as before; removing again is no error."""
    before = observe(netns)
    applied(nft, tmp_path)
    assert before.differences(observe(netns))
    remove(nft, run_dir=tmp_path, subnets=(SUBNET,))
    assert before.differences(observe(netns)) == []
    remove(nft, run_dir=tmp_path, subnets=(SUBNET,))
    assert list(tmp_path.iterdir()) == []


def test_guards_are_removed_last(nft: Nft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forwarding goes first; while routes and flows are removed the table still stands."""
    applied(nft, tmp_path)
    seen: list[tuple[str, bool, str | None]] = []

    def noting(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def step(*args: object, **more: object) -> object:
            done = real(*args, **more)
            table = read_table(nft, NFT_TABLE) is not None
            seen.append((name, table, sysctl.read("net.ipv4.ip_forward")))
            return done

        return step

    monkeypatch.setattr(sysctl, "restore", noting("sysctl", sysctl.restore))
    monkeypatch.setattr(routes, "sweep", noting("routes", routes.sweep))
    remove(nft, run_dir=tmp_path, subnets=(SUBNET,))
    assert seen == [("sysctl", True, "0"), ("routes", True, "0")]
    assert read_table(nft, NFT_TABLE) is None


def test_remove_goes_on_when_a_step_fails(nft: Nft, sh: Shell, tmp_path: Path) -> None:
    """A record of sysctls that can't be read is said at the end, after everything else is done."""
    applied(nft, tmp_path)
    (tmp_path / "sysctl.before").write_text("not what we wrote")
    with pytest.raises(OcgateError, match="not what ocgate wrote"):
        remove(nft, run_dir=tmp_path, subnets=(SUBNET,))
    assert sh("nft list tables") == ""
    assert "143" not in sh("ip route show proto 143; ip -6 route show proto 143")
    assert "blackhole" not in sh("ip route show")


def test_an_apply_that_is_refused_says_so_and_keeps_the_guard(
    nft: Nft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a route is refused, the guard stands already: it comes first."""
    broken = Route(IPv4Network("10.0.0.0/8"), RouteKind.UNICAST, device="absent0")
    wanted = dataclasses.replace(PLAN, routes=(*PLAN.routes, broken))
    with pytest.raises(KernelRefused, match="absent0"):
        apply(nft, wanted, ELEMENTS, run_dir=tmp_path)
    assert read_table(nft, NFT_TABLE) is not None
    assert sysctl.read("net.ipv4.ip_forward") == "0"


def test_rules_of_the_plan_are_kept_by_the_sweep(nft: Nft, sh: Shell, tmp_path: Path) -> None:
    """A plan with policy rules (gateway mode) is ensured and not swept; the next without, is."""
    rule = Rule(4, 1000, source=SUBNET, table=100)
    with_rule = dataclasses.replace(PLAN, rules=(rule,))
    applied(nft, tmp_path, with_rule)
    applied(nft, tmp_path, with_rule)
    assert sh("ip rule show").count("from 10.10.10.0/24 lookup 100") == 1
    applied(nft, tmp_path)
    assert "10.10.10.0/24" not in sh("ip rule show")

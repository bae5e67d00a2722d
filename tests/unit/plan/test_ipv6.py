"""The IPv6 decision, row by row of its table."""

from __future__ import annotations

from ipaddress import IPv6Network

import pytest

from ocgate.plan.ipv6 import Ipv6Wish, decide

ULA, GLOBAL = IPv6Network("fda9:4efe:7e3b:3ea::/64"), IPv6Network("2001:db8:7::/64")
NO = "no IPv6 default route"


def wish(
    forward: bool, nat: str, sink: bool, configured: IPv6Network | None, full: bool = True
) -> Ipv6Wish:
    return Ipv6Wish(forward, nat, sink, configured, ULA, full)


@pytest.mark.parametrize(
    ("asked", "egress", "word", "loud"),
    [
        (wish(False, "0", False, None), None, "off", False),
        (wish(False, "0", True, None), None, "sink", False),
        (wish(False, "0", False, GLOBAL), None, "off", False),
        (wish(True, "0", False, None), None, "off", False),
        (wish(True, "0", True, None), None, "sink", False),
        (wish(True, "0", False, GLOBAL), None, "routed", False),
        (wish(True, "0", False, GLOBAL), NO, "sink", True),
        (wish(True, "0", False, ULA), None, "sink", True),
        (wish(True, "auto", False, None), None, "nat66", False),
        (wish(True, "auto", False, None), NO, "off", False),
        (wish(True, "auto", True, None), NO, "sink", False),
        (wish(True, "1", False, None), None, "nat66", False),
        (wish(True, "1", False, None), NO, "sink", True),
        (wish(True, "0", True, None, full=False), None, "off", False),
    ],
)
def test_decision(asked: Ipv6Wish, egress: str | None, word: str, loud: bool) -> None:
    decision = decide(asked, egress=egress)
    assert (decision.word, decision.loud) == (word, loud)
    assert decision.why


def test_a_probe_is_only_needed_where_it_decides() -> None:
    assert wish(True, "auto", True, None).needs_egress
    assert wish(True, "0", True, GLOBAL).needs_egress
    assert not wish(True, "0", True, ULA).needs_egress
    assert not wish(False, "0", True, GLOBAL).needs_egress

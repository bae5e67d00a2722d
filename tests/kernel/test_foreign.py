"""Another program's drop at the forward hook is seen; ours and an accepting one are not told."""

from __future__ import annotations

import pytest

from ocgate.kernel.foreign import dropping_forward_chains
from ocgate.kernel.nft import Nft

pytestmark = pytest.mark.kernel


def test_dropping_forward_chains_of_others(netns: object) -> None:
    nft = Nft()
    for table, hook, policy in (
        ("ip filter", "forward", "drop"),
        ("ip other", "forward", "accept"),
        ("ip more", "input", "drop"),
        ("inet ocserv", "forward", "drop"),
    ):
        base = f"{{ type filter hook {hook} priority 0; policy {policy}; }}"
        nft.run(f"add table {table}\nadd chain {table} FORWARD {base}\n")
    assert dropping_forward_chains(nft) == ("ip filter FORWARD",)
    nft.close()

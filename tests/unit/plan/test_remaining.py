"""Networks less others: what is closed beside what is permitted."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from ocgate.plan.facts import collapsed, remaining


@pytest.mark.parametrize(
    ("network", "holes", "left"),
    [
        ("10.77.0.0/24", [], ["10.77.0.0/24"]),
        ("10.77.0.0/24", ["10.77.0.0/24"], []),
        ("10.77.0.0/24", ["10.0.0.0/8"], []),
        ("10.77.0.0/30", ["10.77.0.1/32"], ["10.77.0.0/32", "10.77.0.2/31"]),
        ("10.77.0.0/30", ["10.77.0.0/31", "10.77.0.2/31"], []),
        ("10.77.0.0/24", ["192.0.2.0/24", "fd00::/64"], ["10.77.0.0/24"]),
        ("fd00:77::/64", ["fd00:77::/65"], ["fd00:77:0:0:8000::/65"]),
    ],
)
def test_what_is_taken_out_is_all_that_goes(
    network: str, holes: list[str], left: list[str]
) -> None:
    """Of its own family alone, in whole or in part."""
    rest = remaining(ip_network(network), map(ip_network, holes))
    assert [str(net) for net in collapsed(rest)] == left

"""EXIT_MAC=new: on which devices, and that it is refused where it would protect nobody."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from ocgate.errors import MissingRequirement
from ocgate.exit_node.run import to_be_renewed
from ocgate.plan.facts import Connected, Facts
from ocgate.tunnel.model import ExitIntent

FRONT, VPN = ip_network("172.20.0.0/24"), ip_network("172.28.0.0/24")
FACTS = Facts((), (), (), (Connected(FRONT, "eth0"), Connected(VPN, "eth1")))


def test_the_devices_of_forward_from_and_no_others_get_a_new_mac() -> None:
    intent = ExitIntent("tun0", ("eth0",), (VPN,))
    assert to_be_renewed(intent, FACTS) == ("eth1",)


@pytest.mark.parametrize("forward_from", [(), (ip_network("10.0.0.0/24"),)])
def test_a_new_mac_for_nobody_is_refused(forward_from: tuple[object, ...]) -> None:
    intent = ExitIntent("tun0", ("eth0",), forward_from)  # type: ignore[arg-type]
    with pytest.raises(MissingRequirement, match="no network of FORWARD_FROM is attached"):
        to_be_renewed(intent, FACTS)

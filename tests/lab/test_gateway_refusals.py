"""Gateways that can't be one are refused at start: exit 2, the variable named, nothing changed."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from lab.addresses import DOCKER_NET, DOCKER_NET6, SECOND_NET
from lab.topology import Lab, Options
from ocgate.netlab.dns import DnsServer
from ocgate.netlab.wait import TimedOut
from support.gateway_mode import LabFactory, start

pytestmark = pytest.mark.lab

# A refusal takes half a second; a start that is none would serve long before.
REFUSAL_SECONDS = 20.0

# What is wrong -> (settings, words of the refusal besides the first variable's name).
REFUSED: dict[str, tuple[dict[str, str], str]] = {
    "own address": ({"VPN_GATEWAY": str(DOCKER_NET[10])}, "this host"),
    "ISP router": ({"VPN_GATEWAY": str(DOCKER_NET[1])}, "router"),
    "not on-link": ({"VPN_GATEWAY": str(SECOND_NET[9])}, "attached network"),
    "in the client subnet": ({"VPN_GATEWAY": "10.10.10.77"}, "client subnet"),
    "IPv6 in VPN_GATEWAY": ({"VPN_GATEWAY": "fd00:28::2"}, "VPN_GATEWAY6"),
    "IPv4 in VPN_GATEWAY6": ({"VPN_GATEWAY6": "172.28.0.3"}, "VPN_GATEWAY"),
    "IPv6 own address": ({"VPN_GATEWAY6": str(DOCKER_NET6[0x10])}, "this host"),
    "IPv6 ISP router": ({"VPN_GATEWAY6": str(DOCKER_NET6[1])}, "router"),
    "IPv6 not on-link": ({"VPN_GATEWAY6": "2001:db8:9::9"}, "attached network"),
    "loopback": ({"VPN_GATEWAY": "127.0.0.1"}, "loopback"),
    "network address": ({"VPN_GATEWAY": str(DOCKER_NET[0])}, "172.28.0.0"),
    "broadcast address": ({"VPN_GATEWAY": str(DOCKER_NET[255])}, "172.28.0.255"),
    "table 253": ({"VPN_GATEWAY_TABLE": "253"}, "253"),
    "table main": ({"VPN_GATEWAY_TABLE": "254"}, "254"),
    "table local": ({"VPN_GATEWAY_TABLE": "255"}, "255"),
    "table 0": ({"VPN_GATEWAY_TABLE": "0"}, "100"),
    "priority behind main": ({"VPN_GATEWAY_RULE_PRIO": "32766"}, "main"),
    "priority at main": ({"VPN_GATEWAY_RULE_PRIO": "32700"}, "32"),
    "priority 0": ({"VPN_GATEWAY_RULE_PRIO": "0"}, "1000"),
}


def refused(built: Lab, environ: dict[str, str], resolv_conf: str = "") -> str:
    """Start with these settings; what was said after exit 2 with nothing left behind, or what
    happened instead, beginning with `not refused`."""
    gateway = start(built, environ, resolv_conf=resolv_conf)
    try:
        code = gateway.program.wait(REFUSAL_SECONDS)
    except TimedOut:
        gateway.crash()
        return f"not refused, it runs: {gateway.output}"
    if code != 2:
        return f"not refused, exit {code}: {gateway.output}"
    assert gateway.left_behind() == []
    return gateway.output


@pytest.fixture
def refusing(lab: LabFactory) -> Lab:
    return lab(Options(clients=0, upstream=True))


def test_what_cannot_be_a_gateway_is_refused(refusing: Lab) -> None:
    """Each: exit 2, the variable and the reason, nothing left in the kernel."""
    wrong = []
    for kind, (environ, words) in REFUSED.items():
        output = refused(refusing, environ)
        variable = next(iter(environ))
        named = re.search(rf"\b{variable}\b", output) and words in output
        if output.startswith("not refused") or not named:
            wrong.append(f"{kind}: {output}")
    assert not wrong, "\n".join(wrong)


NameCase = Callable[[Lab], str]


def no_such_name(built: Lab) -> str:
    """A resolver that knows nothing."""
    built.own(DnsServer(built.gw.netns, (DOCKER_NET[10],), {}))
    return f"nameserver {DOCKER_NET[10]}"


def no_resolver(_: Lab) -> str:
    """A resolver that does not answer."""
    return f"nameserver {DOCKER_NET[77]}"


@pytest.mark.parametrize("resolver", [no_such_name, no_resolver])
def test_a_name_that_does_not_resolve_is_refused_after_its_time(
    refusing: Lab, resolver: NameCase
) -> None:
    """The name, the variable, and how long it waited."""
    environ = {"VPN_GATEWAY": "nothing.lab", "VPN_GATEWAYS_RESOLVE_TIMEOUT": "1"}
    output = refused(refusing, environ, resolver(refusing))
    assert "VPN_GATEWAY" in output
    assert "nothing.lab" in output
    assert re.search(r"waited [01]\.\d s", output), output


@pytest.mark.parametrize(
    ("address", "words"),
    [(DOCKER_NET[10], "this host"), (DOCKER_NET[1], "router"), (SECOND_NET[9], "attached network")],
)
def test_a_name_that_resolves_to_no_gateway_is_refused(
    refusing: Lab, address: object, words: str
) -> None:
    """Own address, ISP's router and off-link are refused by name, too."""
    refusing.own(DnsServer(refusing.gw.netns, (DOCKER_NET[10],), {"wrong.lab": (address,)}))  # type: ignore[dict-item]
    environ = {"VPN_GATEWAY": "wrong.lab", "VPN_GATEWAYS_RESOLVE_TIMEOUT": "1"}
    output = refused(refusing, environ, f"nameserver {DOCKER_NET[10]}")
    assert "VPN_GATEWAY" in output
    assert words in output

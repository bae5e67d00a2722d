"""Names in the environment: known, meant for us, or somebody else's."""

from __future__ import annotations

import pytest

from ocgate.config.environment import from_environment
from ocgate.config.injected import is_injected


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("VPN_SUBNTE", "write VPN_SUBNET, or remove it"),
        ("VPN_GATEWAYZ", "write VPN_GATEWAY, or remove it"),
        ("VPN_USERS_GATEWAY", "write VPN_USER_GATEWAY, or remove it"),
        ("OCGATE_PASSWD", "write OCGATE_PASSWORD, or remove it"),
        ("OCGATE_PASWORD_FILE", "write OCGATE_PASSWORD_FILE, or remove it"),
        ("OCGATE_XYZZY", "remove it (the nearest known name is OCGATE_URL)"),
        ("VPN_\udcff", "remove it (the nearest known name is VPN_IF)"),
        ("IPV6_NAT66", "write IPV6_NAT, or remove it"),
        ("IPV6_FORWARDING", "write IPV6_FORWARD, or remove it"),
        ("vpn_subnet", "write VPN_SUBNET, or remove it"),
        ("vpn_if", "write VPN_IF, or remove it"),
        ("VPN-GATEWAY", "write VPN_GATEWAY, or remove it"),
        ("VNP_GATEWAY", "write VPN_GATEWAY, or remove it"),
        ("VPNGATEWAYS", "write VPN_GATEWAYS, or remove it"),
        ("IPV6NAT", "write IPV6_NAT, or remove it"),
        ("EXIT_PROBES", "write EXIT_PROBE, or remove it"),
        ("EXIT_PROBE_INTERVALL", "write EXIT_PROBE_INTERVAL, or remove it"),
        ("exit_probe", "write EXIT_PROBE, or remove it"),
    ],
)
def test_misspelt_name(name: str, remedy: str) -> None:
    """A name that was meant for us is an error with the nearest known one, its value unseen."""
    found, problems = from_environment({name: "hunter2"})
    assert not found
    (problem,) = problems
    assert problem.remedy == remedy
    assert "hunter2" not in str(problem)
    assert str(problem).isprintable()


@pytest.mark.parametrize(
    "name",
    [
        *("PATH", "HOME", "MSG", "MSYS", "LANG", "PS1", "WAN_IP", "HEALTHCHECK_URL", "VPNC_SCRIPT"),
        *("IPV6_DISABLED", "IPV6_ADDRESS", "IPV4_SUBNET", "IPV4_FORWARD", "KUBERNETES_PORT", ""),
        *("OPENVPN_SUBNETS", "USER", "PASSWORD", "URL", "EXIT_CODE", "EXIT"),
    ],
)
def test_foreign_name(name: str) -> None:
    """What belongs to others is none of our business."""
    assert from_environment({name: "1"}) == ({}, [])


@pytest.mark.parametrize("value", ["", " ", "\n"])
@pytest.mark.parametrize("name", ["VPN_SUBNET", "VPN_SUBNTE", "VPN_GATEWAY"])
def test_blank_is_unset(name: str, value: str) -> None:
    """Compose passes `FOO=` for what was not given."""
    assert from_environment({name: value}) == ({}, [])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VPN_SERVICE_HOST", "10.96.0.7"),
        ("VPN_SERVICE_PORT", "443"),
        ("VPN_SERVICE_PORT_HTTPS", "443"),
        ("VPN_PORT", "tcp://10.96.0.7:443"),
        ("VPN_PORT_443_TCP", "tcp://10.96.0.7:443"),
        ("VPN_PORT_443_TCP_ADDR", "10.96.0.7"),
        ("VPN_PORT_443_UDP_PORT", "443"),
        ("VPN_PORT_443_TCP_PROTO", "tcp"),
        ("VPN_GATEWAY_SERVICE_HOST", "10.96.0.8"),
        ("VPN_GATEWAY_PORT", "udp://10.96.0.8:443"),
        ("OCGATE_SERVICE_HOST", "10.96.0.9"),
        ("OCGATE_PORT_443_TCP_ADDR", "10.96.0.9"),
        ("VPN_ENV_PATH", "/usr/bin"),
        ("VPN_ENV_lower", "x"),
        ("VPN_NAME", "/web/vpn"),
        ("VPN_2_PORT_443_TCP_PORT_START", "443"),
    ],
)
def test_injected_name(name: str, value: str) -> None:
    """What Kubernetes Services and docker links inject is no mistake of the operator."""
    assert is_injected(name, value)
    assert from_environment({name: value}) == ({}, [])


@pytest.mark.parametrize(
    ("name", "value"), [("VPN_PORT", "443"), ("VPN_NAME", "office"), ("VPN_SUBNET_", "10.0.0.0/8")]
)
def test_not_injected(name: str, value: str) -> None:
    """A name that injection shares with a plausible setting counts only with an injected value."""
    assert not is_injected(name, value)
    assert len(from_environment({name: value})[1]) == 1

"""VPN_GATEWAY_MAC and VPN_GATEWAY6_MAC: what is taken, and what is refused with which words."""

from __future__ import annotations

import pytest

from ocgate.config.load import load
from ocgate.errors import ConfigurationError

BASE = {"OCGATE_CONFIG_DIR": "/nonexistent", "VPN_GATEWAY": "172.28.0.3"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("off", "off"),
        ("LEARN", "learn"),
        ("02:42:ac:1c:00:03", "02:42:ac:1c:00:03"),
        ("02-42-AC-1C-00-03", "02:42:ac:1c:00:03"),
    ],
)
def test_what_is_taken(text: str, value: str) -> None:
    assert load({**BASE, "VPN_GATEWAY_MAC": text}).settings.vpn_gateway_mac == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ff:ff:ff:ff:ff:ff", "a MAC address of one host"),
        ("01:00:5e:00:00:01", "a MAC address of one host"),
        ("00:00:00:00:00:00", "a MAC address of one host"),
        ("02:42:ac:1c:00", "off, learn or a MAC address"),
        ("0242ac1c0003", "off, learn or a MAC address"),
        ("172.28.0.3", "off, learn or a MAC address"),
        ("yes", "off, learn or a MAC address"),
    ],
)
def test_what_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load({**BASE, "VPN_GATEWAY_MAC": text})
    (problem,) = caught.value.problems
    assert (problem.key, problem.got) == ("VPN_GATEWAY_MAC", text)
    assert words in problem.expected


@pytest.mark.parametrize("kind", [{}, {"VPN_GATEWAY6": "block"}, {"VPN_GATEWAY6": "direct"}])
def test_one_that_would_hold_nothing_is_refused(kind: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load({**BASE, **kind, "VPN_GATEWAY6_MAC": "learn"})
    (problem,) = caught.value.problems
    assert problem.key == "VPN_GATEWAY6_MAC"
    assert problem.expected == "off while VPN_GATEWAY6 is no gateway"

"""Why a client ended, from what OpenVPN 2.6 and openconnect 9 really said."""

from __future__ import annotations

import pytest

from ocgate.exit_node.exit_reasons import explained

OPENVPN_START = [
    "2026-11-24 18:56:07 OpenVPN 2.6.14 x86_64-pc-linux-gnu [SSL (OpenSSL)]",
    "sitnl_send: rtnl: generic error (-101): Network is unreachable",
]
STOOD = "2026-11-24 18:56:07 Initialization Sequence Completed"

CASES = [
    (
        [*OPENVPN_START, "AUTH: Received control message: AUTH_FAILED", "tunnel exited with 0"],
        "the server refused user and password",
        True,
    ),
    (
        [*OPENVPN_START, "TLS Error: TLS key negotiation failed to occur within 10 seconds"],
        "the server does not answer",
        False,
    ),
    (
        [*OPENVPN_START, "read UDPv4 [ECONNREFUSED]: Connection refused (fd=3,code=111)"],
        "the server refused the connection",
        False,
    ),
    (
        [*OPENVPN_START, "VERIFY ERROR: depth=0, error=certificate has expired"],
        "the server's certificate is not valid",
        False,
    ),
    (
        ["ERROR: Cannot open TUN/TAP dev /dev/net/tun: Operation not permitted (errno=1)"],
        "its client may not open the tunnel's device",
        False,
    ),
    (
        ["Connected to 203.0.113.1:443", "Login failed.", "Password:"],
        "the server refused user and password",
        True,
    ),
    (
        ["Server SSL certificate didn't match: pin-sha256:abc"],
        "the server's certificate is not the one of SERVERCERT",
        False,
    ),
    (
        ["ocgate hook: control refused: the server gave no address", "tunnel exited with 1"],
        "control did not take what it reported: control refused: the server gave no address",
        False,
    ),
    (
        ["Connection refused", STOOD, "tunnel was ended by signal 9"],
        "its client was ended by signal 9",
        False,
    ),
    (
        [STOOD, "Connection refused", "tunnel was ended by signal 9"],
        "its client was ended by signal 9",
        False,
    ),
    (
        ["2026-11-24 18:56:07 something new", "tunnel exited with 3"],
        "its client exited with 3: something new",
        False,
    ),
    (["something new"], "its client ended: something new", False),
    ([], "its client ended", False),
]


@pytest.mark.parametrize(("lines", "why", "everywhere"), CASES)
def test_the_last_words_are_told_in_a_clause(lines: list[str], why: str, everywhere: bool) -> None:
    ended = explained(lines)
    assert (ended.why, ended.everywhere) == (why, everywhere)


def test_a_clause_has_an_end() -> None:
    assert len(explained(["x" * 10_000]).why) == 200

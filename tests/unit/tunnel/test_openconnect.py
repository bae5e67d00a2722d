"""OpenConnect: what the client gets, and where; what its hook reports."""

from __future__ import annotations

import subprocess
from ipaddress import ip_address
from pathlib import Path

import pytest

from ocgate.netlab.namespace import Namespace
from ocgate.tunnel import openconnect
from ocgate.tunnel.gate import Reported
from ocgate.tunnel.model import Endpoint, Launch, Remote

PIN = "pin-sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
SERVERS = (
    openconnect.Server("vpn.example.org", 8443, "/?camouflage"),
    openconnect.Server("2001:db8::7", 443, ""),
)


def _launch(number: int, address: str, directory: Path, pin: str | None = PIN) -> Launch:
    profile = openconnect.read(SERVERS, user="al #ice", password="hunter2", pin=pin)
    remote = openconnect.remotes(profile)[number]
    endpoint = Endpoint(ip_address(address), remote.port, remote.protocols)
    hook = Path("/run/ocgate/hooks/tunnel")
    return openconnect.launch(
        profile, remote, endpoint, device="tun0", directory=directory, hook=hook
    )


def test_secrets_are_in_a_file_and_on_stdin_alone() -> None:
    """Golden: the whole of the client's file; its arguments name nothing but that."""
    launch = _launch(0, "192.0.2.1", Path("/run/ocgate/tunnel"))
    assert launch.argv == ("openconnect", "--config", "/run/ocgate/tunnel/openconnect.conf")
    assert launch.stdin == "hunter2\n"
    assert launch.files["openconnect.conf"].decode() == (
        "server=https://vpn.example.org:8443/?camouflage\nprotocol=anyconnect\nuser=al #ice\n"
        "passwd-on-stdin\nnon-inter\nno-proxy\nreconnect-timeout=10\nquiet\n"
        f"resolve=vpn.example.org:192.0.2.1\nservercert={PIN}\n"
        "interface=tun0\nscript=/run/ocgate/hooks/tunnel\n"
    )


def test_an_address_needs_no_resolving_and_no_secret_no_silence() -> None:
    text = _launch(1, "2001:db8::7", Path("/x"), None).files["openconnect.conf"].decode()
    assert "server=https://[2001:db8::7]:443/\n" in text
    assert "resolve" not in text
    assert "servercert" not in text
    assert "quiet" not in text


def test_remotes_speak_tls_and_dtls_on_one_port() -> None:
    profile = openconnect.read((*SERVERS, SERVERS[0]), user="a", password="hunter2", pin=None)
    assert openconnect.remotes(profile) == (
        Remote("vpn.example.org", 8443, ("tcp", "udp"), "vpn.example.org:8443"),
        Remote("2001:db8::7", 443, ("tcp", "udp"), "[2001:db8::7]:443"),
    )
    assert "hunter2" not in repr(profile)
    assert "camouflage" not in repr(profile)


REPORTED = {
    "reason": "connect",
    "INTERNAL_IP4_ADDRESS": "10.9.0.109",
    "INTERNAL_IP4_NETMASK": "255.255.255.0",
    "INTERNAL_IP4_MTU": "1434",
    "INTERNAL_IP4_DNS": "10.9.0.1 fd00:9::1",
    "INTERNAL_IP6_ADDRESS": "fd00:9::6abe",
    "INTERNAL_IP6_NETMASK": "fd00:9::6abe/128",
}


def test_what_the_hook_reports_is_kept_word_for_word() -> None:
    """The gate judges it."""
    assert openconnect.reported(REPORTED) == Reported(
        mtu="1434",
        address4="10.9.0.109",
        address6="fd00:9::6abe",
        resolvers=("10.9.0.1", "fd00:9::1"),
    )


def test_split_routes_and_domains_are_reported() -> None:
    more = {
        "CISCO_SPLIT_INC": "1",
        "CISCO_SPLIT_INC_0_ADDR": "10.0.0.0",
        "CISCO_IPV6_SPLIT_INC_0_ADDR": "fd00::",
        "CISCO_DEF_DOMAIN": "example.org",
    }
    found = openconnect.reported(REPORTED | more)
    assert (found.routes, found.names) == (("10.0.0.0", "fd00::"), ("example.org",))


def test_openconnect_8_gives_ipv6_with_its_prefix_length() -> None:
    eight = {name: value for name, value in REPORTED.items() if name != "INTERNAL_IP6_ADDRESS"}
    assert openconnect.reported(eight).address6 == "fd00:9::6abe"


@pytest.mark.lab
def test_openconnect_itself_takes_the_file(netns: Namespace, tmp_path: Path) -> None:
    """Its parser accepts every line of ours, and it asks no resolver: the connection fails."""
    launch = _launch(0, "127.0.0.1", tmp_path)
    (tmp_path / "openconnect.conf").write_bytes(launch.files["openconnect.conf"])
    done = subprocess.run(
        launch.argv, input=launch.stdin, capture_output=True, text=True, timeout=60, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert "Usage" not in said, said
    assert "Failed to connect to host vpn.example.org" in said, said
    assert "camouflage" not in said, said
    assert "hunter2" not in said, said

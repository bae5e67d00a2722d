"""WireGuard configurations: what a file may say, and what the device gets."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocgate.errors import ConfigurationError
from ocgate.tunnel import wireguard
from ocgate.tunnel.gate import fitting
from ocgate.tunnel.model import Carried, Endpoint, ExitIntent, Remote

PRIVATE = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
PUBLIC = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
SHARED = "FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE="

INTERFACE = f"[Interface]\nPrivateKey = {PRIVATE}\nAddress = 10.2.0.2/32\n"
PEER = f"[Peer]\nPublicKey = {PUBLIC}\nEndpoint = vpn.example.org:51820\n"
MINIMAL = f"{INTERFACE}{PEER}AllowedIPs = 0.0.0.0/0\n"

TYPICAL = f"""\
[Interface]  # ours
PrivateKey = {PRIVATE}
address = 10.2.0.2/24, fd00:2::2/64
Address = 10.2.0.3
DNS = 10.2.0.1, fd00:2::1, example.org
MTU = 1400

[peer]
publickey={PUBLIC}
PresharedKey = {SHARED}
AllowedIPs = 0.0.0.0/1, 128.0.0.0/1
AllowedIPs = ::/0
Endpoint = [2001:db8::7]:51820
PersistentKeepalive = 25

[Peer]
PublicKey = {PUBLIC}
AllowedIPs = 0.0.0.0/0
Endpoint = vpn.example.org:51820
PersistentKeepalive = off
"""


def _refused(text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        wireguard.read(text, "wg0.conf")
    assert PRIVATE[:20] not in str(caught.value)
    return str(caught.value)


def _interface(
    profile: wireguard.Profile, number: int = 0, address: str = "192.0.2.1"
) -> wireguard.Interface:
    remote = wireguard.remotes(profile)[number]
    return wireguard.interface(profile, remote, Endpoint(ip_address(address), 51820, ("udp",)))


def test_a_typical_file_becomes_the_devices_configuration() -> None:
    """Golden: the text for `wg setconf`, with the resolved endpoint and the chosen peer alone."""
    profile = wireguard.read(TYPICAL, "wg0.conf")
    assert wireguard.remotes(profile) == (
        Remote("2001:db8::7", 51820, ("udp",), "[2001:db8::7]:51820"),
        Remote("vpn.example.org", 51820, ("udp",), "vpn.example.org:51820"),
    )
    made = _interface(profile, 0, "2001:db8::7")
    assert made.text == (
        f"[Interface]\nPrivateKey = {PRIVATE}\n[Peer]\nPublicKey = {PUBLIC}\n"
        f"PresharedKey = {SHARED}\nEndpoint = [2001:db8::7]:51820\n"
        "AllowedIPs = 0.0.0.0/1, 128.0.0.0/1, ::/0\nPersistentKeepalive = 25\n"
    )
    assert made.carried.mtu == 1400
    assert made.carried.addresses == (
        ip_interface("10.2.0.2/32"),
        ip_interface("fd00:2::2/128"),
        ip_interface("10.2.0.3/32"),
    )
    assert [str(each) for each in made.carried.resolvers] == ["10.2.0.1", "fd00:2::1"]
    shown = f"{profile!r} {made!r}"
    assert PRIVATE not in shown
    assert SHARED not in shown


def test_a_family_that_the_peer_does_not_take_is_not_carried() -> None:
    """Clients are told so at once, rather than have their IPv6 swallowed."""
    made = _interface(wireguard.read(TYPICAL, "wg0.conf"), 1)
    assert made.carried.has(4)
    assert not made.carried.has(6)


def test_ipv6_needs_an_mtu_that_carries_it() -> None:
    made = _interface(wireguard.read(TYPICAL.replace("1400", "1200"), "wg0.conf"))
    judged = fitting(made.carried, ExitIntent("wg0", (), ())).carried
    assert judged is not None
    assert judged.has(4)
    assert not judged.has(6)


# As WireGuard's apps write "exclude private IPs".
EXCLUDING = (
    "0.0.0.0/5, 8.0.0.0/7, 11.0.0.0/8, 12.0.0.0/6, 16.0.0.0/4, 32.0.0.0/3, 64.0.0.0/2, "
    "128.0.0.0/3, 160.0.0.0/5, 168.0.0.0/6, 172.0.0.0/12, 172.32.0.0/11, 172.64.0.0/10, "
    "172.128.0.0/9, 173.0.0.0/8, 174.0.0.0/7, 176.0.0.0/4, 192.0.0.0/9, 192.128.0.0/11, "
    "192.160.0.0/13, 192.169.0.0/16, 192.170.0.0/15, 192.172.0.0/14, 192.176.0.0/12, "
    "192.192.0.0/10, 193.0.0.0/8, 194.0.0.0/7, 196.0.0.0/6, 200.0.0.0/5, 208.0.0.0/4"
)


@pytest.mark.parametrize(
    ("allowed", "carried"),
    [
        (f"{EXCLUDING}, ::/0", {4, 6}),
        (f"{EXCLUDING}, 2000::/3", {4, 6}),
        ("0.0.0.0/0, 2000::/3", {4, 6}),
        ("0.0.0.0/0, 2000::/4, 3000::/4", {4, 6}),
        ("0.0.0.0/0", {4}),
        ("0.0.0.0/0, fd00::/8", {4}),
        ("::/0", {6}),
        ("10.0.0.0/8, ::/0", {6}),
        ("10.0.0.0/8", {4}),
        ("10.0.0.0/8, fd00::/8", {4}),
    ],
)
def test_each_family_is_judged_by_itself(allowed: str, carried: set[int]) -> None:
    """What of a family is not carried is said; without IPv4, whose clients have nothing to fall
    back to, in health, too."""
    text = f"{INTERFACE}Address = fd00:2::2/128\n{PEER}AllowedIPs = {allowed}\n"
    found = _interface(wireguard.read(text, "wg0.conf")).carried
    assert {v for v in (4, 6) if found.has(v)} == carried  # type: ignore[arg-type]
    assert len(found.refused) == 2 - len(carried)
    assert any(refusal.loses for refusal in found.refused) is (4 not in carried)


ZONED = "2001:db8::1%x}; flush ruleset"


@pytest.mark.parametrize(
    "text",
    [
        MINIMAL.replace("[Peer]", f"DNS = {ZONED}\n[Peer]"),
        MINIMAL.replace("10.2.0.2/32", ZONED),
        MINIMAL.replace("10.2.0.2/32", f"{ZONED}/64"),
        MINIMAL.replace("0.0.0.0/0", "0.0.0.0/0, 2000::%x y/3"),
    ],
    ids=["DNS", "Address", "Address with length", "AllowedIPs"],
)
def test_an_address_with_a_zone_is_none(text: str) -> None:
    """Behind the `%` Python's parser takes any text, and a resolver's stands in the ruleset."""
    assert "%" in _refused(text)


def test_no_zone_passes_the_gate_either() -> None:
    carried = Carried((ip_interface("10.2.0.2/32"),), 1400, (ip_address(ZONED),))
    judged = fitting(carried, ExitIntent("wg0", (), ()))
    assert judged.carried is not None
    assert judged.carried.resolvers == ()


def test_the_mtu_is_wg_quicks_unless_written() -> None:
    assert _interface(wireguard.read(MINIMAL, "wg0.conf")).carried.mtu == 1420


@pytest.mark.parametrize("key", ["PreUp", "PostUp", "PreDown", "PostDown", "postup"])
def test_programs_are_refused(key: str) -> None:
    text = _refused(MINIMAL.replace("[Peer]", f"{key} = iptables -F\n[Peer]"))
    assert text.startswith(f"wg0.conf:4: {key}: expected it left out, because it runs a program")


@pytest.mark.parametrize("line", ["Table = off", "FwMark = 1", "ListenPort = 5", "SaveConfig=true"])
def test_what_would_steer_is_left_out_with_a_notice(line: str) -> None:
    (notice,) = wireguard.read(MINIMAL.replace("[Peer]", f"{line}\n[Peer]"), "wg0.conf").notices
    assert re.match(rf"wg0\.conf:4: {line.split('=')[0].strip()}: left out: ", notice)


def test_a_narrow_peer_alone_is_noticed_and_among_others_refused() -> None:
    narrow = f"{INTERFACE}{PEER}AllowedIPs = 10.0.0.0/8\n"
    (notice,) = wireguard.read(narrow, "wg0.conf").notices
    assert "the tunnel drops what goes elsewhere" in notice
    text = _refused(f"{narrow}{PEER}AllowedIPs = 0.0.0.0/0\n")
    assert "wg0.conf:4: AllowedIPs: expected 0.0.0.0/0, ::/0 or both, because peers are" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "wg0.conf: [Interface]: expected one section [Interface]. Write one"),
        (INTERFACE, "wg0.conf: [Peer]: expected at least one section [Peer]. Add the server"),
        (MINIMAL + INTERFACE, "wg0.conf:8: [Interface]: expected one section [Interface]"),
        (MINIMAL + "[Foo]\nbar = 1\n", "wg0.conf:8: section: expected [Interface] or [Peer]"),
        ("MTU = 1\n" + MINIMAL, "wg0.conf:1: MTU: expected a section before it"),
        (MINIMAL + "nonsense\n", "wg0.conf:8: line: expected KEY = VALUE"),
        (MINIMAL + "Jc = 4\n", "wg0.conf:8: Jc: expected one of PublicKey, PresharedKey, "),
        (MINIMAL.replace(PRIVATE, PRIVATE[1:]), "wg0.conf:2: PrivateKey: expected a key of 44"),
        (MINIMAL.replace(PUBLIC, "x"), "wg0.conf:5: PublicKey: expected a key of 44 characters"),
        (MINIMAL.replace(f"PublicKey = {PUBLIC}\n", ""), "wg0.conf:4: PublicKey: expected a key"),
        (MINIMAL + "PresharedKey = x\n", "wg0.conf:8: PresharedKey: expected a key of 44"),
        (MINIMAL.replace("10.2.0.2/32", "10.2.0.2/33"), "Address: got '10.2.0.2/33'; expected"),
        (MINIMAL.replace("Address = 10.2.0.2/32\n", ""), "wg0.conf:1: Address: expected an addr"),
        (MINIMAL.replace("0.0.0.0/0", "everything"), "AllowedIPs: got 'everything'; expected"),
        (MINIMAL.replace("AllowedIPs = 0.0.0.0/0\n", ""), "wg0.conf:4: AllowedIPs: expected netw"),
        (MINIMAL.replace(":51820", ""), "wg0.conf:6: Endpoint: got 'vpn.example.org'; expected"),
        (MINIMAL.replace("vpn.example.org", "2001:db8::1"), "an IPv6 address in brackets"),
        (MINIMAL.replace("vpn.example.org", "[vpn.example]"), "Endpoint: got '[vpn.example]:51820"),
        (MINIMAL.replace(":51820", ":0"), "Endpoint: got 'vpn.example.org:0'; expected HOST:PORT"),
        (MINIMAL + "PersistentKeepalive = soon\n", "PersistentKeepalive: got 'soon'; expected a"),
        (MINIMAL.replace("[Peer]", "MTU = 100\n[Peer]"), "wg0.conf:4: MTU: got '100'; expected a"),
        (MINIMAL.replace("[Peer]", "DNS = $(x)\n[Peer]"), "wg0.conf:4: DNS: got '$(x)'; expected"),
    ],
)
def test_what_is_wrong_is_named_at_its_line(text: str, message: str) -> None:
    assert message in _refused(text)


@given(st.text(alphabet=st.sampled_from("[]Peer=#:/. \n\t,0123456789é\x00"), max_size=80))
def test_any_text_is_a_profile_or_refused(text: str) -> None:
    """Law: nothing but ConfigurationError, of printable lines."""
    for prefix in ("", MINIMAL, INTERFACE):
        try:
            wireguard.read(prefix + text, "wg0.conf")
        except ConfigurationError as error:
            assert all(line.isprintable() for line in str(error).split("\n"))


@pytest.mark.lab
def test_wg_quick_reads_the_same_keys(tmp_path: Path) -> None:
    """`wg-quick strip` leaves of the file what the device gets of us."""
    if shutil.which("wg-quick") is None:
        required = os.environ.get("CI") == "true" or os.environ.get("OCGATE_REQUIRE_ALL") == "1"
        (pytest.fail if required else pytest.skip)("needs the program wg-quick")
    path = tmp_path / "wg0.conf"
    path.write_text(MINIMAL)
    path.chmod(0o600)
    stripped = subprocess.run(
        ["wg-quick", "strip", str(path)], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    made = _interface(wireguard.read(MINIMAL, "wg0.conf")).text
    expected = made.replace("192.0.2.1", "vpn.example.org").splitlines()
    assert sorted(filter(None, stripped.splitlines())) == sorted(expected)

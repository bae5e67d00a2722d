"""Loading as a whole: sources, precedence, secrets, and every problem at once."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ocgate.config import Ipv6Nat, Loaded, Origin, Settings, load
from ocgate.config.table import KNOWN, LINES
from ocgate.config.unserved import UNSERVED
from ocgate.errors import ConfigurationError

Write = Callable[[str | bytes], Path]


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """An environment whose config dir exists and is empty."""
    return {"OCGATE_CONFIG_DIR": str(tmp_path)}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes ocgate.toml."""

    def write_it(content: str | bytes) -> Path:
        path = tmp_path / "ocgate.toml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_it


def _refused(environ: dict[str, str]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(environ)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_nothing_written_gives_the_defaults(tmp_path: Path) -> None:
    """No variable, no file, not even a config dir: everything has its default."""
    loaded = load({"OCGATE_CONFIG_DIR": str(tmp_path / "absent")})
    assert loaded.settings == Settings(config_dir=tmp_path / "absent")
    assert loaded.notices == ()
    assert loaded.origin("VPN_SUBNET") == Origin("default")


def test_environment_wins_over_file(env: dict[str, str], write: Write) -> None:
    """The file gives what the environment leaves out; origins name the place of each."""
    path = write(
        '# ours\nvpn_subnet = ["10.1.0.0/24", "10.2.0.0/24"]\nMSS = 1400\nipv6_sink = true'
    )
    loaded = load(env | {"MSS": "1360", "IPV6_SINK": ""})
    assert loaded.settings.vpn_subnet == (IPv4Network("10.1.0.0/24"), IPv4Network("10.2.0.0/24"))
    assert (loaded.settings.mss, loaded.settings.ipv6_sink) == (1360, True)
    assert loaded.origin("MSS") == Origin("environment")
    assert str(loaded.origin("VPN_SUBNET")) == f"{path}:2"
    assert loaded.origin("IPV6_SINK") == Origin(str(path), 4)
    assert set(loaded.origins) == {"OCGATE_CONFIG_DIR", "MSS", "VPN_SUBNET", "IPV6_SINK"}


def test_all_problems_at_once(env: dict[str, str], write: Write, tmp_path: Path) -> None:
    """Golden: the whole text of many mistakes in both sources, in a fixed order."""
    write('wan_if = "eth0 eth1"\nmss = 1400.0\nvpn_subent = "10.0.0.0/24"\n[ipv6]\nnat = "auto"\n')
    text = _refused(
        env
        | {
            "VPN_SUBNET": "10.10.10.5/24, 10.20.0.0",
            "VPN_GATEWAY": "172.28.0.2/24",
            "VPN_GATEWAY_BYPASS": "ru",
            "VPN_USER_GATWAY": "alice=nl",
            "VPN_PORT_443_TCP_ADDR": "10.96.0.7",
            "IPV6_NAT": "auto",
            "IPV6_FORWARD": "off",
            "OCGATE_PASSWORD": "hunter2",
            "OCGATE_PASSWORD_FILE": "/run/secrets/password",
            "OCGATE_LOG_LEVEL": "loud",
        }
    )
    assert "hunter2" not in text
    assert text.replace(str(tmp_path), "/etc/ocserv") == (
        "/etc/ocserv/ocgate.toml:1: WAN_IF: got 'eth0 eth1'; expected an interface name of at most "
        "15 letters, digits, '_', '.' or '-'. Write one name as `ip link` shows it, such as eth0\n"
        "/etc/ocserv/ocgate.toml:2: MSS: got '1400.0'; expected a whole number from 536 to 65535 "
        "(bytes). Write it as an integer or text in quotes\n"
        "/etc/ocserv/ocgate.toml:3: vpn_subent: expected a known name. Write VPN_SUBNET, or remove "
        "it\n"
        "/etc/ocserv/ocgate.toml:4: ipv6: expected a known name (ocgate.toml has no sections). "
        "Write NAME = VALUE lines only\n"
        "environment: IPV6_NAT: got 'auto'; expected 0 with IPV6_FORWARD=0. Set IPV6_FORWARD=1 to "
        "give clients IPv6, or IPV6_NAT=0 to give them none\n"
        "environment: OCGATE_LOG_LEVEL: got 'loud'; expected debug, info, warning or error. Write "
        "debug, info, warning or error\n"
        "environment: OCGATE_PASSWORD_FILE: expected either OCGATE_PASSWORD or "
        "OCGATE_PASSWORD_FILE. Remove one of them\n"
        "environment: VPN_GATEWAY: got '172.28.0.2/24'; expected an IPv4 address, a DNS name, "
        "direct or block. Leave the prefix length out: write 172.28.0.2\n"
        "environment: VPN_GATEWAY_BYPASS: got 'ru'; expected unset, because named gateways, "
        "per-user exits and bypass pools are not in this version and running without them would "
        "send clients by another exit than the one meant for them. Remove VPN_GATEWAY_BYPASS only "
        "if all clients may leave by VPN_GATEWAY (by this host without it)\n"
        "environment: VPN_SUBNET: got '10.10.10.5/24'; expected a network without host bits. Write "
        "10.10.10.0/24\n"
        "environment: VPN_SUBNET: got '10.20.0.0'; expected IPv4 networks with /8 to /30 or a "
        "netmask, separated by commas. Add the mask: write 10.20.0.0/24\n"
        "environment: VPN_USER_GATWAY: expected a known name. Write VPN_USER_GATEWAY, or remove it"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xef\xbb\xbfmss = 1400", "F:1: encoding: expected UTF-8 without byte order mark. Save"),
        ("mss = 1400".encode("utf-16"), "F:1: encoding: expected UTF-8 without byte order mark."),
        (b"mss = 1400\nwan_if = '\xff'", "F:2: encoding: expected UTF-8. Save the file again"),
        ("mss = 1\nwan_if = eth0\n", "F:2: syntax: expected TOML (Invalid value). Correct the"),
        ("mss = 1400\nmss = 1400", "F:2: mss: expected each key once. Remove one of its lines"),
        ("mss = 1400\nMSS = 1400", "F:2: MSS: expected each key once, in upper or in lower case."),
        ("wan_if = 'eth0", "F:1: syntax: expected TOML (Expected"),
        ("mss = " + "9" * 5000, "F: syntax: expected TOML (Exceeds the limit"),
        ("mss = 0x" + "f" * 5000, "F:1: MSS: expected a whole number from 536 to 65535 (bytes)."),
        ("vpn_subnet = " + "[" * 5000, "F: syntax: expected TOML. Nest less deeply"),
        ("Vpn_Subnet = '10.0.0.0/24'", "F:1: Vpn_Subnet: expected a known name. Write VPN_SUBNET,"),
        ("wan_if = 5", "F:1: WAN_IF: got '5'; expected an interface name"),
        ("mss = true", "F:1: MSS: got 'true'; expected a whole number from 536 to 65535 (bytes)."),
        ("mss = [1400]", "F:1: MSS: got 'a list'; expected a whole number"),
        ("mss = 1979-05-27", "F:1: MSS: got '1979-05-27'; expected a whole number"),
        ("ipv6_nat = 2", "F:1: IPV6_NAT: got '2'; expected 0, 1 or auto."),
        ("vpn_subnet = [10]", "F:1: VPN_SUBNET: got '10'; expected IPv4 networks"),
        ("vpn_subnet = []", "F:1: VPN_SUBNET: got '[]'; expected IPv4 networks"),
        ("[vpn_subnet]\na = 1", "F:1: VPN_SUBNET: got 'a table'; expected IPv4 networks"),
        ("ocgate_password = 5", "F:1: OCGATE_PASSWORD: expected 1 to 127 bytes of UTF-8"),
        ("ocgate_config_dir = '/x'", "F:1: OCGATE_CONFIG_DIR: expected this in the environment"),
        (
            "vpn_gateways = 'nl=vpn'",
            "F:1: VPN_GATEWAYS: got 'nl=vpn'; expected unset, because named",
        ),
        ("vpn_gateway = false", "F:1: VPN_GATEWAY: got 'false'; expected an IPv4 address, a DNS"),
        ("exit_probe_interval = 1e-5", "F:1: EXIT_PROBE_INTERVAL: got '1e-05'; expected a number"),
        ("exit_probe_interval = true", "F:1: EXIT_PROBE_INTERVAL: got 'true'; expected a number"),
        ('\n"ä\\n" = 1', "F:2: ä\\n: expected a known name. Remove it (the nearest"),
    ],
)
def test_bad_file(env: dict[str, str], write: Write, content: str | bytes, message: str) -> None:
    """Whatever is wrong in ocgate.toml is a problem at its line, never a traceback."""
    path = write(content)
    text = _refused(env)
    assert text.startswith(message.replace("F", str(path), 1))
    assert "\n" not in text


def test_directory_in_place_of_file(env: dict[str, str], tmp_path: Path) -> None:
    """`docker -v` of a file that is missing makes a directory of it."""
    (tmp_path / "ocgate.toml").mkdir()
    assert "ocgate.toml: expected a readable file (it is no regular file)" in _refused(env)


def test_fifo_in_place_of_file(env: dict[str, str], tmp_path: Path) -> None:
    """A FIFO would block the start for ever."""
    os.mkfifo(tmp_path / "ocgate.toml")
    assert "expected a readable file (it is no regular file)" in _refused(env)


def test_dangling_link_in_place_of_file(env: dict[str, str], tmp_path: Path) -> None:
    """A link that leads nowhere is a file that was meant to be there."""
    (tmp_path / "ocgate.toml").symlink_to(tmp_path / "absent")
    assert "expected a readable file (No such file or directory)" in _refused(env)


def test_file_in_place_of_config_dir(tmp_path: Path) -> None:
    """The config dir is a file."""
    (tmp_path / "file").write_text("")
    text = _refused({"OCGATE_CONFIG_DIR": str(tmp_path / "file")})
    assert "expected a readable file (Not a directory)" in text


def test_endless_file(env: dict[str, str], write: Write) -> None:
    """A file of megabytes is not ocgate.toml."""
    write(b"#" * (1 << 20) + b"\n")
    assert "it is larger than 1048576 bytes" in _refused(env)


def test_unreadable_file(env: dict[str, str], tmp_path: Path) -> None:
    """What can't be read is an error, not an absent file."""
    (tmp_path / "ocgate.toml").symlink_to("ocgate.toml")
    assert "expected a readable file (Too many levels of symbolic links)" in _refused(env)


@pytest.mark.parametrize(
    ("content", "password"),
    [
        ("p w\n", "p w"),
        (" p ", " p "),
        ("pw\r\n", "pw"),
        ("pä", "pä"),
        ("p" * 127 + "\n", "p" * 127),
    ],
)
def test_password_file(env: dict[str, str], tmp_path: Path, content: str, password: str) -> None:
    """The secret is the file's content less one final newline; the file is its origin."""
    secret = tmp_path / "secret"
    secret.write_bytes(content.encode())
    loaded = load(env | {"OCGATE_PASSWORD_FILE": str(secret)})
    assert loaded.settings.password is not None
    assert loaded.settings.password.get_secret_value() == password
    assert loaded.origin("OCGATE_PASSWORD") == Origin("environment")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "a file that is not empty"),
        (b"\n", "a file that is not empty"),
        (b"a\nb\n", "1 to 127 bytes of UTF-8 without control characters"),
        (b"\xff", "a file in UTF-8"),
        (b"p" * 200, "a readable file (it is larger than 129 bytes)"),
        (None, "a readable file (No such file or directory)"),
    ],
)
def test_bad_password_file(
    env: dict[str, str], tmp_path: Path, content: bytes | None, expected: str
) -> None:
    """An empty, absent or unfit secret file is a problem, and its content stays unseen."""
    secret = tmp_path / "secret"
    if content is not None:
        secret.write_bytes(content)
    assert f"expected {expected}." in _refused(env | {"OCGATE_PASSWORD_FILE": str(secret)})


def test_relative_password_file(env: dict[str, str]) -> None:
    """The working directory of a service is nothing to build on."""
    text = _refused(env | {"OCGATE_PASSWORD_FILE": "secret"})
    assert "got 'secret'; expected the absolute path of a file" in text


def test_environment_hides_the_files_secret(env: dict[str, str], write: Write) -> None:
    """A password in the environment wins over a password file that ocgate.toml names."""
    write('ocgate_password_file = "/absent"')
    loaded = load(env | {"OCGATE_PASSWORD": "pw"})
    assert loaded.settings.password is not None
    assert loaded.settings.password.get_secret_value() == "pw"


def test_secrets_are_never_shown(env: dict[str, str]) -> None:
    """Neither the settings' text nor what is loaded shows a password."""
    loaded = load(env | {"OCGATE_PASSWORD": "hunter2"})
    assert "hunter2" not in f"{loaded!r} {loaded.settings} {loaded.settings.model_dump_json()}"


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"IPV6_NAT": "1", "IPV6_FORWARD": "0"},
            "IPV6_NAT: got '1'; expected 0 with IPV6_FORWARD=0",
        ),
        ({"IPV6_NAT": "1", "IPV6_SINK": "1"}, "IPV6_SINK: got '1'; expected 0 with IPV6_NAT=1"),
        ({"WAN_IF": "vpns0"}, "WAN_IF: got 'vpns0'; expected an interface outside of VPN_IF=vpns+"),
        ({"WAN_IF": "eth0", "VPN_IF": "e+"}, "WAN_IF: got 'eth0'; expected an interface outside"),
        ({"OCGATE_RUN_DIR": "/etc"}, "OCGATE_RUN_DIR: got '/etc'; expected a directory that does"),
        (
            {"HEALTH_CHECK_ENABLED": "1", "HEALTH_CHECK_EGRESS": "direct", "EXIT_PROBE": "off"},
            "HEALTH_CHECK_EGRESS: got 'direct'; expected a path whose state can be known",
        ),
    ],
)
def test_contradictions(environ: dict[str, str], message: str) -> None:
    """Values that are fine alone but not together are refused, by load and by the model."""
    assert f"environment: {message}" in _refused({"OCGATE_CONFIG_DIR": "/etc/ocserv", **environ})


def test_no_contradiction_with_a_bad_value(env: dict[str, str]) -> None:
    """A value that is refused anyway is not compared with others as if it had its default."""
    text = _refused(env | {"VPN_IF": "eth0", "WAN_IF": "vpns0"})
    assert "WAN_IF" not in text


def test_model_refuses_contradictions_too() -> None:
    """No code can build settings that the operator could not have written."""
    with pytest.raises(ValidationError):
        Settings(ipv6_nat=Ipv6Nat.AUTO, ipv6_forward=False)


@pytest.mark.parametrize("name", list(UNSERVED))
def test_steering_is_never_ignored(env: dict[str, str], name: str) -> None:
    """What would steer packets is refused; what means the same as unset is taken."""
    assert "would send clients by another exit" in _refused(env | {name: "nl"})
    for inert in UNSERVED[name].inert:
        assert load(env | {name: inert}).notices == ()


def test_egress_is_asked_by_an_enabled_check_only(env: dict[str, str]) -> None:
    """What HEALTH_CHECK_ENABLED switches off is said to have no effect; written `off` it says
    nothing."""
    said = {"HEALTH_CHECK_EGRESS": "direct", "HEALTH_CHECK_URL": "https://example.org"}
    for enabled in ({}, {"HEALTH_CHECK_ENABLED": "false"}):
        assert load(env | said | enabled).notices == tuple(
            f"environment: {name}: has no effect without HEALTH_CHECK_ENABLED=1" for name in said
        )
    assert load(env | said | {"HEALTH_CHECK_ENABLED": "true"}).notices == ()
    assert load(env | {"HEALTH_CHECK_EGRESS": "off"}).notices == ()


def test_subnet_without_nat_is_noticed(env: dict[str, str]) -> None:
    """The reference's defaults, written out, are no error."""
    loaded = load(env | {"IPV6_NAT": "0", "IPV6_SUBNET": "fda9:4efe:7e3b:03ea::/64"})
    (notice,) = loaded.notices
    assert notice.startswith("environment: IPV6_SUBNET: with IPV6_NAT=0 and IPV6_SINK=0")
    assert load(env | {"IPV6_SINK": "1", "IPV6_SUBNET": "fd00::/64"}).notices == ()


# What an operator, a typo or a machine may put into an environment.
_NAMES = st.one_of(
    st.sampled_from(sorted(KNOWN)),
    st.sampled_from(sorted(KNOWN)).map(lambda name: name[:-2] + name[-1]),
    st.text(max_size=12).map(lambda tail: f"VPN_{tail}"),
    st.text(alphabet=st.characters(), max_size=12),
)
_VALUES = st.one_of(
    st.text(alphabet=st.characters(), max_size=30),
    st.sampled_from([line.setting.example for line in LINES]),
    st.from_regex(r"[0-9./, ]{0,30}", fullmatch=True),
)


def _outcome(environ: dict[str, str]) -> Any:
    try:
        loaded = load(environ)
    except ConfigurationError as error:
        assert error.problems
        return str(error)
    return loaded.settings, dict(loaded.origins), loaded.notices


@example({"VPN_GATEWAY": "\x08/", "VPN_GATEWAY6": "\x1b=\x1b"}, random.Random(0))
@given(st.dictionaries(_NAMES, _VALUES, max_size=8), st.randoms(use_true_random=False))
def test_any_environment_loads_or_is_refused(
    environ: dict[str, str], shuffler: random.Random
) -> None:
    """Law: nothing but ConfigurationError, one line a problem, and the order does not matter."""
    environ.setdefault("OCGATE_CONFIG_DIR", "/absent/ocserv")
    outcome = _outcome(environ)
    shuffled = list(environ.items())
    shuffler.shuffle(shuffled)
    assert _outcome(dict(shuffled)) == outcome
    if isinstance(outcome, str):
        assert all(line.isprintable() for line in outcome.split("\n"))


@given(content=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_file_loads_or_is_refused(content: bytes, write: Write, tmp_path: Path) -> None:
    """Law: no content of ocgate.toml raises anything but ConfigurationError."""
    write(content)
    _outcome({"OCGATE_CONFIG_DIR": str(tmp_path)})


_WRITTEN = {
    "VPN_SUBNET": ("10.1.0.0/24, 10.2.0.0/24", '["10.1.0.0/24", "10.2.0.0/24"]'),
    "WAN_IF": ("eth7", '"eth7"'),
    "VPN_IF": ("tun+", "'tun+'"),
    "MSS": ("1400", "1_400"),
    "OCGATE_SESSION_FLOWS": ("8192", "8_192"),
    "OCGATE_NETWORKS": (
        "10.77.0.0/24 dev lan0, 10.78.0.0/16 via 10.77.0.1 dev lan0",
        '["10.77.0.0/24 dev lan0", "10.78.0.0/16 via 10.77.0.1 dev lan0"]',
    ),
    "IPV6_FORWARD": ("yes", "true"),
    "IPV6_NAT": ("auto", '"AUTO"'),
    "IPV6_SUBNET": ("fd00:1::/64", '"fd00:1::/64"'),
    "IPV6_PROBE": ("2001:db8::1 [2001:db8::2]:53", '["[2001:db8::1]:443", "[2001:db8::2]:53"]'),
    "IPV6_PROBE_INTERVAL": ("60", "60"),
    "IPV6_SINK": ("0", "false"),
    "VPN_GATEWAY": ("172.28.0.2", '"172.28.0.2"'),
    "VPN_GATEWAY6": ("block", '"BLOCK"'),
    "VPN_GATEWAY_MAC": ("off", '"OFF"'),
    "VPN_GATEWAY6_MAC": ("off", '"Off"'),
    "VPN_GATEWAY_TABLE": ("200", "200"),
    "VPN_GATEWAY_RULE_PRIO": ("901", '"901"'),
    "VPN_GATEWAYS_RESOLVE_INTERVAL": ("60", "60"),
    "VPN_GATEWAYS_RESOLVE_TIMEOUT": ("60", "60"),
    "EXIT_PROBE": ("1.1.1.1 [2620:fe::fe]:53", '["1.1.1.1:443", "[2620:fe::fe]:53"]'),
    "EXIT_PROBE_INTERVAL": ("0.5", "0.5"),
    "EXIT_PROBE_FAILURES": ("1", "1"),
    "EXIT_PROBE_SUCCESSES": ("1", "1"),
    "OCGATE_FORWARDING": ("shared", "'Shared'"),
    "HEALTH_CHECK_ENABLED": ("true", "true"),
    "HEALTH_CHECK_EGRESS": ("direct+default", '["direct", "DEFAULT"]'),
    "HEALTH_CHECK_URL": (
        "https://a.example/x;http://b.example",
        '"https://a.example/x, http://b.example"',
    ),
    "CERT_WATCH": ("1", "true"),
    "CERT_WATCH_INTERVAL": ("300", "300"),
    "SESSION_HISTORY_FILE": ("/var/x", "'/var/x'"),
    "OCGATE_RUN_DIR": ("/run/x", '"/run/x/"'),
    "OCGATE_LOG_FORMAT": ("json", '"json"'),
    "OCGATE_LOG_LEVEL": ("debug", '"debug"'),
    "OCGATE_URL": ("vpn.example.org", '"https://vpn.example.org"'),
    "OCGATE_USER": ("bob", '"bob"'),
    "OCGATE_PASSWORD": ("pw", '"pw"'),
}


@given(names=st.sets(st.sampled_from(sorted(_WRITTEN))), lower=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_file_and_environment_mean_the_same(
    names: set[str], lower: bool, write: Write, tmp_path: Path
) -> None:
    """Law: the same settings, in native TOML or as variables, in any mix, are equal."""
    environ = {name: _WRITTEN[name][0] for name in names}
    base = {"OCGATE_CONFIG_DIR": str(tmp_path)}
    write("")
    expected: Loaded = load(base | environ)
    rows = (f"{name.lower() if lower else name} = {_WRITTEN[name][1]}" for name in sorted(names))
    write("\n".join(rows))
    assert load(base).settings == expected.settings


def test_every_setting_is_in_the_comparison() -> None:
    """A new setting must be compared between file and environment too."""
    own = {line.setting.name for line in LINES if not line.setting.environment_only}
    assert set(_WRITTEN) == own

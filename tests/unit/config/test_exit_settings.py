"""The exit role's settings: which kind follows, what is refused, noticed, secret."""

from __future__ import annotations

import random
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocgate.config.exit_choices import ExitKind, GatewayDns, Technology
from ocgate.config.exit_foreign import FOREIGN
from ocgate.config.exit_load import LoadedExit, load_exit
from ocgate.config.exit_model import ExitSettings
from ocgate.config.exit_names import EXIT
from ocgate.config.origin import Origin
from ocgate.config.table import SERVER, table_rows
from ocgate.config.values import written
from ocgate.errors import ConfigurationError

NORD = {"USER": "alice", "PASS": "hunter2"}
URL = "https://vpn.example.org/?hunter2"


def _refused(environ: dict[str, str]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_exit(environ)
    return str(caught.value)


@pytest.mark.parametrize(
    ("environ", "kind"),
    [
        ({"OVPN_CONFIG": "/config/vpn.ovpn"}, ExitKind.OPENVPN),
        ({"OVPN_CONFIG": "/config/vpn.ovpn", **NORD}, ExitKind.OPENVPN),
        ({"URL": URL, **NORD}, ExitKind.OPENCONNECT),
        ({"WG_CONFIG": "/config/wg0.conf"}, ExitKind.WIREGUARD),
        (NORD, ExitKind.NORDVPN),
        ({**NORD, "COUNTRY": "Netherlands;DE;209", "URL": ""}, ExitKind.NORDVPN),
    ],
)
def test_the_kind_follows_from_what_is_written(environ: dict[str, str], kind: ExitKind) -> None:
    assert load_exit(environ).settings.kind is kind


def test_the_companions_compose_file_means_the_same() -> None:
    """Variables of azinchen/nordvpn's own examples, with its separators."""
    settings = load_exit(
        {
            **NORD,
            "COUNTRY": "United States;CA;38",
            "CITY": "New York;Los Angeles",
            "GROUP": "Standard VPN servers",
            "TECHNOLOGY": "OpenVPN TCP",
            "RANDOM_TOP": "10",
            "NETWORK": "192.168.1.0/24;172.20.0.0/16",
            "FORWARD_FROM": "172.28.0.0/24, 10.30.0.0/24",
            "GATEWAY_DNS": "redirect",
        }
    ).settings
    assert settings.country == ("United States", "CA", "38")
    assert settings.city == ("New York", "Los Angeles")
    assert settings.technology is Technology.OPENVPN_TCP
    assert settings.network == (ip_network("192.168.1.0/24"), ip_network("172.20.0.0/16"))
    assert settings.forward_from == (ip_network("172.28.0.0/24"), ip_network("10.30.0.0/24"))
    assert settings.gateway_dns is GatewayDns.REDIRECT


def test_a_login_shells_user_means_nothing() -> None:
    """USER=root of `sudo` beside a configuration without a password."""
    loaded = load_exit({"USER": "root", "OVPN_CONFIG": "/config/vpn.ovpn"})
    assert loaded.settings.credentials is None
    assert loaded.notices == ()
    assert "OVPN_CONFIG: expected one of OVPN_CONFIG, URL, WG_CONFIG" in _refused({"USER": "root"})


def test_all_problems_at_once(tmp_path: Path) -> None:
    """Golden: the whole text of many mistakes, in a fixed order, secrets unseen."""
    text = _refused(
        {
            "URL": "http://hunter2@vpn.example.org",
            "WG_CONFIG": "wg0.conf",
            "USER": "alice",
            "PASS_FILE": str(tmp_path / "absent"),
            "FORWARD_FROM": "172.28.0.1/24; fd00:28::/200; 172.28.0.2",
            "GATEWAY_DNS": "forward",
            "TECHNOLOGY": "nordlynx",
            "SERVERCERT": "sha1:1234",
            "EXIT_ROTAT": "1",
            "FORWARD_FORM": "10.0.0.0/8",
            "VPN_GATEWAY": "172.28.0.2",
            "MSS": "1400",
            "OPENVPN_OPTS": "--up /evil",
        }
    )
    assert "hunter2" not in text
    assert text.replace(str(tmp_path), "/run/secrets").splitlines() == [
        "environment: EXIT_ROTAT: expected a known name. Write EXIT_ROTATE, or remove it",
        "environment: FORWARD_FORM: expected a known name. Write FORWARD_FROM, or remove it",
        "environment: FORWARD_FROM: got '172.28.0.1/24'; expected a network without host bits. "
        "Write 172.28.0.0/24",
        "environment: FORWARD_FROM: got '172.28.0.2'; expected IPv4 networks from /8 and IPv6 "
        "networks from /7, separated by commas. Add the mask: write 172.28.0.2/32 for this address "
        "alone",
        "environment: FORWARD_FROM: got 'fd00:28::/200'; expected IPv4 networks from /8 and IPv6 "
        "networks from /7, separated by commas. Name your own network, such as fd00:28::/64",
        "environment: GATEWAY_DNS: got 'forward'; expected auto, redirect or off. Write redirect "
        "(asking a resolver by the uplink would be a DNS leak)",
        "environment: MSS: expected a known name. Remove it here: it is a setting of the server "
        "role, `ocgate run`",
        "environment: OPENVPN_OPTS: expected unset, because options on the command line are "
        "checked by nobody. Write them into a file and name it as OVPN_CONFIG",
        "environment: PASS_FILE: got '/run/secrets/absent'; expected a readable file (No such file "
        "or directory). Name a file that holds nothing but the value",
        "environment: SERVERCERT: got 'sha1:1234'; expected pin-sha256: and the 44 characters of a "
        "base64 SHA-256. Write it as openconnect prints it for a server whose certificate it can't "
        "verify",
        "environment: TECHNOLOGY: got 'nordlynx'; expected openvpn_udp or openvpn_tcp. Write "
        "openvpn_udp, or give a WireGuard configuration as WG_CONFIG",
        "environment: URL: expected https://NAME[:PORT][/PATH][?CAMOUFLAGE-SECRET], several "
        "separated by ';'. Write https:// (an OpenConnect server speaks TLS)",
        "environment: VPN_GATEWAY: expected a known name. Remove it here: it is a setting of the "
        "server role, `ocgate run`",
        "environment: WG_CONFIG: got 'wg0.conf'; expected the absolute path of a file. Write the "
        "path from the root, such as /config/vpn.conf",
    ]


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"URL": URL, "OVPN_CONFIG": "/a", **NORD}, "OVPN_CONFIG: expected either OVPN_CONFIG or "),
        ({"WG_CONFIG": "/b", "OVPN_CONFIG": "/a"}, "OVPN_CONFIG and WG_CONFIG are tunnels of"),
        ({"URL": URL}, "PASS: expected a password for URL's server. Set USER and PASS"),
        ({"URL": URL, "USER": "alice"}, "PASS: expected a password for URL's server. Set PASS"),
        ({"PASS": "hunter2"}, "USER: expected a user for PASS. Set USER, too"),
        ({"WG_CONFIG": "/b", "COUNTRY": "NL"}, "COUNTRY: got 'NL'; expected unset with WG_CONFIG"),
        ({**NORD, "TECHNOLOGY": "openvpn_xor_udp"}, "obfuscation needs a patched OpenVPN"),
        ({**NORD, "GATEWAY_DNS": "local"}, "ocgate runs no resolver for clients"),
        ({**NORD, "NETWORK": "0.0.0.0/0"}, "Name your own network, such as 172.28.0.0/24"),
        ({**NORD, "NETWORK": "127.0.0.0/8"}, "127.0.0.0/8 is loopback"),
        ({**NORD, "FORWARD_FROM": "fe80::%1/64"}, "Leave the zone (what follows %) out"),
        ({**NORD, "COUNTRY": ";"}, "COUNTRY: got ';'; expected names, codes or ids"),
    ],
)
def test_what_cannot_be_meant_is_refused(environ: dict[str, str], message: str) -> None:
    text = _refused(environ)
    assert message in text
    assert "hunter2" not in text


def test_an_unreadable_secret_is_no_missing_one() -> None:
    """A PASS_FILE that can't be read is one problem, not also `no kind of tunnel`."""
    assert _refused({"USER": "alice", "PASS_FILE": "/absent"}).count("\n") == 0


@pytest.mark.parametrize(
    ("environ", "notice"),
    [
        ({"WG_CONFIG": "/b", **NORD}, "PASS: has no effect with WG_CONFIG"),
        ({**NORD, "SERVERCERT": "pin-sha256:" + "A" * 43 + "="}, "SERVERCERT: has no effect with"),
        ({**NORD, "NETWORK": "8.8.8.0/24"}, "8.8.8.0/24 is public: what goes there leaves outside"),
        ({**NORD, "RECREATE_VPN_CRON": "0 */6 * * *"}, "write EXIT_ROTATE in seconds, 21600 for"),
    ],
)
def test_what_has_no_effect_is_noticed(environ: dict[str, str], notice: str) -> None:
    assert any(notice in line for line in load_exit(environ).notices)


@pytest.mark.parametrize("name", sorted(FOREIGN))
def test_no_variable_of_the_companions_is_ignored(name: str) -> None:
    """Each is refused or noticed, with what to do instead; their defaults pass in silence."""
    line = FOREIGN[name]
    environ = {**NORD, name: "hunter3"}
    if line.refused:
        text = _refused(environ)
    else:
        (text,) = load_exit(environ).notices
    assert text.startswith(f"environment: {name}: ")
    assert line.why in text
    assert line.instead.lower() in text.lower()
    assert "hunter3" not in text
    for inert in line.inert:
        assert load_exit({**NORD, name: inert}).notices == ()


@pytest.mark.parametrize("name", sorted(SERVER.known - EXIT.known))
def test_settings_of_the_server_role_are_named_as_such(name: str) -> None:
    assert "it is a setting of the server role" in _refused({**NORD, name: "1"})


@pytest.mark.parametrize("name", ["LANGUAGE", "CITY_NAME", "COUNTRIES", "USERS", "URLS", "TZ"])
def test_foreign_names_are_none_of_our_business(name: str) -> None:
    assert load_exit({**NORD, name: "1"}).notices == ()


def test_secrets_from_files_and_nowhere_else(tmp_path: Path) -> None:
    """URL, USER and PASS may lie in files; no text of what is loaded shows them."""
    for name, value in (("url", URL), ("user", "alice"), ("pass", "hunter2")):
        (tmp_path / name).write_text(value + "\n")
    loaded = load_exit(
        {f"{name}_FILE": str(tmp_path / name.lower()) for name in ("URL", "USER", "PASS")}
    )
    (server,) = loaded.settings.url or ()
    assert server.location.get_secret_value() == "/?hunter2"
    assert loaded.settings.credentials is not None
    user, password = loaded.settings.credentials
    assert (user.get_secret_value(), password.get_secret_value()) == ("alice", "hunter2")
    assert loaded.origin("PASS") == Origin("environment")
    shown = f"{loaded!r} {loaded.settings} {loaded.settings.model_dump_json()}"
    assert "hunter2" not in shown
    assert "alice" not in shown


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("vpn.example.org", [("vpn.example.org", 443, "")]),
        ("https://vpn.example.org/", [("vpn.example.org", 443, "")]),
        ("https://vpn.example.org:8443/?secret", [("vpn.example.org", 8443, "/?secret")]),
        ("https://vpn.example.org?secret", [("vpn.example.org", 443, "?secret")]),
        ("https://[2001:db8::1]/group", [("2001:db8::1", 443, "/group")]),
        ("a.example; https://b.example", [("a.example", 443, ""), ("b.example", 443, "")]),
    ],
)
def test_urls_of_servers(text: str, servers: list[tuple[str, int, str]]) -> None:
    settings = load_exit({**NORD, "URL": text}).settings
    assert [(s.host, s.port, s.location.get_secret_value()) for s in settings.url or ()] == servers


def test_every_setting_is_told_whole() -> None:
    """One row for each attribute, no cell of it empty, and its example is accepted."""
    rows = table_rows(EXIT)
    assert len(rows) == len(ExitSettings.model_fields)
    assert all(all(row) for row in rows)
    for line in EXIT.lines:
        assert line.setting.form.read(line.setting.example) is not None
        default = ExitSettings.model_fields[line.field].default
        if default is not None:
            assert line.setting.form.read(written(default)) == default


_NAMES = st.one_of(
    st.sampled_from(sorted(EXIT.known)),
    st.sampled_from(sorted(EXIT.known)).map(lambda name: name[:-2] + name[-1]),
    st.text(max_size=12).map(lambda tail: f"EXIT_{tail}"),
)
_VALUES = st.one_of(
    st.text(alphabet=st.characters(), max_size=30),
    st.sampled_from([line.setting.example for line in EXIT.lines]),
    st.from_regex(r"[0-9a-f:./;, ]{0,30}", fullmatch=True),
)


def _outcome(environ: dict[str, str]) -> Any:
    try:
        loaded: LoadedExit = load_exit(environ)
    except ConfigurationError as error:
        assert error.problems
        return str(error)
    return loaded.settings, dict(loaded.origins), loaded.notices


@given(st.dictionaries(_NAMES, _VALUES, max_size=8), st.randoms(use_true_random=False))
def test_any_environment_loads_or_is_refused(
    environ: dict[str, str], shuffler: random.Random
) -> None:
    """Law: nothing but ConfigurationError, printable lines, and the order does not matter."""
    outcome = _outcome(environ)
    shuffled = list(environ.items())
    shuffler.shuffle(shuffled)
    assert _outcome(dict(shuffled)) == outcome
    if isinstance(outcome, str):
        assert all(line.isprintable() for line in outcome.split("\n"))

"""OpenVPN profiles: what a file may say, what the client gets, what its hook reports."""

from __future__ import annotations

import os
import re
import subprocess
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ocgate.errors import ConfigurationError
from ocgate.netlab.namespace import Namespace
from ocgate.tunnel import openvpn
from ocgate.tunnel.gate import Reported
from ocgate.tunnel.model import Endpoint, Launch, Remote
from ocgate.tunnel.openvpn_directives import RULES, Verdict, directives_markdown
from ocgate.tunnel.openvpn_files import read_profile
from ocgate.tunnel.openvpn_syntax import directives, rendered

PAGE = Path(__file__).parents[3] / "docs" / "openvpn-directives.md"

PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
KEY = "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n"
MINIMAL = f"client\nremote vpn.example.org\nremote-cert-tls server\n<ca>\n{PEM}</ca>\n"
LOGIN = ("alice", "hunter2")

# As providers hand them out: a file beside it, blocks, scripts for DNS, two servers.
TYPICAL = f"""\
# a comment
client
dev tun
proto udp
remote nl1.example.net 1194
remote nl2.example.net 1195 tcp ; another
remote-random
resolv-retry infinite
nobind
persist-key
persist-tun
auth-user-pass
comp-lzo no
verb 3
cipher AES-256-CBC
setenv opt block-outside-dns
setenv CLIENT_CERT 0
explicit-exit-notify 2
remote-cert-tls server
script-security 2
up "/etc/openvpn/update resolv"
redirect-gateway def1
route 10.0.0.0 255.0.0.0
tls-auth ta.key 1
<ca>
{PEM}</ca>
"""


def _read(text: str, **files: bytes | str) -> openvpn.Profile:
    return openvpn.read(text, "vpn.ovpn", files=files)


def _refused(text: str, **files: bytes | str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        openvpn.read(text, "vpn.ovpn", files=files)
    assert "hunter2" not in str(caught.value)
    return str(caught.value)


def _launch(profile: openvpn.Profile, number: int = 0, address: str = "192.0.2.1") -> Launch:
    remote = openvpn.remotes(profile)[number]
    return openvpn.launch(
        profile,
        remote,
        Endpoint(ip_address(address), remote.port, remote.protocols),
        device="tun0",
        directory=Path("/run/ocgate/tunnel"),
        hook=Path("/run/ocgate/hooks/tunnel"),
    )


def _text(launch: Launch) -> str:
    return launch.files["openvpn.conf"].decode()


def test_a_typical_file_becomes_the_clients_own() -> None:
    """Golden: the whole file that the client gets; files are inlined, ours stands last."""
    profile = openvpn.read(
        TYPICAL, "vpn.ovpn", files={"ta.key": b"-----BEGIN OpenVPN\nx\n"}, login=LOGIN
    )
    launch = _launch(profile)
    assert launch.argv == ("openvpn", "--config", "/run/ocgate/tunnel/openvpn.conf")
    assert launch.files["login"] == b"alice\nhunter2\n"
    assert _text(launch) == (
        "comp-lzo no\ncipher AES-256-CBC\nexplicit-exit-notify 2\nremote-cert-tls server\n"
        "key-direction 1\n<tls-auth>\n-----BEGIN OpenVPN\nx\n</tls-auth>\n"
        f"<ca>\n{PEM}</ca>\n"
        "client\ndev-type tun\nnobind\npersist-tun\npersist-key\nifconfig-noexec\nroute-noexec\n"
        "disable-dco\nscript-security 2\nresolv-retry 0\nconnect-retry-max 1\nremap-usr1 SIGTERM\n"
        "auth-nocache\nauth-retry none\nverb 3\nsuppress-timestamps\n"
        "dev tun0\nproto udp4\nremote 192.0.2.1 1194\nconnect-timeout 10\n"
        'up "/run/ocgate/hooks/tunnel"\nauth-user-pass /run/ocgate/tunnel/login\n'
    )
    assert profile.shuffled
    assert profile.notices == (
        "vpn.ovpn:21: up: left out: resolvers, addresses and routes are set by ocgate, and no "
        "program of the file is run",
        "vpn.ovpn:23: route: left out: everything goes through the tunnel, by ocgate's own routes",
    )


def test_each_server_has_its_port_and_protocol() -> None:
    """What a `remote` leaves open comes from `port` and `proto`, wherever they stand."""
    text = MINIMAL + "remote 192.0.2.7 443 tcp-client\nremote [2001:db8::7]\nproto tcp\nport 1195\n"
    assert openvpn.remotes(_read(text)) == (
        Remote("vpn.example.org", 1195, ("tcp",), "vpn.example.org:1195/tcp"),
        Remote("192.0.2.7", 443, ("tcp",), "192.0.2.7:443/tcp"),
        Remote("2001:db8::7", 1195, ("tcp",), "[2001:db8::7]:1195/tcp"),
    )


def test_tcp_and_ipv6_are_told_apart_for_the_client() -> None:
    """UDP's own directives are left out for TCP, where OpenVPN refuses the whole file."""
    profile = _read(MINIMAL + "remote other.example 443 tcp\nexplicit-exit-notify\n")
    assert "proto udp6\nremote 2001:db8::1 1194\n" in _text(_launch(profile, 0, "2001:db8::1"))
    text = _text(_launch(profile, 1))
    assert "proto tcp4-client\nremote 192.0.2.1 443\n" in text
    assert "explicit-exit-notify" not in text


def test_connection_blocks_win_and_keep_their_own_lines() -> None:
    profile = _read(
        MINIMAL
        + "tun-mtu 1500\n<connection>\nremote a.example 1 udp\ntun-mtu 1400\n</connection>\n"
        "<connection>\nremote b.example\nproto tcp\n</connection>\n"
    )
    assert [remote.label for remote in openvpn.remotes(profile)] == [
        "a.example:1/udp",
        "b.example:1194/tcp",
    ]
    assert "tun-mtu 1400\n" in _text(_launch(profile, 0))
    assert "tun-mtu 1500\n" not in _text(_launch(profile, 0))
    assert "tun-mtu 1500\n" in _text(_launch(profile, 1))
    assert any("the <connection> blocks name the servers" in text for text in profile.notices)


def test_proto_force_leaves_the_other_protocol_out() -> None:
    profile = _read(MINIMAL + "remote other.example 443 tcp\nproto-force tcp\n")
    assert [remote.host for remote in openvpn.remotes(profile)] == ["other.example"]


@pytest.mark.parametrize(
    "name", sorted(n for n, r in RULES.items() if r.verdict is Verdict.REFUSED)
)
def test_every_refused_directive_says_where_and_why(name: str) -> None:
    text = _refused(f"{MINIMAL}{name} /hunter2 hunter2\n")
    assert text.startswith(f"vpn.ovpn:9: {name}: expected it left out, because ")
    assert RULES[name].instead.lower() in text.lower()


@pytest.mark.parametrize(
    "name", sorted(n for n, r in RULES.items() if r.verdict is Verdict.DROPPED)
)
def test_every_dropped_directive_is_told_and_gone(name: str) -> None:
    profile = _read(f"{MINIMAL}{name} /hunter2 x\n")
    (notice,) = profile.notices
    assert notice.startswith(f"vpn.ovpn:9: {name}: left out: ")
    assert "hunter2" not in notice
    assert "hunter2" not in _text(_launch(profile))


@pytest.mark.parametrize("name", sorted(n for n, r in RULES.items() if r.verdict is Verdict.OURS))
def test_what_is_ours_is_left_out_in_silence(name: str) -> None:
    profile = _read(f"{MINIMAL}{name} /hunter2\n")
    assert profile.notices == ()
    assert "hunter2" not in _text(_launch(profile))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("frobnicate 1", "frobnicate: expected a directive that ocgate knows. Remove it"),
        ("dev tap0", "dev: expected tun (layer 3)"),
        ("dev-type tap", "dev-type: expected tun (layer 3)"),
        ("cipher none", "cipher: expected a cipher or digest, because traffic would go in clear"),
        ("data-ciphers AES-256-GCM:none", "data-ciphers: expected a cipher or digest"),
        ("data-ciphers AES-256-GCM:?None", "data-ciphers: expected a cipher or digest"),
        ("ncp-ciphers AES-256-GCM:none", "ncp-ciphers: expected a cipher or digest"),
        ("setenv opt ncp-ciphers none", "ncp-ciphers: expected a cipher or digest"),
        ("auth none", "auth: expected a cipher or digest"),
        ("tls-cipher NULL-SHA256:@SECLEVEL=0", "tls-cipher: expected ciphers that encrypt"),
        ("tls-cipher DEFAULT:+eNULL", "tls-cipher: expected ciphers that encrypt"),
        ("tls-cipher TLS-RSA-WITH-NULL-SHA256", "tls-cipher: expected ciphers that encrypt"),
        ("proto sctp", "proto: expected udp or tcp"),
        ("port 0", "port: expected a port from 1 to 65535. Write 1194, say"),
        ("remote", "remote: expected a host, a port and a protocol"),
        ("remote host 1 udp x", "remote: expected a host, a port and a protocol"),
        ("remote $(reboot)", "remote: expected a host's name or address"),
        ("remote fe80::1%eth0", "remote: expected a host's name or address"),
        ("remote host 99999", "remote: expected a port from 1 to 65535"),
        ("cert missing.pem", "cert: expected a readable file (it was not read)"),
        ("cert", "cert: expected a file or a block"),
        ("ca a b", "ca: expected the name of one file"),
        ("tls-auth ta.key 2", "tls-auth: expected a file, and 0 or 1"),
        ('up "unclosed', "syntax: expected a closing quote"),
        ("up x\\", "syntax: expected something after the backslash"),
        ("up \x1b[31m", "line: expected text without control characters"),
        ("verb " + "x" * 300, "line: expected at most 254 bytes (OpenVPN's limit)"),
        ("verb" + " x" * 16, "verb: expected at most 15 words"),
        ("<key>\nabc", "<key>: expected </key> on a line of its own. Close the block"),
        ("<verb>\n3\n</verb>", None),
        ("<cipher>\nx\n</cipher>", "cipher: expected a line and no block"),
        ("connection", "connection: expected a block <connection>"),
        ("<connection>\nup x\nremote a\n</connection>", "up: expected a directive of a connection"),
        ("<connection>\nproto udp\n</connection>", "connection: expected one `remote` in it"),
    ],
)
def test_what_is_wrong_is_named_at_its_line(line: str, message: str | None) -> None:
    if message is None:
        assert _read(f"{MINIMAL}{line}\n").notices == ()
        return
    text = _refused(f"{MINIMAL}{line}\n")
    assert re.match(r"vpn\.ovpn:(9|10|11): ", text)
    assert message in text
    assert all(each.isprintable() for each in text.split("\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "vpn.ovpn: client: expected client in a client's configuration. Add `client`"),
        (MINIMAL.replace("client\n", ""), "vpn.ovpn: client: expected client"),
        ("client\nremote a\n", "vpn.ovpn: ca: expected ca in a client's configuration"),
        (MINIMAL.replace("remote vpn.example.org\n", ""), "vpn.ovpn: remote: expected remote"),
        ("x" * (1 << 19), "vpn.ovpn: size: expected at most 262144 characters"),
    ],
)
def test_what_is_missing_is_named(text: str, message: str) -> None:
    assert message in _refused(text)


def test_a_server_that_anybody_could_play_is_noticed() -> None:
    """Without remote-cert-tls or its like another customer's certificate would do."""
    (notice,) = _read(MINIMAL.replace("remote-cert-tls server\n", "")).notices
    assert "add `remote-cert-tls server`" in notice


@pytest.mark.parametrize(
    "body",
    [
        "x\n</ca>\nup /evil\n",
        "x\n \t</ca>\nup /evil\n",
        "x\n\x0b</ca>\nup /evil\n",
        "A" * 254 + "</ca>\nup /evil\n",
        "x\n<up>\n",
        "\x00</ca>\nup /evil\n",
    ],
)
def test_a_file_cannot_break_out_of_its_block(body: str) -> None:
    """OpenVPN reads a block by lines of 255 bytes, up to a closing tag behind any blank."""
    text = MINIMAL.replace(f"<ca>\n{PEM}</ca>", "ca ca.pem")
    content = f"-----BEGIN X\n{body}".encode()
    message = _refused(text, **{"ca.pem": content})
    assert "vpn.ovpn:4: ca: expected " in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("No such file or directory", "expected a readable file (No such file or directory)"),
        (b"\xff\xfe", "expected a text file (PEM)"),
        (b"hello\n", "expected text with -----BEGIN (PEM)"),
        (b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nx\n", "expected a key without a passphrase"),
    ],
)
def test_a_file_that_is_none_of_its_kind_is_refused(content: bytes | str, message: str) -> None:
    assert f"key: {message}" in _refused(MINIMAL + "key k\n", k=content)


@pytest.mark.parametrize(
    ("line", "files", "login"),
    [
        ("auth-user-pass", {}, LOGIN),
        ("auth-user-pass login.txt", {"login.txt": b"bob\nhunter3\n"}, ("bob", "hunter3")),
        ("<auth-user-pass>\nbob\nhunter3\n</auth-user-pass>", {}, ("bob", "hunter3")),
    ],
)
def test_login_comes_from_the_environment_or_the_file(
    line: str, files: dict[str, bytes], login: tuple[str, str]
) -> None:
    given = LOGIN if login == LOGIN else None
    profile = openvpn.read(f"{MINIMAL}{line}\n", "vpn.ovpn", files=files, login=given)
    assert profile.login == login
    assert "hunter" not in repr(profile)


def test_a_login_that_is_nowhere_is_asked_for() -> None:
    text = _refused(MINIMAL + "auth-user-pass\n")
    assert text == "vpn.ovpn:9: auth-user-pass: expected a user and a password. Set USER and PASS"
    text = _refused(MINIMAL + "auth-user-pass f\n", f=b"bob\n")
    assert "expected a file with the user on its first line" in text


def test_a_login_that_nobody_asks_for_is_noticed_and_kept_back() -> None:
    profile = openvpn.read(MINIMAL, "vpn.ovpn", files={}, login=LOGIN)
    assert profile.notices == ("vpn.ovpn: without auth-user-pass USER and PASS have no effect",)
    assert "login" not in _launch(profile).files


def test_setenv_reaches_the_server_but_never_the_hook() -> None:
    """UV_* is told to the server; PERL5OPT, say, would run code in the hook."""
    profile = _read(
        MINIMAL + "setenv PERL5OPT -Mevil\nsetenv UV_ID 5\nsetenv-safe x y\nsetenv opt nonsense 1\n"
        "setenv opt tls-version-min 1.2 or-highest\n"
    )
    text = _text(_launch(profile))
    assert "setenv UV_ID 5\n" in text
    assert "tls-version-min 1.2 or-highest\n" in text
    assert "PERL5OPT" not in text
    assert "nonsense" not in text


def test_a_list_of_ciphers_may_take_out_those_without_encryption() -> None:
    line = "tls-cipher DEFAULT:!aNULL:!eNULL:-NULL\n"
    assert line in _text(_launch(_read(MINIMAL + line)))


def test_ignored_unknown_options_are_ignored() -> None:
    assert _read(MINIMAL + "ignore-unknown-option foo bar\nfoo 1\nbar\n")


def test_files_are_found_beside_the_configuration(tmp_path: Path) -> None:
    """The edge: names are relative to the file, and a FIFO never blocks."""
    (tmp_path / "vpn.ovpn").write_text(MINIMAL.replace(f"<ca>\n{PEM}</ca>", "ca sub/ca.pem"))
    with pytest.raises(ConfigurationError, match=r"ca: expected a readable file \(No such file"):
        read_profile(tmp_path / "vpn.ovpn", None)
    (tmp_path / "sub").mkdir()
    os.mkfifo(tmp_path / "sub" / "ca.pem")
    with pytest.raises(ConfigurationError, match=r"it is no regular file"):
        read_profile(tmp_path / "vpn.ovpn", None)
    (tmp_path / "sub" / "ca.pem").unlink()
    (tmp_path / "sub" / "ca.pem").write_text(PEM)
    assert PEM in _text(_launch(read_profile(tmp_path / "vpn.ovpn", None)))


@pytest.mark.parametrize("content", [None, b"\xff", b"x" * (1 << 19)])
def test_a_configuration_that_cannot_be_read_is_one_problem(
    tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "vpn.ovpn").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"OVPN_CONFIG: expected a readable file \("):
        read_profile(tmp_path / "vpn.ovpn", None)


@pytest.mark.parametrize(
    "named", ["/etc/shadow", "../../../../../../etc/passwd", "link", "/proc/kmsg"]
)
def test_a_provider_s_file_names_nothing_but_what_lies_beside_it(
    tmp_path: Path, named: str
) -> None:
    """The first two lines of a login file are sent to the server."""
    (tmp_path / "link").symlink_to("/etc/hostname")
    (tmp_path / "vpn.ovpn").write_text(f"{MINIMAL}auth-user-pass {named}\n")
    with pytest.raises(ConfigurationError) as refused:
        read_profile(tmp_path / "vpn.ovpn", None)
    said = str(refused.value)
    assert "auth-user-pass: expected a readable file (it " in said
    assert said.endswith("Put it beside the configuration")


REPORTED = {
    "script_type": "up",
    "tun_mtu": "1500",
    "ifconfig_local": "10.8.0.2",
    "ifconfig_netmask": "255.255.255.0",
    "ifconfig_ipv6_local": "fd00:8::1000",
    "ifconfig_ipv6_netbits": "64",
    "foreign_option_1": "dhcp-option DNS 10.8.0.1",
    "foreign_option_2": "dhcp-option DOMAIN example.org",
    "foreign_option_3": "dhcp-option DNS6 fd00:8::1",
    "foreign_option_10": "dhcp-option DNS not-an-address",
    "foreign_option_11": "dhcp-option DNS 10.8.0.3",
}


def test_what_the_hook_reports_is_kept_word_for_word() -> None:
    """In the server's order; the gate judges it."""
    assert openvpn.reported(REPORTED) == Reported(
        mtu="1500",
        address4="10.8.0.2",
        address6="fd00:8::1000",
        resolvers=("10.8.0.1", "fd00:8::1", "not-an-address", "10.8.0.3"),
        names=("dhcp-option DOMAIN example.org",),
    )


def test_routes_and_2_6s_resolvers_are_reported() -> None:
    """`route_network_1` and `dns_server_0_address_1`, as OpenVPN names them."""
    more = {
        "route_network_1": "10.0.0.0",
        "route_netmask_1": "255.0.0.0",
        "route_ipv6_network_1": "2000::/3",
        "dns_server_0_address_1": "10.8.0.9",
    }
    found = openvpn.reported(REPORTED | more)
    assert found.routes == ("2000::/3", "10.0.0.0")
    assert found.resolvers[-1] == "10.8.0.9"


def test_a_hook_that_was_told_nothing_reports_nothing() -> None:
    assert openvpn.reported({}) == Reported(mtu="")


_WORD = st.text(alphabet=st.characters(codec="ascii", exclude_categories=["C"]), max_size=12)


@given(words=st.lists(_WORD.filter(bool), max_size=5))
def test_rendered_words_are_read_back(words: list[str]) -> None:
    """Law: quoting loses nothing, whatever a word holds."""
    found, problems = directives(rendered("verb", tuple(words)), "x")
    assert problems == []
    assert [(each.name, list(each.words)) for each in found] == [("verb", words)]


@example("<\x0b>")
@example("client\n<ca>\n-----BEGIN\n</ca>\nremote a\nsetenv opt\nport\n")
@given(st.text(alphabet=st.sampled_from("abc <>/\\\"'#;\n\t-123\x00\x0bé"), max_size=80))
def test_any_text_is_a_profile_or_refused(text: str) -> None:
    """Law: nothing but ConfigurationError, of printable lines."""
    for prefix in ("", MINIMAL):
        try:
            openvpn.referred(prefix + text, "x")
            openvpn.read(prefix + text, "x", files={})
        except ConfigurationError as error:
            assert all(line.isprintable() for line in str(error).split("\n"))


def test_committed_page_is_the_generated_one() -> None:
    """`python -m ocgate.tunnel.openvpn_page` writes docs/openvpn-directives.md anew."""
    assert PAGE.read_text() == directives_markdown()


@pytest.mark.lab
def test_openvpn_itself_takes_the_file(netns: Namespace, tmp_path: Path) -> None:
    """Its parser accepts every line of ours, up to the certificate, which is none."""
    profile = openvpn.read(
        TYPICAL, "vpn.ovpn", files={"ta.key": b"-----BEGIN OpenVPN\nx\n"}, login=LOGIN
    )
    launch = openvpn.launch(
        profile,
        openvpn.remotes(profile)[0],
        Endpoint(ip_address("192.0.2.1"), 1194, ("udp",)),
        device="tun0",
        directory=tmp_path,
        hook=Path("/bin/true"),
    )
    for name, content in launch.files.items():
        (tmp_path / name).write_bytes(content)
    done = subprocess.run(launch.argv, capture_output=True, text=True, timeout=60, check=False)
    said = done.stdout + done.stderr
    assert "Options error" not in said, said
    assert "Cannot load inline CA" in said or "CA" in said, said

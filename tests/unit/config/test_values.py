"""Forms of single values: what is accepted as what, and the exact remedy for what is not."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocgate.config import devices, endpoints, gateways, networks, texts
from ocgate.config.choices import HealthPath, Ipv6Nat, LogLevel
from ocgate.config.endpoints import Endpoint
from ocgate.config.model import Settings
from ocgate.config.table import BY_NAME, LINES
from ocgate.config.values import Form, Rejected, written


def _parse(name: str, text: str) -> object:
    return BY_NAME[name].setting.form.read(text)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        *[("IPV6_SINK", word, True) for word in ("1", "true", "YES", "On", " 1 ")],
        *[("IPV6_SINK", word, False) for word in ("0", "FALSE", "no", "oFF")],
        ("IPV6_NAT", "auto", Ipv6Nat.AUTO),
        ("IPV6_NAT", "AUTO", Ipv6Nat.AUTO),
        ("IPV6_NAT", "true", Ipv6Nat.ON),
        ("IPV6_NAT", "off", Ipv6Nat.OFF),
        ("OCGATE_LOG_LEVEL", "Warning", LogLevel.WARNING),
        ("MSS", "536", 536),
        ("MSS", " 1400 ", 1400),
        ("MSS", "65535", 65535),
        ("VPN_SUBNET", "10.10.10.0/24", (IPv4Network("10.10.10.0/24"),)),
        ("VPN_SUBNET", "10.10.10.0/255.255.255.0", (IPv4Network("10.10.10.0/24"),)),
        (
            "VPN_SUBNET",
            " 10.0.1.0/24,10.0.0.0/30 , 10.0.2.0/24\n172.16.0.0/255.240.0.0",
            tuple(map(IPv4Network, ("10.0.1.0/24", "10.0.0.0/30", "10.0.2.0/24", "172.16.0.0/12"))),
        ),
        ("VPN_SUBNET", "10.0.0.0/8", (IPv4Network("10.0.0.0/8"),)),
        ("IPV6_SUBNET", "fd00:1::/48", IPv6Network("fd00:1::/48")),
        ("IPV6_SUBNET", "FD00:0001::8/126", IPv6Network("fd00:1::8/126")),
        ("IPV6_PROBE", "2620:fe::fe", (Endpoint(IPv6Address("2620:fe::fe"), 443),)),
        (
            "IPV6_PROBE",
            "[2001:db8::1]:53,[2001:db8::2] 2001:db8::3",
            tuple(
                Endpoint(IPv6Address(a), p)
                for a, p in (("2001:db8::1", 53), ("2001:db8::2", 443), ("2001:db8::3", 443))
            ),
        ),
        ("WAN_IF", "eth0.100", "eth0.100"),
        ("WAN_IF", "a23456789012345", "a23456789012345"),
        ("VPN_IF", "tun+", "tun+"),
        ("VPN_IF", "vpns1234567+", "vpns1234567+"),
        ("OCGATE_RUN_DIR", "//run//x/", Path("/run/x")),
        ("OCGATE_URL", "vpn.example.org", "https://vpn.example.org"),
        ("OCGATE_URL", "https://192.0.2.1:8443/", "https://192.0.2.1:8443"),
        ("OCGATE_URL", "[2001:db8::1]:4443", "https://[2001:db8::1]:4443"),
        ("OCGATE_USER", "älice $(id) *\\", "älice $(id) *\\"),
        ("HEALTH_CHECK_ENABLED", "false", False),
        ("HEALTH_CHECK_EGRESS", "direct+default", (HealthPath.DIRECT, HealthPath.DEFAULT)),
        ("HEALTH_CHECK_EGRESS", " ALL, direct all", (HealthPath.ALL, HealthPath.DIRECT)),
        *[("HEALTH_CHECK_EGRESS", word, ()) for word in ("off", "0", "False", "no")],
        ("HEALTH_CHECK_URL", "https://a.example", ("https://a.example",)),
        (
            "HEALTH_CHECK_URL",
            "https://1.1.1.1/cdn-cgi/trace;http://b:8080/?q=1, https://[2001:db8::1]:4443/",
            (
                "https://1.1.1.1/cdn-cgi/trace",
                "http://b:8080/?q=1",
                "https://[2001:db8::1]:4443/",
            ),
        ),
        ("HEALTH_CHECK_URL", "Off", None),
        ("CERT_WATCH_INTERVAL", "0", 0),
        (
            "SESSION_HISTORY_FILE",
            "/etc/ocserv/session history",
            Path("/etc/ocserv/session history"),
        ),
        ("SESSION_HISTORY_FILE", "off", None),
    ],
)
def test_accepted(name: str, text: str, value: object) -> None:
    """Every form of a value means what the reference page says."""
    assert _parse(name, text) == value


SUBNET_RANGE = networks.IPV4_ACCEPTS
NO_HOST_BITS = "a network without host bits"


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("10.10.10.5/24", [("10.10.10.5/24", NO_HOST_BITS, "write 10.10.10.0/24")]),
        (
            "10.10.10.5/255.255.255.0",
            [("10.10.10.5/255.255.255.0", NO_HOST_BITS, "write 10.10.10.0/24")],
        ),
        ("10.10.10.0", [("10.10.10.0", SUBNET_RANGE, "add the mask: write 10.10.10.0/24")]),
        (
            "10.10.8.0 255.255.252.0",
            [("10.10.8.0 255.255.252.0", SUBNET_RANGE, "write 10.10.8.0/22")],
        ),
        *[
            (text, [(text, SUBNET_RANGE, remedy)])
            for text, remedy in (
                ("0.0.0.0/0", "name the clients' own subnet, such as 0.0.0.0/24"),
                ("10.10.10.4/31", "name the clients' own subnet, such as 10.10.10.0/24"),
                ("10.10.10.4/-1", "name the clients' own subnet, such as 10.10.10.0/24"),
                ("10.10.10.4/", "name the clients' own subnet, such as 10.10.10.0/24"),
                ("10.0.0.0/7", "name the clients' own subnet, such as 10.0.0.0/24"),
                ("fd00::/64", "an IPv6 network belongs into IPV6_SUBNET"),
                (
                    "010.10.10.0/24",
                    "write a network such as 10.10.10.0/24, without names or leading zeros",
                ),
                (
                    "vpn/24",
                    "write a network such as 10.10.10.0/24, without names or leading zeros",
                ),
                (",", "write a network such as 10.10.10.0/24"),
            )
        ],
        (
            "10.10.10.0/255.0.255.0",
            [
                (
                    "10.10.10.0/255.0.255.0",
                    "a netmask of ones, then zeros",
                    "write a prefix length, such as 10.10.10.0/24",
                )
            ],
        ),
        (
            "10.10.0.0/0.0.255.255",
            [
                (
                    "10.10.0.0/0.0.255.255",
                    "a netmask of ones, then zeros",
                    "write 10.10.0.0/16",
                )
            ],
        ),
        (
            "10.10.10.0/24 10.10.10.0/24",
            [("10.10.10.0/24", "each network once", "remove the second 10.10.10.0/24")],
        ),
        (
            "10.10.10.0/24, 10.10.0.0/16",
            [
                (
                    "10.10.10.0/24",
                    "networks that don't overlap",
                    "remove 10.10.10.0/24, which lies in 10.10.0.0/16",
                )
            ],
        ),
        *[
            (text, [(text, "a unicast network", f"take another one: {part} is {what}")])
            for text, part, what in (
                ("127.1.0.0/16", "127.0.0.0/8", "loopback"),
                ("169.254.3.0/24", "169.254.0.0/16", "link-local"),
                ("239.0.0.0/8", "224.0.0.0/4", "multicast"),
                ("250.0.0.0/24", "240.0.0.0/4", "reserved (RFC 1112)"),
                ("0.1.0.0/16", "0.0.0.0/8", "this host's own network (RFC 1122)"),
            )
        ],
        (
            "10.0.0.1/24, banana, 10.2.0.0",
            [
                ("10.0.0.1/24", NO_HOST_BITS, "write 10.0.0.0/24"),
                (
                    "banana",
                    SUBNET_RANGE,
                    "write a network such as 10.10.10.0/24, without names or leading zeros",
                ),
                ("10.2.0.0", SUBNET_RANGE, "add the mask: write 10.2.0.0/24"),
            ],
        ),
    ],
)
def test_refused_subnet(text: str, faults: list[tuple[str, str, str]]) -> None:
    """Every wrong subnet is refused with what to write instead, all of a list at once."""
    with pytest.raises(Rejected) as caught:
        networks.ipv4_networks(text)
    assert [(f.got, f.expected, f.remedy) for f in caught.value.faults] == faults


@pytest.mark.parametrize(
    ("name", "text", "remedy"),
    [
        ("IPV6_SINK", "2", "write 0 or 1"),
        ("IPV6_NAT", "maybe", "write 0, 1 or auto"),
        ("OCGATE_LOG_FORMAT", "xml", "write human or json"),
        *[
            ("MSS", text, "write 1400, say, or leave MSS unset for no cap")
            for text in (
                "535",
                "65536",
                "1400.0",
                "0x5",
                "1_400",
                "+1400",
                "-1",
                "١٤٠٠",
                "14 00",
                "9" * 5000,
            )
        ],
        ("IPV6_PROBE_INTERVAL", "0", "write 30, say"),
        *[
            (
                "HEALTH_CHECK_EGRESS",
                text,
                "write default for VPN_GATEWAY (named gateways are not in this version)",
            )
            for text in ("direct+nl", "172.28.0.2", "off+direct")
        ],
        ("HEALTH_CHECK_EGRESS", "+", "write direct+default, say, or leave it unset"),
        ("HEALTH_CHECK_URL", "1.1.1.1", "begin it with https:// or http://"),
        ("HEALTH_CHECK_URL", "ftp://a.example", "begin it with https:// or http://"),
        ("HEALTH_CHECK_URL", "https://a.example:0", "write https://example.org, say, in ASCII"),
        ("HEALTH_CHECK_URL", "https://", "write https://example.org, say, in ASCII"),
        ("HEALTH_CHECK_URL", "https://[::1", "write https://example.org, say"),
        ("CERT_WATCH", "auto", "write 0 or 1"),
        ("CERT_WATCH_INTERVAL", "86401", "write 300, say, or 0 for never"),
        (
            "SESSION_HISTORY_FILE",
            "history",
            "write the path from the root, such as /etc/ocserv/history",
        ),
        ("SESSION_HISTORY_FILE", "/var/log/", "write /var/log/history, say"),
        ("IPV6_SUBNET", "10.10.10.0/24", "an IPv4 network belongs into VPN_SUBNET"),
        ("IPV6_SUBNET", "fd00::5/64", "write fd00::/64"),
        ("IPV6_SUBNET", "fd00::", "add the prefix: write fd00::/64"),
        ("IPV6_SUBNET", "fd00::/47", "write fd00::/64"),
        ("IPV6_SUBNET", "fd00::/127", "write fd00::/64"),
        ("IPV6_SUBNET", "fd00::/0", "write fd00::/64"),
        ("IPV6_SUBNET", "fd00::/64, fd01::/64", "write fd00::/64"),
        ("IPV6_SUBNET", "fe80::/64", "take another one: fe80::/10 is link-local"),
        ("IPV6_SUBNET", "ff02::/64", "take another one: ff00::/8 is multicast"),
        (
            "IPV6_SUBNET",
            "::ffff:10.0.0.0/112",
            "take another one: ::/64 is unspecified, loopback or IPv4-mapped",
        ),
        ("IPV6_SUBNET", "fd00::%eth0/64", "leave the zone (what follows %) out"),
        ("IPV6_PROBE", "1.1.1.1:443", "only IPv6 egress is probed: name an IPv6 address"),
        ("IPV6_PROBE", "dns.example", "write the address itself, such as fd00:1:2:3::"),
        ("IPV6_PROBE", "[2001:db8::1]:0", "write [2001:db8::1]:443"),
        ("IPV6_PROBE", "[2001:db8::1]:65536", "write [2001:db8::1]:443"),
        (
            "IPV6_PROBE",
            "[::1]:53",
            "take another one: ::/64 is unspecified, loopback or IPv4-mapped",
        ),
        ("WAN_IF", "eth0@if12", "write eth0 (what follows '@' is its peer)"),
        ("WAN_IF", "lo", "write one such as eth0"),
        ("WAN_IF", "a234567890123456", "write the name as `ip link` shows it"),
        ("WAN_IF", "eth0 eth1", "write one name as `ip link` shows it, such as eth0"),
        ("WAN_IF", "eth+", "write one name as `ip link` shows it, such as eth0"),
        ("WAN_IF", "-eth0", "write one name as `ip link` shows it, such as eth0"),
        ("WAN_IF", "éth0", "write one name as `ip link` shows it, such as eth0"),
        ("WAN_IF", ".", "write one name as `ip link` shows it, such as eth0"),
        ("VPN_IF", "+", "write vpns+ (a bare pattern is every interface)"),
        ("VPN_IF", "*", "write vpns+ (a bare pattern is every interface)"),
        ("VPN_IF", "vpns*", "write vpns+ ('+' stands for any ending)"),
        ("VPN_IF", "vpns", "write vpns+ ('+' stands for any ending)"),
        ("VPN_IF", "vpns0", "write vpns+ ('+' stands for any ending)"),
        ("VPN_IF", "vpns++", "write vpns+ ('+' stands for any ending)"),
        ("VPN_IF", "vp+ns+", "write ocserv.conf's `device` and a '+', such as vpns+"),
        ("VPN_IF", 'x";+', "write ocserv.conf's `device` and a '+', such as vpns+"),
        ("VPN_IF", "l+", "write one such as vpns+"),
        ("VPN_IF", "lo+", "write one such as vpns+"),
        ("VPN_IF", "a23456789012+", "shorten it here and in ocserv.conf's `device`"),
        ("OCGATE_RUN_DIR", "run", "write the path from the root, such as /etc/ocserv"),
        ("OCGATE_RUN_DIR", "/run/../etc", "write it without '..'"),
        ("OCGATE_RUN_DIR", "/", "write one such as /etc/ocserv"),
        ("OCGATE_RUN_DIR", "/" + "ä" * 40, "choose a shorter path (Unix sockets stand in it)"),
        *[
            (
                "OCGATE_RUN_DIR",
                f"/run/{bad}x",
                "choose a path without spaces, quotes, '#', ';', '$' and backslashes",
            )
            for bad in (" ", "\n", "\0", "#", "'", '"', "\\", "$", "\udcff")
        ],
        (
            "OCGATE_URL",
            "http://vpn.example.org",
            "write https://vpn.example.org (ocserv speaks nothing but TLS)",
        ),
        *[
            ("OCGATE_URL", text, "write one such as https://vpn.example.org")
            for text in ("https://", "a b", "vpn:99999", "vpn:0", "https://[::1", "a..b", "-x", "*")
        ],
        ("OCGATE_USER", "a:b", "write a shorter or plainer name, such as alice"),
        ("OCGATE_USER", "a\nb", "write a shorter or plainer name, such as alice"),
        ("OCGATE_USER", "u" * 64, "write a shorter or plainer name, such as alice"),
    ],
)
def test_refused(name: str, text: str, remedy: str) -> None:
    """Every wrong value is refused, shown as written, with what to write instead."""
    with pytest.raises(Rejected) as caught:
        _parse(name, text)
    (fault,) = caught.value.faults
    assert (fault.got, fault.remedy) == (text.strip(), remedy)
    assert fault.expected


@pytest.mark.parametrize("text", ["", "a\nb", "a\0", "\udcff", "p" * 128, "ä" * 64])
def test_refused_password_is_not_shown(text: str) -> None:
    """What is wrong with a secret is said without the secret."""
    with pytest.raises(Rejected) as caught:
        texts.password(text)
    assert caught.value.faults[0].got is None


@pytest.mark.parametrize("text", ["https://a:secret@b.example", "http://secret@b/x"])
def test_health_check_url_with_password_is_not_shown(text: str) -> None:
    """A password in HEALTH_CHECK_URL is refused without being repeated."""
    with pytest.raises(Rejected) as caught:
        _parse("HEALTH_CHECK_URL", text)
    assert "secret" not in str(caught.value.faults)


def test_url_with_password_is_not_shown() -> None:
    """An URL with user and password may hold a secret, so the error leaves it out."""
    with pytest.raises(Rejected) as caught:
        texts.url("https://alice:hunter2@vpn.example.org")
    assert "hunter2" not in str(caught.value.faults)


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.setting.name)
def test_example_and_default_are_accepted(line: object) -> None:
    """The page's examples are accepted, and a default written out means itself."""
    assert line.setting.form.read(line.setting.example) is not None  # type: ignore[attr-defined]
    default = Settings.model_fields[line.field].default  # type: ignore[attr-defined]
    if default is not None:
        assert line.setting.form.read(line.default) == default  # type: ignore[attr-defined]


@given(
    st.lists(
        st.tuples(st.integers(0, 255), st.integers(8, 24)), min_size=1, max_size=4, unique=True
    )
)
def test_written_networks_read_back(pairs: list[tuple[int, int]]) -> None:
    """Law: a list of networks, written out, is read as the same list, or refused for an overlap."""
    nets = tuple(IPv4Network(((10 << 24) + (b << 16), p), strict=False) for b, p in pairs)
    try:
        assert networks.ipv4_networks(written(nets)) == nets
    except Rejected as rejected:
        assert all("overlap" in f.expected or "once" in f.expected for f in rejected.faults)


@given(st.sampled_from(LINES), st.text(max_size=40))
def test_any_text_is_read_or_rejected(line: object, text: str) -> None:
    """Law: no text makes a form raise anything but Rejected, and that names range and remedy."""
    form: Form = line.setting.form  # type: ignore[attr-defined]
    try:
        form.read(text)
    except Rejected as rejected:
        assert rejected.faults
        assert all(f.expected and f.remedy and not f.remedy.endswith(".") for f in rejected.faults)


_NETWORK_LIKE = (
    networks.ipv4_networks,
    networks.ipv6_subnet,
    endpoints.ipv6_endpoints,
    endpoints.endpoints,
    gateways.upstream4,
    gateways.upstream6,
)


@given(st.from_regex(r"[0-9./, :a-f\[\]%]{0,40}", fullmatch=True))
def test_network_like_text_is_read_or_rejected(text: str) -> None:
    """Law: the same for text that looks like networks and addresses."""
    for parse in _NETWORK_LIKE:
        try:
            parse(text)
        except Rejected as rejected:
            assert rejected.faults


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [("vpns+", "vpns0", True), ("vpns+", "vpns", True), ("vpns+", "eth0", False)],
)
def test_device_matches(pattern: str, name: str, matches: bool) -> None:
    """`+` stands for any ending, none included, as nft's `*` does."""
    assert devices.device_matches(pattern, name) is matches

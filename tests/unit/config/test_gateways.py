"""Gateway mode's settings: what is a gateway, what is refused as one, and what goes together."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ocgate.config import Endpoint, Forwarding, Settings, Upstream, UpstreamKind, load
from ocgate.config.gateways import BLOCK, DIRECT, RULE_PRIO, TABLE, UPSTREAM4, UPSTREAM6
from ocgate.config.table import BY_NAME
from ocgate.config.values import Form, Rejected, written
from ocgate.errors import ConfigurationError
from ocgate.names import PROBE_DNS, PROBE_ICMP, PROBE_TCP

FORMS = {"VPN_GATEWAY": UPSTREAM4, "VPN_GATEWAY6": UPSTREAM6}


def at(address: str) -> Upstream:
    return Upstream(UpstreamKind.GATEWAY, address=ip_address(address))


def named(name: str) -> Upstream:
    return Upstream(UpstreamKind.GATEWAY, name=name)


def refused(environ: dict[str, str], directory: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load({"OCGATE_CONFIG_DIR": str(directory), **environ})
    return str(caught.value)


# --- one gateway --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("VPN_GATEWAY", "172.28.0.2", at("172.28.0.2")),
        ("VPN_GATEWAY", " 192.0.2.1\n", at("192.0.2.1")),
        ("VPN_GATEWAY6", "fd00:28::2", at("fd00:28::2")),
        ("VPN_GATEWAY6", "FD00:0028:0::0002", at("fd00:28::2")),
        ("VPN_GATEWAY6", "64:ff9b::192.0.2.1", at("64:ff9b::c000:201")),
        *[
            (name, text, value)
            for name in FORMS
            for text, value in (
                ("direct", DIRECT),
                ("Direct", DIRECT),
                ("BLOCK", BLOCK),
                ("vpn", named("vpn")),
                ("my_vpn-1", named("my_vpn-1")),
                ("_x_", named("_x_")),
                ("1up.example", named("1up.example")),
                ("nl.VPN.example.", named("nl.VPN.example.")),
                ("cafe", named("cafe")),
                ("direct.example", named("direct.example")),
                ("localhost.example", named("localhost.example")),
                ("l" * 63, named("l" * 63)),
                (".".join(["l" * 62] * 4) + ".e", named(".".join(["l" * 62] * 4) + ".e")),
                (".".join(["l" * 62] * 4) + ".e.", named(".".join(["l" * 62] * 4) + ".e.")),
            )
        ],
    ],
)
def test_a_gateway(name: str, text: str, value: Upstream) -> None:
    """Addresses of the variable's family, DNS names as written, and two words in any case."""
    assert FORMS[name].read(text) == value


BOTH = [
    ("drop", "write block"),
    ("DROP", "write block"),
    ("reject", "write block"),
    ("off", "write direct if clients may go out by this host, or block if they may not"),
    ("none", "write direct if clients may go out by this host, or block if they may not"),
    ("nl,us", "write one gateway; a list of them (VPN_GATEWAYS) is not in this version"),
    ("nl us", "write one gateway; a list of them (VPN_GATEWAYS) is not in this version"),
    ("nl=vpn.example", "write vpn.example (a gateway has no name here)"),
    ("vpn:443", "a gateway forwards every port, so leave it out: write vpn"),
    ("vpn/24", "leave the prefix length out: write vpn"),
    ("localhost", "name the upstream (localhost is this host, RFC 6761)"),
    ("a.LOCALHOST.", "name the upstream (localhost is this host, RFC 6761)"),
    ("büro.example", "write the name in ASCII, as DNS holds it (xn--…)"),
    ("a" * 64, "write at most 63 characters between two dots"),
    (".".join(["l" * 62] * 4) + ".ex", "write a name of at most 253 characters"),
    *[
        (text, "write a name of letters, digits, '-' and '_' in labels separated by one dot")
        for text in ("-vpn", "vpn-", "a..b", ".vpn", "vpn..", "v$pn", "*.example", "vpn\\")
    ],
]
NUMBERS = [
    *("10", "10.0.0", "172.28.0.256", "172.28.0.2.", "1.2.3.4.5", "172.28..2", "010.0.0.1"),
    *("0x7f000001", "0x7f.1", "0"),
]
REFUSED = [
    *[(name, text, remedy) for name in FORMS for text, remedy in BOTH],
    *[
        (name, text, f"write the upstream's address or name, {such} say")
        for name, such in (("VPN_GATEWAY", "172.28.0.2"), ("VPN_GATEWAY6", "fd00:28::2"))
        for text in ("", ".")
    ],
    *[
        ("VPN_GATEWAY", text, "write all four numbers of an IPv4 address, without leading zeros")
        for text in NUMBERS
    ],
    *[("VPN_GATEWAY6", text, "write fd00:28::2, say") for text in NUMBERS],
    # the other family
    (
        "VPN_GATEWAY",
        "fd00:28::2",
        "an IPv6 gateway belongs into VPN_GATEWAY6; here write 172.28.0.2, say",
    ),
    (
        "VPN_GATEWAY",
        "::1",
        "an IPv6 gateway belongs into VPN_GATEWAY6; here write 172.28.0.2, say",
    ),
    (
        "VPN_GATEWAY6",
        "172.28.0.2",
        "an IPv4 gateway belongs into VPN_GATEWAY; here write fd00:28::2, say",
    ),
    ("VPN_GATEWAY", "::ffff:172.28.0.2", "write 172.28.0.2, as VPN_GATEWAY"),
    ("VPN_GATEWAY6", "::ffff:172.28.0.2", "write 172.28.0.2, as VPN_GATEWAY"),
    # what no neighbour can have
    *[
        ("VPN_GATEWAY", text, f"write the upstream's own address ({what})")
        for text, what in (
            ("0.0.0.0", "it is unspecified"),
            ("0.1.2.3", "0.0.0.0/8 is this host's own network (RFC 1122)"),
            ("127.0.0.1", "127.0.0.0/8 is loopback"),
            ("169.254.1.1", "169.254.0.0/16 is link-local"),
            ("224.0.0.1", "224.0.0.0/4 is multicast"),
            ("255.255.255.255", "it is broadcast"),
            ("240.0.0.1", "240.0.0.0/4 is reserved (RFC 1112)"),
        )
    ],
    *[
        ("VPN_GATEWAY6", text, f"write the upstream's own address ({what})")
        for text, what in (
            ("::", "it is unspecified"),
            ("::1", "it is loopback"),
            ("::10.0.0.1", "::/96 is IPv4-compatible (deprecated, RFC 4291)"),
            ("ff02::1", "ff00::/8 is multicast"),
        )
    ],
    (
        "VPN_GATEWAY6",
        "fe80::1",
        "give the upstream one, such as fd00:28::2 (fe80::/10 is link-local)",
    ),
    # more than an address
    ("VPN_GATEWAY", "172.28.0.2/24", "leave the prefix length out: write 172.28.0.2"),
    ("VPN_GATEWAY", "/24", "leave the prefix length out: write 172.28.0.2"),
    (
        "VPN_GATEWAY",
        "172.28.0.2:1194",
        "a gateway forwards every port, so leave it out: write 172.28.0.2",
    ),
    ("VPN_GATEWAY6", "fd00::2/64", "leave the prefix length out: write fd00::2"),
    ("VPN_GATEWAY6", "[fd00::2]", "leave brackets and port out: write fd00::2"),
    ("VPN_GATEWAY6", "[fd00::2]:443", "leave brackets and port out: write fd00::2"),
    (
        "VPN_GATEWAY6",
        "fe80::1%eth0",
        "leave the zone (what follows %) out, and name a global or unique local address",
    ),
    ("VPN_GATEWAY6", "fd00::2::3", "correct the IPv6 address; it looks like fd00:28::2"),
]


@pytest.mark.parametrize(("name", "text", "remedy"), REFUSED)
def test_no_gateway(name: str, text: str, remedy: str) -> None:
    """All else is refused with what to write instead; nothing of it is taken for a DNS name."""
    with pytest.raises(Rejected) as caught:
        FORMS[name].read(text)
    (fault,) = caught.value.faults
    assert (fault.got, fault.remedy) == (text, remedy)
    assert fault.expected


@pytest.mark.parametrize("text", ["https://172.28.0.2", "socks5://u:hunter2@vpn", "u:hunter2@vpn"])
@pytest.mark.parametrize("name", FORMS)
def test_an_url_is_not_shown(name: str, text: str) -> None:
    """What may hold a password is refused without being shown."""
    with pytest.raises(Rejected) as caught:
        FORMS[name].read(text)
    (fault,) = caught.value.faults
    assert (fault.got, fault.remedy) == (
        None,
        "write the upstream's address or name alone, not an URL",
    )


# --- numbers and probes -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        *[("VPN_GATEWAY_TABLE", str(n), n) for n in (1, 100, 252, 256, 2**31 - 1)],
        *[("VPN_GATEWAY_RULE_PRIO", str(n), n) for n in (10, 1000, 32000)],
        ("VPN_GATEWAYS_RESOLVE_INTERVAL", "0", 0),
        ("EXIT_PROBE_INTERVAL", "0.05", 0.05),
        ("EXIT_PROBE_INTERVAL", "3600.000", 3600.0),
        ("EXIT_PROBE_INTERVAL", "2", 2.0),
        ("OCGATE_FORWARDING", "Shared", Forwarding.SHARED),
        ("EXIT_PROBE", "OFF", ()),
        (
            "EXIT_PROBE",
            "1.1.1.1:853, 9.9.9.9 [2620:fe::fe]:53\n2620:fe::9,[2620:fe::10]",
            (
                Endpoint(IPv4Address("1.1.1.1"), 853),
                Endpoint(IPv4Address("9.9.9.9"), 443),
                Endpoint(IPv6Address("2620:fe::fe"), 53),
                Endpoint(IPv6Address("2620:fe::9"), 443),
                Endpoint(IPv6Address("2620:fe::10"), 443),
            ),
        ),
        (
            "EXIT_PROBE",
            "tcp:1.1.1.1, DNS:9.9.9.9, dns:9.9.9.9:5353 icmp:8.8.8.8\n"
            "icmp:2620:fe::fe dns:[2620:fe::9]:54",
            (
                Endpoint(IPv4Address("1.1.1.1"), 443),
                Endpoint(IPv4Address("9.9.9.9"), 53, PROBE_DNS),
                Endpoint(IPv4Address("9.9.9.9"), 5353, PROBE_DNS),
                Endpoint(IPv4Address("8.8.8.8"), 0, PROBE_ICMP),
                Endpoint(IPv6Address("2620:fe::fe"), 0, PROBE_ICMP),
                Endpoint(IPv6Address("2620:fe::9"), 54, PROBE_DNS),
            ),
        ),
    ],
)
def test_accepted(name: str, text: str, value: object) -> None:
    assert BY_NAME[name].setting.form.read(text) == value


KERNELS = "write 100, say (253 to 255 are the kernel's own tables default, main and local)"
BEHIND = "write 1000, say (from 32766 on it is behind `main`, and would not steer)"
BEFORE = "write 1000, say (there is no room for the rules that stand before it)"
LATE = "write 1000, say (the rules that stand behind it must end before 32766)"


@pytest.mark.parametrize(
    ("name", "text", "remedy"),
    [
        *[("VPN_GATEWAY_TABLE", text, KERNELS) for text in ("253", "254", "255", "0255")],
        *[
            ("VPN_GATEWAY_TABLE", text, "write 100, say")
            for text in ("0", "-1", "main", "0x64", "2147483648", "9" * 5000, "١٠٠")
        ],
        *[("VPN_GATEWAY_RULE_PRIO", text, BEHIND) for text in ("32766", "32767", "4294967295")],
        *[("VPN_GATEWAY_RULE_PRIO", text, BEFORE) for text in ("0", "9")],
        *[("VPN_GATEWAY_RULE_PRIO", text, LATE) for text in ("32001", "32765")],
        *[("VPN_GATEWAY_RULE_PRIO", text, "write 1000, say") for text in ("-1", "1e3", "x")],
        *[
            ("EXIT_PROBE_INTERVAL", text, "write 1, say")
            for text in ("0", "0.049", "3600.1", "1e1", "nan", "inf", ".5", "1.", "1,5", "1s")
        ],
        ("EXIT_PROBE_INTERVAL", "0.5" + "0" * 5000, "write 1, say"),
        ("VPN_GATEWAYS_RESOLVE_INTERVAL", "-1", "write 300, say, or 0 for the TTL"),
        ("VPN_GATEWAYS_RESOLVE_TIMEOUT", "0", "write 10, say"),
        ("EXIT_PROBE_FAILURES", "0", "write 3, say"),
        ("EXIT_PROBE_SUCCESSES", "101", "write 2, say"),
        ("OCGATE_FORWARDING", "yes", "write auto, exclusive or shared"),
        ("EXIT_PROBE", ",", "write an address such as 1.1.1.1:443, or off"),
        ("EXIT_PROBE", "1.1.1.1:0", "write 1.1.1.1:443"),
        ("EXIT_PROBE", "dns:9.9.9.9:0", "write dns:9.9.9.9:53"),
        ("EXIT_PROBE", "icmp:1.1.1.1:7", "leave the port out: a ping has none, icmp:1.1.1.1"),
        ("EXIT_PROBE", "1.1.1.1:", "write 1.1.1.1:443"),
        ("EXIT_PROBE", "[2620:fe::fe]:65536", "write [2620:fe::fe]:443"),
        ("EXIT_PROBE", "127.0.0.1:443", "take another one: 127.0.0.0/8 is loopback"),
        ("EXIT_PROBE", "fe80::1", "take another one: fe80::/10 is link-local"),
        (
            "EXIT_PROBE",
            "1.1.1:443",
            "write the address itself, such as 1.1.1.1:443, without leading zeros",
        ),
        ("EXIT_PROBE", "dns.example:443", "write the address itself, such as 2620:fe::fe"),
    ],
)
def test_refused(name: str, text: str, remedy: str) -> None:
    with pytest.raises(Rejected) as caught:
        BY_NAME[name].setting.form.read(text)
    (fault,) = caught.value.faults
    assert (fault.got, fault.remedy) == (text, remedy)
    assert fault.expected


def test_off_stands_alone() -> None:
    """`off` beside a target contradicts it; all faults of a list are told at once."""
    with pytest.raises(Rejected) as caught:
        BY_NAME["EXIT_PROBE"].setting.form.read("off, 1.1.1.1, x:y")
    assert [fault.got for fault in caught.value.faults] == ["off", "x:y"]


# --- laws ---------------------------------------------------------------------------------------

labels = st.from_regex(r"[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,10}[a-zA-Z0-9_])?", fullmatch=True)
names = st.tuples(st.lists(labels, min_size=1, max_size=4), st.sampled_from(["", "."])).map(
    lambda parts: ".".join(parts[0]) + parts[1]
)
addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
endpoints = st.one_of(
    st.builds(Endpoint, addresses, st.integers(1, 65535), st.sampled_from([PROBE_TCP, PROBE_DNS])),
    st.builds(Endpoint, addresses, st.just(0), st.just(PROBE_ICMP)),
)


@given(
    form=st.sampled_from([UPSTREAM4, UPSTREAM6]),
    text=st.one_of(names, addresses.map(str), st.text(max_size=20), st.sampled_from(["Block", ""])),
)
def test_a_written_gateway_reads_back(form: Form, text: str) -> None:
    """Law: what is taken for a gateway means itself when written out, here and in the snapshot."""
    try:
        upstream = form.read(text)
    except Rejected as rejected:
        assert rejected.faults
        return
    assert form.read(written(upstream)) == upstream
    assert isinstance(upstream, Upstream)
    assert (upstream.kind is UpstreamKind.GATEWAY) == (
        (upstream.address is None) != (upstream.name is None)
    )
    if upstream.name:
        assert written(upstream) == text.strip()


@given(st.lists(endpoints, max_size=4))
def test_written_targets_read_back(targets: list[Endpoint]) -> None:
    """Law: targets of both families, written out, are the same targets; none of them is `off`."""
    form = BY_NAME["EXIT_PROBE"].setting.form
    try:
        assert form.read(written(tuple(targets))) == tuple(targets)
    except Rejected as rejected:
        assert all(fault.expected == "a unicast address" for fault in rejected.faults)


@given(st.floats(0.05, 3600))
def test_written_seconds_read_back(seconds: float) -> None:
    """Law: every number of the range, written out, is the same number."""
    assert BY_NAME["EXIT_PROBE_INTERVAL"].setting.form.read(written(seconds)) == seconds


@given(form=st.sampled_from([TABLE, RULE_PRIO]), number=st.integers(0, 2**33))
def test_written_numbers_read_back(form: Form, number: int) -> None:
    try:
        assert form.read(written(number)) == number
    except Rejected as rejected:
        assert len(rejected.faults) == 1


# --- together -----------------------------------------------------------------------------------

GATE = {"VPN_GATEWAY": "172.28.0.2"}


@pytest.mark.parametrize(
    ("vpn_gateway", "vpn_gateway6", "mode", "exit4", "exit6"),
    [
        (None, None, False, DIRECT, None),
        ("172.28.0.2", None, True, at("172.28.0.2"), BLOCK),
        ("vpn", None, True, named("vpn"), BLOCK),
        ("block", None, True, BLOCK, BLOCK),
        ("direct", None, True, DIRECT, None),
        (None, "fd00:28::2", True, DIRECT, at("fd00:28::2")),
        (None, "block", True, DIRECT, BLOCK),
        (None, "direct", True, DIRECT, DIRECT),
        ("vpn", "direct", True, named("vpn"), DIRECT),
        ("direct", "block", True, DIRECT, BLOCK),
        ("vpn", "vpn", True, named("vpn"), named("vpn")),
    ],
)
def test_exits(
    vpn_gateway: str | None,
    vpn_gateway6: str | None,
    mode: bool,
    exit4: Upstream,
    exit6: Upstream | None,
) -> None:
    """What each family leaves by; an IPv6 exit that nobody wrote is never the host beside a
    gateway or block."""
    asked = Settings.model_validate({"vpn_gateway": vpn_gateway, "vpn_gateway6": vpn_gateway6})
    assert (asked.gateway_mode, asked.exit4, asked.exit6) == (mode, exit4, exit6)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {**GATE, "VPN_SUBNET": "10.0.0.0/24, 172.28.0.0/16"},
            "VPN_GATEWAY: got '172.28.0.2'; expected an address outside of the clients' "
            "172.28.0.0/16 (VPN_SUBNET). Write the upstream's address in a network that this host "
            "is attached to",
        ),
        (
            {"VPN_GATEWAY6": "fd00:28::2", "IPV6_SUBNET": "fd00:28::/64"},
            "VPN_GATEWAY6: got 'fd00:28::2'; expected an address outside of the clients' "
            "fd00:28::/64 (IPV6_SUBNET). Write the upstream's address in a network that this host "
            "is attached to",
        ),
        *[
            (
                {"VPN_GATEWAY6": exit6, "IPV6_FORWARD": "0"},
                f"VPN_GATEWAY6: got '{exit6}'; expected block or unset with IPV6_FORWARD=0. Set "
                "IPV6_FORWARD=1 to let the clients' IPv6 out, or VPN_GATEWAY6=block to reject it",
            )
            for exit6 in ("fd00:28::2", "vpn", "direct")
        ],
        *[
            (
                {"VPN_GATEWAY": exit4, "IPV6_NAT": "1"},
                f"IPV6_NAT: got '1'; expected 0 or auto with VPN_GATEWAY={exit4}, which blocks "
                "IPv6 while VPN_GATEWAY6 is unset. Set VPN_GATEWAY6=direct if the clients' IPv6 "
                "may leave by this host, which shows this host's IPv6 address to the servers they "
                "reach, or IPV6_NAT=0 or auto",
            )
            for exit4 in ("172.28.0.2", "block")
        ],
        (
            {**GATE, "VPN_GATEWAY_RULE_PRIO": "900", "VPN_GATEWAY_USER_RULE_PRIO": "900"},
            "VPN_GATEWAY_RULE_PRIO: got '900'; expected a priority greater than "
            "VPN_GATEWAY_USER_RULE_PRIO=900. Write 1000, say, or remove "
            "VPN_GATEWAY_USER_RULE_PRIO, which has no effect in this version",
        ),
        (
            {"VPN_GATEWAY6": "vpn", "VPN_GATEWAY_RULE_PRIO": "10", "VPN_BYPASS_RULE_PRIO": "800"},
            "VPN_GATEWAY_RULE_PRIO: got '10'; expected a priority greater than "
            "VPN_BYPASS_RULE_PRIO=800. Write 1000, say, or remove VPN_BYPASS_RULE_PRIO, which has "
            "no effect in this version",
        ),
    ],
)
def test_contradictions(environ: dict[str, str], message: str, tmp_path: Path) -> None:
    """Values that are fine alone but not together are refused; the whole line is held here."""
    assert refused(environ, tmp_path) == f"environment: {message}"


@pytest.mark.parametrize(
    "environ",
    [
        {**GATE, "VPN_SUBNET": "172.29.0.0/16"},
        {"VPN_GATEWAY": "vpn", "VPN_SUBNET": "172.28.0.0/16"},
        {"VPN_GATEWAY6": "block", "IPV6_FORWARD": "0"},
        {**GATE, "IPV6_FORWARD": "0"},
        {**GATE, "IPV6_NAT": "auto"},
        {**GATE, "IPV6_NAT": "1", "VPN_GATEWAY6": "direct"},
        {"VPN_GATEWAY": "direct", "IPV6_NAT": "1"},
        {**GATE, "VPN_GATEWAY_RULE_PRIO": "901", "VPN_GATEWAY_USER_RULE_PRIO": "900"},
        {**GATE, "VPN_GATEWAY_RULE_PRIO": "500"},
        {**GATE, "VPN_GATEWAY_USER_RULE_PRIO": "900", "VPN_BYPASS_RULE_PRIO": "800"},
    ],
)
def test_these_go_together(environ: dict[str, str], tmp_path: Path) -> None:
    assert load({"OCGATE_CONFIG_DIR": str(tmp_path), **environ}).notices == ()


def test_model_refuses_contradictions_too() -> None:
    """No code can build settings that the operator could not have written."""
    with pytest.raises(ValidationError):
        Settings(vpn_gateway6=DIRECT, ipv6_forward=False)


def test_all_wrong_at_once(tmp_path: Path) -> None:
    """A bad priority is told once, and beside what else is wrong."""
    environ = {
        "VPN_GATEWAY": "10.0.0.1/24",
        "VPN_GATEWAY_RULE_PRIO": "32766",
        "VPN_GATEWAY_USER_RULE_PRIO": "900",
        "VPN_GATEWAYS": "nl=10.0.0.2",
    }
    text = refused(environ, tmp_path)
    assert [line.split(": ")[1] for line in text.splitlines()] == [
        "VPN_GATEWAY",
        "VPN_GATEWAYS",
        "VPN_GATEWAY_RULE_PRIO",
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("VPN_GATEWAY_TABLE", "200"),
        ("VPN_GATEWAY_RULE_PRIO", "900"),
        ("VPN_GATEWAYS_RESOLVE_INTERVAL", "60"),
        ("VPN_GATEWAYS_RESOLVE_TIMEOUT", "60"),
        ("EXIT_PROBE", "off"),
        ("EXIT_PROBE_INTERVAL", "0.5"),
        ("EXIT_PROBE_FAILURES", "1"),
        ("EXIT_PROBE_SUCCESSES", "1"),
        ("OCGATE_FORWARDING", "shared"),
    ],
)
def test_without_a_gateway_it_is_noticed(name: str, text: str, tmp_path: Path) -> None:
    """A setting of gateway mode alone has no effect, and the log says so; with one it has."""
    environ = {"OCGATE_CONFIG_DIR": str(tmp_path), name: text}
    (notice,) = load(environ).notices
    assert notice == f"environment: {name}: has no effect without VPN_GATEWAY or VPN_GATEWAY6"
    assert load(environ | {"VPN_GATEWAY6": "block"}).notices == ()
    assert load(environ | {name: BY_NAME[name].default}).notices == ()

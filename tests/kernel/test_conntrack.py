"""Conntrack entries of a client go, whichever side opened the flow; all others stay."""

from __future__ import annotations

import errno
from collections.abc import Callable
from ipaddress import ip_address, ip_network

import pytest

from ocgate.kernel import conntrack, netlink
from ocgate.kernel.netlink import NetlinkError

pytestmark = pytest.mark.kernel
Shell = Callable[[str], str]

# source, destination, what the reply comes from, what the reply goes to, mark
FLOWS = {
    "masqueraded": ("10.9.0.2", "203.0.113.1", "203.0.113.1", "192.0.2.2", 0x1000000),
    "plain": ("10.9.0.2", "203.0.113.2", "203.0.113.2", "10.9.0.2", 0x2000000),
    "inbound": ("192.0.2.50", "10.9.0.2", "10.9.0.2", "192.0.2.50", 0),
    "published": ("192.0.2.51", "192.0.2.2", "10.9.0.2", "192.0.2.51", 0),
    "neighbour": ("10.9.0.3", "203.0.113.1", "203.0.113.1", "192.0.2.2", 0x1000000),
    "host": ("192.0.2.2", "203.0.113.1", "203.0.113.1", "192.0.2.2", 0),
    "six": ("fda9::2", "2001:db8::1", "2001:db8::1", "2001:db8::2", 0),
    "six inbound": ("2001:db8::9", "fda9::2", "fda9::2", "2001:db8::9", 0),
    "six neighbour": ("fda9::3", "2001:db8::1", "2001:db8::1", "2001:db8::2", 0x1000000),
}
OF_CLIENT4 = {"masqueraded", "plain", "inbound", "published"}
OF_CLIENT6 = {"six", "six inbound"}


@pytest.fixture
def flows(sh: Shell) -> Callable[[], set[str]]:
    """Make all FLOWS; returns a function that tells which still stand, as conntrack(8) sees it."""
    for number, (source, to, reply, back, mark) in enumerate(FLOWS.values()):
        sh(
            f"conntrack -I -p udp -s {source} -d {to} -r {reply} -q {back} --timeout 600"
            f" --sport {5000 + number} --dport 53 --reply-port-src 53"
            f" --reply-port-dst {5000 + number} --mark {mark} >/dev/null 2>&1"
        )

    def standing() -> set[str]:
        listing = sh("conntrack -L 2>/dev/null; conntrack -L -f ipv6 2>/dev/null")
        return {
            name
            for number, name in enumerate(FLOWS)
            if f"sport={5000 + number} dport=53" in listing
        }

    assert standing() == set(FLOWS)
    return standing


@pytest.fixture(params=["filter in the kernel", "kernel 6.1"])
def either_kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once as this kernel does it, once as one that can't delete by filter answers."""
    if request.param == "kernel 6.1":
        real = netlink.Netlink.request

        def refusing(self, kind, flags, payload):  # type: ignore[no-untyped-def]
            found = netlink.attributes(memoryview(payload), 4)
            if kind == conntrack._DELETE and conntrack._FILTER in found:
                raise NetlinkError(errno.EINVAL, "")
            return real(self, kind, flags, payload)

        monkeypatch.setattr(netlink.Netlink, "request", refusing)


def test_a_clients_entries_go_and_no_others(
    flows: Callable[[], set[str]], either_kernel: None
) -> None:
    assert conntrack.delete_of_clients([ip_address("10.9.0.2")]) == 4
    assert flows() == set(FLOWS) - OF_CLIENT4


def test_both_addresses_of_a_session_at_once(
    flows: Callable[[], set[str]], either_kernel: None
) -> None:
    both = [ip_address("10.9.0.2"), ip_address("fda9::2")]
    assert conntrack.delete_of_clients(both) == 6
    assert flows() == set(FLOWS) - OF_CLIENT4 - OF_CLIENT6
    assert conntrack.delete_of_clients(both) == 0


def test_ipv6_entries_of_others_stay(flows: Callable[[], set[str]], either_kernel: None) -> None:
    """The kernel's own filter has IPv6 the wrong way round: it deletes all but the client's."""
    assert conntrack.delete_of_clients([ip_address("fda9::2")]) == 2
    assert flows() == set(FLOWS) - OF_CLIENT6


def test_whole_client_subnets(flows: Callable[[], set[str]]) -> None:
    networks = [ip_network("10.9.0.0/24"), ip_network("fda9::/64")]
    assert conntrack.delete_of_networks(networks) == 8
    assert flows() == {"host"}
    assert conntrack.delete_of_networks(networks) == 0
    assert conntrack.delete_of_networks([]) == 0


@pytest.mark.parametrize(
    ("network", "gone"),
    [
        ("10.9.0.2/31", 5),
        ("10.9.0.2/32", 4),
        ("10.8.0.0/15", 5),
        ("0.0.0.0/0", 6),
        ("fda9::2/127", 3),
        ("fda9::/16", 3),
        ("fda9:0:0:1::/64", 0),
    ],
)
def test_prefixes_of_any_length(flows: Callable[[], set[str]], network: str, gone: int) -> None:
    assert conntrack.delete_of_networks([ip_network(network)]) == gone
    assert len(flows()) == len(FLOWS) - gone


def test_by_mark(flows: Callable[[], set[str]]) -> None:
    assert conntrack.delete_marked(0x1000000, 0x3F000000) == 3
    assert flows() == set(FLOWS) - {"masqueraded", "neighbour", "six neighbour"}


def test_an_empty_table_is_fine(netns: object) -> None:
    assert conntrack.delete_of_clients([ip_address("10.9.0.2")]) == 0
    assert conntrack.delete_of_networks([ip_network("10.9.0.0/24")]) == 0
    assert conntrack.delete_marked(1, 1) == 0


def test_untranslated_flows_go_and_translated_ones_stay(flows: Callable[[], set[str]]) -> None:
    """What a client began while nobody translated would never be translated afterwards."""
    networks = [ip_network("10.9.0.0/24"), ip_network("fda9::/64")]
    assert conntrack.delete_untranslated(networks) == 1
    assert flows() == set(FLOWS) - {"plain"}


NETWORKS = [ip_network("10.9.0.0/24"), ip_network("fda9::/64")]


def test_what_is_no_stream_goes_and_streams_stay(sh: Shell) -> None:
    """By the kernel's own word for it, of what clients began alone."""
    for number, (source, to, status) in enumerate(
        (
            ("10.9.0.2", "203.0.113.1", "SEEN_REPLY,ASSURED"),
            ("10.9.0.2", "203.0.113.1", "SEEN_REPLY"),
            ("192.0.2.2", "203.0.113.1", "SEEN_REPLY"),
            ("fda9::2", "2001:db8::1", "SEEN_REPLY,ASSURED"),
            ("fda9::2", "2001:db8::1", "UNSET"),
        )
    ):
        flags = "" if status == "UNSET" else f"-u {status}"
        sh(
            f"conntrack -I -p udp -s {source} -d {to} --timeout 600 {flags}"
            f" --sport {5000 + number} --dport 53 >/dev/null 2>&1"
        )
    assert conntrack.delete_unassured(NETWORKS) == 2
    listing = sh("conntrack -L 2>/dev/null; conntrack -L -f ipv6 2>/dev/null")
    left = [number for number in range(5) if f"sport={5000 + number} dport=53" in listing]
    assert left == [0, 2, 3]


def test_connections_of_clients_are_told_as_their_clients_see_them(sh: Shell) -> None:
    """TCP that stands, translated or not; no datagrams, nobody else's, none that only begins."""
    for number, (source, to, far, back, status) in enumerate(
        (
            ("10.9.0.2", "203.0.113.1", "203.0.113.1", "192.0.2.2", "SEEN_REPLY,ASSURED"),
            ("10.9.0.3", "203.0.113.1", "203.0.113.1", "192.0.2.2", "SEEN_REPLY"),
            ("192.0.2.9", "203.0.113.1", "203.0.113.1", "192.0.2.9", "SEEN_REPLY,ASSURED"),
            ("fda9::2", "2001:db8::1", "2001:db8::1", "2001:db8::2", "SEEN_REPLY,ASSURED"),
        )
    ):
        sh(
            f"conntrack -I -p tcp -s {source} -d {to} -r {far} -q {back} --timeout 600"
            f" --sport 40000 --dport 443 --reply-port-src 443 --reply-port-dst {20000 + number}"
            f" --state ESTABLISHED -u {status} >/dev/null 2>&1"
        )
    sh("conntrack -I -p udp -s 10.9.0.2 -d 203.0.113.1 --timeout 600 -u SEEN_REPLY,ASSURED"
       " --sport 40000 --dport 443 >/dev/null 2>&1")  # fmt: skip
    assert conntrack.tcp_of_networks(NETWORKS) == [
        conntrack.TcpFlow(ip_address("10.9.0.2"), 40000, ip_address("203.0.113.1"), 443),
        conntrack.TcpFlow(ip_address("fda9::2"), 40000, ip_address("2001:db8::1"), 443),
    ]

"""Whether a tunnel is full: one law for every spelling of "all of it", each family by itself."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocgate.ocserv.ini_parser import parse
from ocgate.ocserv.reading import Supplement, read_view
from ocgate.ocserv.releases import DEBIAN_12
from ocgate.ocserv.view import ScopeKind
from ocgate.plan.coverage import FULL_FROM, Family, Network, coverage, tunnel_coverage

# What WireGuard's apps write for "exclude private IPs".
_WITHOUT_PRIVATE = """
    0.0.0.0/5 8.0.0.0/7 11.0.0.0/8 12.0.0.0/6 16.0.0.0/4 32.0.0.0/3 64.0.0.0/2 128.0.0.0/3
    160.0.0.0/5 168.0.0.0/6 172.0.0.0/12 172.32.0.0/11 172.64.0.0/10 172.128.0.0/9 173.0.0.0/8
    174.0.0.0/7 176.0.0.0/4 192.0.0.0/9 192.128.0.0/11 192.160.0.0/13 192.169.0.0/16 192.170.0.0/15
    192.172.0.0/14 192.176.0.0/12 192.192.0.0/10 193.0.0.0/8 194.0.0.0/7 196.0.0.0/6 200.0.0.0/5
    208.0.0.0/4
"""
WITHOUT_PRIVATE = _WITHOUT_PRIVATE.split()
PRIVATE = ["10.0.0.0/8", "172.16.0.0/255.240.0.0", "192.168.0.0/16", "224.0.0.0/4", "0.0.0.0/8"]
HALVES = ["0.0.0.0/1", "128.0.0.0/1"]


@pytest.mark.parametrize(
    ("routes", "without"),
    [
        ([], []),
        (["default"], []),
        (["default", "10.0.0.0/8"], []),
        (["0.0.0.0/0"], []),
        (["0.0.0.0/0.0.0.0"], []),
        (HALVES, []),
        (["0.0.0.0/128.0.0.0", "128.0.0.0/128.0.0.0"], []),
        ([f"{n}.0.0.0/2" for n in (0, 64, 128, 192)], []),
        (WITHOUT_PRIVATE, []),
        (["default"], PRIVATE),
        (HALVES, PRIVATE),
        (["fd00::/8"], []),  # says nothing of IPv4
    ],
)
def test_all_spellings_of_full(routes: list[str], without: list[str]) -> None:
    """Nothing public is left out of any of them."""
    found = tunnel_coverage(routes, without, family=4)
    assert (found.full, found.share, found.left_out) == (True, 1.0, ())


@pytest.mark.parametrize(
    ("routes", "without", "left_out"),
    [
        (HALVES, ["203.0.114.9/32"], ["203.0.114.9/32"]),  # the server's own address
        (["default"], ["1.0.1.0/24", "1.0.2.0/23"], ["1.0.1.0/24", "1.0.2.0/23"]),
        (["0.0.0.0/1", "128.0.0.0/2", "208.0.0.0/4"], [], ["192.0.1.0/24", "192.0.3.0/24"]),
    ],
)
def test_nearly_full(routes: list[str], without: list[str], left_out: list[str]) -> None:
    """Full, and what of the internet is left out is known."""
    found = tunnel_coverage(routes, without, family=4)
    assert found.full
    assert [str(net) for net in found.left_out][:2] == left_out


@pytest.mark.parametrize(
    ("routes", "without"),
    [
        (["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"], []),
        (["64.0.0.0/2"], []),
        (["0.0.0.0/1"], ["0.0.0.0/2"]),
        (["default"], ["0.0.0.0/1", "128.0.0.0/2"]),
    ],
)
def test_split(routes: list[str], without: list[str]) -> None:
    assert not tunnel_coverage(routes, without, family=4).full


@pytest.mark.parametrize(
    ("routes", "full"),
    [
        (["0.0.0.0/0", "2000::/3"], True),
        (["::/1", "8000::/1"], True),
        (["::/0"], True),
        (HALVES, True),  # names no IPv6
        ([*HALVES, "fd00::/8"], False),
        (["2001:db8::/32"], False),
        (["default", "2001:db8::/32"], True),
    ],
)
def test_ipv6_is_judged_by_itself(routes: list[str], full: bool) -> None:
    assert tunnel_coverage(routes, (), family=6).full == full


NETS = st.lists(
    st.builds(
        lambda number, bits: IPv4Network((number >> (32 - bits) << (32 - bits), bits)),
        st.integers(0, 2**32 - 1),
        st.integers(1, 8),
    ),
    max_size=12,
)
HOSTS = st.integers(0, 2**32 - 1)


@given(routes=NETS, without=NETS, host=HOSTS)
def test_left_out_is_what_no_route_carries(
    routes: list[Network], without: list[Network], host: int
) -> None:
    """The law, asked address by address: public, and in no route or in a no-route."""
    public = coverage(4, [], []).left_out
    address = IPv4Network(host).network_address
    carried = any(address in net for net in routes) and not any(address in net for net in without)
    left_out = coverage(4, routes, without).left_out
    expected = any(address in net for net in public) and not carried
    assert any(address in net for net in left_out) == expected


@given(routes=NETS, without=NETS, bits=st.integers(0, 3))
def test_the_spelling_changes_nothing(
    routes: list[Network], without: list[Network], bits: int
) -> None:
    """Cut into pieces, in another order, with repetitions: the same."""
    pieces = [piece for net in routes for piece in net.subnets(prefixlen_diff=bits)]
    assert coverage(4, [*reversed(pieces), *routes], without) == coverage(4, routes, without)


@given(routes=NETS, without=NETS, more=NETS)
def test_more_routes_never_cover_less(
    routes: list[Network], without: list[Network], more: list[Network]
) -> None:
    before, after = coverage(4, routes, without), coverage(4, [*routes, *more], without)
    assert 0.0 <= before.share <= after.share <= 1.0
    assert before.full == (before.share >= FULL_FROM)


def test_nothing_overlaps_in_what_is_left_out() -> None:
    found = coverage(6, [IPv6Network("2000::/4")], [IPv6Network("2001:db8::/32")])
    assert [str(net) for net in found.left_out] == ["2001:db8::/32", "3000::/4"]


# --- whose routes count -------------------------------------------------------------------------


def full(main: str, *files: tuple[ScopeKind, str]) -> bool:
    """Whether IPv6 must be closed for somebody."""
    supplements = [Supplement(kind, parse(text.encode(), f"f{n}")) for n, (kind, text) in
                   enumerate(files)]  # fmt: skip
    return read_view(parse(main.encode(), "conf"), supplements, release=DEBIAN_12).full_tunnel


SPLIT = "ipv4-network = 10.10.10.0/24\nroute = 10.0.0.0/8\n"
LINES = "route = 0.0.0.0/1\nroute = 128.0.0.0/1\n"


@pytest.mark.parametrize("kind", [ScopeKind.GROUP, ScopeKind.USER])
def test_a_full_tunnel_only_in_a_file(kind: ScopeKind) -> None:
    """A per-group or per-user file whose routes take main's place; one without lines of its own
    inherits main's, and is no full tunnel by its silence."""
    assert full(SPLIT, (kind, LINES))
    assert full(SPLIT, (kind, "route = default\n"))
    assert not full(SPLIT, (kind, "dns = 9.9.9.9\n"))
    assert not full(SPLIT, (kind, "no-route = 10.5.0.0/16\n"))
    assert not full(SPLIT, (kind, "route = 10.9.0.0/16\n"))


def test_append_routes_adds_mains() -> None:
    half = "ipv4-network = 10.10.10.0/24\nroute = 0.0.0.0/2\nroute = 64.0.0.0/3\n"
    other = (ScopeKind.USER, "route = 128.0.0.0/2\nroute = 96.0.0.0/3\n")
    assert not full(half.replace("0.0.0.0/2", "10.0.0.0/8"), other)
    assert full("append-routes = true\n" + half, other)


def test_a_full_tunnel_only_in_a_virtual_host() -> None:
    assert full(f"{SPLIT}[vhost:a]\nipv4-network = 10.1.0.0/24\n{LINES}")
    assert not full(f"{SPLIT}[vhost:a]\nipv4-network = 10.1.0.0/24\nroute = 10.2.0.0/16\n")


FAMILIES: tuple[Family, ...] = (4, 6)


def test_ten_thousand_lines_take_no_time() -> None:
    """A country's networks as no-route lines: one walk."""
    without = [f"{1 + n // 65536}.{n // 256 % 256}.{n % 256}.0/24" for n in range(0, 20_000, 2)]
    for family in FAMILIES:
        assert tunnel_coverage(["default"], without, family=family).full

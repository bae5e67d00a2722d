"""A full tunnel that does not say `default`: clients' own IPv6 is closed in every spelling of it.

    client1 --- inet (SERVICE6) --- router --- gw (ocgate, vpns0)        see lab.topology

Clients have working IPv6 of their own, which is what leaks past a tunnel that has none.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lab import gateway
from lab.capture import now
from lab.client import TUN
from lab.gateway import Gateway
from lab.ocserv import write_config_dir
from lab.topology import SERVICE6, Lab
from lab.traffic import ask_udp
from ocgate.netlab.packet import match
from support.dual_stack import (
    ULA,
    USERS,
    assert_rejected_at_once,
    blocked,
    connect_dual_stack,
    goes_by,
    ipv6_mode,
    join,
    with_services,
)

pytestmark = pytest.mark.lab

LabFactory = Callable[..., Lab]

HALVES = ["route = 0.0.0.0/1", "route = 128.0.0.0/1"]
DOTTED = ["route = 0.0.0.0/128.0.0.0", "route = 128.0.0.0/128.0.0.0"]
WITHOUT_PRIVATE = [*DOTTED, "no-route = 10.0.0.0/8", "no-route = 192.168.0.0/255.255.0.0"]
QUARTERS = [f"route = {n}.0.0.0/2" for n in (0, 64, 128, 192)]
SOME_IPV6 = ["ipv6-network = fd00:7::/64", "route = fd00:9::/64"]
SPLIT = ["route = 10.0.0.0/8"]


def serve(
    built: Lab, lines: list[str], file: list[str], kind: str = "group", **environ: str
) -> Gateway:
    """The server with these lines in ocserv.conf, and `file` for alice's group or herself."""
    directory = built.path("etc")
    files = directory / "files"
    named = "staff" if kind == "group" else "alice"
    conf = write_config_dir(built, directory, USERS, lines=[*lines, f"config-per-{kind} = {files}"])
    files.mkdir()
    (files / named).write_text("".join(f"{line}\n" for line in file))
    passwd = conf.parent / "ocpasswd"
    passwd.write_text(passwd.read_text().replace("alice:*:", "alice:staff:"))
    return gateway.run(built, environ, directory)


@pytest.mark.parametrize(
    ("lines", "file", "kind", "environ"),
    [
        pytest.param(HALVES, [], "group", {"IPV6_SINK": "1"}, id="halves"),
        pytest.param(QUARTERS, [], "group", {"VPN_GATEWAY": "block"}, id="quarters-gateway-mode"),
        pytest.param(WITHOUT_PRIVATE, [], "group", {"IPV6_SINK": "1"}, id="without-private"),
        pytest.param([*HALVES, *SOME_IPV6], [], "group", {"IPV6_SINK": "1"}, id="some-ipv6"),
        pytest.param(SPLIT, HALVES, "group", {"IPV6_SINK": "1"}, id="group-file"),
        pytest.param(SPLIT, HALVES, "user", {"VPN_GATEWAY": "block"}, id="user-file-gateway-mode"),
    ],
)
def test_the_sink_closes_ipv6_of_a_full_tunnel_in_pieces(
    lab: LabFactory, lines: list[str], file: list[str], kind: str, environ: dict[str, str]
) -> None:
    """Clients get an IPv6 address and all of IPv6 into the tunnel, where it is rejected at once;
    none of it leaves by their own eth0."""
    built = with_services(lab())
    host = built.clients[0]
    own = built.capture(host, "eth0")
    assert connect_dual_stack(host.netns).by == SERVICE6
    assert ask_udp(host.netns, SERVICE6)
    own.prove_sees(match(dst=SERVICE6, protocol="tcp"), "the client's own IPv6 (TCP)")
    own.prove_sees(match(dst=SERVICE6, protocol="udp"), "the client's own IPv6 (UDP)")

    made = serve(built, lines, file, kind, **environ)
    joined = join(made, host)
    since = now()
    assert ipv6_mode(made) == "sink"
    assert joined.address6 is not None
    assert goes_by(host.netns, SERVICE6) == TUN
    if "VPN_GATEWAY" in environ:  # no IPv4 to fall back to
        assert not ask_udp(host.netns, SERVICE6)
    else:
        assert_rejected_at_once(host.netns)
    assert blocked(made, "ipv6_rejected")
    own.assert_none(match(dst=SERVICE6), "IPv6 past the tunnel", since=since)


def test_a_group_in_pieces_leaves_the_split_tunnel_of_others_split(lab: LabFactory) -> None:
    """IPv6 is given out because of the group; who is not in it sends only its own network."""
    built = with_services(lab())
    host = built.clients[0]
    made = serve(built, SPLIT, HALVES, IPV6_SINK="1")
    pushed = join(made, host, "bob").pushed
    assert pushed["CISCO_IPV6_SPLIT_INC"] == "1"
    assert pushed["CISCO_IPV6_SPLIT_INC_0_ADDR"] == str(ULA.network_address)
    assert ask_udp(host.netns, SERVICE6).seen_as == host.address6

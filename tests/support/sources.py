"""Sources and facts written by hand, for the tests of the control room."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_interface, ip_network
from types import MappingProxyType
from typing import Any

from ocgate.config.load import load
from ocgate.ocserv.ini_parser import parse
from ocgate.ocserv.releases import DEBIAN_12
from ocgate.plan.facts import Connected, DefaultRoute, Facts, Interface
from ocgate.server.desired.sources import Sources

CONF = """\
auth = "plain[passwd=/etc/ocserv/ocpasswd]"
tcp-port = 443
udp-port = 443
device = vpns
ipv4-network = 10.10.10.0
ipv4-netmask = 255.255.255.0
dns = 198.51.100.53
route = default
"""
IPV6_ON = MappingProxyType(
    {
        "net.ipv6.conf.all.disable_ipv6": "0",
        "net.ipv6.conf.default.disable_ipv6": "0",
        "net.ipv6.conf.all.forwarding": "0",
    }
)


def sources(conf: str | bytes = CONF, **environ: str) -> Sources:
    """As `ocgate run` would read them, without a file."""
    loaded = load({"OCGATE_CONFIG_DIR": "/nonexistent", **environ})
    data = conf.encode() if isinstance(conf, str) else conf
    document = parse(data, "/etc/ocserv/ocserv.conf")
    return Sources(loaded.settings, loaded.origins, document, (), DEBIAN_12)


def interface(index: int, name: str, *addresses: str, **more: Any) -> Interface:
    own = tuple(ip_interface(address) for address in addresses)
    return Interface(index, name, 1500, up=True, addresses=own, **more)


def facts(
    *interfaces: Interface,
    default4: str | None = None,
    default6: str | None = None,
    connected: Mapping[str, str] = MappingProxyType({}),
    sysctls: Mapping[str, str] = IPV6_ON,
) -> Facts:
    """default4/6: the device of that family's default route; connected: network -> device."""
    index = {link.name: link.index for link in interfaces}
    return Facts(
        interfaces=(interface(1, "lo", "127.0.0.1/8", "::1/128", loopback=True), *interfaces),
        routes4=(DefaultRoute(4, 0, index.get(default4, 99), default4),) if default4 else (),
        routes6=(DefaultRoute(6, 1024, index.get(default6, 99), default6),) if default6 else (),
        connected=tuple(Connected(ip_network(net), name) for net, name in connected.items()),
        sysctls=MappingProxyType(dict(sysctls)),
    )

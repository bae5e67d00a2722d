"""The lines for `ip` and `nft` that build links, addresses, routes and NAT: text, no effects."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from lab.addresses import DOCKER_NET, PORT, SECOND_NET, Host

# Of a client's own default routes: leaves room for its VPN to put better ones in front, and to
# fall back to these when it ends; as NetworkManager does (100 wired, 600 wireless).
CLIENT_METRIC = 100


def veth(name: str, host: Host, peer_name: str, peer: Host) -> str:
    """A pair, each end made in its host's namespace: one line for `ip -batch`."""
    return (
        f"link add {name} netns {host.netns.name} type veth "
        f"peer name {peer_name} netns {peer.netns.name}"
    )


def addresses(
    device: str, address: IPv4Address | None, address6: IPv6Address | None, length: int = 24
) -> list[str]:
    """Addresses (IPv4 with prefix `length`, IPv6 with 64) on `device`, and the device up."""
    lines = [f"link set {device} up"]
    if address is not None:
        lines.append(f"address add {address}/{length} dev {device}")
    if address6 is not None:
        lines.append(f"address add {address6}/64 dev {device} nodad")
    return lines


def leaf(host: Host, length: int, *, metric: int = 0) -> list[str]:
    """Its first address, preferred as source, and its default routes; metric 0: the kernel's."""
    shown = f" metric {metric}" if metric else ""
    lines = addresses("eth0", host.address, host.address6, length)
    lines.append(f"route add default via {host.next_hop} dev eth0 src {host.address}{shown}")
    if host.address6 is not None:
        lines.append(f"route add ::/0 via {host.next_hop6} dev eth0 src {host.address6}{shown}")
    return lines


def router_nat(gw: Host) -> str:
    """What docker does for a published port: only its own networks are masqueraded."""
    return f"""
    table ip docker {{
        chain prerouting {{
            type nat hook prerouting priority dstnat;
            iifname "uplink" tcp dport {PORT} dnat to {gw.address}
            iifname "uplink" udp dport {PORT} dnat to {gw.address}
        }}
        chain postrouting {{
            type nat hook postrouting priority srcnat;
            ip saddr {{ {DOCKER_NET}, {SECOND_NET} }} oifname "uplink" masquerade
        }}
    }}
    """


def router_ipv6(*, blocked: bool) -> str:
    """The router's IPv6 rules: pass, or drop what comes from the docker networks."""
    rule = 'iifname { "docker", "docker2" } drop' if blocked else ""
    return f"""
    table ip6 provider
    delete table ip6 provider
    table ip6 provider {{
        chain forward {{ type filter hook forward priority filter; {rule}; }}
    }}
    """

"""An upstream VPN container: OpenVPN, a kill switch, and the docker network let into its tunnel.

    gw (ocgate)
    eth0 172.28.0.10   exit0 172.30.0.10 (with Options.exit_net)
     2001:db8:28::10    2001:db8:30::10
      |                  |
    docker -- router    exits (a bridge without an address of the docker host)
      |        |         |
    eth0 172.28.0.3    eth1 172.30.0.3
     2001:db8:28::3     2001:db8:30::3
    upstream   |       tun0 ===== OpenVPN over UDP, by eth0, router and inet ===== tun0 provider
               inet ------------------------------- 198.51.100.200, 2001:db8:c8::8 eth0

What azinchen/nordvpn does with FORWARD_FROM: FORWARD's policy is drop, the networks that it shares
with containers may go into tun0 and are masqueraded there, OUTPUT is closed but for the VPN server
and those networks.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address

from lab.addresses import (
    DOCKER_NET,
    DOCKER_NET6,
    EXIT_NET,
    EXIT_NET6,
    PROVIDER,
    UPSTREAM,
)
from lab.openvpn import OPENVPN_PORT, TUN, Provider, run_provider, wait_ready
from lab.topology import Lab
from lab.wiring import leaf
from ocgate.netlab.program import Program
from ocgate.netlab.wait import wait_until

# The kernel removes a killed process's tun when it has closed its files: milliseconds.
END_SECONDS = 5.0

NEW_MAC = "02:42:00:00:00:03"  # locally administered, and the prefix that docker uses


class Upstream:
    """The container; made by `run_upstream`, ended by the lab.

    address: its own on the docker network, which VPN_GATEWAY names.
    """

    def __init__(self, lab: Lab, provider: Provider) -> None:
        self.lab = lab
        self.host = lab.upstream
        self.netns = lab.upstream.netns
        self.provider = provider
        self.address: IPv4Address = UPSTREAM
        self._program: Program | None = None
        self.netns.nft(_kill_switch())
        lab.own(self)

    @property
    def program(self) -> Program:
        """The OpenVPN client; raises AssertionError while there is none."""
        assert self._program is not None, "the upstream's tunnel was taken down"
        return self._program

    # --- the tunnel alone -----------------------------------------------------------------------

    def drop_tunnel(self) -> None:
        """OpenVPN ends: tun0 is gone, and the kill switch keeps what came for it."""
        self._kill_program()

    def restore_tunnel(self) -> None:
        """Undo `drop_tunnel`, and wait until traffic passes."""
        self._program = self.provider.client(self.lab, self.host)
        self.wait_ready()

    def choke_tunnel(self) -> None:
        """Its uplink loses all that goes to the VPN server: tun0 stays, nothing comes back."""
        self.netns.nft(_choked())

    def release_tunnel(self) -> None:
        """Undo `choke_tunnel`."""
        self.netns.nft("delete table inet choked")

    def wait_ready(self) -> None:
        """Wait until OpenVPN says that the tunnel stands."""
        wait_ready(self.program)

    # --- the whole container --------------------------------------------------------------------

    def stop(self) -> None:
        """The container ends: no tunnel, and nobody answers for its address."""
        self._kill_program()
        self.netns.ip(*(f"link set {device} down" for device in self._devices))

    def start(self, address: IPv4Address | None = None, *, new_mac: bool = False) -> None:
        """It comes (back), at another IPv4 address on the docker network if one is given, and its
        tunnel with it; waits until traffic passes. new_mac: as a container that was made anew."""
        self.start_without_tunnel(address, new_mac=new_mac)
        self.restore_tunnel()

    def start_without_tunnel(
        self, address: IPv4Address | None = None, *, new_mac: bool = False
    ) -> None:
        """The same, but its VPN server does not answer yet."""
        self.address = address or self.address
        if new_mac:
            self.netns.ip(f"link set eth0 address {NEW_MAC}")
        self.netns.ip(
            "address flush dev eth0",
            *(f"link set {device} up" for device in self._devices[1:]),
            *leaf(replace(self.host, address=self.address), DOCKER_NET.prefixlen),
        )
        if self.host.second6 is not None:  # gone with the link, unlike IPv4's
            self.netns.ip(f"address replace {self.host.second6}/64 dev eth1 nodad")

    def freeze(self) -> None:
        """Its machine hangs: it hears nothing more, not even ARP, and sends nothing."""
        self.program.send(signal.SIGSTOP)
        self.netns.nft(_deaf(self._devices))

    def thaw(self) -> None:
        """Undo `freeze`."""
        self.netns.nft("delete table netdev frozen")
        self.program.send(signal.SIGCONT)

    def close(self) -> None:
        """kill -9, at the end of a test."""
        self._kill_program()

    # --- inside ---------------------------------------------------------------------------------

    @property
    def _devices(self) -> tuple[str, ...]:
        return ("eth0",) if self.host.second is None else ("eth0", "eth1")

    def _has_tun(self) -> bool:
        return self.netns.run(["ip", "link", "show", TUN], check=False).returncode == 0

    def _kill_program(self) -> None:
        if self._program is not None:
            self._program.kill()
            self._program = None
            wait_until(lambda: not self._has_tun(), END_SECONDS, f"{TUN} of the upstream to go")


def run_upstream(lab: Lab, *, tunnel: bool = True) -> Upstream:
    """Start provider and upstream and wait until traffic passes; tunnel=False: until asked to."""
    upstream = Upstream(lab, run_provider(lab))
    if tunnel:
        upstream.restore_tunnel()
    return upstream


def _kill_switch() -> str:
    shared = "{ " + f"{DOCKER_NET}, {EXIT_NET}" + " }"
    shared6 = "{ " + f"{DOCKER_NET6}, {EXIT_NET6}" + " }"
    lan = '{ "eth0", "eth1" }'
    return f"""
    table inet kill_switch {{
        chain input {{
            type filter hook input priority filter; policy drop;
            ct state established,related accept
            iifname "lo" accept
            iifname {lan} ip saddr {shared} accept
            iifname {lan} ip6 saddr {shared6} accept
            meta l4proto ipv6-icmp accept
        }}
        chain forward {{
            type filter hook forward priority filter; policy drop;
            iifname {lan} oifname "{TUN}" ip saddr {shared} accept
            iifname {lan} oifname "{TUN}" ip6 saddr {shared6} accept
            iifname "{TUN}" oifname {lan} ct state established,related accept
        }}
        chain output {{
            type filter hook output priority filter; policy drop;
            oifname {{ "lo", "{TUN}" }} accept
            oifname "eth0" ip daddr {PROVIDER} udp dport {OPENVPN_PORT} accept
            oifname {lan} ip daddr {shared} accept
            oifname {lan} ip6 daddr {{ {DOCKER_NET6}, {EXIT_NET6}, fe80::/10, ff02::/16 }} accept
        }}
        chain postrouting {{
            type nat hook postrouting priority srcnat;
            oifname "{TUN}" masquerade
        }}
    }}
    """


def _choked() -> str:
    return f"""
    table inet choked {{
        chain output {{
            type filter hook output priority raw; udp dport {OPENVPN_PORT} drop
        }}
    }}
    """


def _deaf(devices: Sequence[str]) -> str:
    chains = "\n".join(
        f'chain {device} {{ type filter hook ingress device "{device}" priority 0; policy drop; }};'
        for device in devices
    )
    return f"table netdev frozen {{ {chains} }}"

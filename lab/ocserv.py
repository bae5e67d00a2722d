"""Bare ocserv with a hand-made configuration and hand-made NAT, without any of ocgate's locks.

It shows that the lab works, it is the positive control of leak tests (what ocserv alone lets out),
and the other side of benchmarks. `write_config_dir` is also the operator's own /etc/ocserv in tests
of the gateway.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

from lab.certificate import write_certificate
from lab.client import Login, pin_of
from lab.topology import PORT, RESOLVER, Host, Lab
from ocgate.netlab.listening import listens
from ocgate.netlab.program import BASE_ENVIRON
from ocgate.netlab.wait import wait_until

VPN_NET = IPv4Network("10.10.10.0/24")
VPN_NET6 = IPv6Network("fda9:4efe:7e3b:3ea::/64")
START_SECONDS = 10.0

# What Debian's sample says where it matters for a test, shortened where waiting would be all it
# does: no delay between logins, no ban, a dead peer is noticed within seconds.
SETTINGS: Mapping[str, str] = {
    "tcp-port": str(PORT),
    "udp-port": str(PORT),
    "run-as-user": "nobody",
    "run-as-group": "nogroup",
    "isolate-workers": "true",
    "max-clients": "0",
    "max-same-clients": "0",
    "rate-limit-ms": "0",
    "max-ban-score": "0",
    "keepalive": "300",
    "dpd": "60",
    "mobile-dpd": "300",
    "try-mtu-discovery": "false",
    "auth-timeout": "240",
    "cookie-timeout": "300",
    "rekey-time": "172800",
    "device": "vpns",
    "predictable-ips": "true",
    "ipv4-network": str(VPN_NET.network_address),
    "ipv4-netmask": str(VPN_NET.netmask),
    "dns": str(RESOLVER),
    "cisco-client-compat": "true",
    "dtls-legacy": "true",
    "use-occtl": "true",
}


def write_users(passwd: Path, users: Mapping[str, str]) -> None:
    """Add `users` (name -> password) to an ocpasswd file; names may be anything but have ':'."""
    for user, password in users.items():
        argv = ["ocpasswd", "-c", str(passwd), "--", user]
        text = f"{password}\n{password}\n"
        subprocess.run(
            argv, input=text, text=True, check=True, capture_output=True, env=BASE_ENVIRON
        )


def write_config_dir(
    lab: Lab,
    directory: Path,
    users: Mapping[str, str],
    *,
    settings: Mapping[str, str | None] | None = None,
    lines: Sequence[str] = ("route = default",),
) -> Path:
    """An operator's config dir: ocserv.conf, ocpasswd, server-cert.pem, server-key.pem.

    settings: replaces keys of the defaults; None takes one out.
    lines:    appended as they are: routes, resolvers, vhosts.
    Returns the path of ocserv.conf.
    """
    directory.mkdir(parents=True, exist_ok=True)
    cert, key = directory / "server-cert.pem", directory / "server-key.pem"
    write_certificate(cert, key, [a for a in (lab.server, lab.server6) if a is not None])
    write_users(directory / "ocpasswd", users)
    values: dict[str, str | None] = {
        "auth": f'"plain[passwd={directory / "ocpasswd"}]"',
        "server-cert": str(cert),
        "server-key": str(key),
        "socket-file": str(directory / "ocserv.sock"),
        **SETTINGS,
        **(settings or {}),
    }
    written = [f"{key} = {value}" for key, value in values.items() if value is not None]
    conf = directory / "ocserv.conf"
    conf.write_text("\n".join([*written, *lines]) + "\n")
    return conf


class Ocserv:
    """A running bare ocserv in a host's namespace; made by `run_ocserv`."""

    def __init__(self, lab: Lab, host: Host, conf: Path, users: Mapping[str, str]) -> None:
        self.host = host
        self.config_dir = conf.parent
        self.users = dict(users)
        self.occtl_socket = self.config_dir / "occtl.sock"
        self.program = lab.spawn(host, ["ocserv", "-f", "-d", "1", "-c", str(conf)])
        lab.own(self)
        wait_until(self._listens, START_SECONDS, f"{self.program} to listen")

    def _listens(self) -> bool:
        if not self.program.running():
            raise AssertionError(f"{self.program}:\n{self.program.output}")
        return listens(self.host.netns, PORT)

    def close(self) -> None:
        """kill -9, at the end of a test: it takes 2 s to end by itself."""
        self.program.kill()

    def login(self, user: str) -> Login:
        """What `user` needs to connect."""
        return Login(user, self.users[user], pin_of(self.config_dir / "server-cert.pem"))

    def occtl(self, *words: str) -> Any:
        """The JSON that `occtl -j WORDS` prints."""
        return occtl(self.host, self.occtl_socket, *words)


def occtl(host: Host, socket: Path, *words: str) -> Any:
    """Ask the ocserv behind `socket`: `occtl(host, path, "show", "users")`."""
    done = host.netns.run(["occtl", "-j", "-s", str(socket), *words])
    return json.loads(done.stdout)


def run_ocserv(
    lab: Lab,
    users: Mapping[str, str],
    *,
    settings: Mapping[str, str | None] | None = None,
    lines: Sequence[str] = ("route = default",),
    masquerade: Sequence[IPv4Network | IPv6Network] = (VPN_NET,),
) -> Ocserv:
    """Start bare ocserv in gw, forward everything, masquerade what comes from `masquerade`."""
    directory = lab.path("ocserv")
    socket = {"occtl-socket-file": str(directory / "occtl.sock")}
    conf = write_config_dir(
        lab, directory, users, settings={**socket, **(settings or {})}, lines=lines
    )
    lab.gw.netns.sysctl("net/ipv4/ip_forward", 1)
    lab.gw.netns.sysctl("net/ipv6/conf/all/forwarding", 1)
    lab.gw.netns.nft(hand_made_nat(masquerade))
    return Ocserv(lab, lab.gw, conf, users)


def hand_made_nat(networks: Sequence[IPv4Network | IPv6Network]) -> str:
    """What people put in by hand: masquerade, and nothing else. By eth*, so that eth1 works too."""
    rules = "\n".join(
        f'{"ip" if n.version == 4 else "ip6"} saddr {n} oifname "eth*" masquerade' for n in networks
    )
    return f"""
    table inet hand_made {{
        chain postrouting {{ type nat hook postrouting priority srcnat; {rules}
        }}
    }}
    """

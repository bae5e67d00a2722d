"""A VPN provider: a real OpenVPN server on the lab's internet, and what a client of it needs.

    upstream tun0 10.8.0.2, fd9c:41d7:58a2:8::1000
       |
    tun0 10.8.0.1, fd9c:41d7:58a2:8::1
    provider      masquerades its tunnels' clients to its own addresses: that is how a service
       |          tells who came by the VPN
    eth0 198.51.100.200, 2001:db8:c8::8

TLS with a throwaway authority, OpenVPN 2.6's own defaults for ciphers and MTU, over UDP and IPv4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from lab.addresses import PROVIDER, Host
from lab.certificate import Authority
from lab.site import Site
from lab.topology import Lab
from ocgate.netlab.program import Program

OPENVPN_PORT = 1194
TUNNEL_NET = IPv4Network("10.8.0.0/24")
TUNNEL_NET6 = IPv6Network("fd9c:41d7:58a2:8::/64")
TUN = "tun0"  # provider and upstream have a namespace each

# It takes 0.1 s to listen and 0.2 s to connect here.
READY_SECONDS = 15.0
_READY = "Initialization Sequence Completed"

# No keepalive: an end that hears nothing stays as it is, so a choked tunnel goes on where it was.
_COMMON = ("--dev", TUN, "--proto", "udp4", "--verb", "3")


@dataclass(frozen=True)
class Identity:
    """Files for one end of the tunnel."""

    authority: Path
    certificate: Path
    key: Path

    def options(self) -> list[str]:
        """How OpenVPN is told."""
        files = ("--ca", self.authority, "--cert", self.certificate, "--key", self.key)
        return [str(word) for word in files]

    def inline(self) -> str:
        """The same as blocks of a configuration file."""
        files = (("ca", self.authority), ("cert", self.certificate), ("key", self.key))
        return "".join(f"<{tag}>\n{path.read_text()}</{tag}>\n" for tag, path in files)


class Provider:
    """The running server in `host`; made by `run_provider` in a Lab.

    users: name -> password, asked for besides the client's certificate; None: nobody is asked.
    options: further ones of the server.
    """

    def __init__(
        self,
        lab: Site,
        host: Host,
        directory: Path,
        users: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.host = host
        self._lab = lab
        authority = Authority(directory)
        self._client = Identity(authority.certificate, *authority.issue("client", server=False))
        own = Identity(authority.certificate, *authority.issue("server", server=True))
        self.host.netns.nft(_masquerade())
        self._asks = users is not None
        self._argv = ["openvpn", *_server_options(), *own.options(), *options]
        self._argv += _asking(directory, users) if users else []
        self.start()
        lab.own(self)

    def start(self) -> None:
        """Start it (again), and wait until it serves."""
        self.program = self._lab.spawn(self.host, self._argv)
        wait_ready(self.program)

    def config(self) -> str:
        """A client's configuration file, as a provider hands it out."""
        options = [*_client_options(), *(["--auth-user-pass"] if self._asks else [])]
        lines = " ".join(options).removeprefix("--").replace(" --", "\n")
        return f"{lines}\n{self._client.inline()}"

    def client(self, lab: Site, host: Host) -> Program:
        """Start a client of it in `host`, all of whose traffic then goes into its tunnel."""
        return lab.spawn(host, ["openvpn", *_client_options(), *self._client.options()])

    def close(self) -> None:
        """kill -9, at the end of a test."""
        self.program.kill()


def run_provider(
    lab: Lab, users: Mapping[str, str] | None = None, options: Sequence[str] = ()
) -> Provider:
    """Start the server in `lab.provider` and wait until it serves."""
    directory = lab.path("openvpn")
    directory.mkdir()
    return Provider(lab, lab.provider, directory, users, options)


def wait_ready(program: Program) -> None:
    """Wait until an OpenVPN server or client says that its tunnel stands."""
    program.wait_for_output(_READY, READY_SECONDS)


def _server_options() -> Sequence[str]:
    return [
        *_COMMON,
        *("--local", str(PROVIDER), "--port", str(OPENVPN_PORT), "--dh", "none"),
        *("--server", str(TUNNEL_NET.network_address), str(TUNNEL_NET.netmask)),
        *("--server-ipv6", str(TUNNEL_NET6), "--topology", "subnet"),
        *("--push", "redirect-gateway def1 ipv6", "--remote-cert-tls", "client"),
    ]


def _client_options() -> Sequence[str]:
    return [
        *_COMMON,
        *("--client", "--remote", str(PROVIDER), str(OPENVPN_PORT), "--nobind"),
        *("--connect-retry", "1", "1", "--remote-cert-tls", "server"),
    ]


def _asking(directory: Path, users: Mapping[str, str]) -> list[str]:
    """Options that ask for a name and a password, which OpenVPN hands to the script in a file."""
    for number, (name, password) in enumerate(users.items()):
        (directory / f"{number}.login").write_text(f"{name}\n{password}\n")
    script = directory / "ask"
    known = f'for known in {directory}/*.login; do cmp -s "$1" "$known" && exit 0; done; exit 1'
    script.write_text(f"#!/bin/sh\n{known}\n")
    script.chmod(0o755)
    return ["--script-security", "2", "--auth-user-pass-verify", str(script), "via-file"]


def _masquerade() -> str:
    return f"""
    table inet provider {{
        chain postrouting {{
            type nat hook postrouting priority srcnat;
            ip saddr {TUNNEL_NET} oifname "eth0" masquerade
            ip6 saddr {TUNNEL_NET6} oifname "eth0" masquerade
        }}
    }}
    """

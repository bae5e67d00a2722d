"""OpenVPN: the exit's tunnel from a client's configuration. Pure.

The client gets a file that is made from the profile, with our lines last, where OpenVPN takes the
last one. It runs without privilege on a tun that exists already, sets neither address nor route
(its hook reports them), and ends whenever the connection does: who is next is not its business.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ocgate.tunnel.gate import Reported
from ocgate.tunnel.model import Endpoint, Launch, Remote
from ocgate.tunnel.openvpn_profile import UDP_ONLY, Login, Profile, Reference, Server, referred
from ocgate.tunnel.openvpn_reading import read

__all__ = ["Profile", "Reference", "launch", "read", "referred", "remotes", "reported"]

# Without a sign of life for this long another server is the better chance; a handshake over a slow
# line takes two seconds. OpenVPN's own is 120.
_CONNECT_SECONDS = 10

_CONFIG, _LOGIN = "openvpn.conf", "login"

_OURS = """\
client
dev-type tun
nobind
persist-tun
persist-key
ifconfig-noexec
route-noexec
disable-dco
script-security 2
resolv-retry 0
connect-retry-max 1
remap-usr1 SIGTERM
auth-nocache
auth-retry none
verb 3
suppress-timestamps
"""


def remotes(profile: Profile) -> tuple[Remote, ...]:
    """The servers in the file's order; where `profile.shuffled`, any order is as good."""
    return tuple(server.remote for server in profile.servers)


def launch(
    profile: Profile,
    remote: Remote,
    endpoint: Endpoint,
    *,
    device: str,
    directory: Path,
    hook: Path,
) -> Launch:
    """How the client is started for one of the profile's remotes, at its resolved address.

    device: an existing tun of the client's user. directory: where `files` will be. hook: what
    OpenVPN runs once the tunnel stands.
    """
    server = next((each for each in profile.servers if each.remote == remote), Server(remote))
    ours = [
        f"dev {device}",
        f"proto {_proto(endpoint)}",
        f"remote {endpoint.address} {endpoint.port}",
        f"connect-timeout {_CONNECT_SECONDS}",
        f'up "{hook}"',
    ]
    files = {}
    if profile.login:
        ours.append(f"auth-user-pass {directory / _LOGIN}")
        files[_LOGIN] = _login(profile.login)
    text = "".join(_lines(profile, server, endpoint)) + _OURS + "".join(f"{x}\n" for x in ours)
    files[_CONFIG] = text.encode()
    return Launch(("openvpn", "--config", str(directory / _CONFIG)), files)


def _lines(profile: Profile, server: Server, endpoint: Endpoint) -> Iterator[str]:
    """The profile's lines for one server; one with lines of its own for a thing has only those."""
    own = {line.name for line in server.lines}
    kept = [line for line in profile.lines if line.name not in own]
    for line in (*kept, *server.lines):
        if line.name not in UDP_ONLY or "udp" in endpoint.protocols:
            yield line.text


def _proto(endpoint: Endpoint) -> str:
    """OpenVPN's word; the address is of one family, and a socket of both would bind to `::`."""
    version = endpoint.address.version
    return f"udp{version}" if "udp" in endpoint.protocols else f"tcp{version}-client"


def _login(login: Login) -> bytes:
    return f"{login[0]}\n{login[1]}\n".encode()


def reported(environment: Mapping[str, str]) -> Reported:
    """What the server says, from the hook's variables (openvpn(8), Environmental Variables)."""
    pushed = list(_options(environment))
    return Reported(
        mtu=environment.get("tun_mtu", ""),
        address4=environment.get("ifconfig_local", ""),
        address6=environment.get("ifconfig_ipv6_local", ""),
        resolvers=(*_offered(pushed), *_named(environment, r"dns_server_\d+_address\w*")),
        routes=tuple(_named(environment, r"route_network_\d+|route_ipv6_network_\d+")),
        names=tuple(" ".join(words) for words in pushed if not _is_resolver(words)),
    )


def _options(environment: Mapping[str, str]) -> Iterator[list[str]]:
    """The pushed options that OpenVPN itself has no use for, in the server's order, as words."""
    option = re.compile(r"foreign_option_(\d{1,9})")
    numbered = sorted(
        (int(match[1]), value)
        for name, value in environment.items()
        if (match := option.fullmatch(name))
    )
    return (value.split() for _, value in numbered)


def _named(environment: Mapping[str, str], pattern: str) -> Iterator[str]:
    """Values of 2.6's `dns server`, of routes and the like, by their names."""
    known = re.compile(pattern)
    return (value for name, value in sorted(environment.items()) if known.fullmatch(name))


def _offered(pushed: Iterable[list[str]]) -> Iterator[str]:
    """`dhcp-option DNS` and DNS6."""
    return (words[2] for words in pushed if _is_resolver(words))


def _is_resolver(words: list[str]) -> bool:
    return len(words) == 3 and words[0] == "dhcp-option" and words[1] in _DNS


_DNS = ("DNS", "DNS6")

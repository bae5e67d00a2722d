"""OpenConnect (ocserv, AnyConnect): the exit's tunnel from an URL. Pure.

Everything that may be secret, the URL with its camouflage secret too, goes into a file of the
client's user, and the password to its standard input: arguments are everybody's to read.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ocgate.tunnel.gate import Reported
from ocgate.tunnel.model import Endpoint, Launch, Remote

_CONFIG = "openconnect.conf"

# How long the client itself tries to come back with its cookie, by which a session keeps its
# address. Its own 300 s would keep clients waiting while another server could serve them.
_RECONNECT_SECONDS = 10


@dataclass(frozen=True)
class Server:
    """One server: `location` is path and camouflage secret as they follow the host, or ""."""

    host: str
    port: int
    location: str = field(repr=False)

    @property
    def remote(self) -> Remote:
        """TLS and DTLS on one port."""
        shown = f"[{self.host}]" if ":" in self.host else self.host
        return Remote(self.host, self.port, ("tcp", "udp"), f"{shown}:{self.port}")

    @property
    def url(self) -> str:
        """What the client is given."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}:{self.port}{self.location or '/'}"


@dataclass(frozen=True)
class Profile:
    """What the client needs. pin: `pin-sha256:…`, or None: an authority of the system must have
    signed the server's certificate."""

    servers: tuple[Server, ...]
    user: str = field(repr=False)
    password: str = field(repr=False)
    pin: str | None


def read(servers: Sequence[Server], *, user: str, password: str, pin: str | None) -> Profile:
    """The profile; what is wrong in the settings, `config.exit_forms` has told already."""
    return Profile(tuple(dict.fromkeys(servers)), user, password, pin)


def remotes(profile: Profile) -> tuple[Remote, ...]:
    """The servers in the order in which they were written, each host and port once."""
    return tuple(dict.fromkeys(server.remote for server in profile.servers))


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

    device: an existing tun of the client's user. directory: where `files` will be. hook: what the
    client runs before, during and after the connection (`reason`).
    """
    server = next(each for each in profile.servers if each.remote == remote)
    lines = [*_lines(profile, server, endpoint), f"interface={device}"]
    lines += [f"script={shlex.quote(str(hook))}"]  # openconnect hands it to sh
    content = "".join(f"{line}\n" for line in lines).encode()
    argv = ("openconnect", "--config", str(directory / _CONFIG))
    return Launch(argv, {_CONFIG: content}, profile.password + "\n")


def _lines(profile: Profile, server: Server, endpoint: Endpoint) -> Iterator[str]:
    yield f"server={server.url}"
    yield "protocol=anyconnect"
    yield f"user={profile.user}"
    yield "passwd-on-stdin"
    yield "non-inter"
    yield "no-proxy"
    yield f"reconnect-timeout={_RECONNECT_SECONDS}"
    if server.location:
        yield "quiet"  # its log would show the URL, and the camouflage secret with it
    if server.host != str(endpoint.address):
        # The name stays what the certificate is held against; no resolver is asked for it.
        yield f"resolve={server.host}:{endpoint.address}"
    if profile.pin:
        yield f"servercert={profile.pin}"


def reported(environment: Mapping[str, str]) -> Reported:
    """What the server says, from the variables of the hook (vpnc-script's, INTERNAL_IP4_*)."""
    # openconnect 9 gives the address alone, and with its prefix length as INTERNAL_IP6_NETMASK.
    address6 = environment.get("INTERNAL_IP6_ADDRESS") or environment.get("INTERNAL_IP6_NETMASK")
    split = re.compile(r"CISCO_(IPV6_)?SPLIT_INC_\d+_ADDR")
    return Reported(
        mtu=environment.get("INTERNAL_IP4_MTU", ""),
        address4=environment.get("INTERNAL_IP4_ADDRESS", ""),
        address6=(address6 or "").partition("/")[0],
        resolvers=tuple(_words(environment, "INTERNAL_IP4_DNS", "INTERNAL_IP6_DNS")),
        routes=tuple(value for name, value in environment.items() if split.fullmatch(name)),
        names=tuple(_words(environment, "CISCO_DEF_DOMAIN", "INTERNAL_IP4_NBNS")),
    )


def _words(environment: Mapping[str, str], *names: str) -> Iterator[str]:
    return (text for name in names for text in environment.get(name, "").split())

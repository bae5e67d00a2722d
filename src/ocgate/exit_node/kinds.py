"""The kinds of tunnel, each behind the one interface that the wiring knows (`kind.Kind`). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ocgate.config.exit_choices import ExitKind
from ocgate.config.exit_model import ExitSettings
from ocgate.errors import OcgateError
from ocgate.exit_node.kind import Kind
from ocgate.exit_node.sources import Sources
from ocgate.names import TUNNEL_DEVICE, TUNNEL_UID, WIREGUARD_DEVICE
from ocgate.tunnel import openconnect, openvpn, wireguard
from ocgate.tunnel.gate import Reported
from ocgate.tunnel.model import Endpoint, Launch, Remote
from ocgate.tunnel.nordvpn import NordVpn
from ocgate.tunnel.provider import Provider, Wish

Login = tuple[str, str]


def kind_of(sources: Sources) -> Kind:
    """The kind that the settings say, its profile read; raises ConfigurationError."""
    settings = sources.settings
    login = _login(settings)
    match settings.kind:
        case ExitKind.OPENVPN:
            path = str(settings.ovpn_config)
            return OpenVpn(openvpn.read(sources.text, path, files=sources.files, login=login))
        case ExitKind.WIREGUARD:
            profile = wireguard.read(sources.text, str(settings.wg_config))
            return WireGuard(profile, sources.userspace)
        case ExitKind.OPENCONNECT:
            assert login is not None
            return OpenConnect(_openconnect(settings, login))
        case ExitKind.NORDVPN:
            assert login is not None
            return Provided(NordVpn(), wish_of(settings), login)


def wish_of(settings: ExitSettings) -> Wish:
    """Which of a provider's servers the settings ask for."""
    return Wish(
        countries=settings.country or (),
        cities=settings.city or (),
        groups=settings.group or (),
        technology=settings.technology.value,
        random_top=settings.random_top,
    )


def _login(settings: ExitSettings) -> Login | None:
    given = settings.credentials
    return (given[0].get_secret_value(), given[1].get_secret_value()) if given else None


def _openconnect(settings: ExitSettings, login: Login) -> openconnect.Profile:
    servers = [
        openconnect.Server(url.host, url.port, url.location.get_secret_value())
        for url in settings.url or ()
    ]
    return openconnect.read(servers, user=login[0], password=login[1], pin=settings.servercert)


@dataclass(frozen=True)
class OpenVpn:
    """OVPN_CONFIG. The methods of all four are as `Kind` says."""

    profile: openvpn.Profile = field(repr=False)
    name: str = "openvpn"
    device: str = TUNNEL_DEVICE
    uid: int | None = TUNNEL_UID
    programs: tuple[str, ...] = ("openvpn",)

    @property
    def notices(self) -> tuple[str, ...]:
        return self.profile.notices

    def remotes(self) -> tuple[Remote, ...]:
        return openvpn.remotes(self.profile)

    def launch(self, remote: Remote, endpoint: Endpoint, directory: Path, hook: Path) -> Launch:
        """With the profile's certificates and login in files."""
        return openvpn.launch(
            self.profile, remote, endpoint, device=self.device, directory=directory, hook=hook
        )

    def interface(self, _remote: Remote, _endpoint: Endpoint) -> None:
        return None

    def reported(self, environment: Mapping[str, str]) -> Reported:
        return openvpn.reported(environment)


@dataclass(frozen=True)
class OpenConnect:
    """URL."""

    profile: openconnect.Profile = field(repr=False)
    name: str = "openconnect"
    device: str = TUNNEL_DEVICE
    uid: int | None = TUNNEL_UID
    programs: tuple[str, ...] = ("openconnect",)
    notices: tuple[str, ...] = ()

    def remotes(self) -> tuple[Remote, ...]:
        return openconnect.remotes(self.profile)

    def launch(self, remote: Remote, endpoint: Endpoint, directory: Path, hook: Path) -> Launch:
        """With the URL in a file and the password on stdin."""
        return openconnect.launch(
            self.profile, remote, endpoint, device=self.device, directory=directory, hook=hook
        )

    def interface(self, _remote: Remote, _endpoint: Endpoint) -> None:
        return None

    def reported(self, environment: Mapping[str, str]) -> Reported:
        return openconnect.reported(environment)


@dataclass(frozen=True)
class Provided:
    """A provider's servers, which have to be listed; OpenVPN underneath."""

    provider: Provider
    wish: Wish
    login: Login = field(repr=False)
    device: str = TUNNEL_DEVICE
    uid: int | None = TUNNEL_UID
    programs: tuple[str, ...] = ("openvpn",)
    notices: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.provider.name

    def remotes(self) -> tuple[Remote, ...]:
        return ()

    def launch(self, remote: Remote, endpoint: Endpoint, directory: Path, hook: Path) -> Launch:
        """With the provider's own certificates."""
        return self.provider.launch(
            self.login, remote, endpoint, device=self.device, directory=directory, hook=hook
        )

    def interface(self, _remote: Remote, _endpoint: Endpoint) -> None:
        return None

    def reported(self, environment: Mapping[str, str]) -> Reported:
        return self.provider.reported(environment)


@dataclass(frozen=True)
class WireGuard:
    """WG_CONFIG. The kernel is the client, or wireguard-go where it can't: on a tun that exists,
    and as the client's user."""

    profile: wireguard.Profile = field(repr=False)
    userspace: bool
    name: str = "wireguard"
    device: str = WIREGUARD_DEVICE

    @property
    def uid(self) -> int | None:
        return TUNNEL_UID if self.userspace else None

    @property
    def programs(self) -> tuple[str, ...]:
        return ("wg", "wireguard-go") if self.userspace else ("wg",)

    @property
    def notices(self) -> tuple[str, ...]:
        """The file's, and whose WireGuard it is."""
        said = ("This kernel has no WireGuard: wireguard-go is used, which is slower.",)
        return (*self.profile.notices, *(said if self.userspace else ()))

    def remotes(self) -> tuple[Remote, ...]:
        return wireguard.remotes(self.profile)

    def launch(
        self, _remote: Remote, _endpoint: Endpoint, _directory: Path, _hook: Path
    ) -> Launch | None:
        """Only of wireguard-go."""
        if not self.userspace:
            return None
        return Launch(("wireguard-go", "-f", self.device), {}, is_wireguard_go=True)

    def interface(self, remote: Remote, endpoint: Endpoint) -> wireguard.Interface:
        return wireguard.interface(self.profile, remote, endpoint)

    def reported(self, _environment: Mapping[str, str]) -> Reported:
        """Nobody reports."""
        raise OcgateError("WireGuard has no hook")

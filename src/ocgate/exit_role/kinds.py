"""The kinds of tunnel, each behind the one interface that the wiring knows (`kind.Kind`). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ocgate.config.exit_choices import ExitKind
from ocgate.config.exit_model import ExitSettings
from ocgate.errors import OcgateError
from ocgate.exit_role.kind import Kind
from ocgate.exit_role.sources import Sources
from ocgate.names import TUNNEL_DEVICE, TUNNEL_UID
from ocgate.tunnel import openvpn
from ocgate.tunnel.model import Carried, Endpoint, Launch, Remote


def kind_of(sources: Sources) -> Kind:
    """The kind that the settings say, its profile read; raises ConfigurationError."""
    settings = sources.settings
    if settings.kind is ExitKind.OPENVPN:
        login = _login(settings)
        assert settings.ovpn_config is not None
        path = str(settings.ovpn_config)
        return OpenVpn(openvpn.read(sources.text, path, files=sources.files, login=login))
    raise OcgateError(f"{settings.kind} is not served yet")


def _login(settings: ExitSettings) -> tuple[str, str] | None:
    given = settings.credentials
    return (given[0].get_secret_value(), given[1].get_secret_value()) if given else None


@dataclass(frozen=True)
class OpenVpn:
    """OVPN_CONFIG."""

    profile: openvpn.Profile = field(repr=False)
    name: str = "openvpn"
    device: str = TUNNEL_DEVICE
    uid: int | None = TUNNEL_UID
    programs: tuple[str, ...] = ("openvpn",)

    @property
    def notices(self) -> tuple[str, ...]:
        """As `Kind` says."""
        return self.profile.notices

    def remotes(self) -> tuple[Remote, ...]:
        """As `Kind` says."""
        return openvpn.remotes(self.profile)

    def launch(self, remote: Remote, endpoint: Endpoint, directory: Path, hook: Path) -> Launch:
        """As `Kind` says."""
        return openvpn.launch(
            self.profile, remote, endpoint, device=self.device, directory=directory, hook=hook
        )

    def carried(self, environment: Mapping[str, str]) -> Carried:
        """As `Kind` says."""
        return openvpn.carried(environment)

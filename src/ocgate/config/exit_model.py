"""The exit role's settings, declared once as `model` does the server role's. Pure."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, SecretStr, model_validator

from ocgate.config import exit_settings, log_settings
from ocgate.config.choices import LogFormat, LogLevel
from ocgate.config.endpoints import EXIT_TARGETS, Endpoint
from ocgate.config.exit_agreement import contradictions
from ocgate.config.exit_choices import ExitKind, GatewayDns, Mac, Technology
from ocgate.config.exit_forms import ServerUrl
from ocgate.config.values import Rejected

Networks = tuple[IPv4Network | IPv6Network, ...]


class ExitSettings(BaseModel):
    """What the operator asked for. Attributes are the variables' names in lower case, but for PASS,
    whose name is Python's."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    ovpn_config: Annotated[Path | None, exit_settings.OVPN_CONFIG] = None
    url: Annotated[tuple[ServerUrl, ...] | None, exit_settings.URL] = None
    servercert: Annotated[str | None, exit_settings.SERVERCERT] = None
    wg_config: Annotated[Path | None, exit_settings.WG_CONFIG] = None
    user: Annotated[SecretStr | None, exit_settings.USER] = None
    password: Annotated[SecretStr | None, exit_settings.PASS] = None
    exit_rotate: Annotated[int, exit_settings.EXIT_ROTATE] = 0

    country: Annotated[tuple[str, ...] | None, exit_settings.COUNTRY] = None
    city: Annotated[tuple[str, ...] | None, exit_settings.CITY] = None
    group: Annotated[tuple[str, ...] | None, exit_settings.GROUP] = None
    technology: Annotated[Technology, exit_settings.TECHNOLOGY] = Technology.OPENVPN_UDP
    random_top: Annotated[int, exit_settings.RANDOM_TOP] = 0

    forward_from: Annotated[Networks | None, exit_settings.FORWARD_FROM] = None
    network: Annotated[Networks | None, exit_settings.NETWORK] = None
    gateway_dns: Annotated[GatewayDns, exit_settings.GATEWAY_DNS] = GatewayDns.AUTO
    exit_mac: Annotated[Mac, exit_settings.EXIT_MAC] = Mac.KEEP

    exit_probe: Annotated[tuple[Endpoint, ...], exit_settings.EXIT_PROBE] = EXIT_TARGETS
    exit_probe_interval: Annotated[float, exit_settings.EXIT_PROBE_INTERVAL] = 1.0
    # More than a gateway's three: a tunnel that is given up is gone for seconds.
    exit_probe_failures: Annotated[int, exit_settings.EXIT_PROBE_FAILURES] = 5
    exit_probe_successes: Annotated[int, exit_settings.EXIT_PROBE_SUCCESSES] = 1

    run_dir: Annotated[Path, exit_settings.OCGATE_RUN_DIR] = Path("/run/ocgate")
    cache_dir: Annotated[Path, exit_settings.OCGATE_CACHE_DIR] = Path("/var/cache/ocgate")

    log_format: Annotated[LogFormat, log_settings.OCGATE_LOG_FORMAT] = LogFormat.HUMAN
    log_level: Annotated[LogLevel, log_settings.OCGATE_LOG_LEVEL] = LogLevel.INFO

    @model_validator(mode="after")
    def _agree(self) -> Self:
        found = contradictions(self)
        if found:
            raise Rejected(*found)
        return self

    @property
    def kind(self) -> ExitKind:
        """What the tunnel is."""
        if self.ovpn_config:
            return ExitKind.OPENVPN
        if self.url:
            return ExitKind.OPENCONNECT
        return ExitKind.WIREGUARD if self.wg_config else ExitKind.NORDVPN

    @property
    def credentials(self) -> tuple[SecretStr, SecretStr] | None:
        """User and password where both are set."""
        return (self.user, self.password) if self.user and self.password else None

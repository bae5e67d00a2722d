"""The settings: every variable declared once, with type, default, form, example and meaning.

Pure. What is known of gateway mode's stands in `gateway_settings`, of those beside the traffic in
`upkeep_settings`. `table` turns this class into the settings table that feeds `--help` and
docs/reference.md; pydantic validates by it. Nothing here looks anything up: what stays None is
decided by the rooms that hold the facts (ocserv.conf, the default route).
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, SecretStr, model_validator

from ocgate.config import (
    devices,
    endpoints,
    gateway_settings,
    gateways,
    log_settings,
    permitted,
    texts,
    upkeep_settings,
    values,
)
from ocgate.config.agreement import contradictions
from ocgate.config.choices import Forwarding, HealthPath, Ipv6Nat, LogFormat, LogLevel
from ocgate.config.endpoints import Endpoint
from ocgate.config.gateways import Upstream, UpstreamKind
from ocgate.config.networks import SUBNET6, SUBNETS4
from ocgate.config.permitted import Reached
from ocgate.config.setting import Setting
from ocgate.config.values import Rejected

# Booleans are taken too, because IPV6_NAT was one in the reference image.
_NAT_WORDS = dict.fromkeys(values.TRUE_WORDS, "1") | dict.fromkeys(values.FALSE_WORDS, "0")

# Lowest MSS of IPv4: 576-byte datagram less two 20-byte headers (RFC 9293 section 3.7.1).
# Highest: the field has 16 bits.
_MSS = values.integer(536, 65535, "bytes", outside="write 1400, say, or leave MSS unset for no cap")

# A second is the least that leaves a lost SYN one retransmission; beyond a day it would not be a
# re-check any more. 30 s: few packets, and clients fall back within a page's patience.
_PROBE_INTERVAL = values.integer(1, 86400, "seconds", outside="write 30, say")

# Beyond a million flows no kernel of ordinary size has room (nf_conntrack_max: 262144).
_FLOWS = values.integer(0, 1_000_000, "flows", outside="write 4096, say, or 0 for no limit")

NETWORK, IPV6, PLACES, FIRST_START = "Client network", "IPv6", "Directories", "First start"


class Settings(BaseModel):
    """What the operator asked for. Attributes are the variables' names in lower case."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    vpn_subnet: Annotated[
        tuple[IPv4Network, ...] | None,
        Setting(
            "VPN_SUBNET",
            SUBNETS4,
            NETWORK,
            "The clients' IPv4 subnets, which are masqueraded. Must agree with ocserv.conf.",
            "10.10.10.0/24",
            unset="from ocserv.conf, else 10.10.10.0/24",
        ),
    ] = None
    wan_if: Annotated[
        str | None,
        Setting(
            "WAN_IF",
            devices.INTERFACE,
            NETWORK,
            "The interface by which clients reach the internet.",
            "eth0",
            unset="the interface of the default route, followed when it moves; else eth0",
        ),
    ] = None
    vpn_if: Annotated[
        str,
        Setting(
            "VPN_IF",
            devices.DEVICES,
            NETWORK,
            "The clients' tunnel devices; `+` stands for any ending (nft's `*`). "
            "Must agree with `device` in ocserv.conf.",
            "vpns+",
        ),
    ] = "vpns+"
    mss: Annotated[
        int | None,
        Setting(
            "MSS",
            _MSS,
            NETWORK,
            "Hard cap of the TCP MSS of the clients' connections to the listener, in both "
            "directions. It only ever lowers.",
            "1360",
            unset="clamped to each interface's MTU",
        ),
    ] = None
    session_flows: Annotated[
        int | None,
        Setting(
            "OCGATE_SESSION_FLOWS",
            _FLOWS,
            NETWORK,
            "How many flows (TCP connections, UDP exchanges) one session may have at the same "
            "time, so that no client fills the connection tracking or takes the translated ports "
            "of all others. It may begin as many at once, and then 1/32 of that in every second. "
            "Towards one address and port a session gets a share of the ports. Further flows are "
            "rejected and counted; the other sessions notice nothing. `0`: no limit.",
            "8192",
            unset="4096, but not more than a quarter of nf_conntrack_max",
        ),
    ] = None

    networks: Annotated[
        tuple[Reached, ...],
        Setting(
            "OCGATE_NETWORKS",
            permitted.NETWORKS,
            NETWORK,
            "Further networks that clients may reach, for example an office network behind a "
            "second interface: each through that interface alone, translated to this host's "
            "address there. While the interface or the route is away, packets for it are rejected. "
            "Works in every mode. Push the same networks in ocserv.conf (`route = 10.77.0.0/24`).",
            "10.77.0.0/24 dev lan0, 10.78.0.0/16 via 10.77.0.1 dev lan0",
        ),
    ] = ()

    ipv6_forward: Annotated[
        bool,
        Setting("IPV6_FORWARD", values.boolean(), IPV6, "Whether the host forwards IPv6.", "1"),
    ] = True
    ipv6_nat: Annotated[
        Ipv6Nat,
        Setting(
            "IPV6_NAT",
            values.choice(Ipv6Nat, also=_NAT_WORDS),
            IPV6,
            "IPv6 for clients by NAT66: never, always, or (`auto`) only while a probe shows that "
            "IPv6 egress works. With `1` and no egress the log says so loudly.",
            "auto",
        ),
    ] = Ipv6Nat.OFF
    ipv6_subnet: Annotated[
        IPv6Network,
        Setting(
            "IPV6_SUBNET",
            SUBNET6,
            IPV6,
            "The clients' IPv6 subnet. Must agree with `ipv6-network` in ocserv.conf.",
            "fd00:1:2:3::/64",
        ),
    ] = IPv6Network("fda9:4efe:7e3b:3ea::/64")
    ipv6_probe: Annotated[
        tuple[Endpoint, ...],
        Setting(
            "IPV6_PROBE",
            endpoints.ENDPOINTS6,
            IPV6,
            "Where the probe connects by TCP to see whether IPv6 egress works; one that answers "
            "is enough. The port is 443 unless written.",
            "[2606:4700:4700::1111]:443, 2620:fe::fe",
        ),
    ] = endpoints.EGRESS6_TARGETS
    ipv6_probe_interval: Annotated[
        int,
        Setting(
            "IPV6_PROBE_INTERVAL",
            _PROBE_INTERVAL,
            IPV6,
            "Seconds between two probes while the server runs.",
            "60",
        ),
    ] = 30
    ipv6_sink: Annotated[
        bool,
        Setting(
            "IPV6_SINK",
            values.boolean(),
            IPV6,
            "Where clients get no working IPv6: give them an address and `::/0` all the same and "
            "reject their IPv6 at once, so that a dual-stack client neither uses its own IPv6 "
            "outside of the tunnel nor waits.",
            "1",
        ),
    ] = False

    vpn_gateway: Annotated[Upstream | None, gateway_settings.VPN_GATEWAY] = None
    vpn_gateway6: Annotated[Upstream | None, gateway_settings.VPN_GATEWAY6] = None
    vpn_gateway_mac: Annotated[str, gateway_settings.VPN_GATEWAY_MAC] = "off"
    vpn_gateway6_mac: Annotated[str, gateway_settings.VPN_GATEWAY6_MAC] = "off"
    vpn_gateway_table: Annotated[int, gateway_settings.VPN_GATEWAY_TABLE] = 100
    vpn_gateway_rule_prio: Annotated[int, gateway_settings.VPN_GATEWAY_RULE_PRIO] = 1000
    vpn_gateways_resolve_interval: Annotated[
        int, gateway_settings.VPN_GATEWAYS_RESOLVE_INTERVAL
    ] = 0
    vpn_gateways_resolve_timeout: Annotated[int, gateway_settings.VPN_GATEWAYS_RESOLVE_TIMEOUT] = 10
    exit_probe: Annotated[tuple[Endpoint, ...], gateway_settings.EXIT_PROBE] = (
        endpoints.EXIT_TARGETS
    )
    exit_probe_interval: Annotated[float, gateway_settings.EXIT_PROBE_INTERVAL] = 1.0
    exit_probe_failures: Annotated[int, gateway_settings.EXIT_PROBE_FAILURES] = 3
    exit_probe_successes: Annotated[int, gateway_settings.EXIT_PROBE_SUCCESSES] = 2
    forwarding: Annotated[Forwarding, gateway_settings.OCGATE_FORWARDING] = Forwarding.AUTO

    health_check_enabled: Annotated[bool | None, upkeep_settings.HEALTH_CHECK_ENABLED] = None
    health_check_egress: Annotated[tuple[HealthPath, ...], upkeep_settings.HEALTH_CHECK_EGRESS] = ()
    health_check_url: Annotated[tuple[str, ...] | None, upkeep_settings.HEALTH_CHECK_URL] = None
    cert_watch: Annotated[bool, upkeep_settings.CERT_WATCH] = False
    cert_watch_interval: Annotated[int, upkeep_settings.CERT_WATCH_INTERVAL] = 0
    session_history_file: Annotated[Path | None, upkeep_settings.SESSION_HISTORY_FILE] = None

    config_dir: Annotated[
        Path,
        Setting(
            "OCGATE_CONFIG_DIR",
            texts.DIRECTORY,
            PLACES,
            "Holds ocserv.conf, ocgate.toml, users and certificates. Empty: `ocgate run` "
            "initialises it.",
            "/srv/vpn",
            environment_only=True,
        ),
    ] = Path("/etc/ocserv")
    run_dir: Annotated[
        Path,
        Setting(
            "OCGATE_RUN_DIR",
            texts.DIRECTORY,
            PLACES,
            "Holds the effective ocserv.conf, sockets and pid files; best on a tmpfs.",
            "/run/vpn",
        ),
    ] = Path("/run/ocgate")

    log_format: Annotated[LogFormat, log_settings.OCGATE_LOG_FORMAT] = LogFormat.HUMAN
    log_level: Annotated[LogLevel, log_settings.OCGATE_LOG_LEVEL] = LogLevel.INFO

    url: Annotated[
        str | None,
        Setting(
            "OCGATE_URL",
            texts.URL,
            FIRST_START,
            "Under which address clients reach the server. Goes into the certificate and into "
            "the lines that tell how to connect.",
            "https://vpn.example.org",
            unset="the address of the default route's interface",
        ),
    ] = None
    user: Annotated[
        str,
        Setting(
            "OCGATE_USER",
            texts.USER,
            FIRST_START,
            "Name of the user that is made when the config dir is initialised.",
            "alice",
        ),
    ] = "vpn"
    password: Annotated[
        SecretStr | None,
        Setting(
            "OCGATE_PASSWORD",
            texts.PASSWORD,
            FIRST_START,
            "Password of that user.",
            "correct horse battery staple",
            unset="a random one, shown once",
            secret=True,
        ),
    ] = None

    @model_validator(mode="after")
    def _agree(self) -> Self:
        found = contradictions(self)
        if found:
            raise Rejected(*found)
        return self

    @property
    def gateway_mode(self) -> bool:
        """Whether an exit is written for either family, be it `direct`."""
        return self.vpn_gateway is not None or self.vpn_gateway6 is not None

    @property
    def exit4(self) -> Upstream:
        """By what the clients' IPv4 leaves in gateway mode."""
        return self.vpn_gateway or gateways.DIRECT

    @property
    def exit6(self) -> Upstream | None:
        """By what the clients' IPv6 leaves in gateway mode; None: as without gateway mode."""
        if self.vpn_gateway6 is not None:
            return self.vpn_gateway6
        if self.vpn_gateway is None or self.vpn_gateway.kind is UpstreamKind.DIRECT:
            return None
        return gateways.BLOCK

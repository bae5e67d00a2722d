"""From the operator's environment to a stage: what is copied, which way clients may leave.

The ways are derived here from the operator's words alone, not asked of the planner: a proof that
takes its expectation from what it proves proves less.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ocgate.config.choices import Forwarding
from ocgate.config.gateways import Upstream as Asked
from ocgate.config.gateways import UpstreamKind
from ocgate.config.load import Loaded
from ocgate.config.macs import LEARN
from ocgate.config.model import Settings
from ocgate.config.values import NOTHING
from ocgate.errors import ConfigurationError, MissingRequirement
from ocgate.kernel import facts as machine
from ocgate.netlab import namespace
from ocgate.plan.exits import ExitKind
from ocgate.plan.facts import Facts, Family, Network
from ocgate.plan.ipv6 import Ipv6Path
from ocgate.prove.clients import Clients
from ocgate.prove.engine import PACKETS, Engine
from ocgate.prove.fault import Need
from ocgate.prove.gateway import OCSERV_CONF, Gateway
from ocgate.prove.internet import Internet
from ocgate.prove.outcome import Guarded
from ocgate.prove.ring import Captures, Ring, Way
from ocgate.prove.stage import Stage
from ocgate.prove.subject import Subject, Ways
from ocgate.prove.traffic import Traffic
from ocgate.prove.tun import TUN
from ocgate.prove.twin import Twin, Wanted, twin
from ocgate.prove.verdict import WITNESS, Judge
from ocgate.prove.world import Furnish, World
from ocgate.server.desired.flow_ports import is_exclusive
from ocgate.server.desired.prepare import Ipv6Egress, Prepared, prepare, problems
from ocgate.server.desired.sources import DEFAULT_CONFIG_DIR, Sources, loaded, read

# Health moves as fast as probes tell, and a default run has fifty changes of it.
QUICK = {"EXIT_PROBE_INTERVAL": "0.1", "IPV6_PROBE_INTERVAL": "1"}
# The twin's sessions are not the operator's.
APART = {"SESSION_HISTORY_FILE": "off", "CERT_WATCH": "0", "CERT_WATCH_INTERVAL": "0"}

_FLAGS = (
    "For `prove` only: docker run --cap-add SYS_ADMIN (and, where AppArmor guards containers, "
    "--security-opt apparmor=unconfined)"
)

_KINDS = {
    UpstreamKind.DIRECT: ExitKind.DIRECT,
    UpstreamKind.BLOCK: ExitKind.BLOCK,
    UpstreamKind.GATEWAY: ExitKind.GATEWAY,
}


@dataclass(frozen=True)
class Asks:
    """One configuration to prove. environ: what `run` gets."""

    environ: Mapping[str, str]
    settled: Loaded
    sources: Sources

    @property
    def settings(self) -> Settings:
        return self.settled.settings

    @property
    def wanted(self) -> tuple[Wanted, ...]:
        """The gateways."""
        given: tuple[tuple[Family, Asked | None], ...] = (
            (4, self.settings.vpn_gateway),
            (6, self.settings.vpn_gateway6),
        )
        return tuple(
            Wanted(family, asked.address, asked.name)
            for family, asked in given
            if asked is not None and asked.kind is UpstreamKind.GATEWAY
        )


def asks(environ: Mapping[str, str]) -> Asks:
    """Read and check it as `run` does; raises ConfigurationError."""
    quick = {**environ, **QUICK, **APART}
    settled = loaded(quick)
    if pinned := _pinned(settled.settings):  # the twin's upstreams have MAC addresses of their own
        quick |= dict.fromkeys(pinned, LEARN)
        settled = loaded(quick)
    return Asks(quick, settled, read(settled))


def as_on(asked: Asks, facts: Facts) -> Asks:
    """The same, forwarding as `auto` means it on that machine: the twin's namespaces are no
    machine's first."""
    if not asked.settings.gateway_mode:
        return asked
    mode = Forwarding.EXCLUSIVE if is_exclusive(asked.sources, facts) else Forwarding.SHARED
    return asks({**asked.environ, "OCGATE_FORWARDING": mode.value})


def _pinned(settings: Settings) -> tuple[str, ...]:
    """The variables that hold a gateway to a MAC address."""
    given = {
        "VPN_GATEWAY_MAC": settings.vpn_gateway_mac,
        "VPN_GATEWAY6_MAC": settings.vpn_gateway6_mac,
    }
    return tuple(name for name, value in given.items() if value != NOTHING)


def guarded(asked: Asks) -> Guarded:
    """What its report has to say of it; `asked` as on the machine (`as_on`)."""
    settings = asked.settings
    shared = settings.gateway_mode and settings.forwarding is Forwarding.SHARED
    return Guarded(policy_routing=settings.gateway_mode, shared=shared)


def require_machine() -> None:
    """What a proof needs beside the programs of `run`; raises MissingRequirement."""
    if os.geteuid() != 0:
        raise MissingRequirement("ocgate prove must be root", hint="sudo ./ocgate prove")
    if not TUN.exists():
        raise MissingRequirement(
            f"{TUN} is not there", hint="docker run --device /dev/net/tun; on a host: modprobe tun"
        )
    try:
        with namespace.isolated():
            pass
    except (OSError, AssertionError) as error:
        raise MissingRequirement(
            f"network namespaces can't be made here: {error}",
            hint=_FLAGS,
        ) from error
    _require_mounts()


def _require_mounts() -> None:
    """The twin's ocgate has mounts of its own; a container may lack the right to make them."""
    argv = ["unshare", "--mount", "--propagation", "slave", "--"]
    argv += ["mount", "-t", "sysfs", "sysfs", "/sys"]
    with namespace.isolated() as netns:
        done = netns.run(argv, check=False)
    if done.returncode:
        raise MissingRequirement(
            f"mounts of its own can't be made here: {done.stderr.strip()}", hint=_FLAGS
        )


def observed(sources: Sources) -> Facts:
    """This machine's network, as `run` would see it."""
    return machine.observe(session_prefix=sources.synced.device)


def ways(settings: Settings, prepared: Prepared, drawing: Twin) -> Ways:
    """Which way each family may leave, from what is asked alone; what IPv6 does without a gateway
    (translated, routed, rejected) is the IPv6 decision's.

    prepared: as if IPv6 egress were there, since it may come while we look.  drawing: by its
    default routes a family is answered whose exit is this host.
    """
    plain6 = ExitKind.BLOCK if prepared.decision.path is Ipv6Path.REJECTED else ExitKind.DIRECT
    four, six = settings.vpn_gateway, settings.vpn_gateway6
    exit4 = _KINDS[four.kind] if four else ExitKind.DIRECT
    if six is not None:
        exit6 = _KINDS[six.kind]
        exit6 = plain6 if exit6 is ExitKind.DIRECT else exit6
    elif four is not None and four.kind is not UpstreamKind.DIRECT:
        exit6 = ExitKind.BLOCK
    else:
        exit6 = plain6
    routed = exit6 is ExitKind.DIRECT and prepared.decision.path is Ipv6Path.ROUTED
    return Ways(
        exit4,
        exit6,
        translated6=not routed,
        answered=_answered(exit4, exit6, drawing),
        policy_routing=settings.gateway_mode,
    )


def _answered(exit4: ExitKind, exit6: ExitKind, drawing: Twin) -> frozenset[Family]:
    """A gateway of the twin answers always; this host where it has a way out."""
    found: set[Family] = set()
    exits: tuple[tuple[Family, ExitKind], ...] = ((4, exit4), (6, exit6))
    for family, kind in exits:
        if kind is ExitKind.GATEWAY or (kind is ExitKind.DIRECT and drawing.reaches_out(family)):
            found.add(family)
    return frozenset(found)


@contextlib.contextmanager
def staged(
    asked: Asks,
    facts: Facts,
    *,
    packets: int = PACKETS,
    pcap: Path | None = None,
    furnish: Furnish | None = None,
) -> Iterator[Engine]:
    """A twin of these facts with the real `ocgate run` in it, and the engine to break it.

    furnish: what the upstreams are, see `World`."""
    asked = as_on(asked, facts)
    refused = problems(prepare(asked.sources, facts, Ipv6Egress(None)))
    if refused:
        raise ConfigurationError(refused)
    drawing = drawn(asked, facts)
    with World(drawing, furnish=furnish) as world:
        with world.gw.entered():
            seen = machine.observe(session_prefix=asked.sources.synced.device)
        without = None if drawing.reaches_out(6) else "no IPv6 default route"
        subject = Gateway(
            world,
            asked.settled,
            prepare(asked.sources, seen, Ipv6Egress(without)),
            ways(asked.settings, prepare(asked.sources, seen, Ipv6Egress(None)), drawing),
            asked.environ,
            resolver=str(drawing.resolver),
        )
        engine = engine_of(world, subject, packets=packets, pcap=pcap)
        engine.guarded = guarded(asked)
        yield engine


def drawn(asked: Asks, facts: Facts) -> Twin:
    """The twin for this configuration."""
    agreed = asked.sources.synced
    clients: list[Network] = [*agreed.subnets4, *agreed.subnets6]
    networks = [(found.network, found.device) for found in asked.settings.networks]
    return twin(facts, asked.wanted, clients, agreed.device, networks)


def engine_of(
    world: World, subject: Subject, *, packets: int = PACKETS, pcap: Path | None = None
) -> Engine:
    """Clients, internet and captures around a subject; all of it ends with the world."""
    drawing = world.twin
    rings = [Ring(world.gw, WITNESS, Way.OUT)]
    roles = ("isp", "neighbour", *(up.role for up in drawing.upstreams))
    rings += [Ring(world.spaces[role], role, Way.IN) for role in roles]
    captures = Captures(rings)
    world.callback(captures.close)
    internet = Internet(world.internets)
    world.callback(internet.close)
    traffic = Traffic()
    world.callback(traffic.close)
    stage = Stage(world, subject, Clients(world, subject, traffic), traffic, internet)
    judge = Judge(
        subject.ways,
        subject.nets.subnets,
        drawing.services,
        drawing.foreign,
        {up.role: up.family for up in drawing.upstreams},
        [(net, segment.number) for net, segment in drawing.networks],
    )
    return Engine(stage, captures, judge, packets=packets, pcap=pcap)


def has(stage: Stage) -> frozenset[Need]:
    """Which needs of faults this stage meets."""
    upstreams = stage.twin.upstreams
    found = {
        Need.GATEWAY: bool(upstreams),
        Need.POLICY_ROUTING: stage.subject.ways.policy_routing,
        Need.NAME: any(up.name for up in upstreams),
        Need.IPV6: any(net.version == 6 for net in stage.subject.nets.subnets),
        Need.REPAIRS: stage.subject.repairs,
        Need.PINNED: bool(stage.subject.pinned),
        Need.UNPINNED: not stage.subject.pinned,
        Need.NETWORK: bool(stage.twin.networks),
    }
    return frozenset(need for need, met in found.items() if met)


@contextlib.contextmanager
def config_dir(environ: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """The environment with a config dir that holds a configuration: the operator's; where it is
    empty, a scratch one that `init` fills as a first start would."""
    named = Path(environ.get("OCGATE_CONFIG_DIR", "").strip() or DEFAULT_CONFIG_DIR)
    if (named / OCSERV_CONF).exists():
        yield dict(environ)
        return
    with tempfile.TemporaryDirectory(prefix=namespace.next_prefix()) as scratch:
        from ocgate.server.first_start import initialise_if_empty

        made = {**environ, "OCGATE_CONFIG_DIR": scratch}
        Path(scratch).chmod(0o755)  # ocserv's workers run as nobody and pass through here
        initialise_if_empty(loaded(made).settings)
        yield made

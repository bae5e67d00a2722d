"""`ocgate exit`: everything up to the moment where supervision begins.

    init-config       settings, the tunnel's configuration, this machine     exit 2 or 1
    init-killswitch   device, switch, routes: closed, applied, verified      exit 1 where it can't
    exec              s6-svscan, which starts control; control starts the tunnel's client

The switch of a former run stands until this one's replaces it in one transaction, and it goes on
standing, closed, when this one stops.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from ocgate import supervision
from ocgate.config.exit_choices import Mac
from ocgate.config.load import DEFAULT
from ocgate.config.origin import ENVIRONMENT, Origin
from ocgate.errors import MissingRequirement
from ocgate.exit_node import hooks, services
from ocgate.exit_node.intent import intent_of
from ocgate.exit_node.kind import Kind
from ocgate.exit_node.kinds import kind_of
from ocgate.exit_node.reconciler import CLOSED, intent_now
from ocgate.exit_node.record import forget_record
from ocgate.exit_node.requirements import require_client, require_namespace, with_wireguard
from ocgate.exit_node.sources import Sources, read, secret_variables, write_snapshot
from ocgate.kernel import mac, namespace_lock, sysctl
from ocgate.kernel.apply import apply, read_table
from ocgate.kernel.nft import Nft
from ocgate.names import NFT_TABLE_EXIT
from ocgate.plan.facts import Facts
from ocgate.runtime import log as logs
from ocgate.runtime import run_dir
from ocgate.tunnel import killswitch, routing
from ocgate.tunnel.model import ExitIntent


def run(environ: Mapping[str, str]) -> NoReturn:
    """Serve until a signal. Raises OcgateError before anything is let out; its exit code says which
    kind."""
    sources = read(environ)
    settings = sources.settings
    logs.configure(settings.log_format, settings.log_level)
    log = logs.stage("init-config")
    origin = Origin(ENVIRONMENT) if run_dir.KEY in environ else DEFAULT
    run_dir.require(settings.run_dir, origin)
    facts = require_namespace(sources)
    named = ("exit", settings.kind.value, settings.run_dir)
    lock = namespace_lock.held(*named, leftover=lambda: supervision.is_left_over(settings.run_dir))
    sources = with_wireguard(sources)
    kind = kind_of(sources)
    require_client(kind)
    if kind.uid is not None:
        run_dir.require_passage(settings.run_dir, origin)
    for notice in (*sources.notices, *kind.notices):
        log.warning(notice)
    directory = settings.run_dir
    with run_dir.writing(directory):
        _write_run_dir(directory, sources, origin)
    lock = lock or namespace_lock.required(*named)
    log.info("configuration checked", kind=kind.name, servers=len(kind.remotes()) or "to be listed",
             run_dir=str(directory))  # fmt: skip
    _init_killswitch(directory, sources, kind, facts)
    for name in secret_variables():  # kept in the run dir, 0600; `ps e` by root need not show them
        os.environ.pop(name, None)
    supervision.exec_supervisor(directory, hand_on=lock.hand_on)


def _write_run_dir(directory: Path, sources: Sources, origin: Origin) -> None:
    """Everything that control, the client and its hook will find there. Refuses to take over the
    run dir of an ocgate that is running."""
    run_dir.make(directory, origin)
    services.write(directory, python=sys.executable, log_format=sources.settings.log_format)
    forget_record(directory)
    hooks.install(directory)
    write_snapshot(directory, sources)


def _init_killswitch(directory: Path, sources: Sources, kind: Kind, facts: Facts) -> None:
    """Apply and verify; on failure what stood before is left standing."""
    log = logs.stage("init-killswitch")
    if said := routing.said_of(facts.rules):
        if routing.first_priority(facts.rules) is None:
            raise MissingRequirement(said, hint="an exit's rules must be the first to be asked")
        log.warning(said)
    intent = intent_now(intent_of(sources.settings, kind), CLOSED, facts)
    renewed = to_be_renewed(intent, facts) if sources.settings.exit_mac is Mac.NEW else ()
    plan = killswitch.plan(intent)
    nft = Nft()
    if forwarded_before(nft):
        log.warning(
            "this network has forwarded since before the kill switch: what came in that half a "
            "second went on in clear",
            remedy="docker run --sysctl net.ipv4.ip_forward=0: an exit turns it on by itself",
        )
    with run_dir.writing(directory):
        apply(nft, plan, {}, run_dir=directory)
    for name in renewed:
        log.info("a new MAC address", device=name, mac=mac.renew(name))
    for table in plan.tables:
        rules = sum(len(chain.rules) for chain in table.chains)
        log.info(f"table inet {table.name} stands, closed", chains=len(table.chains), rules=rules)
    log.info(
        "only the tunnel leads out",
        device=intent.device,
        uplink=",".join(intent.uplinks) or "none",
        forward_from=",".join(map(str, intent.forward_from)) or "nobody",
        direct=",".join(map(str, intent.networks)) or "none",
        dns=intent.dns.value,
    )
    if not intent.uplinks:
        log.error("there is no default route: the VPN server is reached when there is one")
    for wish in sysctl.unmet(plan.sysctls):
        log.warning(f"may not set {wish.key}: {wish.reason}", remedy=f"docker run {wish.flag}")


def forwarded_before(nft: Nft) -> bool:
    """Whether neighbours' packets passed here with nothing to hold them: no switch of a former run
    stands, and forwarding is on."""
    on = sysctl.read("net.ipv4.ip_forward") == "1"
    return on and read_table(nft, NFT_TABLE_EXIT) is None


def to_be_renewed(intent: ExitIntent, facts: Facts) -> tuple[str, ...]:
    """The devices by which the networks of FORWARD_FROM come, in their order. Raises
    MissingRequirement where there is none: EXIT_MAC=new would protect nobody."""
    found = (
        link.device
        for link in facts.connected
        for net in intent.inside(link.network.version)
        if link.network.overlaps(net)
    )
    devices = tuple(dict.fromkeys(found))
    if not devices:
        raise MissingRequirement(
            "EXIT_MAC=new, but no network of FORWARD_FROM is attached here",
            hint="attach this container to that network, or write EXIT_MAC=keep",
        )
    return devices

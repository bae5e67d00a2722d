"""`ocgate run`: everything up to the moment where supervision begins.

    init-config   load, first start, read, check, render, `ocserv -t`      exit 2 where it is wrong
    init-nat      plan, apply, read back, verify                           exit 1 where it can't
    exec          s6-svscan, which starts control; control starts ocserv

All that can be refused is refused here, in the foreground, before anything listens; what was
applied by then is taken out again.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from ocgate.config.model import Settings
from ocgate.config.table import SECRETS
from ocgate.errors import MissingRequirement, OcgateError
from ocgate.kernel import conntrack, namespace_lock, routes, surroundings, sysctl
from ocgate.kernel.apply import apply
from ocgate.kernel.nft import Nft
from ocgate.names import SESSIONS
from ocgate.ocserv import services
from ocgate.ocserv.initial_conf import CONF
from ocgate.ocserv.initialise import Created
from ocgate.ocserv.releases import shown
from ocgate.plan.closing import REFLECT
from ocgate.plan.exits import ExitKind
from ocgate.plan.routing import RouteKind
from ocgate.runtime import log as logs
from ocgate.runtime import run_dir
from ocgate.server.desired.prepare import Prepared
from ocgate.server.desired.sources import Sources, loaded, read, write_egress, write_snapshot
from ocgate.server.exits.record import write_exits
from ocgate.server.first_start import initialise_if_empty
from ocgate.server.listen_ports import require_free
from ocgate.server.prepare_now import prepared_now, warned
from ocgate.server.reconcile import effective_conf
from ocgate.server.teardown import teardown
from ocgate.sessions.elements import NO_SESSIONS


def run(environ: Mapping[str, str], *, created: Callable[[Created], None]) -> NoReturn:
    """Serve until a signal; `created` shows, once, what a first start made.

    Raises OcgateError before anything listens; its exit code says which kind.
    """
    settled = loaded(environ)
    logs.configure(settled.settings.log_format, settled.settings.log_level)
    log = logs.stage("init-config")
    origin = settled.origin(run_dir.KEY)
    run_dir.require(settled.settings.run_dir, origin)
    _require_machine(settled.settings)
    lock = _lock(settled.settings)
    made = initialise_if_empty(settled.settings)
    if made is not None:
        created(made)
        settled = loaded(environ)  # ocgate.toml is there now
    sources = read(settled)
    prepared = prepared_now(sources)
    for notice in settled.notices:
        log.warning(notice)
    for warning in warned(prepared):
        log.warning(warning.text, code=warning.code, remedy=warning.remedy)
    _tell_release(log, sources)
    directory = settled.settings.run_dir
    with run_dir.writing(directory):
        _write_run_dir(directory, prepared)
    lock = lock or namespace_lock.required(*_named(settled.settings))
    log.info("configuration checked", conf=sources.document.source, run_dir=str(directory))
    _init_nat(directory, prepared)
    for line in SECRETS:  # used up by now; what follows, and `ps e` by root, need not have them
        for name in (line.setting.name, f"{line.setting.name}_FILE"):
            os.environ.pop(name, None)
    services.exec_supervisor(directory, hand_on=lock.hand_on)


def _lock(settings: Settings) -> namespace_lock.Lock | None:
    """This network's; None where it is free once a killed run's services have been ended, which
    only a sound configuration does."""
    return namespace_lock.held(
        *_named(settings), leftover=lambda: services.is_left_over(settings.run_dir)
    )


def _named(settings: Settings) -> tuple[str, str, Path]:
    return "server", str(settings.config_dir), settings.run_dir


def _write_run_dir(directory: Path, prepared: Prepared) -> None:
    """Everything that control, ocserv and its hooks will find there. Refuses to take over the run
    dir of an ocgate that is running."""
    run_dir.make(directory, prepared.sources.origin(run_dir.KEY))
    ocserv = _program("ocserv")
    services.write(
        directory,
        python=sys.executable,
        ocserv=ocserv,
        ocserv_arguments=services.logging_arguments(prepared.sources.release),
        log_format=prepared.sources.settings.log_format,
        ocserv_directory=prepared.sources.settings.config_dir,
    )
    require_free(prepared.sources.view)  # now that a killed run's ocserv has been ended
    shutil.rmtree(directory / SESSIONS, ignore_errors=True)
    effective_conf.put(effective_conf.validated(prepared, directory), prepared.sources, directory)
    write_snapshot(directory, prepared.sources)
    write_egress(directory, prepared.egress.failure)
    write_exits(directory, prepared.sources.settings, prepared.exits)


def _tell_release(log: logs.Log, sources: Sources) -> None:
    """What the ocserv at hand means for this configuration."""
    for meaning in sources.meanings:
        tell = log.warning if meaning.gravity.to_do else log.info
        said = f"ocserv {shown(sources.release)}: {meaning.text}"
        tell(said, code=meaning.code, remedy=meaning.remedy)


def _init_nat(directory: Path, prepared: Prepared) -> None:
    """Sweep what a former run left, apply, verify; on failure nothing of ours stays."""
    log = logs.stage("init-nat")
    try:
        nft = Nft()
        _forget_former_clients()
        swept = routes.sweep(prepared.plan.routes, prepared.plan.rules)
        lent = sysctl.put_back((wish.key for wish in REFLECT), run_dir=directory)
        swept += [f"sysctl {key}" for key in lent]
        with run_dir.writing(directory):
            apply(nft, prepared.plan, NO_SESSIONS, run_dir=directory)
    except OcgateError:
        teardown(directory)
        raise
    for what in swept:
        log.warning("removed what a former run left", what=what)
    for table in prepared.plan.tables:
        rules = sum(len(chain.rules) for chain in table.chains)
        log.info(f"table inet {table.name} stands", chains=len(table.chains), rules=rules)
    _tell_ways(log, prepared)
    _tell_exits(logs.stage("init-vpngw"), prepared)


def _forget_former_clients() -> None:
    """Flows of sessions that a killed run left, found by its blackholes and before these go. What
    still comes for such a flow is translated to a client's address, which the new rules, of another
    subnet, do not know: it would follow the default route in clear."""
    with routes.Routing() as door:
        former = {route.prefix for route in door.routes() if route.kind is RouteKind.BLACKHOLE}
    conntrack.delete_of_networks(former)


def _tell_ways(log: logs.Log, prepared: Prepared) -> None:
    intent, decision = prepared.intent, prepared.decision
    if intent.steering is None:  # of gateway mode init-vpngw tells
        if intent.wan4:
            log.info("clients are masqueraded", wan_if=intent.wan4.name,
                     subnets=",".join(str(net) for net in intent.subnets4))  # fmt: skip
        else:
            log.error("there is no default route: clients are rejected until there is one")
    tell = log.error if decision.loud else log.info
    tell(f"IPv6: {decision.word}", why=decision.why)
    for wish in sysctl.unmet(prepared.plan.sysctls):
        log.warning(f"may not set {wish.key}: {wish.reason}", remedy=f"docker run {wish.flag}")


def _tell_exits(log: logs.Log, prepared: Prepared) -> None:
    steering = prepared.intent.steering
    if steering is None:
        log.info("no gateway: clients leave by WAN_IF")
        return
    for way in (steering.exit4, steering.exit6):
        said = {"kind": way.kind.value, "gateway": str(way.gateway or "none"),
                "device": way.device or "none"}  # fmt: skip
        if way.kind is ExitKind.DIRECT and way.family == 6 and not prepared.decision.loud:
            continue  # as asked, and init-nat has told it
        if way.closed:
            log.warning(f"IPv{way.family}: clients are rejected", why=way.closed, **said)
        else:
            log.info(f"IPv{way.family}: exit", **said)
    log.info("policy rules stand", table=steering.table, priority=steering.priority,
             forwarding="exclusive" if steering.exclusive else "shared")  # fmt: skip


def _require_machine(settings: Settings) -> None:
    """What neither the configuration nor the packages can give, all of it at once."""
    if os.geteuid() != 0:
        raise MissingRequirement("ocgate run must be root", hint="sudo ./ocgate run")
    directory = settings.config_dir
    first_start = not (directory / CONF).exists()
    surroundings.require(settings.run_dir, directory if first_start else None)


def _program(name: str) -> str:
    """Absolute path of a program."""
    found = shutil.which(name, path=f"{os.defpath}:/usr/sbin:/sbin:/usr/local/sbin")
    if found is None:
        raise MissingRequirement(f"{name} is not installed", hint=f"apt-get install {name}")
    return found

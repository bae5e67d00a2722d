"""The control plane's process: everything wired together, supervised by s6 beside ocserv.

    adopt live sessions -> apply and verify the plan -> open hook socket -> start ocserv
    then: kernel events -> look again; probe -> IPv6; hooks -> gatekeeper; ocgate status

It may be killed at any moment: the kernel keeps the rules, ocserv its sessions, the run dir what
is in force. SIGTERM ends it without touching either; taking everything down is `teardown`'s job.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from ocgate.config.model import Settings
from ocgate.errors import ConfigurationError, OcgateError
from ocgate.kernel import process
from ocgate.kernel.facts import observe
from ocgate.kernel.nft import Nft
from ocgate.kernel.watch import Topic, Watch
from ocgate.names import CONTROL_SOCKET
from ocgate.ocserv import services
from ocgate.plan.exits import Exits
from ocgate.plan.facts import Facts
from ocgate.runtime import log as logs
from ocgate.runtime.control_socket import ControlSocket
from ocgate.runtime.pid_file import keep_pid
from ocgate.runtime.rate_limited_log import RateLimitedLog
from ocgate.runtime.records import Records
from ocgate.runtime.run_dir import writing
from ocgate.runtime.shortages import LACKS, ended_by, lasting, start_threads, words
from ocgate.server.admission.gatekeeper import Domain, Gatekeeper, left_out
from ocgate.server.admission.journal import Journal
from ocgate.server.admission.tunnel_groups import Tunnels
from ocgate.server.certificates.watch import CertWatch
from ocgate.server.desired.prepare import (
    Ipv6Egress,
    Prepared,
    depends_on_egress,
    prepare,
    problems,
    standing,
)
from ocgate.server.desired.sources import (
    Sources,
    read_egress,
    read_snapshot,
    reread,
    stage_snapshot,
)
from ocgate.server.desired.steering import learning
from ocgate.server.exits.record import read_exits
from ocgate.server.exits.watch import ExitWatch
from ocgate.server.history.writer import History
from ocgate.server.reconcile.effective_conf import EffectiveConf, needs_restart
from ocgate.server.reconcile.ipv6_egress import EgressWatch, keep_egress, probed
from ocgate.server.reconcile.reconciler import Reconciler
from ocgate.server.status import collect, explain
from ocgate.sessions.protocol import ADMITTED, LEARN_MAC, OK, refused_reply
from ocgate.sessions.table import SessionTable

# Events are lossless as far as the kernel is; this look catches what no event tells (a sysctl
# that was written by hand) and sessions whose end nobody reported.
UNPROMPTED_LOOK = 60.0  # seconds

# After a repair that did not succeed: another's commit may have come between ours and its
# read-back, and have been taken for ours.
UNSETTLED_LOOK = 1.0  # seconds

log = logs.stage("svc-control")


class Control:
    """One control plane, from start to SIGTERM."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.started_at, self._began = time.time(), time.monotonic()
        self.nft = Nft()
        self.table = SessionTable()
        self.snapshot = read_snapshot(run_dir)
        self.conf = EffectiveConf(run_dir)
        egress = Ipv6Egress(read_egress(run_dir))
        exits = read_exits(run_dir, self.snapshot.settings)
        self.records = Records()
        self.reconciler = Reconciler(
            self.nft, run_dir, self.table, self.conf, egress, exits, records=self.records
        )
        self.journal = Journal(run_dir)
        self.history = History(run_dir, self._history_file, self._exit)
        self.gatekeeper = Gatekeeper(
            self.table, self.reconciler.writer, self.journal, self._domain, self.history
        )
        self.egress = EgressWatch(self.reconciler, run_dir, self.records)
        self.exits = ExitWatch(self.reconciler, run_dir, records=self.records)
        self.tunnels = Tunnels(self.table, self.reconciler.repairs)
        self.certificates = CertWatch(self.conf, run_dir, lambda: self.reconciler.prepared)
        self._observed = collect.Observed(
            run_dir,
            self.started_at,
            self.nft,
            self.reconciler,
            self.table,
            self.history,
            self.certificates,
            self.exits.statuses,
            self._wants,
        )
        handlers: Mapping[str, Callable[[Mapping[str, bytes]], Awaitable[bytes]]] = {
            "connect": self._connect,
            "disconnect": self._disconnect,
            "refused": self._disconnect,
            "status": self._status,
            "health": self._health,
            "metrics": self._metrics,
            "reload": self._reload,
            "explain": self._explain,
        }
        self._next_look = time.monotonic() + UNPROMPTED_LOOK
        self._complaints = RateLimitedLog(log, "the kernel's state can't be brought to the plan")
        self._unreachable = RateLimitedLog(
            log, "the server can't be started, or its hooks not heard"
        )
        self._watching = RateLimitedLog(log, "what goes on beside the guard stands still")
        self.control_socket = ControlSocket(run_dir / CONTROL_SOCKET, handlers)

    async def serve(self) -> None:
        """Until SIGTERM."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await start_threads()
        # Listens before the first observation, so that nothing falls between the two.
        watch = Watch(session_prefix=self.snapshot.synced.device, is_own=self.nft.is_own)
        async with asyncio.TaskGroup() as tasks:
            await self._start()
            running = [
                tasks.create_task(job)
                for job in (
                    self._receive(),
                    self._follow(watch),
                    lasting(self.egress.run, self._watching),
                    self.exits.run(),
                    lasting(self.history.run, self._watching),
                    lasting(self.certificates.run, self._watching),
                    self._unprompted(),
                    self.tunnels.run(),
                )
            ]
            await stop.wait()
            for task in running:
                task.cancel()
        watch.close()
        await self.control_socket.close()
        await self.history.close(self.gatekeeper.dead())

    async def _start(self) -> None:
        for session in self.journal.read():
            self.gatekeeper.adopt(session)
        reconciler = self.reconciler
        await reconciler.start(
            await self._prepared(self.snapshot, reconciler.egress, reconciler.exits)
        )

    async def _receive(self) -> None:
        """Open the socket, have ocserv started, and keep the socket where hooks find it."""
        started = False
        while True:
            try:
                if not self.control_socket.is_there:
                    await self.control_socket.open()
                    self._ready()
                if not started:
                    await asyncio.to_thread(services.start_ocserv, self.run_dir)
                    started = True
                self._unreachable.over()
            except (OcgateError, *LACKS) as error:
                self._unreachable.tell(words(error))
            await asyncio.sleep(UNSETTLED_LOOK)

    def _ready(self) -> None:
        keep_pid(self.run_dir, self.records)
        seconds = round(time.monotonic() - self._began, 3)
        log.info("control plane ready", sessions=len(self.table), seconds=seconds)

    async def _prepared(self, sources: Sources, egress: Ipv6Egress, exits: Exits) -> Prepared:
        strays = self.reconciler.strays
        return prepare(sources, await _facts(sources), egress, exits, strays=strays)

    async def _follow(self, watch: Watch) -> None:
        async for look in watch:
            try:
                if look.overflow:
                    await self.gatekeeper.sweep()
                for device in look.gone:
                    await self.gatekeeper.device_gone(device)
            except (OcgateError, *LACKS) as error:  # the next sweep ends what is left
                self._watching.tell(words(error))
            if look.left:
                self.tunnels.left(look.left)
            pinned = self.reconciler.prepared.plan.neighbours  # else no plan depends on neighbours
            if look.topics - (set() if pinned else {Topic.NEIGHBOUR}):
                self.egress.nudge()
                await self._look(by=", ".join(dict.fromkeys(c.process for c in look.commits)))
            if look.topics:  # after the look, whose facts the watch judges by
                self.exits.nudge()

    async def _unprompted(self) -> None:
        while True:
            await asyncio.sleep(UNSETTLED_LOOK)
            self.records.retry()
            due = (
                self.reconciler.unsettled
                or self.reconciler.writer.unsettled
                or self.conf.is_missing
            )
            if not (due or self.reconciler.is_due) and time.monotonic() < self._next_look:
                continue
            self._next_look = time.monotonic() + UNPROMPTED_LOOK
            try:
                await self.gatekeeper.sweep()
            except (OcgateError, *LACKS) as error:
                self._watching.tell(words(error))
            await self._look()

    async def _look(self, *, by: str = "") -> None:
        try:
            await self.reconciler.look(by=by)
        except (OcgateError, *LACKS) as error:
            self.reconciler.unsettled = True
            self._complaints.tell(words(error))
        else:
            self._complaints.over()

    def _wants(self) -> list[str]:
        """What control can't do just now, a sentence each."""
        found = [
            self._complaints.standing,
            self._unreachable.standing,
            self._watching.standing,
            self.tunnels.complaints.standing,
            self.exits.complaints.standing,
            self.records.complaints.standing,
            self.conf.trouble,
            self.control_socket.trouble,
        ]
        return [why for why in found if why]

    def _history_file(self) -> Path | None:
        return self._settings.session_history_file

    def _exit(self) -> str:
        return str(self._settings.exit4)

    @property
    def _settings(self) -> Settings:
        """Those in force; the snapshot's while the first plan is made."""
        started = self.reconciler.is_started
        return (self.reconciler.prepared.sources if started else self.snapshot).settings

    def _domain(self) -> Domain:
        prepared = self.reconciler.prepared
        intent, sources = prepared.intent, prepared.sources
        shared = intent.steering is not None and not intent.steering.exclusive
        return Domain(
            intent.device,
            prepared.subnets,
            intent.prefix6,
            strict=shared,
            explicit=sources.explicit_now,
        )

    async def _connect(self, fields: Mapping[str, bytes]) -> bytes:
        why = await self.gatekeeper.connect(fields)
        return ADMITTED if why is None else refused_reply(why)

    async def _disconnect(self, fields: Mapping[str, bytes]) -> bytes:
        await self.gatekeeper.disconnect(fields)
        return OK

    async def _status(self, _fields: Mapping[str, bytes]) -> bytes:
        return json.dumps(await collect.collect(self._observed)).encode()

    async def _health(self, _fields: Mapping[str, bytes]) -> bytes:
        return json.dumps(await collect.health(self._observed)).encode()

    async def _metrics(self, _fields: Mapping[str, bytes]) -> bytes:
        return await collect.metrics(self._observed)

    async def _explain(self, fields: Mapping[str, bytes]) -> bytes:
        return explain.answer(self.reconciler.prepared, self.table, fields)

    async def _reload(self, fields: Mapping[str, bytes]) -> bytes:
        try:
            sources = await asyncio.to_thread(reread, dict(os.environ))
            if LEARN_MAC in fields and not learning(sources.settings):
                raise OcgateError(
                    "--learn-mac: neither VPN_GATEWAY_MAC nor VPN_GATEWAY6_MAC is learn"
                )
            await self._accept(sources)
        except (OcgateError, *LACKS) as error:
            why = words(error)
            log.error("reload refused, nothing changed", why=why)
            return b"refused\n" + why.encode("utf-8", "replace") + b"\n"
        if LEARN_MAC in fields:
            await self.exits.learn_anew()
        log.info("reloaded")
        return OK

    async def _accept(self, sources: Sources) -> None:
        """Put new sources in force: everything is checked before anything is changed."""
        egress = await self._egress_for(sources)
        facts = await _facts(sources)
        exits = await self.exits.resolved(sources, facts)
        prepared = prepare(sources, facts, egress, exits, strays=self.reconciler.strays)
        former = self.reconciler.prepared
        kept = standing(former, prepared, self.reconciler.egress, self.reconciler.exits)
        found = [problem for problem in problems(prepared) if problem not in kept]
        found += [*needs_restart(former.sources, sources), *left_out(self.table, prepared)]
        if found:
            raise ConfigurationError(found)
        for problem in kept:
            log.warning("a reload leaves as it was what can't work now", problem=str(problem))
        with writing(self.run_dir):
            snapshot = stage_snapshot(self.run_dir, sources)  # what a restart comes back with
        try:
            await self.conf.replace(prepared)
            try:
                async with self.exits.held():
                    await self.reconciler.look(sources=sources, egress=egress, exits=exits)
            except (OcgateError, *LACKS):
                self.reconciler.unsettled = True  # what the kernel has taken of it is put back
                await self.conf.replace(former, renew=False)
                raise
        except BaseException:
            snapshot.drop()
            raise
        snapshot.put()
        for session in tuple(self.table):  # let in while the above was being done
            if session.outside(prepared.subnets):
                await self.gatekeeper.end(session, "its subnet was taken away by a reload")
        keep_egress(self.run_dir, egress.failure, self.records)
        self.certificates.reloaded()

    async def _egress_for(self, sources: Sources) -> Ipv6Egress:
        """Probed where nothing depended on it before the reload; what is watched is known."""
        if depends_on_egress(self.reconciler.prepared.sources) or not depends_on_egress(sources):
            return self.reconciler.egress
        return await probed(sources.settings.ipv6_probe)


async def _facts(sources: Sources) -> Facts:
    return await asyncio.to_thread(observe, session_prefix=sources.synced.device)


def main() -> int:
    """`python -m ocgate.server.daemon RUN_DIR`: exit 1 where the guard can't be installed."""
    run_dir = Path(sys.argv[1])
    process.raise_files_limit()
    gc.freeze()  # what the imports made stays: 10,000 sessions' garbage runs need not walk it
    try:
        control = Control(run_dir)
        settings = control.snapshot.settings
        logs.configure(settings.log_format, settings.log_level)
        asyncio.run(control.serve())
    except Exception as error:
        return ended_by(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())

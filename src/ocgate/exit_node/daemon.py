"""The exit's control: everything wired together, supervised by s6 beside the tunnel's client.

    adopt the tunnel, or close -> open the socket -> run the machine
    then: kernel events -> look again; probes; the client's hooks; status, reload

It may be killed at any moment: the kernel keeps the switch, the client its tunnel, the run dir what
is in force. SIGTERM ends it without touching either; closing is `teardown`'s job.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from ocgate.errors import OcgateError
from ocgate.exit_node import status
from ocgate.exit_node.client import Client
from ocgate.exit_node.intent import intent_of
from ocgate.exit_node.kinds import Provided, kind_of
from ocgate.exit_node.lookups import Lookups
from ocgate.exit_node.prober import Prober
from ocgate.exit_node.reconciler import NO_SESSIONS, Reconciler
from ocgate.exit_node.record import read_record
from ocgate.exit_node.runner import Runner
from ocgate.exit_node.server_list import Servers
from ocgate.exit_node.sources import read_snapshot, reread, write_snapshot
from ocgate.exit_node.state_machine import Listed
from ocgate.kernel import process
from ocgate.kernel.nft import Nft
from ocgate.kernel.watch import Topic, Watch
from ocgate.names import CONTROL_SOCKET, NFT_TABLE_EXIT, TUNNEL_UID
from ocgate.plan.carried import CAME_BACK
from ocgate.runtime import log as logs
from ocgate.runtime.carried import Carried
from ocgate.runtime.control_socket import HOOK_PID, ControlSocket, Guest
from ocgate.runtime.pid_file import keep_pid
from ocgate.runtime.rate_limited_log import RateLimitedLog
from ocgate.runtime.records import Records
from ocgate.runtime.run_dir import writing
from ocgate.runtime.shortages import LACKS, ended_by, lasting, start_threads, words
from ocgate.sessions.protocol import OK, refused_reply
from ocgate.tunnel.reasons import SENT
from ocgate.upstream.line import Pace

# As the server's control: what no event tells is looked for once a minute, and a repair that did
# not succeed is tried again after a second.
UNPROMPTED_LOOK = 60.0  # seconds
UNSETTLED_LOOK = 1.0  # seconds

# Loads change by the minute, but matter when a server is chosen: a list of this morning serves.
# An API that does not answer is left alone for an hour.
RELIST_AFTER, RELIST_POLL, RELIST_RETRY = 6 * 3600.0, 60.0, 3600.0  # seconds

# The client may tell what its server gave it, and nothing else.
_GUEST = Guest(TUNNEL_UID, frozenset({"tunnel"}))

log = logs.stage("svc-control")


class Control:
    """One control, from start to SIGTERM."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.started_at, self._began = time.time(), time.monotonic()
        self.nft = Nft()
        self.sources = read_snapshot(run_dir)
        settings = self.sources.settings
        self.kind = kind_of(self.sources)
        self.reconciler = Reconciler(self.nft, run_dir, intent_of(settings, self.kind))
        self.servers = self._servers(settings.cache_dir)
        self.records = Records()
        self.runner = Runner(
            run_dir,
            self.kind,
            self.reconciler,
            Client(run_dir),
            Lookups(self.reconciler, servers=self.servers),
            rotate=settings.exit_rotate,
            records=self.records,
        )
        self.prober = Prober(
            self.runner,
            self.kind.device,
            settings.exit_probe,
            Pace(
                settings.exit_probe_interval,
                settings.exit_probe_failures,
                settings.exit_probe_successes,
            ),
            look=Carried(NFT_TABLE_EXIT, sent=SENT, came_back=CAME_BACK).look,
        )
        handlers: Mapping[str, Callable[[Mapping[str, bytes]], Awaitable[bytes]]] = {
            "tunnel": self._tunnel,
            "ended": self._ended,
            "status": self._status,
            "health": self._health,
            "metrics": self._metrics,
            "reload": self._reload,
        }
        self._observed = status.Observed(
            run_dir,
            self.started_at,
            self.nft,
            self.kind,
            self.reconciler,
            self.runner,
            self.prober,
            self._wants,
        )
        self._next_look = time.monotonic() + UNPROMPTED_LOOK
        self._complaints = RateLimitedLog(log, "the kernel's state can't be brought to the plan")
        self._unreachable = RateLimitedLog(log, "the control socket can't be opened")
        self._watching = RateLimitedLog(log, "what goes on beside the kill switch stands still")
        self.control_socket = ControlSocket(run_dir / CONTROL_SOCKET, handlers, guest=_GUEST)

    def _servers(self, cache_dir: Path) -> Servers | None:
        """Of a provider; the other kinds know theirs."""
        kind = self.kind
        return Servers(self.reconciler, kind, cache_dir) if isinstance(kind, Provided) else None

    async def serve(self) -> None:
        """Until SIGTERM."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await start_threads()
        # Listens before the first observation, so that nothing falls between the two.
        watch = Watch(session_prefix=NO_SESSIONS, is_own=self.nft.is_own)
        async with asyncio.TaskGroup() as tasks:
            await self._start()
            running = [
                tasks.create_task(job)
                for job in (
                    self._receive(),
                    self._follow(watch),
                    self.runner.run(),
                    lasting(self.prober.run, self._watching),
                    self._unprompted(),
                    lasting(self._relisting, self._watching),
                )
            ]
            await stop.wait()
            for task in running:
                task.cancel()
        watch.close()
        await self.control_socket.close()

    async def _start(self) -> None:
        await self.runner.start(read_record(self.run_dir))

    async def _receive(self) -> None:
        """Open the socket, and keep it where the client's hook finds it."""
        while True:
            try:
                if not self.control_socket.is_there:
                    await self.control_socket.open()
                    keep_pid(self.run_dir, self.records)
                    seconds = round(time.monotonic() - self._began, 3)
                    log.info("control plane ready", seconds=seconds)
                self._unreachable.over()
            except OSError as error:
                self._unreachable.tell(words(error))
            await asyncio.sleep(UNSETTLED_LOOK)

    async def _follow(self, watch: Watch) -> None:
        async for look in watch:
            if look.topics - {Topic.NEIGHBOUR}:
                await self._look(by=", ".join(dict.fromkeys(c.process for c in look.commits)))
            if Topic.LINK in look.topics:  # the tunnel's may be another by now
                self.runner.check()

    async def _unprompted(self) -> None:
        while True:
            await asyncio.sleep(UNSETTLED_LOOK)
            self.records.retry()
            self.runner.check()
            due = self.reconciler.unsettled or self.reconciler.is_due
            if not due and time.monotonic() < self._next_look:
                continue
            self._next_look = time.monotonic() + UNPROMPTED_LOOK
            await self._look()

    async def _relisting(self) -> None:
        """A provider's list is renewed through the tunnel, so that the next server is chosen by it;
        soon where it came from a kept copy."""
        pause = RELIST_POLL
        while self.servers is not None:
            await asyncio.sleep(pause)
            carried, pause = self.runner.machine.carried, RELIST_POLL
            # A list of the future is one of before the clock was set back.
            if carried is None or 0 <= time.time() - self.servers.listed_at < RELIST_AFTER:
                continue
            pause = RELIST_RETRY
            try:
                remotes = await self.servers.renewed(carried)
            except OcgateError as error:
                log.info("the list of servers is not renewed", why=error.message)
                remotes = ()
            if remotes:
                await self.runner.say(Listed(remotes))

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
        found = (
            self._complaints.standing,
            self._unreachable.standing,
            self._watching.standing,
            self.records.complaints.standing,
            self.control_socket.trouble,
        )
        return [why for why in found if why]

    async def _tunnel(self, fields: Mapping[str, bytes]) -> bytes:
        told = {
            name: value.decode("utf-8", "replace")
            for name, value in fields.items()
            if name != HOOK_PID
        }
        why = await self.runner.configured(told, hook=int(fields[HOOK_PID]))
        if why:
            return refused_reply(why)
        self.prober.nudge()
        return b"admitted\n"

    async def _ended(self, _fields: Mapping[str, bytes]) -> bytes:
        self.runner.client_ended()
        return OK

    async def _status(self, _fields: Mapping[str, bytes]) -> bytes:
        return json.dumps(await status.collect(self._observed)).encode()

    async def _health(self, _fields: Mapping[str, bytes]) -> bytes:
        return json.dumps(await status.health(self._observed)).encode()

    async def _metrics(self, _fields: Mapping[str, bytes]) -> bytes:
        from ocgate.exit_node import metrics  # its library takes 80 ms; asked for by few

        found = await status.collect(self._observed)
        return await asyncio.to_thread(metrics.render, found)

    async def _reload(self, _fields: Mapping[str, bytes]) -> bytes:
        """Re-read the tunnel's configuration, and take the next server."""
        try:
            sources = await asyncio.to_thread(reread, self.sources)
            kind = kind_of(sources)
            if kind.device != self.kind.device:
                raise OcgateError("another kind of tunnel takes a restart", hint="Restart ocgate")
            with writing(self.run_dir):
                write_snapshot(self.run_dir, sources)
        except (OcgateError, *LACKS) as error:
            why = words(error)
            log.error("reload refused, nothing changed", why=why)
            return b"refused\n" + why.encode("utf-8", "replace") + b"\n"
        self.sources = sources
        why = await self.runner.turn(kind)
        log.info("reloaded")
        remote = self.runner.machine.remote
        said = f"not yet: {why}" if why else f"taking {remote.label}" if remote else "listing"
        return OK + f"The tunnel's configuration was read anew; {said}.\n".encode()


def main() -> int:
    """`python -m ocgate.exit_node.daemon RUN_DIR`: exit 1 where the switch can't be installed."""
    run_dir = Path(sys.argv[1])
    process.raise_files_limit()
    try:
        control = Control(run_dir)
        settings = control.sources.settings
        logs.configure(settings.log_format, settings.log_level)
        asyncio.run(control.serve())
    except Exception as error:
        return ended_by(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())

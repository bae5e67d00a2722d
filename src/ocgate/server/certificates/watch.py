"""Certificates and keys that are renewed: CERT_WATCH and CERT_WATCH_INTERVAL.

    inotify ───┐
    a timer ───┼─ settle ─ read ─ the same as ocserv has? ── match? ── `ocserv -t` ── copies, SIGHUP
    a reload ──┘                     nothing to do              no: the former ones stay in use

New clients get the new certificate, live sessions go on: ocserv's workers keep what they have.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from ocgate.config.model import Settings
from ocgate.errors import OcgateError
from ocgate.kernel.inotify import FileWatch
from ocgate.ocserv import key_copies
from ocgate.ocserv.keys import named_files
from ocgate.runtime.log import stage
from ocgate.server.desired.prepare import Prepared
from ocgate.server.desired.sources import Sources
from ocgate.server.reconcile.effective_conf import EffectiveConf, read_keys

# certbot, lego and Kubernetes are done with all files of a renewal within a few 10 ms; a second of
# quiet also covers a `scp` of both by hand. A process that writes on and on is not waited for.
SETTLE = 1.0  # seconds without an event
LONGEST_SETTLE = 10.0  # seconds

# What can't be used is looked at again without an event, should one have been missed.
RETRY = 30.0  # seconds

# Where the kernel gives no inotify, files are compared as often as this.
WITHOUT_INOTIFY = 60.0  # seconds

log = stage("svc-control")


class CertWatch:
    """One for all virtual hosts. prepared: what is in force now."""

    def __init__(
        self,
        conf: EffectiveConf,
        run_dir: Path,
        prepared: Callable[[], Prepared],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._conf = conf
        self._run_dir = run_dir
        self._prepared = prepared
        self._clock = clock
        self._reloaded = asyncio.Event()
        self._blind = ""  # why there is no inotify
        self.trouble = ""  # why the files as they are now are not used

    @property
    def blind(self) -> str:
        """Why changes are only looked for now and then although CERT_WATCH=1, or ''."""
        return self._blind

    def reloaded(self) -> None:
        """Other settings are in force, and certificates as they were just now."""
        self.trouble = ""
        self._reloaded.set()

    async def run(self) -> None:
        """For ever; idle while neither setting asks for it."""
        while True:
            self._reloaded.clear()
            sources = self._sources
            watch = self._watch(sources)
            try:
                await self._follow(sources, watch)
            finally:
                if watch is not None:
                    watch.close()

    async def examine(self) -> None:
        """Compare, and take what is new and sound."""
        sources = self._sources
        try:
            keys = await asyncio.to_thread(read_keys, sources)
            if await asyncio.to_thread(key_copies.in_use, self._run_dir, keys):
                self._calm(await asyncio.to_thread(orphaned, paths(sources)))
                return
            await self._conf.renew(self._prepared())
        except OcgateError as error:
            self._troubled(str(error))
            return
        self.trouble = ""
        log.info("certificate renewed; sessions go on", files=",".join(map(str, paths(sources))))

    @property
    def _sources(self) -> Sources:
        return self._prepared().sources

    def _watch(self, sources: Sources) -> FileWatch | None:
        self._blind = ""
        if not sources.settings.cert_watch:
            return None
        try:
            return FileWatch(paths(sources))
        except OSError as error:
            self._blinded(error)
            return None

    async def _follow(self, sources: Sources, watch: FileWatch | None) -> None:
        """Until a reload."""
        if _is_on(sources.settings):
            await self.examine()  # what changed before the watch began
        while not self._reloaded.is_set():
            if await self._due(sources.settings, watch):
                await self.examine()

    async def _due(self, settings: Settings, watch: FileWatch | None) -> bool:
        """Wait for what comes first; whether to look."""
        waiting: list[asyncio.Task[object]] = [asyncio.create_task(self._reloaded.wait())]
        if watch is not None:
            waiting.append(asyncio.create_task(self._settled(watch)))
        try:
            done, _ = await asyncio.wait(
                waiting, timeout=self._interval(settings), return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                await task
        except OSError as error:  # no watches left
            self._blinded(error)
        finally:
            for task in waiting:
                task.cancel()
        return not self._reloaded.is_set()

    def _interval(self, settings: Settings) -> float | None:
        found = [float(settings.cert_watch_interval)] if settings.cert_watch_interval else []
        if _is_on(settings) and self.trouble:
            found.append(RETRY)
        if self._blind:
            found.append(WITHOUT_INOTIFY)
        return min(found, default=None)

    async def _settled(self, watch: FileWatch) -> None:
        await watch.changed()
        latest = self._clock() + LONGEST_SETTLE
        with contextlib.suppress(TimeoutError):
            while self._clock() < latest:
                async with asyncio.timeout(SETTLE):
                    await watch.changed()

    def _blinded(self, error: OSError) -> None:
        self._blind = f"inotify: {error.strerror or error}"
        log.warning("certificates can't be watched; they are compared every minute instead",
                    why=self._blind, remedy="raise sysctl fs.inotify.max_user_instances"
                    " or max_user_watches on the host")  # fmt: skip

    def _calm(self, orphan: str) -> None:
        if orphan:
            self._troubled(orphan)
            return
        if self.trouble:
            log.info("certificate files are again those in use")
        self.trouble = ""

    def _troubled(self, why: str) -> None:
        if why != self.trouble:
            log.error("a changed certificate is not used; the former one stays", why=why)
        self.trouble = why


def paths(sources: Sources) -> list[Path]:
    """The files that ocserv.conf names, absolute, each once."""
    base = sources.settings.config_dir
    named = (base / found.value for found in named_files(sources.document) if found.copied)
    return list(dict.fromkeys(named))


def orphaned(files: list[Path]) -> str:
    """Why a renewal will never be seen: a file that is bind-mounted alone stays the former one when
    its name gets another outside. Its link count is 0 then (inode(7))."""
    for path in files:
        with contextlib.suppress(OSError):
            if path.stat().st_nlink == 0:
                return (
                    f"{path} was replaced outside of this container, which still sees the former "
                    "one: mount its directory instead of the file, and restart"
                )
    return ""


def _is_on(settings: Settings) -> bool:
    return settings.cert_watch or settings.cert_watch_interval > 0

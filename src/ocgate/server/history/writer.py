"""Completed sessions on their way into the history file.

    gatekeeper ── ended ──> waiting for ocserv's byte counts ──> queue ──> file (in a thread)
    disconnect hook ── reported ──┘

The kernel tells that a tunnel is gone before the disconnect hook, a process that ocserv has yet to
start, can say how much went through it. Nobody waits for the file: a disk that is full or hangs
must not hold up a login. Used on the control plane's loop only.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from ocgate.names import HISTORY
from ocgate.runtime.log import stage
from ocgate.server.admission.flows import age
from ocgate.server.history import file as history_file
from ocgate.server.status.schema import HistoryStatus
from ocgate.sessions.record import Moved, Record, record_of, written
from ocgate.sessions.session import Session
from ocgate.sessions.table import Ending, ended_by

# The hook is there within some 10 ms, and waits itself at most so long for a control plane that
# restarts. Shorter than the journal's memory of an ended session (flows.FLOW_GRACE): what a killed
# control plane has not written, the next one finds there.
HOOK_PATIENCE = 2.5  # seconds

# A file that can't be written is tried again.
RETRY = 10.0  # seconds
# Some 400 bytes each: what is kept in memory meanwhile.
MOST_WAITING = 10_000

# Of the 1 s that control has to end (services' timeout-kill), for what is not written yet.
CLOSING = 0.5  # seconds

log = stage("svc-control")


@dataclass(frozen=True)
class _Ended:
    session: Session
    record: Record
    timer: asyncio.TimerHandle


class History:
    """place: the file that SESSION_HISTORY_FILE names now, None for the run dir's; exit: by which
    the clients' IPv4 leaves now."""

    def __init__(
        self,
        run_dir: Path,
        place: Callable[[], Path | None],
        exit: Callable[[], str],
        *,
        append: Callable[..., None] = history_file.append,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._run_dir = run_dir
        self._place = place
        self._exit = exit
        self._append = append
        self._clock = clock
        self._waiting: dict[int, dict[tuple[int, int], _Ended]] = {}  # by worker
        self._queue: deque[bytes] = deque()
        self._more = asyncio.Event()
        self._known: frozenset[tuple[str, str]] | None = None
        self._under_way = 0
        self._written = 0
        self._lost = 0
        self._trouble = ""

    @property
    def path(self) -> Path:
        """Where they are written now."""
        return self._place() or self._run_dir / HISTORY

    def status(self) -> HistoryStatus:
        """For `ocgate status`."""
        return HistoryStatus(
            file=str(self.path),
            written=self._written,
            waiting=len(self._queue) + self._under_way,
            lost=self._lost,
            trouble=self._trouble,
        )

    def ended(self, session: Session, reason: str, moved: Moved | None = None) -> None:
        """A session is over; without counts they are waited for."""
        record = record_of(
            session, until=self._clock(), moved=moved, exit=self._exit(), reason=reason
        )
        if moved is not None:
            self._put(record)
            return
        loop = asyncio.get_running_loop()
        timer = loop.call_later(HOOK_PATIENCE, self._give_up, session.key)
        self._waiting.setdefault(session.worker, {})[session.key] = _Ended(session, record, timer)

    def reported(self, worker: int, ending: Ending, moved: Moved | None) -> None:
        """A disconnect hook tells of a session that had ended already, or of an unknown one."""
        candidates = tuple(each.session for each in self._waiting.get(worker, {}).values())
        session = ended_by(candidates, ending, age=age)
        waiting = None if session is None or moved is None else self._taken(session.key)
        if waiting is not None and moved is not None:
            self._put(replace(waiting.record, bytes_in=moved.received, bytes_out=moved.sent))

    def missed(self, session: Session) -> None:
        """One that a former control plane left, and that has ended since; or before, and then the
        file knows it."""
        record = record_of(
            session,
            until=self._clock(),
            moved=None,
            exit=self._exit(),
            reason="ended while the control plane was away",
        )
        if self._known is None:
            found = history_file.latest(self.path)
            self._known = frozenset((record.id, record.since) for record in found)
        if (record.id, record.since) not in self._known:
            self._put(record)

    async def run(self) -> None:
        """For ever: write what is queued."""
        while True:
            await self._more.wait()
            if not await self._flush():
                await asyncio.sleep(RETRY)

    async def close(self, left: Iterable[Session]) -> None:
        """The last lines; left: sessions that ended just now, which nobody will report."""
        for session in left:
            if session.key not in self._waiting.get(session.worker, {}):  # a hook is under way
                self.ended(session, "the server was stopped")
        for key in [key for of_worker in self._waiting.values() for key in of_worker]:
            self._give_up(key)
        try:
            async with asyncio.timeout(CLOSING):
                await self._flush()
        except TimeoutError:
            log.error("the session history hangs", file=str(self.path), lines=len(self._queue))

    def _give_up(self, key: tuple[int, int]) -> None:
        """Nobody tells its bytes."""
        ended = self._taken(key)
        if ended is not None:
            self._put(ended.record)

    def _taken(self, key: tuple[int, int]) -> _Ended | None:
        of_worker = self._waiting.get(key[0], {})
        ended = of_worker.pop(key, None)
        if ended is not None:
            ended.timer.cancel()
            if not of_worker:
                del self._waiting[key[0]]
        return ended

    def _put(self, record: Record) -> None:
        self._queue.append(written(record))
        while len(self._queue) > MOST_WAITING:
            self._queue.popleft()
            self._lost += 1
        self._more.set()

    async def _flush(self) -> bool:
        """Whether all that was queued is in the file."""
        self._more.clear()
        batch, self._queue = self._queue, deque()
        self._under_way = len(batch)
        path, named = self.path, self._place() is not None
        largest = history_file.LARGEST if named else history_file.LARGEST_IN_MEMORY
        try:
            if batch:
                await asyncio.to_thread(self._append, path, batch, largest=largest)
        except OSError as error:
            self._queue.extendleft(reversed(batch))
            self._troubled(path, error)
            self._more.set()
            return False
        finally:
            self._under_way = 0
        self._written += len(batch)
        if batch and self._trouble:
            log.info("session history is written again", file=str(path))
            self._trouble = ""
        return True

    def _troubled(self, path: Path, error: OSError) -> None:
        why = f"{path}: {error.strerror or error}"
        if why != self._trouble:
            log.error("completed sessions can't be written down; they are kept and tried again",
                      file=str(path), why=error.strerror or str(error))  # fmt: skip
        self._trouble = why

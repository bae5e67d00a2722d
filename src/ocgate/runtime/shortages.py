"""What the machine may refuse while a control plane runs: space, descriptors, memory, processes.

None of it may end a control plane, which would come back into the same want: what can't be done is
said, reported in status, and tried again. Both roles' daemons use this.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from ocgate.errors import OcgateError
from ocgate.runtime.rate_limited_log import RateLimitedLog

# OSError: no space, descriptors, processes. SubprocessError: a program that does not answer.
LACKS = (OSError, MemoryError, subprocess.SubprocessError)

# What was refused is tried again after so long.
AGAIN = 1.0  # seconds

# Kernel reads, `ocserv -t`, files: as many as may be under way beside each other.
THREADS = 6

# CPython's only word for a thread that the kernel refuses (EAGAIN of clone(2)).
_NO_THREAD = "can't start new thread"


def words(error: BaseException) -> str:
    """The reason in one piece, for the operator."""
    if isinstance(error, OcgateError):
        return str(error)
    if isinstance(error, MemoryError):
        return "no memory"
    if isinstance(error, OSError):
        said = error.strerror or str(error) or type(error).__name__
        return f"{error.filename}: {said}" if error.filename else said
    return str(error)


async def lasting(job: Callable[[], Awaitable[None]], complaints: RateLimitedLog) -> None:
    """Run a job for ever: what the machine refuses it is told, and it begins anew."""
    while True:
        try:
            await job()
        except (OcgateError, *LACKS) as error:
            complaints.tell(words(error))
        await asyncio.sleep(AGAIN)


class Threads(ThreadPoolExecutor):
    """A pool that goes on with the threads it has where it can't get another, and takes the rest
    when the machine has them again."""

    def _adjust_thread_count(self) -> None:
        # Called when the job is in the queue already: to raise would lose its result, not the job.
        # The semaphore counts threads as idle that could not be started; while some are missing
        # nobody is idle.
        while len(self._threads) < self._max_workers and self._idle_semaphore.acquire(timeout=0):
            pass
        try:
            super()._adjust_thread_count()
        except RuntimeError:
            if not self._threads:
                raise OSError(errno.EAGAIN, "no thread can be started") from None


async def start_threads() -> None:
    """Have all threads that `asyncio.to_thread` will ever use, now: later, where processes are
    scarce, none could be started, and nothing could be read or repaired. Fewer have to do; raises
    OSError where there is not even one."""
    pool = Threads(THREADS, thread_name_prefix="control")
    asyncio.get_running_loop().set_default_executor(pool)
    together = threading.Barrier(THREADS)

    def meet() -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait(1.0)

    await asyncio.gather(*(asyncio.to_thread(meet) for _ in range(THREADS)))


def ended_by(error: Exception) -> int:
    """What a control plane that could not start, or not go on, says and exits with: one line where
    the machine or the kernel refused something. A mistake of ours is raised again."""
    parts = _parts(error)
    if not all(_is_lack(part) for part in parts):
        raise error
    for part in parts:
        print(f"svc-control: error: {words(part)}", file=sys.stderr)
    return next((part.exit_code for part in parts if isinstance(part, OcgateError)), 1)


def _parts(error: BaseException) -> list[BaseException]:
    """A TaskGroup wraps what ends it, also what was raised in its own body."""
    if isinstance(error, BaseExceptionGroup):
        return [part for one in error.exceptions for part in _parts(one)]
    return [error]


def _is_lack(error: BaseException) -> bool:
    # asyncio.run starts a thread at its end, to wait for those of the pool.
    no_thread = isinstance(error, RuntimeError) and _NO_THREAD in str(error)
    return no_thread or isinstance(error, (OcgateError, *LACKS))

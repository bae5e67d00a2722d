"""What the machine may refuse while a control plane runs: space, descriptors, memory, processes.

None of it may end a control plane, which would come back into the same want: what can't be done is
said, reported in status, and tried again. Both roles' daemons use this.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from ocgate.control.complaints import Complaints
from ocgate.errors import OcgateError

# OSError: no space, descriptors, processes. SubprocessError: a program that does not answer.
LACKS = (OSError, MemoryError, subprocess.SubprocessError)

# What was refused is tried again after so long.
AGAIN = 1.0  # seconds

# Kernel reads, `ocserv -t`, files: as many as may be under way beside each other.
THREADS = 6


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


async def lasting(job: Callable[[], Awaitable[None]], complaints: Complaints) -> None:
    """Run a job for ever: what the machine refuses it is told, and it begins anew."""
    while True:
        try:
            await job()
        except (OcgateError, *LACKS) as error:
            complaints.tell(words(error))
        await asyncio.sleep(AGAIN)


async def start_threads() -> None:
    """Have all threads that `asyncio.to_thread` will ever use, now: later, where processes are
    scarce, none could be started, and nothing could be read or repaired."""
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="control")
    asyncio.get_running_loop().set_default_executor(pool)
    together = threading.Barrier(THREADS)

    def meet() -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait(1.0)

    with contextlib.suppress(RuntimeError):  # fewer have to do
        await asyncio.gather(*(asyncio.to_thread(meet) for _ in range(THREADS)))

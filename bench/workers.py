"""Stand-ins for ocserv's workers: sleeping threads of small processes, each with a pid of its own.

A session is proven by its worker's pid and start time, both read from /proc/PID/stat, which the
kernel also has for each thread (proc(5)): 10,000 of them cost 200 MiB where 10,000 processes cost
gigabytes. FAMILY to a process, not all in one, because that file sums up the CPU time of the whole
process: with 10,000 threads in one a look would take 500 us instead of 20.

Run as `python workers.py COUNT`; prints the thread ids, sleeps until its stdin ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

FAMILY = 50  # threads a process
_STACK_BYTES = 65_536  # they only sleep; Python's least is 32 KiB


@contextmanager
def workers(count: int) -> Iterator[list[int]]:
    """`count` live pids, none of them a process that anybody would miss; gone at the end."""
    argv = [sys.executable, "-I", "-S", __file__, str(count)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None and child.stdout is not None
        pids: list[int] = []
        while len(pids) < count:
            line = child.stdout.readline()
            assert line, "the workers ended"
            pids += [int(word) for word in line.split()]
        try:
            yield pids
        finally:
            child.stdin.close()


def _main() -> None:
    left = int(sys.argv[1])
    while left > 0:
        if os.fork() == 0:
            _family(min(left, FAMILY))
        left -= FAMILY
    _until_closed()


def _family(count: int) -> None:
    threading.stack_size(_STACK_BYTES)
    gate = threading.Lock()
    gate.acquire()
    threads = [threading.Thread(target=gate.acquire, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    line = " ".join(str(thread.native_id) for thread in threads) + "\n"
    os.write(1, line.encode())  # below PIPE_BUF: lines of several families don't mix
    _until_closed()


def _until_closed() -> None:
    """All share this stdin, which nobody writes to."""
    os.read(0, 1)
    os._exit(0)


if __name__ == "__main__":
    _main()

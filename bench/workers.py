"""Stand-ins for ocserv's workers: a process of many sleeping threads, each with a pid of its own.

A session is proven by its worker's pid and start time, both read from /proc/PID/stat, which the
kernel also has for each thread (proc(5)): 10,000 of them cost 200 MiB where 10,000 processes cost
gigabytes. Run as `python workers.py COUNT`; prints the thread ids, sleeps until its stdin ends.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_STACK_BYTES = 65_536  # they only sleep; Python's least is 32 KiB


@contextmanager
def workers(count: int) -> Iterator[list[int]]:
    """`count` live pids, none of them a process that anybody would miss; gone at the end."""
    argv = [sys.executable, "-I", "-S", __file__, str(count)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None and child.stdout is not None
        pids = [int(word) for word in child.stdout.readline().split()]
        assert len(pids) == count
        try:
            yield pids
        finally:
            child.stdin.close()


def _main() -> None:
    threading.stack_size(_STACK_BYTES)
    gate = threading.Lock()
    gate.acquire()
    threads = [threading.Thread(target=gate.acquire, daemon=True) for _ in range(int(sys.argv[1]))]
    for thread in threads:
        thread.start()
    print(*(thread.native_id for thread in threads), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    _main()

"""What was measured on, without what is nobody's business: no names, addresses or paths."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Load average over one minute below which two cores count as idle: our own set-up is part of it.
CALM = 1.0
_POLL_SECONDS = 5.0  # the kernel computes the load average anew every 5 s (sched/loadavg.h)


@dataclass(frozen=True)
class Machine:
    """Where and when the figures were taken; `programs` by name, with their versions."""

    date: str
    kernel: str
    system: str
    cpu: str
    cores: int
    memory_mib: int
    programs: dict[str, str]

    def sentence(self) -> str:
        """One line for people."""
        versions = ", ".join(f"{name} {version}" for name, version in self.programs.items())
        return (
            f"{self.date}; {self.cpu}, {self.cores} cores, {self.memory_mib} MiB; {self.system}, "
            f"kernel {self.kernel}; {versions}"
        )


def describe() -> Machine:
    """This machine, now."""
    info = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.+)", info)
    total = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    return Machine(
        date=time.strftime("%Y-%m-%d", time.gmtime()),
        kernel=platform.release(),
        system=platform.freedesktop_os_release().get("PRETTY_NAME", "unknown"),
        cpu=model[1].strip() if model else platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        memory_mib=int(total[1]) // 1024 if total else 0,
        programs={
            "Python": platform.python_version(),
            "perl": _version(["perl", "-e", "print substr($^V, 1)"]),
            "ocserv": _version(["ocserv", "--version"]),
            "openconnect": _version(["openconnect", "--version"]),
            "nft": _version(["nft", "--version"]),
        },
    )


def _version(argv: Sequence[str]) -> str:
    """The first thing that looks like a version in what a program says of itself."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=10)
    except OSError:
        return "missing"
    found = re.search(r"\d+\.\d+(\.\d+)?", done.stdout + done.stderr)
    return found[0] if found else "unknown"


def load() -> float:
    """Runnable processes, averaged over the last minute."""
    return os.getloadavg()[0]


def wait_calm(limit: float) -> float:
    """Wait until the load is below CALM, at most `limit` seconds; returns the load then."""
    deadline = time.monotonic() + limit
    while load() >= CALM and time.monotonic() < deadline:
        time.sleep(min(_POLL_SECONDS, limit))
    return load()

"""How long a login takes, from the start of openconnect to a tunnel, with and without ocgate."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import subprocess
import time

from bench.measure import Series, in_turn
from bench.pair import BARE, OCGATE, Side, pair
from bench.report import Found, Headline, Table
from bench.size import Size
from lab.topology import PORT
from ocgate.kernel import process
from ocgate.netlab.program import BASE_ENVIRON
from ocgate.netlab.wait import wait_until

AIM = 0.005  # seconds on top of bare ocserv


def measure(size: Size) -> Found:
    """Log in to either server in turn, one at a time."""
    with pair() as sides:
        logins = {name: functools.partial(_login, side) for name, side in sides.items()}
        in_turn(size.of(1, 1, 3), logins)
        return _found(in_turn(size.of(2, 12, 60), logins))


def _login(side: Side) -> float:
    """Seconds until openconnect has its tunnel and goes to the background; logged off after."""
    host = side.lab.clients[0]
    pid_file = side.lab.path("openconnect.pid")
    argv = ["openconnect", "--non-inter", "--passwd-on-stdin", "--no-dtls", "--quiet"]
    argv += [f"--user={side.login.user}", f"--servercert={side.login.pin}", "--interface=tun0"]
    argv += ["--script=/bin/true", "--background", f"--pid-file={pid_file}"]
    argv.append(f"https://{side.lab.server}:{PORT}/")
    with host.netns.entered():
        started = time.perf_counter()
        with subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=BASE_ENVIRON,
        ) as openconnect:
            openconnect.communicate(f"{side.login.password}\n".encode())
        # Without a time limit: with one, Python looks at 31, 63, 113 ms and not in between.
        seconds = time.perf_counter() - started
    assert openconnect.returncode == 0, f"openconnect ended with {openconnect.returncode}"
    _log_off(side, int(pid_file.read_text()))
    return seconds


def _log_off(side: Side, pid: int) -> None:
    """Until both ends are gone, so that the next login meets an idle server."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGINT)
    wait_until(lambda: process.start_time(pid) is None, 5.0, "openconnect's end")
    wait_until(lambda: not _tunnels(side), 5.0, "the session's end")


def _tunnels(side: Side) -> list[str]:
    with side.lab.gw.netns.entered():
        return [name for _, name in socket.if_nameindex() if name.startswith("vpns")]


def _found(found: dict[str, Series]) -> Found:
    bare, ours = found[BARE], found[OCGATE]
    more = ours.above(bare)
    rows = []
    for name, series in found.items():
        low, high = series.spread
        ratio = series.over(bare).median
        figures = [f"{1000 * s:.1f}" for s in (series.median, series.percentile(99))]
        half = f"{1000 * low:.1f} to {1000 * high:.1f}"
        rows.append((name, *figures, half, f"{ratio:.2f}"))
    low, high = (1000 * quartile for quartile in more.spread)
    note = (
        f"{len(bare.values)} pairs; ocgate above bare in the same pair: median "
        f"{1000 * more.median:.1f} ms, half of them {low:.1f} to {high:.1f} ms."
    )
    table = Table(
        "openconnect started to tunnel up (ms)",
        ("Server", "p50", "p99", "half lie in", ": bare"),
        tuple(rows),
        (note,),
    )
    figure = f"bare {1000 * bare.median:.0f} ms + {1000 * more.median:.1f} ms"
    aim = f"bare + {1000 * AIM:.0f} ms"
    return Found(
        "login",
        "Login: openconnect to a tunnel",
        (table,),
        (Headline("login", figure, aim, more.median <= AIM),),
        {f"{name}, ms": series.scaled(1000) for name, series in found.items()},
    )

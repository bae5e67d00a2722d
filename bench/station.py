"""A real `ocgate run` in a lab of its own that holds any number of synthetic sessions.

    Lab (router, inet, gw)          gw: s6-svscan ── control ── table inet ocserv, N elements
                                                  └─ ocserv     (knows nothing of the N)

The sessions come in by the product's own door for a crash: their journal files are written into the
run dir, control is killed, and s6's new one re-adopts them, because their workers live (threads of
`workers`). New ones come by the hook as from ocserv. No seam in src/ is needed for either.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from bench.workers import workers
from lab import gateway
from lab.gateway import Gateway
from lab.ocserv import write_config_dir
from lab.topology import Lab, Options
from ocgate import names
from ocgate.kernel import process
from ocgate.netlab.wait import wait_until
from ocgate.server.admission.journal import Journal
from ocgate.sessions.session import Session

# Room for 10,000 sessions and those that come and go; no network of the lab lies in it.
SUBNET = IPv4Network("10.64.0.0/16")
SETTINGS: Mapping[str, str] = {
    "ipv4-network": str(SUBNET.network_address),
    "ipv4-netmask": str(SUBNET.netmask),
}
# At 10,000 sessions control reads as many files before it listens.
_RESTART_LIMIT = 60.0
# A stall is a figure (the most, the p99), not the end of the benchmark.
_ANSWER_LIMIT = 60.0
_FINE_POLL = 0.002  # seconds: what is waited for here takes tenths of a second


class Station:
    """One gateway with `count` adopted sessions, and one spare worker for a session to come."""

    def __init__(self, lab: Lab, pids: list[int], count: int) -> None:
        directory = lab.path("etc")
        write_config_dir(lab, directory, {"bench": "bench"}, settings=SETTINGS)
        self.lab = lab
        self.count = count
        self.spare = pids[count]
        self.gateway: Gateway = gateway.run(lab, {}, directory)
        if count:
            journal = Journal(self.gateway.run_dir)
            for number, pid in enumerate(pids[:count]):
                journal.write(session(number, pid))
        self.restarts = [self.restart()]

    @property
    def hook(self) -> Path:
        """The connect hook as ocserv would run it."""
        return self.gateway.run_dir / names.HOOK_CONNECT

    def fields(self) -> dict[str, str]:
        """What ocserv puts into the hook's environment for the spare session."""
        return hook_fields(self.count, self.spare)

    def ask(self, verb: str) -> float:
        """One request about the spare session straight over the socket; seconds to the verdict."""
        fields = tuple({**self.fields(), "REASON": verb}.items())
        started = time.perf_counter()
        reply = self.gateway.ask(verb, *fields, timeout=_ANSWER_LIMIT)
        seconds = time.perf_counter() - started
        assert reply in (b"admitted\n", b"ok\n"), reply
        return seconds

    def restart(self) -> float:
        """kill -9 control; seconds until its successor has verified the guard and listens."""
        old = self.gateway.kill()
        started = time.perf_counter()
        wait_until(lambda: not process.name(old), 5.0, "control's end", interval=_FINE_POLL)
        wait_until(self.listens, _RESTART_LIMIT, "a new control", interval=_FINE_POLL)
        seconds = time.perf_counter() - started
        held = len(self.gateway.status()["sessions"])
        assert held == self.count, f"{held} of {self.count} sessions re-adopted"
        return seconds

    def listens(self) -> bool:
        """Whether control takes connections; it does so when the guard is verified."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            return sock.connect_ex(str(self.gateway.run_dir / names.CONTROL_SOCKET)) == 0


@contextmanager
def stations(counts: tuple[int, ...]) -> Iterator[list[Station]]:
    """One station for each number of sessions, all at the same time."""
    with ExitStack() as stack:
        made = []
        for count in counts:
            pids = stack.enter_context(workers(count + 1))
            lab = stack.enter_context(Lab(Options(clients=0)))
            made.append(Station(lab, pids, count))
        yield made


def address(number: int) -> IPv4Address:
    """The address of synthetic session `number`, from 0."""
    return SUBNET[2 + number]


def session(number: int, pid: int) -> Session:
    """A synthetic session of a live worker."""
    started = process.start_time(pid)
    assert started is not None
    return Session(
        worker=pid,
        started=started,
        device=f"vpns{number}",
        user=f"user{number}",
        vhost="default",
        address4=address(number),
        prefix6=None,
        peer="192.0.2.10",
        connected_at=time.time(),
        agent="Open AnyConnect VPN Agent v9.01",
    )


def hook_fields(number: int, pid: int) -> dict[str, str]:
    """The environment of ocserv 1.1.6's connect hook, with what openconnect tells it."""
    return {
        "REASON": "connect",
        "ID": str(pid),
        "VHOST": "default",
        "USERNAME": f"user{number}",
        "GROUPNAME": "",
        "DEVICE": f"vpns{number}",
        "IP_REAL": "192.0.2.10",
        "IP_REAL_LOCAL": "172.28.0.10",
        "IP_LOCAL": str(SUBNET[1]),
        "IP_REMOTE": str(address(number)),
        "HOSTNAME": "laptop",
        "REMOTE_HOSTNAME": "laptop",
        "USER_AGENT": "Open AnyConnect VPN Agent v9.01",
        "DEVICE_TYPE": "linux-64",
        "OCSERV_DNS": "198.51.100.53",
        "OCSERV_DNS4": "198.51.100.53",
    }

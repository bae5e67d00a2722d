"""What `ocgate doctor` makes of a status document. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from urllib.parse import urlsplit

from ocgate.server.status.schema import (
    CertificateStatus,
    ExitStatus,
    FlowsStatus,
    ReachedStatus,
    Status,
)

# Of connection tracking or of translated ports: what is left is a few seconds of a busy server.
NEARLY_ALL = 0.9

FREE_SPACE = "Free some space there"

# certbot renews a month before the end: two weeks are left when that has failed for two.
EXPIRES_SOON = timedelta(days=14)


class Verdict(StrEnum):
    """What a finding asks of the operator."""

    OK = "ok"
    """Nothing."""
    NOTE = "note"
    """To know; nothing to do."""
    WARNING = "warning"
    """Clients may suffer, or soon will."""
    ERROR = "error"
    """It does not work."""


@dataclass(frozen=True)
class Finding:
    """check: what was looked at. says: the reason, a clause. remedy: what to do, '' for nothing."""

    check: str
    verdict: Verdict
    says: str
    remedy: str = ""

    @property
    def to_do(self) -> bool:
        """Whether it makes `doctor` exit with 1."""
        return self.verdict in (Verdict.WARNING, Verdict.ERROR)


def of_status(status: Status, *, now: datetime) -> Iterator[Finding]:
    """All of them, in a fixed order."""
    yield from _server(status)
    yield from _guard(status)
    yield from (_exit(found) for found in status["exits"])
    yield from (_network(found) for found in status["networks"])
    yield from _flows(status)
    yield from _certificates(status, now)
    yield from _history(status)


def is_full(reason: str) -> bool:
    """Whether it is what either role's status says of a run dir without space."""
    return reason.startswith("nothing can be written in ")


def _server(status: Status) -> Iterator[Finding]:
    server = status["server"]
    for reason in status["reasons"]:
        remedy = FREE_SPACE if is_full(reason) else "See the log of `ocgate run`"
        yield Finding("server", Verdict.ERROR, reason, remedy)
    if server["listening"]:
        words = f"ocserv {server['ocserv_version']} listens on {', '.join(server['listening'])}"
        yield Finding("server", Verdict.OK, f"{words}, {status['session_count']} sessions")


def _guard(status: Status) -> Iterator[Finding]:
    network = status["network"]
    if network["guard"]:
        yield Finding("guard", Verdict.OK, "the kernel holds exactly the plan")
    if network["repairs"]:
        yield Finding(
            "guard",
            Verdict.WARNING,
            f"it was changed by others and put right {network['repairs']} times, last: "
            f"{network['last_repair']}",
            "The log names who did it: `drift repaired … by=`; make that program leave our tables "
            "alone",
        )
    if not network["wan_if"]:
        remedy = "Give this host or container a default route"
        yield Finding("network", Verdict.WARNING, "there is no default route", remedy)
    if not network["forwarding4"]:
        remedy = "docker run --sysctl net.ipv4.ip_forward=1"
        yield Finding("network", Verdict.ERROR, "IPv4 is not forwarded", remedy)


def _flows(status: Status) -> Iterator[Finding]:
    flows = status["flows"]
    if flows["most"] and flows["entries"] >= NEARLY_ALL * flows["most"]:
        words = f"{flows['entries']} of {flows['most']} entries are in use: new flows soon fail"
        remedy = "Lower OCGATE_SESSION_FLOWS, or raise net.netfilter.nf_conntrack_max on the host"
        yield Finding("connection tracking", Verdict.WARNING, words, remedy)
    if flows["ports_used"] is not None and flows["ports_used"] >= NEARLY_ALL * flows["ports"]:
        words = f"{flows['ports_used']} of {flows['ports']} are in use towards {flows['busiest']}"
        remedy = "Lower OCGATE_SESSION_FLOWS; or give clients a resolver on this host, if it is one"
        yield Finding("translated ports", Verdict.WARNING, words, remedy)
    users = dict.fromkeys(s["user"] for s in status["sessions"] if s["limited"])
    if users:
        words = f"{', '.join(users)}: flows were refused by OCGATE_SESSION_FLOWS ({_limit(flows)})"
        yield Finding("limits of flows", Verdict.NOTE, words)


def _limit(flows: FlowsStatus) -> str:
    return f"{flows['per_session']} a session"


_OTHER_TARGETS = "name targets in EXIT_PROBE that answer behind this upstream"

# So many probes without an answer are no full line any more.
MANY_LATE = 10


def _exit(found: ExitStatus) -> Finding:
    name = f"exit {found['exit']} IPv{found['family']}"
    why = (
        f"{found['gateway']}: {found['why']}"
        if found["gateway"] != found["state"]
        else found["why"]
    )
    if found["state"] == "down":
        remedy = "Start the upstream, or look at its tunnel; clients are rejected until it answers"
        if found["address"] is None:
            remedy = "Correct the gateway's name, or start the upstream on a network of this host"
        elif found["heard"] is None:
            remedy += f". If it works, nobody behind it answers: {_OTHER_TARGETS}"
        return Finding(name, Verdict.WARNING, why, remedy)
    if found["state"] == "unknown":
        asked_before = found["heard"] is not None
        verdict = Verdict.WARNING if asked_before else Verdict.NOTE
        return Finding(name, verdict, f"unknown: {why}")
    if found["late"] >= MANY_LATE:
        words = f"up, as clients' traffic shows; {found['late']} probes have no answer"
        return Finding(name, Verdict.NOTE, words, _OTHER_TARGETS)
    return Finding(name, Verdict.OK, f"{found['state']}: {why}")


def _network(found: ReachedStatus) -> Finding:
    name = f"network {found['network']}"
    if found["state"] == "down":
        words = f"{found['why']}: what clients send there is rejected until it comes"
        remedy = "Bring the interface up, or correct OCGATE_NETWORKS (`ip -br address`)"
        return Finding(name, Verdict.WARNING, words, remedy)
    return Finding(name, Verdict.OK, f"by {found['device']}, {found['packets']} packets so far")


def _certificates(status: Status, now: datetime) -> Iterator[Finding]:
    for found in status["certificates"]:
        yield _expiry(found, now)
    host = urlsplit(status["server"]["url"] or "").hostname
    names = [name for found in status["certificates"] for name in found["names"]]
    if host and names and not any(_covers(name, host) for name in names):
        yield Finding(
            "certificate",
            Verdict.WARNING,
            f"OCGATE_URL names {host}, but no certificate is for that name",
            "Get one that is, or correct OCGATE_URL",
        )
    if status["certificate_trouble"]:
        remedy = "Put a certificate and its own key into place; nobody is disconnected meanwhile"
        yield Finding("certificate", Verdict.WARNING, status["certificate_trouble"], remedy)


def _expiry(found: CertificateStatus, now: datetime) -> Finding:
    name = f"certificate {found['file']}"
    if found["not_after"] is None:
        return Finding(name, Verdict.NOTE, "its end can't be read here (hardware)")
    left = datetime.fromisoformat(found["not_after"]) - now
    words = f"for {', '.join(found['names']) or 'no name'}, until {found['not_after']}"
    if left < timedelta(0):
        return Finding(name, Verdict.ERROR, f"it has expired: {words}", "Renew it")
    if left < EXPIRES_SOON:
        return Finding(name, Verdict.WARNING, f"it ends in {left.days} days: {words}", "Renew it")
    return Finding(name, Verdict.OK, words)


def _covers(name: str, host: str) -> bool:
    """RFC 6125 section 6.4: a `*` stands for one whole label in front."""
    pattern, wanted = name.lower(), host.lower().rstrip(".")
    if pattern.startswith("*."):
        return wanted.partition(".")[2] == pattern[2:]
    return pattern == wanted


def _history(status: Status) -> Iterator[Finding]:
    history = status["history"]
    if not history["trouble"]:
        return
    lost = f", {history['lost']} are lost already" if history["lost"] else ""
    words = f"{history['waiting']} completed sessions wait in memory{lost}: {history['trouble']}"
    remedy = "Free space, or set SESSION_HISTORY_FILE to a file that can be written"
    yield Finding("session history", Verdict.WARNING, words, remedy)

"""CERT_WATCH: a renewed certificate is shown to new clients, whichever way it comes, and nobody is
dropped; what does not fit together is waited for.

client1, client2 --- inet --- router --- gw (ocgate, ocserv, vpns*)    lab/topology.py
"""

from __future__ import annotations

import contextlib
import os
import shutil
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab import gateway
from lab.certificate import write_certificate
from lab.gateway import Gateway
from lab.streams import UdpStream
from lab.topology import PORT, SERVICE
from lab.traffic import ask_tcp
from ocgate import names
from ocgate.netlab.wait import wait_until
from support.lifecycle import (
    LabFactory,
    log_in,
    ocgate,
    operator_conf,
    serve,
    sessions,
    two_clients,
)

pytestmark = pytest.mark.lab

WATCHED = {"CERT_WATCH": "1"}
CERTIFICATE, KEY = "server-cert.pem", "server-key.pem"


def presented(gw: Gateway) -> str:
    """The certificate of a new, whole TLS handshake, PEM; empty where there is none."""
    with gw.lab.clients[-1].netns.entered(), contextlib.suppress(ConnectionError, ssl.SSLError):
        return ssl.get_server_certificate((str(gw.lab.server), PORT), timeout=5)
    return ""


def shows(gw: Gateway, pem: str, timeout: float = 15.0) -> None:
    wait_until(lambda: presented(gw) == pem, timeout, f"the new certificate:\n{gw.output[-3000:]}")


def made(gw: Gateway, directory: Path) -> str:
    """A new pair in a directory, which is made; the certificate's PEM."""
    directory.mkdir(parents=True, exist_ok=True)
    write_certificate(directory / CERTIFICATE, directory / KEY, [gw.lab.server])
    return (directory / CERTIFICATE).read_text()


def trouble(gw: Gateway) -> str:
    return str(gw.status()["certificate_trouble"])


# --- the ways in which renewals come -------------------------------------------------------------


def written_over(gw: Gateway, new: Path) -> None:
    """In place, as a single-file bind mount sees it."""
    for name in (KEY, CERTIFICATE):
        (gw.config_dir / name).write_bytes((new / name).read_bytes())


def renamed_over(gw: Gateway, new: Path) -> None:
    for name in (CERTIFICATE, KEY):
        (new / name).rename(gw.config_dir / name)


def older_than_the_former(gw: Gateway, new: Path) -> None:
    """A restored backup: its time is before ocserv's start, by which ocserv alone would go."""
    for name in (CERTIFICATE, KEY):
        os.utime(new / name, (1_000_000_000, 1_000_000_000))
        (new / name).rename(gw.config_dir / name)


WAYS: dict[str, Callable[[Gateway, Path], None]] = {
    "written over": written_over,
    "renamed over": renamed_over,
    "with an older time": older_than_the_former,
}


def test_a_renewed_certificate_is_shown_and_sessions_go_on(lab: LabFactory) -> None:
    """Each way, one after the other and within a second: a new handshake shows the new certificate,
    bob logs in by the new key's pin, alice's stream in her old session loses nothing, and ocserv is
    the same process with the same effective configuration."""
    gw = serve(two_clients(lab), WATCHED)
    alice = log_in(gw, 0, "alice")
    before, server = sessions(gw), gw.pid(names.OCSERV_PID)
    effective = (gw.run_dir / names.EFFECTIVE_CONF).read_bytes()
    with UdpStream(alice.netns, SERVICE, rate=500) as stream:
        stream.wait_for(50)
        for number, (_, put) in enumerate(WAYS.items()):
            new = gw.lab.path(f"new{number}")
            pem = made(gw, new)
            put(gw, new)
            shows(gw, pem)
            (told,) = gw.status()["certificates"]
            assert told["names"] == [str(gw.lab.server)]
            assert told["not_after"] is not None
        stream.wait_for(len(stream.tally.received) + 50)
    assert stream.tally.lost == 0
    assert alice.events().count("reconnect") == 0
    assert (sessions(gw), gw.pid(names.OCSERV_PID)) == (before, server)
    assert (gw.run_dir / names.EFFECTIVE_CONF).read_bytes() == effective
    assert gw.output.count("certificate renewed") == len(WAYS)
    assert trouble(gw) == ""
    assert ask_tcp(log_in(gw, 1, "bob").netns, SERVICE)


def test_links_that_turn_are_followed(lab: LabFactory) -> None:
    """certbot's `live/NAME/x.pem -> ../../archive/NAME/xN.pem`, then Kubernetes' `..data` that is
    swapped for another directory, which is removed afterwards."""
    built = two_clients(lab)
    live, archive = (built.path("mount") / name for name in ("live", "archive"))
    live.mkdir(parents=True)
    archive.mkdir(parents=True)
    directory = operator_conf(
        built, server_cert=str(live / CERTIFICATE), server_key=str(live / KEY)
    )
    back = os.path.relpath(archive, live)
    for name in (CERTIFICATE, KEY):
        shutil.move(directory / name, archive / f"1{name}")
        (live / name).symlink_to(f"{back}/1{name}")
    gw = gateway.run(built, WATCHED, directory)
    new = built.path("new")
    made(gw, new)
    for name in (CERTIFICATE, KEY):
        shutil.move(new / name, archive / f"2{name}")
        (live / "turned").symlink_to(f"{back}/2{name}")
        (live / "turned").rename(live / name)
    shows(gw, (archive / f"2{CERTIFICATE}").read_text())

    shutil.rmtree(live)  # and now as Kubernetes mounts a secret
    live.mkdir()
    pems = [made(gw, live / f"..{number}") for number in (1, 2, 3)]
    (live / "..data").symlink_to("..1")
    for name in (CERTIFICATE, KEY):
        (live / name).symlink_to(f"..data/{name}")
    shows(gw, pems[0])
    for number in (2, 3):
        (live / "..data_tmp").symlink_to(f"..{number}")
        (live / "..data_tmp").rename(live / "..data")
        shutil.rmtree(live / f"..{number - 1}")
        shows(gw, pems[number - 1])


def test_what_does_not_fit_together_is_waited_for(lab: LabFactory) -> None:
    """A new key without its certificate, garbage, and nothing at all: the former pair is shown on,
    also after a SIGHUP to ocserv and a crash of it; status and log say why, the server stays
    healthy. When the rest arrives, it is taken."""
    gw = serve(two_clients(lab), WATCHED)
    former = presented(gw)
    new = gw.lab.path("new")
    pem = made(gw, new)
    shutil.copy(new / KEY, gw.config_dir / KEY)
    wait_until(lambda: "the key of the certificate" in trouble(gw), 15.0, "the trouble")
    assert presented(gw) == former
    os.kill(gw.pid(names.OCSERV_PID), 1)
    assert ocgate(gw, "reload").returncode == 1
    assert ocgate(gw, "healthcheck").returncode == 0
    (gw.config_dir / CERTIFICATE).write_text("-----BEGIN CERTIFICATE-----\nhalf")
    wait_until(lambda: "X.509" in trouble(gw), 15.0, "another trouble")
    (gw.config_dir / CERTIFICATE).unlink()
    wait_until(lambda: "No such file" in trouble(gw), 15.0, "a third one")
    server = gw.pid(names.OCSERV_PID)
    os.kill(server, 9)
    wait_until(lambda: _pid(gw) not in (None, server), 15.0, "another ocserv")
    wait_until(lambda: presented(gw) == former, 15.0, "the former certificate after a crash")
    assert gw.output.count("a changed certificate is not used") == 3
    shutil.copy(new / CERTIFICATE, gw.config_dir / CERTIFICATE)
    shows(gw, pem)
    wait_until(lambda: trouble(gw) == "", 5.0, "no trouble any more")


def test_polling_sees_what_inotify_does_not_ask_for(lab: LabFactory) -> None:
    """CERT_WATCH_INTERVAL=1 alone; without either setting nothing happens by itself."""
    gw = serve(two_clients(lab), {"CERT_WATCH_INTERVAL": "1"})
    new = gw.lab.path("new")
    pem = made(gw, new)
    older_than_the_former(gw, new)
    shows(gw, pem)
    shown = _modes(gw.run_dir / names.KEYS)
    assert shown == {"": 0o700, "main-0-cert.pem": 0o600, "main-0-key.pem": 0o600}
    run_dir = gw.run_dir
    gw.stop()
    assert not (run_dir / names.KEYS).exists()


def _pid(gw: Gateway) -> int | None:
    try:
        return gw.pid(names.OCSERV_PID)
    except (OSError, ValueError):
        return None


def _modes(directory: Path) -> dict[str, Any]:
    found = {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()}
    return {"": directory.stat().st_mode & 0o777, **found}

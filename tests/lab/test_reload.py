"""`ocgate reload` and SIGHUP: certificates and settings for new sessions, nobody dropped; what
can't be taken is refused with its words, and then nothing has changed.

client1, client2 --- inet --- router --- gw (ocgate, ocserv, vpns*)    lab/topology.py
"""

from __future__ import annotations

import contextlib
import signal
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import gateway
from lab.certificate import write_certificate
from lab.gateway import Gateway
from lab.streams import UdpStream
from lab.topology import PORT, SERVICE
from lab.traffic import ask_tcp, ask_udp
from ocgate import names
from ocgate.netlab.packet import match
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


def presented(gw: Gateway) -> str:
    """The certificate of a new TLS handshake, PEM; empty if ocserv broke it off.

    It does for some milliseconds when the key changes, too: worker and sec-mod, which holds the
    key, take the new pair one after the other.
    """
    with gw.lab.clients[-1].netns.entered(), contextlib.suppress(ConnectionError, ssl.SSLError):
        return ssl.get_server_certificate((str(gw.lab.server), PORT), timeout=5)
    return ""


def renew(gw: Gateway, directory: Path | None = None) -> str:
    """A new key and certificate in the config dir; returns the PEM."""
    directory = directory or gw.config_dir
    certificate = directory / "server-cert.pem"
    write_certificate(certificate, directory / "server-key.pem", [gw.lab.server])
    return certificate.read_text()


def in_a_later_second() -> None:
    """Past the second in which ocserv last loaded its key: one whose mtime is not later than that
    is taken for the one it has (ocserv 1.1.6 compares whole seconds), and handshakes fail."""
    began = int(time.time())
    wait_until(lambda: int(time.time()) > began + 1, 3.0, "the second after the next")


def edit(gw: Gateway, old: str, new: str) -> None:
    conf = gw.config_dir / "ocserv.conf"
    text = conf.read_text()
    assert old in text
    conf.write_text(text.replace(old, new))


def append(gw: Gateway, line: str) -> None:
    conf = gw.config_dir / "ocserv.conf"
    conf.write_text(f"{conf.read_text()}{line}\n")


@pytest.mark.releases
def test_a_new_certificate_is_shown_and_nobody_is_dropped(lab: LabFactory) -> None:
    """By command and by SIGHUP: a new handshake shows the new certificate, alice's stream goes on
    without a loss in her old session, and bob logs in by the new key's pin."""
    gw = serve(two_clients(lab))
    alice = log_in(gw, 0, "alice")
    before, server = sessions(gw), gw.pid(names.OCSERV_PID)
    with UdpStream(alice.netns, SERVICE, rate=500) as stream:
        stream.wait_for(50)
        in_a_later_second()
        new = renew(gw)
        done = ocgate(gw, "reload")
        assert (done.returncode, done.stdout) == (0, "Reloaded: nobody was disconnected.\n")
        wait_until(lambda: presented(gw) == new, 5.0, "the new certificate")
        in_a_later_second()
        newer = renew(gw)
        gw.program.send(signal.SIGHUP)
        wait_until(lambda: presented(gw) == newer, 10.0, "the certificate after SIGHUP")
        stream.wait_for(len(stream.tally.received) + 50)
    assert stream.tally.lost == 0
    assert alice.events().count("reconnect") == 0
    assert (sessions(gw), gw.pid(names.OCSERV_PID)) == (before, server)
    assert ask_tcp(log_in(gw, 1, "bob").netns, SERVICE)


# --- refused -------------------------------------------------------------------------------------


def garbage_certificate(gw: Gateway) -> None:
    (gw.config_dir / "server-cert.pem").write_text("-----BEGIN CERTIFICATE-----\nnonsense\n")


def another_key(gw: Gateway) -> None:
    certificate = (gw.config_dir / "server-cert.pem").read_bytes()
    renew(gw)
    (gw.config_dir / "server-cert.pem").write_bytes(certificate)


def no_key(gw: Gateway) -> None:
    (gw.config_dir / "server-key.pem").unlink()


# What the operator does -> words of the refusal.
BROKEN: dict[str, tuple[Callable[[Gateway], None], str]] = {
    "garbage in ocserv.conf": (lambda gw: append(gw, "route = garbage"), "garbage"),
    "refused by ocserv -t": (lambda gw: append(gw, "tls-priorities = NONSENSE"), "ocserv refused"),
    "garbage certificate": (garbage_certificate, "server-cert"),
    "key of another certificate": (another_key, "server-key"),
    "no key": (no_key, "server-key"),
    "another device": (lambda gw: edit(gw, "device = vpns", "device = other"), "Restart ocgate"),
    "another port": (lambda gw: edit(gw, "tcp-port = 443", "tcp-port = 444"), "Restart ocgate"),
    "VPN_SUBNET differs": (
        lambda gw: edit(gw, "ipv4-network = 10.10.10.0", "ipv4-network = 10.20.0.0"),
        "VPN_SUBNET",
    ),
}


def test_a_bad_reload_is_refused_and_changes_nothing(lab: LabFactory) -> None:
    """Each mistake: exit 1 with its words on stderr and in the log, the same effective file, the
    same kernel state, the same ocserv with the same session, whose stream loses nothing."""
    built = two_clients(lab)
    gw = gateway.run(built, {"VPN_SUBNET": "10.10.10.0/24"}, operator_conf(built))
    alice = log_in(gw, 0, "alice")
    kept = {path: path.read_bytes() for path in gw.config_dir.iterdir() if path.is_file()}
    effective = gw.run_dir / names.EFFECTIVE_CONF
    before = (effective.read_bytes(), gw.pid(names.OCSERV_PID), sessions(gw), presented(gw))
    kernel = gw.state()
    with UdpStream(alice.netns, SERVICE, rate=200) as stream:
        stream.wait_for(20)
        for kind, (mistake, words) in BROKEN.items():
            mistake(gw)
            done = ocgate(gw, "reload")
            for path, content in kept.items():
                path.write_bytes(content)
            assert done.returncode == 1, kind
            assert "reload refused, nothing was changed" in done.stderr, kind
            assert words in done.stderr, f"{kind}: {done.stderr}"
            assert "reload refused, nothing changed" in gw.output, kind
            after = (effective.read_bytes(), gw.pid(names.OCSERV_PID), sessions(gw))
            assert after == before[:3], kind
        assert presented(gw) == before[3]
        stream.wait_for(len(stream.tally.received) + 20)
    assert stream.tally.lost == 0
    assert kernel.differences(gw.state()) == []
    assert gw.status()["healthy"]
    assert ocgate(gw, "reload").returncode == 0


# --- taken ---------------------------------------------------------------------------------------


@pytest.mark.releases
def test_changed_routes_and_resolvers_reach_new_sessions_only(lab: LabFactory) -> None:
    """After a reload from full to split tunnel with another resolver bob gets the new ones, while
    alice's session goes on with what it was given."""
    gw = serve(two_clients(lab))
    alice = log_in(gw, 0, "alice")
    given = dict(alice.pushed)
    edit(gw, "route = default", "route = 198.51.100.0/255.255.255.0")
    edit(gw, "dns = 198.51.100.53", "dns = 198.51.100.54")
    assert ocgate(gw, "reload").returncode == 0
    bob = log_in(gw, 1, "bob")
    assert bob.dns == ["198.51.100.54"]
    assert bob.pushed["CISCO_SPLIT_INC_0_ADDR"] == "198.51.100.0"
    assert ask_udp(bob.netns, SERVICE)
    assert dict(alice.pushed) == given
    assert "CISCO_SPLIT_INC" not in given
    assert ask_udp(alice.netns, SERVICE)
    assert [session["user"] for session in sessions(gw)] == ["alice", "bob"]


def test_a_subnet_with_live_sessions_is_not_taken_away(lab: LabFactory) -> None:
    """Another ipv4-network is refused while alice lives in the former one, naming her; a wider one
    is taken at once, and covers her and newcomers; once she has gone, the other is taken, too.
    Nobody is ever seen un-translated.  (capture: router's `docker`)"""
    built = two_clients(lab)
    wan = built.capture(built.router, "docker")
    gw = serve(built)
    alice = log_in(gw, 0, "alice")
    narrow = "ipv4-network = 10.10.10.0\nipv4-netmask = 255.255.255.0"
    other = "ipv4-network = 10.77.0.0\nipv4-netmask = 255.255.255.0"
    wide = "ipv4-network = 10.10.0.0\nipv4-netmask = 255.255.0.0"
    with UdpStream(alice.netns, SERVICE, rate=200) as stream:
        stream.wait_for(20)
        edit(gw, narrow, other)
        refused = ocgate(gw, "reload")
        assert refused.returncode == 1
        assert f"holds {alice.address}".replace("holds", "hold") in refused.stderr
        assert "'alice'" in refused.stderr
        assert (gw.run_dir / names.EFFECTIVE_CONF).read_text().count("10.77.0.0") == 0
        edit(gw, other, wide)
        assert ocgate(gw, "reload").returncode == 0
        stream.wait_for(len(stream.tally.received) + 20)
    assert stream.tally.lost == 0
    bob = log_in(gw, 1, "bob")
    assert ask_udp(bob.netns, SERVICE).seen_as == built.router.address
    wan.prove_sees(match(src=gw.host.address, dst=SERVICE), "their traffic, translated")
    bob.disconnect()
    alice.disconnect()
    wait_until(lambda: not sessions(gw), 5.0, "both to be gone")
    edit(gw, wide, other)
    assert ocgate(gw, "reload").returncode == 0
    bob = log_in(gw, 1, "bob")
    assert str(bob.address).startswith("10.77.0.")
    assert ask_udp(bob.netns, SERVICE).seen_as == built.router.address
    assert "10.10." not in str((gw.state().nft, gw.state().routes))
    wan.assert_none(match(src="10.0.0.0/8"), "a client's address in clear")
    wan.assert_none(match(dst="10.0.0.0/8"), "a packet to a client in clear")

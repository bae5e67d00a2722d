"""What a reload can't change is refused with its place, and nothing else is."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ocgate.errors import ConfigurationError, OcgateError, ServerRefused
from ocgate.names import KEYS_NEW
from ocgate.ocserv.certificate import create
from ocgate.plan.exits import Exits
from ocgate.server.desired.prepare import Ipv6Egress, Prepared, prepare
from ocgate.server.reconcile import effective_conf
from ocgate.server.reconcile.effective_conf import needs_restart
from support.sources import CONF, facts, interface, sources


def _prepared(conf: str) -> Prepared:
    found = facts(interface(2, "eth0", "192.0.2.10/24"), default4="eth0")
    return prepare(sources(conf), found, Ipv6Egress(None), Exits())


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("device = vpns", "device = other", "device"),
        ("tcp-port = 443", "tcp-port = 8443", "tcp-port"),
        ("udp-port = 443", "udp-port = 8443", "udp-port"),
        ("udp-port = 443\n", "", "udp-port"),
        ("dns =", "run-as-user = nobody\ndns =", "run-as-user"),
        ("ocpasswd]", "others]", "auth"),
        ("dns =", "listen-host = 192.0.2.1\ndns =", "listen-host"),
        ("dns =", "socket-file = /tmp/s\ndns =", "socket-file"),
    ],
)
def test_what_ocserv_reads_only_at_its_start(old: str, new: str, key: str) -> None:
    """The problem names line, former value and the remedy."""
    changed = CONF.replace(old, new)
    assert changed != CONF
    (problem,) = needs_restart(sources(), sources(changed))
    assert (problem.source, problem.key) == ("/etc/ocserv/ocserv.conf", key)
    assert "Restart ocgate" in problem.remedy
    if problem.got is None:
        assert problem.line == 0
    else:
        assert problem.got in changed.splitlines()[problem.line - 1]


@pytest.mark.parametrize(
    "changed",
    [
        CONF,
        CONF + "\n# a comment\n",
        CONF.replace("route = default", "route = 10.0.0.0/255.0.0.0"),
        CONF.replace("dns = 198.51.100.53", "dns = 1.1.1.1"),
        CONF.replace("10.10.10.0", "10.20.0.0"),
        CONF + "[vhost:a.example]\ntcp-port = 1\n",
    ],
)
def test_what_a_reload_is_for(changed: str) -> None:
    assert needs_restart(sources(), sources(changed)) == []


def test_the_run_dir_is_where_everything_stands() -> None:
    (problem,) = needs_restart(sources(), sources(OCGATE_RUN_DIR="/run/elsewhere"))
    assert (problem.source, problem.key) == ("environment", "OCGATE_RUN_DIR")


def test_all_are_told_at_once() -> None:
    changed = CONF.replace("tcp-port = 443", "tcp-port = 1").replace("= vpns", "= other")
    found = needs_restart(sources(), sources(changed))
    assert {problem.key for problem in found} == {"tcp-port", "device"}


def _room_made(conf: str, config_dir: Path) -> None:
    """As before a start, up to the point where certificates are read: CONF names none."""
    named = sources(CONF + conf, OCGATE_CONFIG_DIR=str(config_dir))
    effective_conf._make_room_for_sockets(named)


def test_the_directory_of_a_named_socket_is_made(tmp_path: Path) -> None:
    """ocserv ends again and again where it can't bind; a relative path begins where it starts."""
    _room_made(f"socket-file = {tmp_path}/a/b/s\nocctl-socket-file = c/s\n", tmp_path / "conf")
    assert (tmp_path / "a/b").is_dir()
    assert (tmp_path / "conf/c").is_dir()


def test_a_directory_that_can_not_be_made_is_a_problem_of_that_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError) as refused:
        _room_made(f"socket-file = {tmp_path}/file/s\n", tmp_path)
    (problem,) = refused.value.problems
    assert (problem.key, problem.got) == ("socket-file", f"{tmp_path}/file/s")
    assert problem.line == len(CONF.splitlines()) + 1


def test_no_key_is_staged_for_a_configuration_that_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by its sockets nor by ocserv, and the trial goes as well."""
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (tmp_path / "file").touch()
    made = create(["a.example"])
    (tmp_path / "cert").write_bytes(made.certificate)
    (tmp_path / "key").write_bytes(made.key)
    pair = f"server-cert = {tmp_path}/cert\nserver-key = {tmp_path}/key\n"

    def refuse(*_: object, **__: object) -> None:
        assert (run_dir / KEYS_NEW).is_dir()
        raise ServerRefused("no")

    monkeypatch.setattr(effective_conf, "dry_run", refuse)
    for more in (f"socket-file = {tmp_path}/file/s\n", ""):
        with pytest.raises(OcgateError):
            effective_conf.validated(_prepared(CONF + pair + more), run_dir)
        assert list(run_dir.iterdir()) == []


def test_a_full_run_dir_is_an_error_that_can_be_told(tmp_path: Path) -> None:
    """Not an OSError, which would end the control plane's tasks, and with them all admission."""
    conf = effective_conf.EffectiveConf(tmp_path / "no such directory")
    with pytest.raises(OcgateError, match="writing what ocserv reads"):
        asyncio.run(conf.replace(_prepared(CONF), renew=False))

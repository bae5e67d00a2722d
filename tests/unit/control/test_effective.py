"""What a reload can't change is refused with its place, and nothing else is."""

from __future__ import annotations

import pytest
from t4_sources import CONF, sources

from ocgate.control.effective import needs_restart


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

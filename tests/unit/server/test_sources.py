"""The snapshot: what a restarted control plane plans from is what was read at the start."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocgate.errors import OcgateError
from ocgate.ocserv.ini_parser import parse
from ocgate.ocserv.reading import Supplement
from ocgate.ocserv.releases import IN_THE_IMAGE
from ocgate.ocserv.view import ScopeKind
from ocgate.server.desired.sources import (
    EGRESS,
    SNAPSHOT,
    read_egress,
    read_snapshot,
    write_egress,
    write_snapshot,
)
from support.sources import CONF, sources

# A file's bytes; line ends, quotes, NUL, BOM and what is no UTF-8 more often than by chance.
awkward = [
    b"\n",
    b"\r\n",
    b"\r",
    b'"',
    b"\xef\xbb\xbf",
    b"[vhost:a]\n",
    b"dns = 1\n",
    b"\xff",
    b"\0",
]
contents = st.lists(st.one_of(st.binary(max_size=20), st.sampled_from(awkward)), max_size=12).map(
    b"".join
)


@given(conf=contents, supplement=contents)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_any_bytes_come_back_as_they_were(tmp_path: Path, conf: bytes, supplement: bytes) -> None:
    """Both documents, byte for byte and line for line, with the places of all entries."""
    read = sources(CONF.encode() + conf, VPN_SUBNET="10.10.10.0/24", MSS="1360")
    extra = Supplement(ScopeKind.USER, parse(supplement, "/etc/ocserv/config-per-user/a"))
    written = type(read)(read.settings, read.origins, read.document, (extra,), IN_THE_IMAGE)
    write_snapshot(tmp_path, written)
    found = read_snapshot(tmp_path)
    assert found.document == written.document
    assert found.supplements == written.supplements
    assert found.settings == written.settings
    assert found.release == written.release == IN_THE_IMAGE
    assert dict(found.origins) == dict(written.origins)


@pytest.mark.parametrize(
    "asked",
    [
        {"VPN_GATEWAY": "172.28.0.2", "VPN_GATEWAY6": "fd00:28::2", "EXIT_PROBE": "off"},
        {"VPN_GATEWAY": "nl.example.", "VPN_GATEWAY6": "DIRECT", "EXIT_PROBE_INTERVAL": "0.07"},
        {"VPN_GATEWAY": "block", "EXIT_PROBE": "1.1.1.1, [2620:fe::fe]:53"},
        {"VPN_GATEWAY6": "block", "VPN_GATEWAY_TABLE": "2147483647", "OCGATE_FORWARDING": "shared"},
    ],
)
def test_gateway_mode_comes_back(tmp_path: Path, asked: dict[str, str]) -> None:
    """A control plane that is restarted must know the gateway, or clients would leave by the
    host."""
    written = sources(**asked)
    write_snapshot(tmp_path, written)
    found = read_snapshot(tmp_path).settings
    assert found == written.settings
    assert found.gateway_mode


def test_it_keeps_no_secret_and_nobody_else_reads_it(tmp_path: Path) -> None:
    write_snapshot(tmp_path, sources(OCGATE_USER="carol", OCGATE_PASSWORD="hunter2-hunter2"))
    path = tmp_path / SNAPSHOT
    assert b"hunter2" not in path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_snapshot(tmp_path).settings.password is None


@pytest.mark.parametrize("broken", ["", "{", "[]", "{}", '{"settings": {}}', "null"])
def test_a_broken_snapshot_is_an_error_with_its_path(tmp_path: Path, broken: str) -> None:
    (tmp_path / SNAPSHOT).write_text(broken)
    with pytest.raises(OcgateError, match=SNAPSHOT) as caught:
        read_snapshot(tmp_path)
    assert caught.value.hint
    (tmp_path / SNAPSHOT).unlink()
    with pytest.raises(OcgateError, match=SNAPSHOT):
        read_snapshot(tmp_path)


@pytest.mark.parametrize("failure", [None, "no route", 'with "quotes"\n'])
def test_egress_is_kept(tmp_path: Path, failure: str | None) -> None:
    write_egress(tmp_path, failure)
    assert read_egress(tmp_path) == failure


@pytest.mark.parametrize("broken", ["", "{", "[]", json.dumps({"other": 1})])
def test_unknown_egress_counts_as_none(tmp_path: Path, broken: str) -> None:
    assert read_egress(tmp_path) == "not probed yet"
    (tmp_path / EGRESS).write_text(broken)
    assert read_egress(tmp_path) == "not probed yet"

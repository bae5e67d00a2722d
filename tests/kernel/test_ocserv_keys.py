"""The table of releases, key by key, against the real `ocserv -t`: which keys it knows, and which
it ignores or refuses in a virtual host.

The installed ocserv is asked; OCGATE_OTHER_OCSERV names a second one, as in
test_ocserv_conf_agreement.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from ocgate.ocserv.certificate import create
from ocgate.ocserv.dryrun import version
from ocgate.ocserv.reading import FIRST_WINS
from ocgate.ocserv.releases import (
    GLOBAL_KEYS,
    KEYS,
    VHOSTS_INHERIT,
    VHOSTS_NEED_DEVICE,
    VHOSTS_REFUSE_GLOBALS,
)

pytestmark = pytest.mark.kernel

COMMANDS = [
    command
    for command in ("ocserv", os.environ.get("OCGATE_OTHER_OCSERV", ""))
    if command and shutil.which(shlex.split(command)[0])
]
UNKNOWN = "skipping unknown option"
REFUSED = "cannot be set inside a virtual host section"
IGNORED = "is ignored on one.example virtual host"

# Values that ocserv takes; 1 does for all others.
VALUES = {"run-as-user": "nobody", "run-as-group": "daemon", "syslog-facility": "auth"}
# Without a word in a virtual host before they are refused there; a name of old, and listeners.
WORDLESS = {"listen-host", "udp-listen-host", "use-dbus", "use-seccomp"}


class Asked:
    """`ocserv -t` of one program on a sound configuration and one line more."""

    def __init__(self, command: str, directory: Path) -> None:
        self.command, self.directory = shlex.split(command), directory
        self.release = version(self.command)
        made = create(["one.example"])
        for name, content in (("cert", made.certificate), ("key", made.key), ("passwd", b"")):
            (directory / name).write_bytes(content)
        identity = [f'auth = "plain[passwd={directory}/passwd]"']
        identity += [f"server-cert = {directory}/cert", f"server-key = {directory}/key"]
        self.main = [*identity, "tcp-port = 443", f"socket-file = {directory}/s", "device = vpns"]
        self.main += ["ipv4-network = 10.10.10.0/24"]
        self.vhost = ["[vhost:one.example]", *identity, "ipv4-network = 10.20.0.0/24"]

    def said(self, *lines: str) -> tuple[int, str]:
        text = "\n".join(lines) + "\n"
        argv = [*self.command, "-t", "-c", "/dev/stdin"]
        done = subprocess.run(
            argv, input=text, capture_output=True, text=True, timeout=60, check=False
        )
        return done.returncode, done.stdout + done.stderr


@pytest.fixture(params=COMMANDS)
def ocserv(request: pytest.FixtureRequest, tmp_path: Path) -> Asked:
    return Asked(request.param, tmp_path)


def test_keys_are_known_to_the_releases_that_the_table_names(ocserv: Asked) -> None:
    wrong = []
    for key, row in KEYS.items():
        line = f"{key} = {VALUES.get(key, '1')}"
        code, said = ocserv.said(*ocserv.main, line)
        assert code == 0, said
        if (UNKNOWN in said) == row.known(ocserv.release):
            wrong.append(key)
    assert wrong == []
    assert UNKNOWN in ocserv.said(*ocserv.main, "no-such-key = 1")[1]  # positive control


def test_keys_of_main_in_a_virtual_host_are_what_the_table_says(ocserv: Asked) -> None:
    """Refused, or ignored with a warning; and the host without them is taken."""
    refuses = VHOSTS_REFUSE_GLOBALS.holds(ocserv.release)
    code, said = ocserv.said(*ocserv.main, *ocserv.vhost)
    assert (code, IGNORED in said) == (0, False)
    odd = {}
    for key in sorted(GLOBAL_KEYS - FIRST_WINS):
        row = KEYS.get(key)
        if row is not None and not row.known(ocserv.release):
            continue
        code, said = ocserv.said(*ocserv.main, *ocserv.vhost, f"{key} = {VALUES.get(key, '1')}")
        if refuses:
            right = code != 0 and f"'{key}' {REFUSED}" in said
        else:
            wordless = key in WORDLESS or (
                key == "device" and VHOSTS_NEED_DEVICE.holds(ocserv.release)
            )
            right = code == 0 and (wordless or IGNORED in said)
        if not right:
            odd[key] = (code, said)
    assert odd == {}


def test_a_virtual_host_inherits_where_the_table_says(ocserv: Asked) -> None:
    """Users, certificate and network; else ocserv refuses one without its own."""
    code, _ = ocserv.said(*ocserv.main, "[vhost:one.example]", "max-same-clients = 3")
    assert (code == 0) == VHOSTS_INHERIT.holds(ocserv.release)

"""What lies in the image, layer by layer: no file that gives a privilege, no program that nothing
there needs.

Read from `podman save`, so that what a layer covers up counts as well; first shown of the base,
which has such files.
"""

from __future__ import annotations

import fnmatch
import io
import json
import re
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from lab.addresses import RESOLVER
from lab.docker_host import Machines
from lab.podman import Engine
from ocgate.compat.names import NAMES
from support.container import IMAGE, SiteFactory

pytestmark = pytest.mark.image

BASE = "docker.io/library/debian:forky-slim"  # what setup/build-image begins with
ROOT = Path(__file__).resolve().parents[2]

DIRECTORIES = ("bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin", "usr/local/sbin")

# What the image has beyond the base's programs: those of packages.txt and of what these depend on.
# A program that is in no row came with a package: is it needed, or a row of unneeded.txt?
_PROGRAMS = """
    ocserv ocserv-worker occtl ocpasswd
    nft
    s6-* ucspilogd
    ip bridge ss tc genl rtmon rtacct routel nstat lnstat ctstat rtstat rtpr arpd dcb devlink rdma
    tipc vdpa dpll netshaper
    python3 python3.* py3clean py3compile py3versions
    update-ca-certificates openssl c_rehash
    openvpn openconnect wg wireguard-go
    adduser addgroup deluser delgroup systemd-sysusers systemd-tmpfiles
    getcap getpcaps
    ocgate
"""
PROGRAMS = _PROGRAMS.split()

# Of the base, and of no use to anybody but who wants more than he has.
_NEVER = """
    su sudo doas newgrp sg passwd gpasswd chage chfn chsh expiry umount nsenter capsh setcap
    pivot_root switch_root agetty getty sulogin login losetup swapon mkfs fsck wg-quick
    gcc cc make curl wget ssh ftp nc ncat socat telnet gdb strace tcpdump pip pip3
"""
NEVER = _NEVER.split()


def layers(image: str) -> Iterator[Iterator[tuple[tarfile.TarInfo, str]]]:
    """The members of each layer, with its path from the root without `/` before it."""
    saving = subprocess.Popen(["podman", "save", image], stdout=subprocess.PIPE)
    assert saving.stdout is not None
    with saving, tarfile.open(fileobj=saving.stdout, mode="r|") as archive:
        for member in archive:
            if member.isfile() and member.name.endswith(".tar"):
                layer = archive.extractfile(member)
                assert layer is not None
                yield members(layer.read())
    assert saving.returncode == 0


def extracted(image: str, path: str) -> Iterator[bytes]:
    """What that file holds, of each layer that has it."""
    saving = subprocess.run(["podman", "save", image], stdout=subprocess.PIPE, check=True)
    with tarfile.open(fileobj=io.BytesIO(saving.stdout)) as archive:
        for name in archive.getnames():
            layer = archive.extractfile(name) if name.endswith(".tar") else None
            if layer is None:
                continue
            with tarfile.open(fileobj=layer) as opened:
                found = [one for one in opened if one.name.removeprefix("./") == path]
                for one in found:
                    held = opened.extractfile(one)
                    assert held is not None
                    yield held.read()


def members(layer: bytes) -> Iterator[tuple[tarfile.TarInfo, str]]:
    with tarfile.open(fileobj=io.BytesIO(layer)) as opened:
        for member in opened:
            yield member, member.name.removeprefix("./").lstrip("/")


def privileged(found: Iterator[tuple[tarfile.TarInfo, str]]) -> Iterator[str]:
    """What of a layer gives something to who may only run or write it."""
    for member, path in found:
        if member.mode & (stat.S_ISUID | stat.S_ISGID):
            yield f"{path} is set-user-id or set-group-id"
        if "SCHILY.xattr.security.capability" in member.pax_headers:
            yield f"{path} has capabilities"
        sticky = member.isdir() and member.mode & stat.S_ISVTX
        if member.mode & stat.S_IWOTH and not member.issym() and not sticky:
            yield f"{path} may be written by everybody"
        if member.ischr() or member.isblk():
            yield f"{path} is a device"
        if member.uid:
            yield f"{path} belongs to uid {member.uid}"


def programs(image: str) -> set[str]:
    """Names of what lies where PATH looks."""
    return {
        Path(path).name
        for layer in layers(image)
        for member, path in layer
        if str(Path(path).parent) in DIRECTORIES and not member.isdir()
    }


def test_no_layer_holds_a_file_that_gives_a_privilege() -> None:
    assert any("usr/bin/su is set-user-id" in each for x in layers(BASE) for each in privileged(x))
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
        with_capabilities = tarfile.TarInfo("usr/bin/ping")
        with_capabilities.pax_headers["SCHILY.xattr.security.capability"] = "x"
        archive.addfile(with_capabilities)
    assert [*privileged(members(made.getvalue()))] == ["usr/bin/ping has capabilities"]
    assert [each for layer in layers(IMAGE) for each in privileged(layer)] == []


def test_the_image_tells_what_it_is_made_of() -> None:
    """ocserv's version as dpkg has it, the day of Debian's archive, and the base."""
    asked = ["podman", "image", "inspect", "--format", "{{json .Config.Labels}}", IMAGE]
    labels = json.loads(subprocess.run(asked, stdout=subprocess.PIPE, check=True).stdout)
    assert labels["org.opencontainers.image.base.name"] == BASE
    assert date.fromisoformat(labels["ocgate.packages"]) <= date.today()
    status = next(
        text
        for layer in extracted(IMAGE, "var/lib/dpkg/status")
        for text in layer.decode().split("\n\n")
        if text.startswith("Package: ocserv\n")
    )
    assert f"\nVersion: {labels['ocgate.ocserv']}\n" in status
    version = tuple(map(int, re.findall(r"\d+", labels["ocgate.ocserv"])[:3]))
    assert version >= (1, 5, 0), "a stranger crashes a worker of older ones"


def test_no_program_is_there_that_nothing_needs() -> None:
    """None that the image would bring by accident, and none of the base's that are left out."""
    base, found = programs(BASE), programs(IMAGE)
    assert "su" in base, "positive control"
    assert "setpriv" in found, "positive control"
    added = found - base - set(NAMES)
    assert [n for n in sorted(added) if not any(fnmatch.fnmatch(n, p) for p in PROGRAMS)] == []
    assert found & set(NEVER) == set()
    rows = (ROOT / "setup/image/unneeded.txt").read_text().splitlines()
    left_out = [row.split()[0] for row in rows if row.startswith("/")]
    there = {f"/{path}" for layer in layers(IMAGE) for _, path in layer}
    assert [p for p in left_out if fnmatch.filter(there, p)] == []


# A package with files of the image's packages, as an image that is made from ours would renew it.
RENEW = """
set -e
mkdir -p /tmp/new/DEBIAN /tmp/new/usr/bin /tmp/new/usr/sbin
printf 'Package: new\\nVersion: 1\\nArchitecture: all\\nMaintainer: me\\nDescription: new\\n' \
    >/tmp/new/DEBIAN/control
for file in bin/su bin/passwd bin/mount bin/ours sbin/fsck.new sbin/unix_chkpwd; do
    cp /bin/true /tmp/new/usr/$file
    chmod 6755 /tmp/new/usr/$file
done
dpkg-deb --build /tmp/new /tmp/new.deb >/dev/null
dpkg --install --force-overwrite /tmp/new.deb >/dev/null 2>&1
apt-get check >/dev/null
cd /usr
find bin/su bin/passwd bin/mount bin/ours sbin/fsck.new sbin/unix_chkpwd \
    -printf '%p %m\\n' 2>/dev/null
"""


def test_packages_of_an_image_made_from_ours_bring_nothing_back(site: SiteFactory) -> None:
    """What they bring of their own is theirs."""
    built = site(Machines(clients=0))
    engine = Engine(built, built.host, RESOLVER)
    words = ("run", "--rm", "--network=none", "--entrypoint=sh", IMAGE, "-c", RENEW)
    shown = engine.podman(*words, check=False).splitlines()
    assert shown == ["bin/mount 755", "bin/ours 6755", "sbin/unix_chkpwd 755"]

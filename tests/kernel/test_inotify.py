"""Every way in which a watched file can change is told; what happens beside it is not."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ocgate.kernel.inotify import FileWatch, consulted
from ocgate.netlab.namespace import Namespace

# Events are told within milliseconds; a busy machine gets its time.
PATIENCE = 5.0
# So long nothing is told, where nothing has happened.
SILENCE = 0.2


def grown(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def replaced(path: Path) -> None:
    new = path.with_name("new")
    new.write_bytes(b"x")
    new.rename(path)


def link_turned(path: Path) -> None:
    other = path.parent / "other"
    other.mkdir()
    (other / "f").write_bytes(b"x")
    (path.parent / "turned").symlink_to("other")
    (path.parent / "turned").rename(path.parent / "link")


def directory_swapped(path: Path) -> None:
    """The parent of the file's directory sees it only by the name of that directory."""
    here = path.parent
    here.rename(here.with_name("former"))
    shutil.copytree(here.with_name("former"), here, symlinks=True)


CHANGES: dict[str, Callable[[Path], object]] = {
    "appended to": grown,
    "written over": lambda path: path.write_bytes(b"x"),
    "replaced": replaced,
    "removed": lambda path: path.unlink(),
    "touched": lambda path: os.utime(path, (1, 1)),
    "a link on the way": link_turned,
    "a directory on the way": directory_swapped,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_told_and_so_is_the_next(tmp_path: Path, change: str) -> None:
    """By a link in its directory, as certbot and Kubernetes have it: after each kind of change the
    watch is renewed, so that a write to what is there then is told, too."""
    directory = tmp_path / "a" / "b"
    (directory / "real").mkdir(parents=True)
    (directory / "link").symlink_to("real")
    (directory / "real" / "f").write_bytes(b"")
    direct = change != "a link on the way"
    target = directory / "real" / "f" if direct else directory / "f"

    async def scenario() -> None:
        watch = FileWatch([directory / "link" / "f"])
        CHANGES[change](target)
        await asyncio.wait_for(watch.changed(), PATIENCE)
        (directory / "link" / "f").write_bytes(b"again")
        await asyncio.wait_for(watch.changed(), PATIENCE)
        watch.close()

    asyncio.run(scenario())


def test_neighbours_and_readers_are_no_change(tmp_path: Path) -> None:
    """Another file of the directory, and somebody who reads ours: nothing is told."""
    file = tmp_path / "f"
    file.write_bytes(b"x")

    async def scenario() -> None:
        watch = FileWatch([file])
        (tmp_path / "neighbour").write_bytes(b"x")
        file.read_bytes()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(watch.changed(), SILENCE)
        file.write_bytes(b"y")  # the positive control
        await asyncio.wait_for(watch.changed(), PATIENCE)
        watch.close()

    asyncio.run(scenario())


def test_a_file_that_comes_later_is_told(tmp_path: Path) -> None:
    """Nor its directory is there at first."""

    async def scenario() -> None:
        watch = FileWatch([tmp_path / "later" / "f"])
        (tmp_path / "later").mkdir()
        await asyncio.wait_for(watch.changed(), PATIENCE)
        (tmp_path / "later" / "f").write_bytes(b"x")
        await asyncio.wait_for(watch.changed(), PATIENCE)
        watch.close()

    asyncio.run(scenario())


@pytest.mark.kernel
def test_a_bind_mounted_file_is_told(netns: Namespace, tmp_path: Path) -> None:
    """`-v ./cert.pem:/etc/ocserv/cert.pem`: the file's directory is another than it seems, so that
    only the file itself tells of a write to it."""
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    for path in (outside, inside):
        path.write_bytes(b"")
    program = (
        "import asyncio, pathlib, sys\n"
        "from ocgate.kernel.inotify import FileWatch\n"
        "async def main():\n"
        "    watch = FileWatch([pathlib.Path(sys.argv[1])])\n"
        "    pathlib.Path(sys.argv[2]).write_bytes(b'x')\n"
        f"    await asyncio.wait_for(watch.changed(), {PATIENCE})\n"
        "asyncio.run(main())\n"
    )
    script = tmp_path / "script.py"
    script.write_text(program)
    mounted = 'mount --bind "$1" "$2" && exec "$3" -P "$4" "$2" "$1"'
    subprocess.run(
        ["unshare", "--mount", "sh", "-c", mounted, "sh", outside, inside, sys.executable, script],
        check=True,
        timeout=30,
    )


def test_the_way_to_a_file_is_followed_as_the_kernel_does(tmp_path: Path) -> None:
    """Relative and absolute links, `..` in them, and a loop, which ends."""
    root = tmp_path
    (root / "x" / "y").mkdir(parents=True)
    (root / "x" / "y" / "f").write_bytes(b"")
    (root / "relative").symlink_to("x/../x/y")
    (root / "absolute").symlink_to(root / "relative")
    seen = list(consulted(root / "absolute" / "f"))
    assert seen[-1] == (root / "x" / "y" / "f", b"")
    own = [(place, name) for place, name in seen if place.is_relative_to(root)]
    assert (root, b"absolute") in own
    assert (root, b"relative") in own
    assert (root / "x" / "y", b"f") in own
    (root / "loop").symlink_to("loop")
    assert len(list(consulted(root / "loop"))) < 100


def test_watches_that_cannot_be_had_leave_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENOSPC: fs.inotify.max_user_watches."""

    def refused(_self: FileWatch) -> None:
        raise OSError(errno.ENOSPC, "no watches left")

    async def watch() -> None:
        FileWatch([tmp_path / "key.pem"])

    monkeypatch.setattr(FileWatch, "rearm", refused)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match="no watches left"):
        asyncio.run(watch())
    assert len(list(Path("/proc/self/fd").iterdir())) == before

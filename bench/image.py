"""What the container image weighs, how soon it serves, and what it takes at rest.

Beside plain ocserv from the same image, so that what the container and ocserv take is told apart.
"""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.measure import Measurement, Series, in_turn
from bench.report import Found, Headline, Table
from bench.size import Size
from bench.start import Weight, mib
from lab.addresses import RESOLVER
from lab.certificate import write_certificate
from lab.chained_examples import one_upstream
from lab.docker_host import DockerHosts, Machines
from lab.ocserv import SETTINGS, write_users
from lab.podman import Engine, has_image
from lab.topology import PORT
from ocgate.netlab.listening import listens
from ocgate.netlab.namespace import Namespace
from ocgate.netlab.wait import wait_until

IMAGE, BASE = "ocgate", "docker.io/library/debian:forky-slim"
# Beside it in the same run, where it is here: setup/build-image --suite trixie --tag ocgate:trixie
OTHER, OTHER_BASE = "ocgate:trixie", "docker.io/library/debian:trixie-slim"
AIM_MB = 180.0  # unpacked beyond the base (issue 4)

EMPTY, BARE, OURS, FIRST = "a container", "plain ocserv", "ocgate", "ocgate, first start"
EXIT, SERVER = "ocgate exit, its tunnel up", "ocgate, one session, by that exit"

# README's own, and nothing more.
_NEEDED = ("--cap-add=NET_ADMIN", "--device=/dev/net/tun", "--sysctl=net.ipv4.ip_forward=1")
_FOREGROUND = ("--foreground", "--config=/etc/ocserv/ocserv.conf")


_SETTINGS = {
    **SETTINGS,
    "auth": '"plain[passwd=/etc/ocserv/ocpasswd]"',
    "server-cert": "/etc/ocserv/server-cert.pem",
    "server-key": "/etc/ocserv/server-key.pem",
    "socket-file": "/run/ocserv.sock",
    "occtl-socket-file": "/run/occtl.sock",
}


def measure(size: Size) -> Found:
    """Layers; starts in turn; memory of plain ocserv and of both roles."""
    with DockerHosts(Machines(clients=0)) as site:
        ground = _Ground(site)
        in_turn(1, ground.sides())  # reads the image's files once
        starts = in_turn(size.of(1, 1, 9), ground.sides())
        weights = {}
        for image in ground.images:
            weights[_of(BARE, image)] = ground.weigh(image, bare=True)
            weights[_of(OURS, image)] = ground.weigh(image, bare=False)
    with DockerHosts() as site:
        chain = one_upstream(site)
        for name, service in ((SERVER, chain.server), (EXIT, chain.exit)):
            with chain.project.engine.network_of(chain.project.container(service)) as netns:
                weights[name] = _weight(netns)
    return _found(starts, weights)


class _Ground:
    """One engine with two directories for /etc/ocserv: a hand-made one, and ocgate's own."""

    def __init__(self, site: DockerHosts) -> None:
        self._engine = Engine(site, site.host, RESOLVER)
        self._site = site
        self._bare, self._made = site.path("bare"), site.path("made")
        self._bare.mkdir()
        write_certificate(
            self._bare / "server-cert.pem", self._bare / "server-key.pem", [site.server]
        )
        write_users(self._bare / "ocpasswd", {"bench": "bench"})
        conf = self._bare / "ocserv.conf"
        conf.write_text("".join(f"{key} = {value}\n" for key, value in _SETTINGS.items()))
        self._made.mkdir()
        self.images = [image for image in (IMAGE, OTHER) if has_image(image)]

    def sides(self) -> dict[str, Measurement]:
        return {
            _of(name, image): functools.partial(what, image)
            for image in self.images
            for name, what in (
                (EMPTY, self._empty),
                (BARE, self._plain),
                (FIRST, self._first),
                (OURS, self._again),
            )
        }

    def weigh(self, image: str, *, bare: bool) -> Weight:
        found: list[Weight] = []
        serving = self._plain if bare else self._again
        serving(image, lambda netns: found.append(_weight(netns)))
        return found[0]

    def _plain(self, image: str, look: Callable[[Namespace], None] | None = None) -> float:
        return self._serving(self._bare, ("--entrypoint=ocserv", image, *_FOREGROUND), look)

    def _again(self, image: str, look: Callable[[Namespace], None] | None = None) -> float:
        return self._serving(self._made, (image,), look)

    def _empty(self, image: str) -> float:
        started = time.perf_counter()
        made = self._engine.podman("run", "--detach", *_NEEDED, "--entrypoint=true", image)
        seconds = time.perf_counter() - started
        self._engine.podman("rm", "--force", "--time=0", made)
        return seconds

    def _first(self, image: str) -> float:
        shutil.rmtree(self._made)
        self._made.mkdir()
        return self._again(image)

    def _serving(
        self, config: Path, command: Sequence[str], look: Callable[[Namespace], None] | None = None
    ) -> float:
        """Seconds from before `podman run` until the listener stands."""
        volume = f"--volume={config}:/etc/ocserv"
        started = time.perf_counter()
        made = self._engine.podman("run", "--detach", *_NEEDED, volume, *command)
        with self._engine.network_of(made) as netns:
            wait_until(lambda: listens(netns, PORT), 60.0, "the container to serve")
            seconds = time.perf_counter() - started
            if look is not None:
                look(netns)
        self._engine.podman("rm", "--force", "--time=0", made)
        return seconds


def _of(name: str, image: str) -> str:
    """A row's name."""
    return name if image == IMAGE else f"{name}, {image}"


def _weight(netns: Namespace) -> Weight:
    rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in netns.pids()]
    weights = [Weight(mib(text, "Rss"), mib(text, "Pss")) for text in rollups]
    return functools.reduce(Weight.__add__, weights)


def _podman_says(*words: str) -> str:
    return subprocess.run(["podman", *words], capture_output=True, text=True, check=True).stdout


def _megabytes(image: str) -> float:
    return int(json.loads(_podman_says("image", "inspect", image))[0]["Size"]) / 1e6


def _found(starts: dict[str, Series], weights: dict[str, Weight]) -> Found:
    whole, base = _megabytes(IMAGE), _megabytes(BASE)
    beyond = whole - base
    return Found(
        "image",
        "The container image",
        (_sizes(base, beyond), _start_table(starts), _memory(weights)),
        (
            Headline("image beyond its base", f"{beyond:.0f} MB", f"{AIM_MB:.0f} MB",
                     beyond <= AIM_MB),
            Headline("container run to its listener", f"{starts[OURS].median:.1f} s"),
        ),
        {f"{name}, s": series for name, series in starts.items()},
    )  # fmt: skip


# The Dockerfile's copies, in their order; the first holds what is needed of the base as well.
_LAYERS = ("base and Debian packages", "Python libraries", "ocgate")


def _sizes(base: float, beyond: float) -> Table:
    history = json.loads(_podman_says("history", "--format=json", IMAGE))
    copied = [step["size"] / 1e6 for step in reversed(history) if step["size"] > 1e5]
    layers = list(zip(_LAYERS, copied, strict=True))
    rows = [*layers, (BASE.rpartition("/")[2], base), ("beyond that", beyond)]
    if has_image(OTHER):
        whole, other = _megabytes(OTHER), _megabytes(OTHER_BASE)
        rows += [(OTHER_BASE.rpartition("/")[2], other), (f"beyond that, {OTHER}", whole - other)]
    return Table("Size (MB, unpacked)", ("Layer", "MB"), tuple((n, f"{mb:.1f}") for n, mb in rows))


def _start_table(starts: dict[str, Series]) -> Table:
    bare = starts[BARE]
    rows = tuple(
        (name, *(f"{1000 * s:.0f}" for s in (taken.median, min(taken.values), max(taken.values))),
         f"{taken.over(bare).median:.2f}")
        for name, taken in starts.items()
    )  # fmt: skip
    times = len(bare.values)
    return Table(
        "`podman run` to the listener (ms)",
        ("Container", "median", "least", "most", ": plain ocserv"),
        rows,
        (f"{times} of each, in turn; `a container` runs `true` and is what podman takes.",),
    )


def _memory(weights: dict[str, Weight]) -> Table:
    bare = weights[BARE].pss
    rows = tuple(
        (name, str(w.processes), f"{w.rss:.1f}", f"{w.pss:.1f}", f"{w.pss / bare:.1f}")
        for name, w in weights.items()
    )
    columns = ("Container", "processes", "RSS", "PSS", "PSS : plain ocserv")
    return Table("Memory at rest (MiB, the whole container)", columns, rows)

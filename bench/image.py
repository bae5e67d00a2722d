"""What the container image weighs, how soon it serves, and what it takes at rest."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

from bench.measure import Series
from bench.report import Found, Headline, Table
from bench.size import Size
from bench.start import mib
from ocgate.lab.chained_examples import one_upstream
from ocgate.lab.client import connect
from ocgate.lab.compose import Project
from ocgate.lab.docker_host import DockerHosts
from ocgate.lab.example import PASSWORD, login, place, wait_serving

IMAGE, BASE = "ocgate", "docker.io/library/debian:trixie-slim"
AIM_MB = 180.0  # unpacked beyond the base (issue 4)

FIRST, LATER = "first start: certificate and users are made", "later start"


def measure(size: Size) -> Found:
    """Sizes; starts of examples/standalone; memory of both roles of examples/one-upstream."""
    starts: dict[str, list[float]] = {FIRST: [], LATER: []}
    for _ in range(size.of(1, 1, 7)):
        with DockerHosts() as site:
            project = place(site, "standalone", {"password": PASSWORD})
            project.compose("up", "--no-start")
            starts[FIRST].append(_start(site, project))
            project.engine.podman("stop", project.container("ocgate"))
            starts[LATER].append(_start(site, project))
    with DockerHosts() as site:
        chain = one_upstream(site)
        weights = {role: _weigh(chain.project, role) for role in (chain.server, chain.exit)}
    return _found({name: Series(tuple(taken)) for name, taken in starts.items()}, weights)


def _start(site: DockerHosts, project: Project) -> float:
    """Seconds from `podman start` to a client's tunnel, less what reading the pin takes."""
    container = project.container("ocgate")
    started = time.perf_counter()
    project.engine.podman("start", container)
    wait_serving(project, "ocgate")
    serving = time.perf_counter() - started
    found = login(site, project, "ocgate")
    begun = time.perf_counter()
    client = connect(site, site.clients[0], found, dtls=False)
    seconds = serving + time.perf_counter() - begun
    client.disconnect()
    return seconds


def _weigh(project: Project, service: str) -> float:
    """MiB of all its processes, what they share counted once (Pss)."""
    with project.engine.network_of(project.container(service)) as netns:
        pids = netns.pids()
    return sum(mib(Path(f"/proc/{pid}/smaps_rollup").read_text(), "Pss") for pid in pids)


def _megabytes(image: str) -> float:
    command = ["podman", "image", "inspect", image]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(json.loads(done.stdout)[0]["Size"]) / 1e6


def _found(starts: dict[str, Series], weights: dict[str, float]) -> Found:
    whole, base = _megabytes(IMAGE), _megabytes(BASE)
    sizes = (("the image", f"{whole:.0f}"), ("of that, its base", f"{base:.0f}"),
             ("ocgate and what it needs", f"{whole - base:.0f}"))  # fmt: skip
    rows = tuple(
        (name, f"{s.median:.2f}", f"{max(s.values):.2f}", str(len(s.values)))
        for name, s in starts.items()
    )
    held = tuple((f"role {name}", f"{weight:.0f}") for name, weight in weights.items())
    return Found(
        "image",
        "The container image",
        (
            Table("unpacked (MB)", ("What", "MB"), sizes),
            Table(
                "container started to a client's tunnel (s)",
                ("Start", "median", "longest", "times"),
                rows,
                ("`podman start` of examples/standalone, as it stands, to openconnect's tunnel.",),
            ),
            Table(
                "memory at rest (MiB)",
                ("Of examples/one-upstream", "Pss"),
                held,
                ("Of all processes in the container; one client, the tunnel up.",),
            ),
        ),
        (
            Headline(
                "image beyond its base",
                f"{whole - base:.0f} MB",
                f"{AIM_MB:.0f} MB",
                whole - base <= AIM_MB,
            ),
            Headline("container started to a client's tunnel", f"{starts[LATER].median:.1f} s"),
        ),
        {f"{name}, s": series for name, series in starts.items()},
    )

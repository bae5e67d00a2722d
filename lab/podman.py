"""A container engine of its own inside a docker host's namespaces: real podman, bridges, NAT, DNS.

podman runs in the host's network namespace and in a mount namespace in which /etc/containers, /run,
/dev/shm and /etc/resolv.conf are the engine's own. So its networks, names, locks and containers are
seen by nobody else, engines run beside each other, and nothing appears on the machine but processes
and their cgroups. Images are read from the machine's own store, nothing is written there.

What differs from a docker engine: podman's default capabilities are fewer (no NET_RAW), its names
are served by aardvark-dns at each bridge's own address and not at 127.0.0.11, and a container on
several networks has a default route and its published ports on each, which `as_docker` corrects.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from lab import as_docker
from lab.addresses import Host
from lab.site import Site
from ocgate.netlab.namespace import Namespace
from ocgate.netlab.program import BASE_ENVIRON, Program

# The root engine's default, where `podman build` and setup/build-image put their images.
IMAGES = Path("/var/lib/containers/storage")

# Where distributions put netavark and aardvark-dns; podman's own list, see containers.conf(5).
HELPERS = (Path("/usr/libexec/podman"), Path("/usr/lib/podman"))

PROGRAMS = ("podman", "runc", "conmon", "iptables", "nsenter")

# Making a container takes half a second on an idle machine, and several when four tests do it.
COMMAND_SECONDS = 60.0


def missing() -> str:
    """What an engine lacks on this machine; empty if nothing."""
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    absent += [name for name in ("netavark", "aardvark-dns") if _helper(name) is None]
    return f"needs the programs {', '.join(absent)}" if absent else ""


def has_image(name: str) -> bool:
    """Is the image in the machine's own store?"""
    command = ["podman", "image", "exists", name]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


class Engine:
    """podman on `host`; the site ends it, with all containers, at its own end.

    resolver: what the host's /etc/resolv.conf names.
    """

    def __init__(self, site: Site, host: Host, resolver: IPv4Address) -> None:
        self.host = host
        self._directory = site.path(f"{host.role}-engine")
        self._write_configuration(resolver)
        self._holder = self._hold(site)
        site.own(self)

    # --- commands -----------------------------------------------------------------------------

    def run(
        self,
        argv: Sequence[str],
        *,
        directory: Path | None = None,
        timeout: float = COMMAND_SECONDS,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of the machine in the engine's namespaces, its environment empty."""
        return self.host.netns.run(self.command(argv, directory), timeout=timeout, check=check)

    def command(self, argv: Sequence[str], directory: Path | None = None) -> list[str]:
        """`argv` as it must be started in the host's network namespace."""
        enter = ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt"]
        enter += [f"--wd={directory}"] if directory else []
        environ = [f"{name}={value}" for name, value in BASE_ENVIRON.items()]
        return [*enter, "env", "-i", *environ, *argv]

    def podman(self, *words: str, check: bool = True, timeout: float = COMMAND_SECONDS) -> str:
        """`podman WORDS`; returns what it prints, without the last newline."""
        return self.run(["podman", *words], check=check, timeout=timeout).stdout.rstrip("\n")

    def inspect(self, container: str) -> dict[str, Any]:
        """All that podman knows of a container."""
        found: dict[str, Any] = json.loads(self.podman("container", "inspect", container))[0]
        return found

    def containers(self, *filters: str) -> list[str]:
        """Ids, also of those that don't run; filters as "label=KEY=VALUE"."""
        chosen = [f"--filter={text}" for text in filters]
        return self.podman("ps", "--all", "--quiet", "--no-trunc", *chosen).split()

    def pid(self, container: str) -> int:
        """Of its first process; 0 while it doesn't run."""
        return int(self.inspect(container)["State"]["Pid"])

    def bridge(self, network: str) -> str:
        """The device on the host that is the network."""
        return str(json.loads(self.podman("network", "inspect", network))[0]["network_interface"])

    @contextlib.contextmanager
    def network_of(self, container: str) -> Iterator[Namespace]:
        """The container's network namespace, for a capture or a look inside."""
        path = Path(f"/proc/{self.pid(container)}/ns/net")
        with path.open("rb") as opened:
            yield Namespace("", opened.fileno())

    # --- the end ------------------------------------------------------------------------------

    def close(self) -> None:
        """Remove every container by id, at once, and what podman keeps beside them."""
        if made := self.containers():
            self.podman("rm", "--force", "--volumes", "--time=0", *made, check=False)
        pods = self.podman("pod", "ps", "--quiet", check=False).split()
        if pods:
            self.podman("pod", "rm", "--force", *pods, check=False)
        self._holder.kill()

    # --- the beginning ------------------------------------------------------------------------

    def _write_configuration(self, resolver: IPv4Address) -> None:
        etc, helpers = self._directory / "etc", self._directory / "helpers"
        for directory in (etc, helpers):
            directory.mkdir(parents=True)
        real = _helper("netavark")
        assert real is not None, missing()
        netavark = helpers / "netavark"
        wrapped = f'{sys.executable} -I -S {as_docker.__file__} {real} "$@"'
        netavark.write_text(f"#!/bin/sh\nexec {wrapped}\n")
        netavark.chmod(0o755)
        (etc / "containers.conf").write_text(_engine_configuration(helpers))
        (etc / "storage.conf").write_text(_store_configuration(self._directory))
        (etc / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        (self._directory / "resolv.conf").write_text(f"nameserver {resolver}\n")

    def _hold(self, site: Site) -> Program:
        """A process that keeps the mount namespace, ready when this returns."""
        script = [
            "mount -t tmpfs -o mode=755 tmpfs /run",
            "mount -t tmpfs tmpfs /dev/shm",
            f"mount --bind {self._directory}/etc /etc/containers",
            f"mount --bind {self._directory}/resolv.conf /etc/resolv.conf",
            "echo ready",
            "exec sleep infinity",
        ]
        # Slave, so that unmounts of other tests' namespaces under /run/netns come through.
        unshare = ["unshare", "--mount", "--propagation", "slave", "--"]
        holder = site.spawn(self.host, [*unshare, "sh", "-ec", "\n".join(script)])
        holder.wait_for_output("ready", 5.0)
        return holder


def _helper(name: str) -> Path | None:
    return next((d / name for d in HELPERS if (d / name).exists()), None)


def _engine_configuration(helpers: Path) -> str:
    """containers.conf(5). Where systemd or journald are missing podman's defaults don't work, and
    it would ask for more open files than root may have in a container."""
    directories = ", ".join(f'"{directory}"' for directory in (helpers, *HELPERS))
    return f"""
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
log_driver = "k8s-file"

[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
helper_binaries_dir = [{directories}]

[network]
network_backend = "netavark"
"""


def _store_configuration(directory: Path) -> str:
    """containers-storage.conf(5)."""
    return f"""
[storage]
driver = "overlay"
graphroot = "{directory}/store"
runroot = "/run/containers/storage"

[storage.options]
additionalimagestores = ["{IMAGES}"]
"""

"""A compose project on a docker host: podman-compose, run as a user runs `docker compose`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from lab.podman import COMMAND_SECONDS, Engine

# podman-compose writes both on everything it makes, as docker compose does.
_SERVICE = "label=com.docker.compose.service"
_PROJECT = "label=com.docker.compose.project"


class Project:
    """`directory` with a compose.yaml; its name is the directory's."""

    def __init__(self, engine: Engine, directory: Path) -> None:
        self.engine = engine
        self.directory = directory

    def compose(
        self, *words: str, timeout: float = COMMAND_SECONDS, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """`docker compose WORDS` in the project's directory."""
        argv = [sys.executable, "-P", "-m", "podman_compose", *words]
        return self.engine.run(argv, directory=self.directory, timeout=timeout, check=check)

    def up(self, *services: str, recreate: bool = False) -> None:
        """Start everything, or these services; recreate: new containers for them in any case."""
        options = ["--force-recreate"] if recreate else []
        # Without dependencies, or podman-compose recreates those, too.
        options += ["--no-deps"] if services else []
        self.compose("up", "--detach", *options, *services)

    def container(self, service: str) -> str:
        """The id of the service's one container; raises AssertionError if there is none."""
        found = self.engine.containers(f"{_SERVICE}={service}", f"{_PROJECT}={self.directory.name}")
        assert len(found) == 1, f"{service}: {len(found)} containers"
        return found[0]

    def exec(self, service: str, *argv: str, check: bool = True) -> str:
        """`docker compose exec SERVICE ARGV`; returns its standard output."""
        return self.engine.podman("exec", self.container(service), *argv, check=check)

    def logs(self, service: str) -> str:
        """All that the container has said on both channels."""
        done = self.engine.run(["podman", "logs", self.container(service)], check=False)
        return done.stdout + done.stderr

    def running(self, service: str) -> bool:
        """Does its container run?"""
        return self.engine.pid(self.container(service)) != 0

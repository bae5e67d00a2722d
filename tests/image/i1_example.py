"""What the tests of the image share."""

from __future__ import annotations

from collections.abc import Callable

from ocgate.lab.chained import Chained
from ocgate.lab.docker_host import DockerHosts

SiteFactory = Callable[..., DockerHosts]
Watch = Callable[[Chained], Chained]

"""What the tests of the image share."""

from __future__ import annotations

from collections.abc import Callable

from lab.chained import Chained
from lab.docker_host import DockerHosts

SiteFactory = Callable[..., DockerHosts]
Watch = Callable[[Chained], Chained]

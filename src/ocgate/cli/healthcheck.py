"""`ocgate healthcheck`: the container's probe; silent imports, since it runs every few seconds."""

from __future__ import annotations

import os

from ocgate.cli.places import run_dir


def healthcheck() -> int:
    """Print why the server is unhealthy, one reason a line; 0 if it is not."""
    from ocgate.server.status.health import healthcheck as probe

    reasons = probe(run_dir(os.environ))
    for reason in reasons or ["healthy"]:
        print(reason)
    return 1 if reasons else 0

"""`ocgate healthcheck`: asks the control plane, which judges: `status.health`."""

from __future__ import annotations

import json
from pathlib import Path

from ocgate.errors import OcgateError
from ocgate.runtime.control_client import ask

# Below the 10 s after which the image's HEALTHCHECK is ended (Dockerfile), so that the reason is
# said; above the 4 s that HEALTH_CHECK_EGRESS may take.
TIMEOUT = 8.0  # seconds


def healthcheck(run_dir: Path) -> list[str]:
    """Why it is unhealthy, a sentence each; empty if it is healthy."""
    try:
        reasons: list[str] = json.loads(ask(run_dir, "health", timeout=TIMEOUT))
    except OcgateError as error:
        return [error.message]
    except ValueError:
        return ["the control plane gave no whole answer"]
    return reasons

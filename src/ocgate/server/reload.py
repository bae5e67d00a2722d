"""`python -m ocgate.server.reload RUN_DIR`: what the supervisor runs at SIGHUP."""

from __future__ import annotations

import sys

from ocgate.runtime import control_client
from ocgate.runtime import log as logs
from ocgate.server.desired.sources import configure_log


def main() -> int:
    """Exit 0 when control has read everything anew."""
    return control_client.order("reload", configure_log, logs.stage("svc-control"))


if __name__ == "__main__":
    sys.exit(main())

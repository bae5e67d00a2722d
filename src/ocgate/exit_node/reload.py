"""`python -m ocgate.exit_node.reload RUN_DIR`: what the supervisor runs at SIGHUP."""

from __future__ import annotations

import sys

from ocgate.exit_node.sources import configure_log
from ocgate.runtime import control_client
from ocgate.runtime import log as logs


def main() -> int:
    """Exit 0 when control has read everything anew."""
    return control_client.order("reload", configure_log, logs.stage("svc-control"))


if __name__ == "__main__":
    sys.exit(main())

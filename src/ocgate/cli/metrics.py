"""`ocgate metrics`: the control plane's figures in Prometheus' text format."""

from __future__ import annotations

import os
import sys

from ocgate.cli.places import run_dir
from ocgate.errors import OcgateError

# What every page of ours holds; an error of the control plane is one line without it.
_SIGN = b"ocgate_build_info"


def metrics() -> int:
    """Print them."""
    from ocgate.runtime.control_client import ask

    page = ask(run_dir(os.environ), "metrics")
    if _SIGN not in page:
        words = page[:200].decode(errors="replace").strip() or "nothing"
        raise OcgateError(
            f"the control plane answered {words!r}",
            hint="Restart `ocgate run` if it is of an older version than this command",
        )
    sys.stdout.write(page.decode())
    return 0

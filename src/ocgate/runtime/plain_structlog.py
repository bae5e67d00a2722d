"""structlog without what it imports for developers' terminals.

Where rich is installed structlog imports it, and pygments with it, for tracebacks in colour that no
log of ours has: 66 modules, a tenth of the start of each of our processes. `log` is the one that
imports this; whoever wants rich itself gets it as always.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _without(name: str) -> Iterator[None]:
    """A package that is not imported yet can't be found within."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # the import system's word for "not here"
    try:
        yield
    finally:
        del sys.modules[name]


with _without("rich"):
    import structlog as structlog

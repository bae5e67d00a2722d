"""The one program behind all names: finds its own name and becomes the command that it means."""

from __future__ import annotations

import sys
from pathlib import Path

from ocgate import __main__ as ocgate
from ocgate.compat.names import NAMES, UNKNOWN, Refusal, answer, usage


def main() -> int:
    """As called: by the name in argv[0]. The exit status of our command, or 2."""
    name, arguments = Path(sys.argv[0]).name, sys.argv[1:]
    if name not in NAMES:
        print(f"{name}: call this by one of {', '.join(NAMES)}", file=sys.stderr)
        return UNKNOWN
    if {"-h", "--help"} & set(arguments):
        print(usage(name))
        return 0
    found = answer(name, arguments)
    if isinstance(found, Refusal):
        print(found.words, file=sys.stderr)
        return UNKNOWN
    if found.note:
        print(found.note, file=sys.stderr)
    sys.argv = ["ocgate", *found.argv]
    return ocgate.main()

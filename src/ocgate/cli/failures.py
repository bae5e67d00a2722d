"""Errors as an operator meets them: words on stderr and an exit status, no traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from ocgate.errors import ConfigurationError, OcgateError

# 128 + SIGINT, as a shell reports it.
INTERRUPTED = 130
WRONG = 1


def guarded(action: Callable[[], int], *, debug: bool) -> int:
    """The exit status of `action`, or of the error that ended it; with `debug` errors pass."""
    try:
        return action()
    except OcgateError as error:
        if debug:
            raise
        print(words(error), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) has gone; Python's own flush at exit must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return WRONG
    except Exception as error:
        if debug:
            raise
        print(_unexpected(error), file=sys.stderr)
        return WRONG


def words(error: OcgateError) -> str:
    """Each problem on a line of its own, the first with our name before it."""
    if isinstance(error, ConfigurationError):
        return "\n".join(f"ocgate: {problem}" for problem in error.problems)
    return f"ocgate: {error}"


def _unexpected(error: Exception) -> str:
    return (
        f"ocgate: {type(error).__name__}: {error}\n"
        "  This is a mistake in ocgate. `ocgate --debug …` shows where it happened"
    )

"""Entry point of `ocgate` and `python -m ocgate`.

Two commands skip the command-line library, which costs 50 ms: `--version`, which the launcher
asks, and `healthcheck`, which a container runs every few seconds.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line of this process; the exit status: 0 fine, 1 wrong, 2 usage."""
    arguments = sys.argv[1:]
    if arguments == ["--version"]:
        from ocgate import __version__

        print(f"ocgate {__version__}")
        return 0
    from ocgate.cli.failures import guarded

    if arguments == ["healthcheck"]:
        from ocgate.cli.healthcheck import healthcheck

        return guarded(healthcheck, debug=False)
    from ocgate.cli.app import run_app

    return guarded(lambda: run_app(arguments), debug="--debug" in arguments)


if __name__ == "__main__":
    sys.exit(main())

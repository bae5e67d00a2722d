"""`python -m bench`: measure, print, keep. See `--help`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from bench import (
    connect_hook,
    detection,
    examples,
    image,
    login,
    machine,
    packets,
    patience,
    probing,
    report,
    start,
    throughput,
)
from bench.reference import comparison
from bench.report import Found, Result
from bench.size import Size

BENCHMARKS: dict[str, Callable[[Size], Found]] = {
    "connect-hook": connect_hook.measure,
    "detection": detection.measure,
    "examples": examples.measure,
    "image": image.measure,
    "login": login.measure,
    "packets": packets.measure,
    "patience": patience.measure,
    "probing": probing.measure,
    "reference": comparison.measure,
    "start": start.measure,
    "throughput": throughput.measure,
}

# Seconds to wait for an idle machine before each benchmark of the full size; then it is measured
# all the same, and the load stands in the result.
PATIENCE = 240.0


def main() -> None:
    """Run what is asked for."""
    chosen = _arguments()
    size = Size(chosen.size)
    kept = chosen.out or (report.RESULTS if size is Size.FULL else None)
    # A file or pipe has no width of its own; 80 columns would break the headings.
    console = Console(width=None if sys.stdout.isatty() else 120)
    for name in chosen.benchmarks or BENCHMARKS:
        result = _run(name, size, chosen.patience if size is Size.FULL else 0.0)
        report.show(result, console)
        if kept:
            report.save(result, kept)
            report.save_readme(kept)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/run", description="What ocgate costs.")
    parser.add_argument(
        "benchmarks", nargs="*", metavar="BENCHMARK", help=f"{', '.join(BENCHMARKS)}; default: all"
    )
    parser.add_argument(
        "--quick",
        dest="size",
        action="store_const",
        const="quick",
        default="full",
        help="--size quick, below 90 s",
    )
    parser.add_argument("--size", choices=[size.value for size in Size], default="full")
    parser.add_argument("--out", type=Path, help="where to write; default, if full: bench/results")
    parser.add_argument(
        "--patience", type=float, default=PATIENCE, metavar="SECONDS",
        help=f"how long --size full waits for a load below {machine.CALM}; default {PATIENCE:.0f}",
    )  # fmt: skip
    chosen = parser.parse_args()
    unknown = set(chosen.benchmarks) - BENCHMARKS.keys()
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; expected {', '.join(BENCHMARKS)}")
    return chosen


def _run(name: str, size: Size, patience: float) -> Result:
    before = machine.wait_calm(patience)
    started = time.monotonic()
    found = BENCHMARKS[name](size)
    seconds = time.monotonic() - started
    return Result(found, machine.describe(), size.value, before, machine.load(), seconds)


if __name__ == "__main__":
    main()

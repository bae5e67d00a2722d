"""Runs the stages of ./test, one pytest each, and prints what came of them. Only ./test calls it.

A stage that fails does not stop the ones after it: a person wants all the bad news at once. The
last line has the form of pytest's closing line, added up over the stages, for whoever reads only
that one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

sys.path.append(str(Path(__file__).parent))  # -P left it out
import releases

# Processes a stage is spread over, for two cores. Lab tests mostly wait for ocserv and openconnect,
# so four of them share two cores well; the others compute. A proof keeps three quarters of a core
# busy with its traffic. A test of the image waits for containers, and keeps half a core busy.
WORKERS = {"lint": 2, "unit": 2, "kernel": 2, "lab": 4, "prove": 2, "image": 4, "releases": 4}

# Where the long tests come first, and must not all go to one worker.
ONE_BY_ONE = {"lab", "prove", "image", "releases"}

# On tests of what ocserv's or openconnect's release may change.
MARK = "releases"

# Runs pytest, and fails where something of the stage's own is left: a process, a file, a namespace.
CONTAINED = str(Path(__file__).with_name("contained.py"))

RELEASES = Path(__file__).with_name("releases.py")
BUILD = Path(__file__).with_name("build-image")
BASE = "docker.io/library/debian:forky-slim"  # what BUILD begins with

# pytest's order in its closing line.
OUTCOMES = ("failed", "passed", "skipped", "xfailed", "error")


@dataclass(frozen=True)
class Result:
    """What one stage came to: pytest's exit status, tests by outcome, wall-clock seconds, and why
    none of it was run."""

    stage: str
    status: int
    counts: Counter[str]
    seconds: float
    skipped: str = ""


class Build:
    """The image, built while the stages before `image` run."""

    def __init__(self) -> None:
        self._scratch = tempfile.TemporaryDirectory()
        self._log = Path(self._scratch.name) / "build.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [BUILD], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )

    def failure(self) -> str:
        """Waits for the end. The last lines where the image is to blame; empty where it is there,
        and where containers can't run here at all, which the tests find out, too, and skip for."""
        if self._process.wait() == 0 or not runs_containers():
            return ""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-25:])

    def close(self) -> None:
        """Ends it if it still runs."""
        self._process.terminate()
        self._process.wait()
        self._scratch.cleanup()


class Fetch:
    """Other Debians' ocserv and openconnect, fetched while the stages before `releases` run."""

    def __init__(self) -> None:
        command = [sys.executable, "-P", RELEASES, "programs"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def wait(self) -> None:
        """Until it is over, however that was: who needs one of them tries again, and tells why."""
        self._process.wait()

    def close(self) -> None:
        """Ends it if it still runs."""
        self._process.terminate()
        self._process.wait()


def runs_containers() -> bool:
    """Can podman run the base image?"""
    command = ["podman", "--runtime", "runc", "run", "--rm", "--network", "none"]
    limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
    try:
        done = subprocess.run([*command, *limits, BASE, "true"], capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


def run(stage: str, arguments: list[str], *, name: str = "", inside: Sequence[str] = ()) -> Result:
    """Runs one stage with pytest's words going to the terminal.

    name: shown instead of the stage's.   inside: a command that runs the rest of its arguments.
    """
    print(f"\n### {name or stage}", flush=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        command = [
            *inside,
            sys.executable,
            "-P",
            CONTAINED,
            sys.executable,
            "-P",
            "-m",
            "pytest",
            *(chosen() if stage == "releases" else [f"tests/{stage}"]),
            "-n",
            str(WORKERS[stage]),
        ]
        if stage in ONE_BY_ONE:
            command.append("--maxschedchunk=1")
        command += ["-q", f"--junit-xml={report}", *arguments]
        status = subprocess.run(command, check=False).returncode
        counts = count(report) if report.exists() else Counter(error=1)
        if status and not counts["failed"] + counts["error"]:  # something was left behind
            counts["error"] = 1
    return Result(name or stage, status, counts, time.monotonic() - started)


def chosen() -> list[str]:
    """pytest's words for the tests with the mark; the files are named, since all would take long to
    collect."""
    files = [path for stage in ("kernel", "lab") for path in Path("tests", stage).glob("test_*.py")]
    marked = [str(path) for path in sorted(files) if f"mark.{MARK}" in path.read_text()]
    return [*marked, "-m", MARK]


def run_releases(arguments: list[str]) -> Iterator[Result]:
    """The chosen tests with every other Debian's programs; the machine's own have had them all."""
    for release in releases.RELEASES:
        started = time.monotonic()
        name = f"ocserv {release.ocserv}"
        if release.ocserv == releases.version_of("ocserv"):
            continue
        try:
            releases.directory(release)
        except releases.Unavailable as error:
            # Debian's suites move on, which no change here has caused; all else is to be mended.
            moved = isinstance(error, releases.MovedOn)
            print(f"\n### {name}\n{error}", flush=True)
            counts = Counter(skipped=1) if moved else Counter(error=1)
            seconds = time.monotonic() - started
            yield Result(name, int(not moved), counts, seconds, str(error) if moved else "")
            continue
        versions = ["--ocserv", release.ocserv, "--openconnect", release.openconnect]
        inside = [sys.executable, "-P", str(RELEASES), "run", *versions]
        yield run("releases", arguments, name=name, inside=inside)


def count(report: Path) -> Counter[str]:
    """Counts the outcomes in a JUnit report as pytest writes it."""
    return Counter(outcome(case) for case in ElementTree.parse(report).iter("testcase"))


def outcome(case: ElementTree.Element) -> str:
    """Names one test's outcome with pytest's word; a strict xpass is a failure in the report."""
    skipped = case.find("skipped")
    if case.find("failure") is not None:
        return "failed"
    if case.find("error") is not None:
        return "error"
    if skipped is not None:
        return "xfailed" if skipped.get("type") == "pytest.xfail" else "skipped"
    return "passed"


def table(results: list[Result]) -> str:
    """One line a stage."""
    lines = [f"{'stage':14}{'':8}{'passed':>8}{'failed':>8}{'skipped':>9}{'time':>10}"]
    for result in results:
        failed = result.counts["failed"] + result.counts["error"]
        skipped = result.counts["skipped"] + result.counts["xfailed"]
        verdict = "FAILED" if result.status else "ok"
        lines.append(
            f"{result.stage:14}{verdict:8}{result.counts['passed']:8}{failed:8}{skipped:9}"
            f"{result.seconds:8.1f} s {result.skipped}".rstrip()
        )
    return "\n".join(lines)


def closing_line(results: list[Result]) -> str:
    """The same line that pytest ends with, over all stages."""
    counts = sum((result.counts for result in results), Counter[str]())
    parts = [f"{counts[name]} {name}" for name in OUTCOMES if counts[name]] or ["no tests ran"]
    seconds = sum(result.seconds for result in results)
    return f" {', '.join(parts)} in {seconds:.2f}s ".center(80, "=")


def main(arguments: list[str]) -> int:
    """STAGE... -- PYTEST ARGUMENTS; status 0 only when every stage ran tests and all held."""
    border = arguments.index("--")
    stages, rest = arguments[:border], arguments[border + 1 :]
    # Without root the tests are skipped, and a build would go to a store that nobody looks into.
    root = os.geteuid() == 0
    build = Build() if "image" in stages and root else None
    fetch = Fetch() if "releases" in stages and root else None
    results: list[Result] = []
    try:
        for stage in stages:
            if fetch is not None and stage == "releases":
                fetch.wait()
                results += run_releases(rest)
            elif stage == "releases":
                results.append(Result(stage, 0, Counter(skipped=1), 0.0, "needs root"))
            else:
                results.append(run_with(build, stage, rest))
    finally:
        if fetch is not None:
            fetch.close()
        if build is not None:
            build.close()
    print(f"\n{table(results)}\n\n{closing_line(results)}", flush=True)
    return 1 if any(result.status for result in results) else 0


def run_with(build: Build | None, stage: str, arguments: list[str]) -> Result:
    """Runs a stage; that of the image only when there is one."""
    started = time.monotonic()
    if stage == "image" and build is not None and (words := build.failure()):
        print(f"\n### image\nsetup/build-image failed:\n{words}", flush=True)
        return Result(stage, 1, Counter(error=1), time.monotonic() - started)
    return run(stage, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

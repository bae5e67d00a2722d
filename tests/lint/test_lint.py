"""The linters as tests, so that one report holds everything a change must pass.

A linter that is missing here is a failure, not a skip: ./test installs them all.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHELLS = ("sh", "bash", "dash")


def passes(*command: str | Path) -> None:
    """Runs a linter in the checkout; its words are the failure's."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"


def scripts() -> dict[Path, str]:
    """All shell scripts with their shell; by walking, since a checkout may be an archive."""
    found = {path: shell_of(ROOT / path) for path in sorted(files())}
    return {path: shell for path, shell in found.items() if shell}


def files() -> Iterator[Path]:
    """Every file but those of .git, .venv, .setup and the caches."""
    for directory, below, names in os.walk(ROOT):
        below[:] = [name for name in below if not name.startswith((".git", ".venv", ".setup"))]
        below[:] = [name for name in below if not name.endswith(("cache", "cache__"))]
        yield from (Path(directory, name).relative_to(ROOT) for name in names)


def shell_of(path: Path) -> str:
    """`bash`, `sh` or `dash` for a shell script, else ''."""
    if not path.is_file() or path.is_symlink():
        return ""
    if path.suffix == ".bash":
        return "bash"
    with path.open("rb") as file:
        first = file.readline(80).decode(errors="replace").split()
    program = first[-1].rpartition("/")[2] if first and first[0].startswith("#!") else ""
    return program if program in SHELLS else ""


each_script = pytest.mark.parametrize(
    ("script", "shell"), [pytest.param(p, s, id=str(p)) for p, s in scripts().items()]
)


def test_ruff_finds_nothing() -> None:
    passes(sys.executable, "-m", "ruff", "check", ".")


def test_ruff_would_format_nothing() -> None:
    passes(sys.executable, "-m", "ruff", "format", "--check", ".")


def test_mypy_finds_nothing() -> None:
    passes(sys.executable, "-m", "mypy")


@each_script
def test_a_script_parses(script: Path, shell: str) -> None:
    passes(shell, "-n", script)


@each_script
def test_shellcheck_finds_nothing(script: Path, shell: str) -> None:
    # -x follows `source`; info and style findings count as well. SC1091 says that a sourced file
    # isn't there to be followed: the s6 scripts' one is made in the run dir.
    passes("shellcheck", "-x", "--exclude=SC1091", f"--shell={shell}", script)


def test_the_dev_lock_only_adds_to_the_runtime_lock() -> None:
    """./test makes one .venv serve both; versions that differ would swap at every call."""
    runtime = set((ROOT / "requirements.lock").read_text().splitlines())
    dev = set((ROOT / "requirements-dev.lock").read_text().splitlines())
    # The last hash of a package has no trailing backslash; the lines are the same in both.
    assert runtime <= dev, f"run setup/lock: {sorted(runtime - dev)}"

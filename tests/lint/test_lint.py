"""The linters as tests, so that one report holds everything a change must pass.

A linter that is missing here is a failure, not a skip: ./test installs them all.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHELLS = ("sh", "bash", "dash")


def passes(*command: str | Path) -> None:
    """Runs a linter in the checkout; its words are the failure's."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"


def scripts() -> dict[Path, str]:
    """Tracked and new shell scripts with their shell, by suffix or first line."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    names = listed.stdout.split("\0") if listed.returncode == 0 else walked()
    found = {Path(name): shell_of(ROOT / name) for name in sorted(names) if name}
    return {path: shell for path, shell in found.items() if shell}


def walked() -> list[str]:
    """All files outside of caches, for a checkout without git (an archive)."""
    skipped = {".venv", ".setup", ".git", "__pycache__"}
    return [
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*")
        if not skipped & set(path.relative_to(ROOT).parts)
    ]


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
    # -x follows `source`; info and style findings count as well.
    passes("shellcheck", "-x", f"--shell={shell}", script)


def test_the_dev_lock_only_adds_to_the_runtime_lock() -> None:
    """./test makes one .venv serve both; versions that differ would swap at every call."""
    runtime = set((ROOT / "requirements.lock").read_text().splitlines())
    dev = set((ROOT / "requirements-dev.lock").read_text().splitlines())
    # The last hash of a package has no trailing backslash; the lines are the same in both.
    assert runtime <= dev, f"run setup/lock: {sorted(runtime - dev)}"

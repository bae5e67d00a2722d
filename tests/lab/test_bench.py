"""The benchmarks run: at their smallest, into another directory, with every table and file."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.lab


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    ["connect-hook", "login", "packets", "probing", "reference", "start", "throughput"],
)
def test_a_benchmark_measures_and_writes_its_results(name: str, tmp_path: Path) -> None:
    """bench/run NAME prints a table and writes NAME.md, NAME.json and a README that names it."""
    argv = [ROOT / "bench/run", "--size", "smoke", "--out", tmp_path, name]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr

    kept = json.loads((tmp_path / f"{name}.json").read_text())
    assert kept["title"] in done.stdout
    assert all(table["rows"] for table in kept["tables"])
    assert all(figures["count"] > 0 for figures in kept["series"].values())
    written = (tmp_path / f"{name}.md").read_text()
    assert all(f"## {table['title']}" in written for table in kept["tables"])
    overview = (tmp_path / "README.md").read_text()
    assert f"[{name}]({name}.md)" in overview


def test_an_unknown_benchmark_is_named() -> None:
    """A slip of the name is a usage error, before anything is measured."""
    done = subprocess.run([ROOT / "bench/run", "nonsense"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "nonsense" in done.stderr and "throughput" in done.stderr

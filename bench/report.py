"""What a benchmark found: printed as tables, kept as Markdown and JSON, collected in a README."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable

from bench.machine import Machine
from bench.measure import Series

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Table:
    """One table: the first column says what was measured, the others are figures as text."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Headline:
    """One line of the README: figure beside its aim. `met` is None where nothing was promised."""

    what: str
    figure: str
    aim: str = ""
    met: bool | None = None


@dataclass(frozen=True)
class Found:
    """A benchmark's outcome, before anything is known of the machine; series: unit in the name."""

    name: str
    title: str
    tables: tuple[Table, ...]
    headlines: tuple[Headline, ...]
    series: Mapping[str, Series] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What was found, on which machine, at which load (one-minute averages), at which size."""

    found: Found
    machine: Machine
    size: str
    load_before: float
    load_after: float
    seconds: float

    def circumstances(self) -> str:
        """One line: size, duration, load."""
        return (
            f"Size {self.size}, {self.seconds:.0f} s; load average {self.load_before:.2f} before, "
            f"{self.load_after:.2f} after (the benchmark itself is part of it)."
        )


def show(result: Result, console: Console) -> None:
    """Print it."""
    console.print(f"\n[bold]{result.found.title}[/bold]\n{result.circumstances()}")
    for table in result.found.tables:
        shown = RichTable(title=table.title, title_justify="left")
        for number, column in enumerate(table.columns):
            shown.add_column(column, justify="right" if number else "left")
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)
        for note in table.notes:
            console.print(f"  {note}", style="dim")


def save(result: Result, directory: Path) -> None:
    """Write NAME.md and NAME.json."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{result.found.name}.md").write_text(markdown(result), "utf-8")
    (directory / f"{result.found.name}.json").write_text(_json(result), "utf-8")


def markdown(result: Result) -> str:
    """The whole result for people."""
    lines = [f"# {result.found.title}", "", result.machine.sentence() + ".", ""]
    lines += [result.circumstances()]
    for table in result.found.tables:
        lines += ["", f"## {table.title}", "", *_grid(table.columns, table.rows)]
        lines += ["", *table.notes] if table.notes else []
    return "\n".join(lines) + "\n"


def save_readme(directory: Path) -> None:
    """README.md: the headlines of all results in `directory`, the latest of each benchmark."""
    results = [json.loads(path.read_text("utf-8")) for path in sorted(directory.glob("*.json"))]
    rows = [
        (h["what"], h["figure"], h["aim"], _mark(h["met"]), f"[{r['name']}]({r['name']}.md)")
        for r in results
        for h in r["headlines"]
    ]
    machines = dict.fromkeys(r["machine_sentence"] for r in results)
    lines = [
        "# Figures",
        "",
        "Written by `bench/run`; both sides of each comparison were measured in turn in one run.",
        "Take the ratios with you; absolute figures belong to the machine.",
        "",
        *_grid(("What", "Figure", "Aim", "Met", "Whole table"), rows),
        "",
        *(f"- {machine}" for machine in machines),
    ]
    (directory / "README.md").write_text("\n".join(lines) + "\n", "utf-8")


def _mark(met: bool | None) -> str:  # noqa: FBT001 (a cell's value, not a switch)
    return "" if met is None else "yes" if met else "**no**"


def _grid(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = "|".join(["---", *("---:" for _ in columns[1:])])
    return [f"| {' | '.join(row)} |" for row in (columns,)] + [
        f"|{rule}|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _json(result: Result) -> str:
    found = result.found
    document = {
        "name": found.name,
        "title": found.title,
        "size": result.size,
        "seconds": round(result.seconds, 1),
        "load_before": result.load_before,
        "load_after": result.load_after,
        "machine": asdict(result.machine),
        "machine_sentence": result.machine.sentence(),
        "headlines": [asdict(headline) for headline in found.headlines],
        "tables": [asdict(table) for table in found.tables],
        "series": {name: _figures(series) for name, series in found.series.items()},
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _figures(series: Series) -> dict[str, float | int]:
    low, high = series.spread
    return {
        "count": len(series.values),
        "median": _round(series.median),
        "quartile1": _round(low),
        "quartile3": _round(high),
        "p99": _round(series.percentile(99)),
        "least": _round(min(series.values)),
        "most": _round(max(series.values)),
    }


def _round(value: float) -> float:
    return float(f"{value:.5g}")

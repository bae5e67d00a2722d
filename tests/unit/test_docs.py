"""The security promises name the tests that show them; a renamed test takes its line along."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_test_named_in_the_promises_exists() -> None:
    named = set(re.findall(r"\btest_[a-z0-9_]+", (ROOT / "docs" / "security.md").read_text()))
    files = [
        f
        for room in ("kernel", "lab", "prove", "image")
        for f in (ROOT / "tests" / room).glob("test_*.py")
    ]
    defined = {path.stem for path in files}
    for path in files:
        defined |= set(re.findall(r"^def (test_[a-z0-9_]+)", path.read_text(), re.M))
    assert named, "positive control"
    assert sorted(named - defined) == []


def pages() -> list[Path]:
    """Every page of ours that people read."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
    return [*found, ROOT / "bench/results/README.md"]


def test_links_lead_somewhere() -> None:
    """To a file, and to a heading of it."""
    wrong = []
    for page in pages():
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if "://" in link:
                continue
            path, _, heading = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            if not target.exists() or (heading and heading not in anchors(target)):
                wrong.append(f"{page.relative_to(ROOT)}: {link}")
    assert not wrong, "\n".join(wrong)


def anchors(page: Path) -> set[str]:
    """The headings of a page, as links name them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}

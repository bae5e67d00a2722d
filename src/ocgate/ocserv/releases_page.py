"""docs/ocserv-releases.md, made of the table of releases; `python -m ocgate.ocserv.releases_page`.

Pure but for being run as a program, which prints the page.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from ocgate.ocserv import releases
from ocgate.ocserv.releases import GLOBAL_KEYS, KEY_ROWS, ROWS, KeyRow, Kind, Release, Row, shown

_HEAD = """\
# Releases of ocserv

Generated from the table of releases by `python -m ocgate.ocserv.releases_page`; do not edit.

Debian 12 ships ocserv {twelve}, Debian 13 {thirteen}, Debian testing and ocgate's image {image}.
`ocgate check`, `ocgate doctor` and each start ask the ocserv at hand for its release and say what
of this page concerns *your* configuration, the gravest first. What stands here and is not said
there does not concern it.

"Seen with" names the releases on which somebody of ocgate has tried the claim; where it is empty,
it is what ocserv's release notes say.
"""

_KEYS_HEAD = """\
## Keys that not every release knows

ocserv passes over a line with a key that it does not know. `ocgate check` names it.

| Key | Known | Write instead |
|---|---|---|
"""

_GLOBAL = """\
## Keys that only main can set

An error inside of `[vhost:…]` from {since} on, of no effect there before: {keys}.
"""


def page() -> str:
    """The whole page, as Markdown."""
    head = _HEAD.format(
        twelve=shown(releases.DEBIAN_12),
        thirteen=shown(releases.DEBIAN_13),
        image=shown(releases.IN_THE_IMAGE),
    )
    parts = [head, *(_kind(kind) for kind in Kind), _keys(), _global()]
    return "\n".join(parts)


def _kind(kind: Kind) -> str:
    rows = "".join(_row(row) for row in ROWS if row.kind is kind)
    columns = ("Releases", "What", "What it means with ocgate", "What to do", "Seen with")
    return f"## {kind.value}\n\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|\n{rows}"


def _row(row: Row) -> str:
    seen = ", ".join(shown(release) for release in row.tried)
    what = f"**{row.name}**: {row.what}"
    return f"| {_span(row.since, row.until)} | {what} | {row.effect} | {row.remedy} | {seen} |\n"


def _span(since: Release | None, until: Release | None) -> str:
    if since is None and until is not None:
        return f"before {shown(until)}"
    if since is not None and until is None:
        return f"from {shown(since)} on"
    return f"{shown(since or (0, 0, 0))} up to {shown(until or (0, 0, 0))}, without it"


def _keys() -> str:
    return _KEYS_HEAD + "".join(line for row in KEY_ROWS for line in _key(row))


def _key(row: KeyRow) -> Iterator[str]:
    instead = f"`{row.instead}`" if row.instead else ""
    for key in row.keys:
        yield f"| `{key}` | {_span(row.since, row.until)} | {instead} |\n"


def _global() -> str:
    since = releases.VHOSTS_REFUSE_GLOBALS.since or (0, 0, 0)
    return _GLOBAL.format(since=shown(since), keys=", ".join(f"`{k}`" for k in sorted(GLOBAL_KEYS)))


if __name__ == "__main__":
    sys.stdout.write(page())

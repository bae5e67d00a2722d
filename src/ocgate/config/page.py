"""docs/reference.md, generated from the settings table. Pure."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from ocgate.config.exit_foreign import FOREIGN, Foreign
from ocgate.config.exit_names import EXIT
from ocgate.config.table import SERVER, Line, Table
from ocgate.config.unserved import UNSERVED, Unserved

_HEAD = """\
# Settings

Generated from the settings table by `python -m ocgate.config.reference`; do not edit.

Every setting is an environment variable, or the same name in upper or lower case in `ocgate.toml`
in the config dir; the environment wins. A variable that is empty counts as unset. All that is wrong
is reported at once as `source:line: key: got …; expected …. what to do`, nothing is changed, and
the exit code is 2. A misspelt `VPN_*`, `OCGATE_*`, `IPV6_*` or `EXIT_PROBE*` name is an error and
never ignored; what Kubernetes and docker links put into the environment is not.

```toml
# ocgate.toml
vpn_subnet = ["10.10.10.0/24", "10.10.11.0/24"]  # or text: "10.10.10.0/24, 10.10.11.0/24"
ipv6_nat = "auto"
mss = 1360
```
"""

_UNSERVED_HEAD = """\
## Known, but not in this version

Variables of azinchen/ocserv-server that steer clients' packets. They are refused, because running
without them would send these by another exit.

| Variable | Any value is | but for |
|---|---|---|
"""

_EXIT_HEAD = """\
# Settings of the exit role

`ocgate exit` reads environment variables only. Its tunnel's kind follows from what is written:
`OVPN_CONFIG`, `URL` or `WG_CONFIG`, or `USER` and `PASS` alone for NordVPN; two kinds at once are
an error, and so is a misspelt `VPN_*`, `OCGATE_*` or `EXIT_*` name or a setting of the server role.
"""

_FOREIGN_HEAD = """\
## Of the companion images

Variables of azinchen/nordvpn and azinchen/openconnect-client that have no effect here.

| Variable | Any value is | because | instead | but for |
|---|---|---|---|---|
"""


def reference_markdown() -> str:
    """The whole page, ending in a newline."""
    parts = [_HEAD, *_groups(SERVER), _unserved(), _EXIT_HEAD, *_groups(EXIT), _foreign()]
    return "\n".join(parts)


def _groups(table: Table[Any]) -> list[str]:
    groups = groupby(table.lines, key=lambda line: line.setting.group)
    return [_group(name, list(lines)) for name, lines in groups]


def _group(name: str, lines: list[Line]) -> str:
    return "\n".join([f"## {name}\n", *(_setting(line) for line in lines)])


def _setting(line: Line) -> str:
    setting = line.setting
    default = f"`{line.default}`" if line.default else f"unset: {setting.unset}"
    facts = [
        f"- Type: {setting.form.kind}",
        f"- Default: {default}",
        f"- Accepts: {setting.form.accepts}",
        f"- Example: `{setting.name}={setting.example}`",
    ]
    if setting.file_name:
        facts.append(f"- Secret: also as `{setting.file_name}`, the path of a file that holds it")
    if setting.environment_only:
        facts.append("- Only in the environment, not in `ocgate.toml`")
    return "\n".join([f"### `{setting.name}`\n", setting.doc, "", *facts, ""])


def _unserved() -> str:
    return _UNSERVED_HEAD + "".join(_unserved_row(line) for line in UNSERVED.values())


def _unserved_row(line: Unserved) -> str:
    inert = ", ".join(f"`{value}`" for value in sorted(line.inert))
    return f"| `{line.name}` | refused | {inert} |\n"


def _foreign() -> str:
    return _FOREIGN_HEAD + "".join(_foreign_row(line) for line in FOREIGN.values())


def _foreign_row(line: Foreign) -> str:
    inert = ", ".join(f"`{value}`" for value in sorted(line.inert))
    verdict = "refused" if line.refused else "accepted"
    return f"| `{line.name}` | {verdict} | {line.why} | {line.instead} | {inert} |\n"

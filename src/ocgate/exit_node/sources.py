"""Everything the operator wrote, read once and kept as it was read.

As in the server role: a control that is restarted comes back with what is in force, also while the
files are being edited. Only `ocgate exit` and a reload read them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ocgate.config.environment import from_environment
from ocgate.config.exit_choices import ExitKind
from ocgate.config.exit_forms import LONGEST_URLS
from ocgate.config.exit_load import load_exit
from ocgate.config.exit_model import ExitSettings
from ocgate.config.exit_names import EXIT, EXIT_NAMES
from ocgate.config.load import read_secrets
from ocgate.errors import OcgateError
from ocgate.names import EXIT_SNAPSHOT
from ocgate.own_files import write
from ocgate.runtime import log as logs
from ocgate.tunnel import openvpn
from ocgate.tunnel.openvpn_files import content, read_text


@dataclass(frozen=True)
class Sources:
    """environment: the variables that mean something here, secrets from files filled in.

    text: of OVPN_CONFIG or WG_CONFIG, "" for the other kinds. files: what it names, by that name;
    bytes, or why it can't be read. notices: settings without effect, one sentence each.
    userspace: WireGuard is wireguard-go's, because this kernel has none.
    """

    settings: ExitSettings
    environment: Mapping[str, str] = field(repr=False)
    text: str = field(default="", repr=False)
    files: Mapping[str, bytes | str] = field(default_factory=dict, repr=False)
    notices: tuple[str, ...] = ()
    userspace: bool = False


def read(environ: Mapping[str, str]) -> Sources:
    """Read settings and what they name; raises ConfigurationError with every problem at once."""
    loaded = load_exit(environ)
    text, files = _texts(loaded.settings)
    return Sources(loaded.settings, _kept(environ), text, files, loaded.notices)


def reread(before: Sources) -> Sources:
    """The same files anew; the environment of a process does not change."""
    text, files = _texts(before.settings)
    return replace(before, text=text, files=files)


def write_snapshot(run_dir: Path, sources: Sources) -> None:
    """Keep `sources` for a control that is restarted; 0600, because it holds what a client needs to
    log in again."""
    kept = {
        "environment": dict(sources.environment),
        "text": sources.text,
        "userspace": sources.userspace,
        "files": {name: _packed(held) for name, held in sources.files.items()},
    }
    write(run_dir / EXIT_SNAPSHOT, json.dumps(kept).encode())


def read_snapshot(run_dir: Path) -> Sources:
    """What `write_snapshot` kept; raises OcgateError if nothing (usable) is there."""
    path = run_dir / EXIT_SNAPSHOT
    try:
        kept: dict[str, Any] = json.loads(path.read_bytes())
        files = {name: _unpacked(held) for name, held in kept["files"].items()}
        settings = load_exit(kept["environment"]).settings
        text, userspace = kept["text"], kept["userspace"]
        return Sources(settings, kept["environment"], text, files, userspace=userspace)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OcgateError(
            f"{path}: not what `ocgate exit` writes at start: {error}", hint="Restart ocgate"
        ) from None


def configure_log(run_dir: Path) -> None:
    """Log as the settings of the snapshot say, or as by default where there is none."""
    try:
        settings = read_snapshot(run_dir).settings
    except OcgateError:
        logs.configure("human", "info")
    else:
        logs.configure(settings.log_format, settings.log_level)


def secret_variables() -> tuple[str, ...]:
    """Names of variables that hold secrets, or say where one is."""
    names = [line.setting.name for line in EXIT.secrets]
    return (*names, *(f"{name}_FILE" for name in names))


def _kept(environ: Mapping[str, str]) -> dict[str, str]:
    written, _ = from_environment(environ, EXIT_NAMES)
    found, _ = read_secrets(written, EXIT.secrets, LONGEST_URLS + 2)
    named = {f"{line.setting.name}_FILE" for line in EXIT.secrets}
    return {name: value.text for name, value in found.items() if name not in named}


def _texts(settings: ExitSettings) -> tuple[str, dict[str, bytes | str]]:
    if settings.kind is ExitKind.OPENVPN:
        assert settings.ovpn_config is not None
        path = settings.ovpn_config
        text = read_text(path, "OVPN_CONFIG")
        names = {reference.name for reference in openvpn.referred(text, str(path))}
        return text, {name: content(path.parent / name, beside=path) for name in names}
    if settings.kind is ExitKind.WIREGUARD:
        assert settings.wg_config is not None
        return read_text(settings.wg_config, "WG_CONFIG"), {}
    return "", {}


def _packed(held: bytes | str) -> list[str]:
    if isinstance(held, str):
        return ["unreadable", held]
    return ["content", base64.b64encode(held).decode()]


def _unpacked(held: list[str]) -> bytes | str:
    kind, text = held
    return text if kind == "unreadable" else base64.b64decode(text)

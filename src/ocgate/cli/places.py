"""The directories, for commands that need no other setting: without the whole settings model.

`healthcheck` runs every few seconds and `status` must work while the configuration is broken.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

from ocgate.errors import OcgateError

# The defaults of the settings model (a test compares them).
DEFAULT_CONFIG_DIR = "/etc/ocserv"
DEFAULT_RUN_DIR = "/run/ocgate"

_RUN_DIR = "OCGATE_RUN_DIR"


def run_dir(environ: Mapping[str, str]) -> Path:
    """OCGATE_RUN_DIR of the environment, else of ocgate.toml, else the default.

    Raises `OcgateError` where ocgate.toml is there but can't be read.
    """
    named = environ.get(_RUN_DIR, "").strip() or _from_file(environ)
    return Path(named or DEFAULT_RUN_DIR)


def _from_file(environ: Mapping[str, str]) -> str | None:
    directory = environ.get("OCGATE_CONFIG_DIR", "").strip() or DEFAULT_CONFIG_DIR
    path = Path(directory) / "ocgate.toml"
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise OcgateError(
            f"reading {path}: {error}", hint=f"Correct it, or say {_RUN_DIR}=…"
        ) from error
    found = document.get(_RUN_DIR, document.get(_RUN_DIR.lower()))
    return found if isinstance(found, str) else None

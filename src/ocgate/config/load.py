"""Reads the settings from the environment, ocgate.toml and secret files: the edge of this room.

environment ──┐
              ├─ overlay ── secrets from files ── validate ── Loaded, or ConfigurationError
ocgate.toml ──┘                                               with every problem at once
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ocgate import named_files
from ocgate.config import resolve
from ocgate.config.document import from_toml
from ocgate.config.environment import from_environment
from ocgate.config.model import Settings
from ocgate.config.origin import Found, Origin, Written
from ocgate.config.table import BY_NAME, SECRETS, Line
from ocgate.config.texts import LONGEST_PASSWORD
from ocgate.config.values import Rejected
from ocgate.errors import ConfigurationError, Problem

FILE_NAME = "ocgate.toml"
DEFAULT = Origin("default")

# A settings file has some dozen lines; what is larger is another file, or a device without end.
_LARGEST_FILE = 1 << 20

# One byte more than any password and its newline tells that a file is too long.
_LARGEST_SECRET = LONGEST_PASSWORD + 2


@dataclass(frozen=True)
class Loaded:
    """Settings, where they came from, and what the operator should know.

    origins: by variable name; what is missing there has its default.
    notices: settings that are accepted but have no effect, one sentence each.
    """

    settings: Settings
    origins: Mapping[str, Origin]
    notices: tuple[str, ...]

    def origin(self, name: str) -> Origin:
        """Where the variable `name` was set; `default` if it was not."""
        return self.origins.get(name, DEFAULT)


def load(environ: Mapping[str, str]) -> Loaded:
    """The settings in `environ` and in the ocgate.toml of its config dir.

    Reads files only. Raises ConfigurationError with all problems.
    """
    environment, problems = from_environment(environ)
    file, in_file = _read_settings(environment.get("OCGATE_CONFIG_DIR"))
    found, in_secrets = read_secrets(resolve.overlay(environment, file))
    settings, in_values = resolve.validate(found)
    problems += [*in_file, *in_secrets, *in_values]
    problems += [*resolve.refuse_unserved(found), *resolve.refuse_misordered(found)]
    if problems or settings is None:
        raise ConfigurationError(problems)
    return Loaded(
        settings,
        MappingProxyType(resolve.origins(found)),
        resolve.notices(found, settings),
    )


def _read_settings(config_dir: Written | None) -> Found:
    """ocgate.toml's settings; nothing where there is no such file."""
    line = BY_NAME["OCGATE_CONFIG_DIR"]
    try:
        text = config_dir.text if config_dir else line.default
        directory = line.setting.form.read(text)
    except Rejected:
        return {}, []  # validate reports the directory
    path = Path(str(directory)) / FILE_NAME
    try:
        if not _is_there(path):
            return {}, []
        data = named_files.read(path, most=_LARGEST_FILE)
    except OSError as error:
        expected = f"a readable file ({named_files.words(error)})"
        remedy = "repair it, or remove it to go on without"
        return {}, [Problem(str(path), 0, FILE_NAME, None, expected, remedy)]
    return from_toml(data, str(path))


def _is_there(path: Path) -> bool:
    """False where the file, or its directory, does not exist yet; a dangling link exists.

    Raises OSError where that can't be told: no permission, or a file in the directory's place.
    """
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True


def read_secrets(
    found: Mapping[str, Written], secrets: Iterable[Line] = SECRETS, most: int = _LARGEST_SECRET
) -> Found:
    """`found` with each secret's file, of at most `most` bytes, replaced by what stands in it."""
    filled = dict(found)
    problems: list[Problem] = []
    for line in secrets:
        name, file_name = line.setting.name, f"{line.setting.name}_FILE"
        if file_name not in found:
            continue
        origin = found[file_name].origin
        if name in found:
            remedy = "remove one of them"
            expected = f"either {name} or {file_name}"
            problems.append(origin.problem(file_name, None, expected, remedy))
            continue
        secret = _read_secret(found[file_name], file_name, most)
        if isinstance(secret, Problem):
            problems.append(secret)
        else:
            filled[name] = Written(secret, origin)
    return filled, problems


def _read_secret(named: Written, file_name: str, most: int) -> str | Problem:
    """The content of the file that `named` names, less one final newline."""
    path = Path(named.text.strip())
    remedy = "name a file that holds nothing but the value"

    def problem(expected: str) -> Problem:
        return named.origin.problem(file_name, named.text, expected, remedy)

    if not path.is_absolute() or not str(path).isprintable():
        return problem("the absolute path of a file")
    try:
        text = named_files.read(path, most=most).decode()
    except OSError as error:
        return problem(f"a readable file ({named_files.words(error)})")
    except UnicodeDecodeError:
        return problem("a file in UTF-8")
    text = text.removesuffix("\n").removesuffix("\r")
    return text if text else problem("a file that is not empty")

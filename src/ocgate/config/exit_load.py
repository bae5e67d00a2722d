"""Reads the exit role's settings from the environment and secret files: an edge of this room.

environment ── secrets from files ── validate ── LoadedExit, or ConfigurationError with every
problem at once. There is no settings file: an exit is one container with a handful of variables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ocgate.config import resolve
from ocgate.config.environment import from_environment
from ocgate.config.exit_agreement import without_effect
from ocgate.config.exit_foreign import foreign_notices, refuse_foreign
from ocgate.config.exit_forms import LONGEST_URLS
from ocgate.config.exit_model import ExitSettings
from ocgate.config.exit_names import EXIT, EXIT_NAMES
from ocgate.config.load import DEFAULT, read_secrets
from ocgate.config.origin import Origin, Written
from ocgate.errors import ConfigurationError


@dataclass(frozen=True)
class LoadedExit:
    """Settings, where they came from, and what the operator should know.

    origins: by variable name; what is missing there has its default.
    notices: variables that are accepted but have no effect, one sentence each.
    """

    settings: ExitSettings
    origins: Mapping[str, Origin]
    notices: tuple[str, ...]

    def origin(self, name: str) -> Origin:
        """Where the variable `name` was set; `default` if it was not."""
        return self.origins.get(name, DEFAULT)


def load_exit(environ: Mapping[str, str]) -> LoadedExit:
    """The exit role's settings in `environ`. Reads secret files only; raises ConfigurationError."""
    written, problems = from_environment(environ, EXIT_NAMES)
    # The longest secret is URL, and a newline; a password's own length is its form's to judge.
    found, in_secrets = read_secrets(_meant(written), EXIT.secrets, LONGEST_URLS + 2)
    unread = {problem.key.removesuffix("_FILE") for problem in in_secrets}
    settings, in_values = resolve.validate_by(EXIT, found, unread=unread)
    problems += [*in_secrets, *in_values, *refuse_foreign(found)]
    if problems or settings is None:
        raise ConfigurationError(problems)
    return LoadedExit(
        settings,
        MappingProxyType(resolve.origins(found, EXIT)),
        (*without_effect(found, settings), *foreign_notices(found)),
    )


def _meant(written: Mapping[str, Written]) -> dict[str, Written]:
    """Without the USER that every login shell has: alone, it is nobody's wish."""
    deliberate = {"PASS", "PASS_FILE", "URL", "URL_FILE"} & {*written}
    return {name: value for name, value in written.items() if name != "USER" or deliberate}

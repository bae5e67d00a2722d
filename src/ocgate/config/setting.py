"""What is known of one setting beside its type and default; stands as annotation in the model.

Pure; only `model` makes these and `table` reads them back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from ocgate.config.values import Form


@dataclass(frozen=True)
class Setting:
    """One line of the settings table.

    name:     the variable, as in the environment and in ocgate.toml.
    form:     how its value may be written.
    group:    heading on the reference page.
    doc:      what it does, in full sentences.
    example:  a value that is accepted.
    unset:    what happens without it where there is no default.
    secret:   never shown; `<name>_FILE` is accepted too.
    environment_only: has no place in ocgate.toml.
    """

    name: str
    form: Form
    group: str
    doc: str
    example: str
    unset: str = ""
    secret: bool = False
    environment_only: bool = False

    @property
    def file_name(self) -> str | None:
        """The variable that names a file with the value: secrets only."""
        return f"{self.name}_FILE" if self.secret else None

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """pydantic reads text by the form, then checks the type of what came out."""
        return core_schema.no_info_before_validator_function(self.form.read, handler(source))

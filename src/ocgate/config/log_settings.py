"""The settings of the log, which every role has. Pure."""

from __future__ import annotations

from ocgate.config import values
from ocgate.config.choices import LogFormat, LogLevel
from ocgate.config.setting import Setting

LOGS = "Logs"

OCGATE_LOG_FORMAT = Setting(
    "OCGATE_LOG_FORMAT",
    values.choice(LogFormat),
    LOGS,
    "One line an event, for people or as JSON.",
    "json",
)
OCGATE_LOG_LEVEL = Setting(
    "OCGATE_LOG_LEVEL",
    values.choice(LogLevel),
    LOGS,
    "The least severe event that is logged.",
    "debug",
)

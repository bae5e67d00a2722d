"""Logs: one line an event, for people by default, JSON on request.

    init-nat: table inet ocserv verified chains=10 rules=40
    {"stage": "init-nat", "event": "table inet ocserv verified", "chains": 11, …}

The stage comes first, because people grep for it (names from the reference image). Values may hold
what a client chose (user names, agents): control characters are escaped, so that no value can
forge a line. Secrets are never passed here.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, cast

from ocgate.runtime.plain_structlog import structlog

Log = structlog.typing.FilteringBoundLogger


def configure(form: str, level: str) -> None:
    """Set up logging to stderr; form: `human` or `json`; level: `debug` … `error`."""
    render: structlog.typing.Processor = _human
    if form == "json":
        render = structlog.processors.JSONRenderer(default=str)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
            _text_values,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )


def stage(name: str) -> Log:
    """A logger whose lines begin with this stage: init-config, init-nat, svc-control, …"""
    return cast(Log, structlog.get_logger(stage=name))


def _text_values(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    return {key: _plain(value) for key, value in event.items()}


def _plain(value: Any) -> Any:
    """Bytes that are no UTF-8 (surrogates) become `\\xNN`, so that any output can carry them."""
    if not isinstance(value, str):
        return value
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _human(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    event.pop("timestamp", None)
    stage_name, level, words = event.pop("stage", "ocgate"), event.pop("level"), event.pop("event")
    loud = "" if level in ("info", "debug") else f"{level}: "
    tail = "".join(f" {key}={_quoted(value)}" for key, value in event.items())
    return f"{stage_name}: {loud}{_one_line(str(words))}{tail}"


def _quoted(value: Any) -> str:
    shown = str(value)
    plain = shown and shown.isprintable() and not any(c in shown for c in ' "=\\')
    return shown if plain else '"' + _one_line(shown).replace('"', '\\"') + '"'


def _one_line(shown: str) -> str:
    """Control characters escaped; letters of every alphabet stay."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)

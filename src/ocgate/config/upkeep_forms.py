"""Forms of what the health check asks and of the session history's place. Pure; only config uses
it."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from ocgate.config import texts
from ocgate.config.choices import HealthPath
from ocgate.config.values import FALSE_WORDS, NOTHING, Fault, Form, Rejected, reject
from ocgate.outside import is_host

PATHS_ACCEPTS = "direct, default or all, or several of them joined by +"
URLS_ACCEPTS = "http:// or https:// addresses, separated by semicolons"

_PATH_SEPARATORS = re.compile(r"[\s,+]+")
# As in the reference: a comma separates, too, and so can't stand in an address.
_URL_SEPARATORS = re.compile(r"[\s;,]+")


def health_paths(text: str) -> tuple[HealthPath, ...]:
    """Each path once, in the order written; none for `off`; raises `Rejected`."""
    words = [word.lower() for word in _PATH_SEPARATORS.split(text) if word]
    if len(words) == 1 and words[0] in FALSE_WORDS:
        return ()
    if not words:
        raise reject(text, PATHS_ACCEPTS, "write direct+default, say, or leave it unset")
    return tuple(dict.fromkeys(_health_path(word, text) for word in words))


def _health_path(word: str, text: str) -> HealthPath:
    try:
        return HealthPath(word)
    except ValueError:
        remedy = "write default for VPN_GATEWAY (named gateways are not in this version)"
        raise reject(text, PATHS_ACCEPTS, remedy) from None


def urls(text: str) -> tuple[str, ...] | None:
    """Every address, or every fault at once; None for `off`; raises `Rejected`."""
    words = [word for word in _URL_SEPARATORS.split(text) if word]
    if [word.lower() for word in words] == [NOTHING]:
        return None
    found: list[str] = []
    faults: list[Fault] = []
    for word in words:
        try:
            found.append(url(word))
        except Rejected as rejected:
            faults += rejected.faults
    if faults or not found:
        raise Rejected(*(faults or [Fault(text, URLS_ACCEPTS, "write https://example.org, say")]))
    return tuple(dict.fromkeys(found))


def url(text: str) -> str:
    """One address, as it was written; raises `Rejected`."""
    if "@" in text.partition("://")[2].partition("/")[0]:  # what stands before it may be a password
        raise reject(None, URLS_ACCEPTS, "leave user and password (what stands before '@') out")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise reject(text, URLS_ACCEPTS, "write https://example.org, say") from None
    if parts.scheme not in ("http", "https"):
        raise reject(text, URLS_ACCEPTS, "begin it with https:// or http://")
    if not (text.isascii() and text.isprintable() and is_host(host)) or port == 0:
        raise reject(text, URLS_ACCEPTS, "write https://example.org, say, in ASCII")
    return text


def file(text: str) -> Path | None:
    """An absolute path that names no directory; None for `off`; raises `Rejected`."""
    if text.lower() in FALSE_WORDS:
        return None
    path = texts.file(text, such_as="/etc/ocserv/history")
    if text.endswith(("/", "/.", "/..")):
        raise reject(text, "a file, not a directory", f"write {text.rstrip('/.')}/history, say")
    return path


HEALTH_PATHS = Form("list of paths", PATHS_ACCEPTS, health_paths, natives=(list,))
URLS = Form("list of URLs", URLS_ACCEPTS, urls, natives=(list,))
FILE = Form("file", texts.FILE_ACCEPTS, file)

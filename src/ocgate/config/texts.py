"""Forms of directories, of the server's URL and of the first user. Pure; only config uses it."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr

from ocgate.config.values import Form, reject
from ocgate.outside import is_host

# A Unix socket's path holds 107 bytes (sun_path, unix(7)). ocserv 1.1.6 makes `ocserv.sock` into
# ocserv.sock.766cb37.0: a random word and sec-mod's number. 80 leaves room for the longest of both.
LONGEST_DIRECTORY = 80

# ocserv 1.1.6 cuts a user name to 63 bytes: one of 64 can't log in. Passwords of 127 were seen
# to work whole with ocpasswd, openconnect and ocserv; longer ones are untested.
LONGEST_USER = 63
LONGEST_PASSWORD = 127

# PATH_MAX of linux/limits.h, less the final NUL.
LONGEST_PATH = 4095

FILE_ACCEPTS = "the absolute path of a file"
DIRECTORY_ACCEPTS = f"an absolute directory of at most {LONGEST_DIRECTORY} bytes"
URL_ACCEPTS = "https://NAME[:PORT], or only NAME[:PORT]"
USER_ACCEPTS = f"a user name of 1 to {LONGEST_USER} bytes without ':' and control characters"
PASSWORD_ACCEPTS = f"1 to {LONGEST_PASSWORD} bytes of UTF-8 without control characters"

# What would change a value in ocserv.conf (inih: comments, quotes) or in a shell.
_UNSAFE_IN_PATH = re.compile(r"[\s#;\"'\\$`]")


def file(text: str, *, such_as: str) -> Path:
    """An absolute path; whether there is a file is for the edge that reads it. Raises `Rejected`,
    with the path `such_as` in its remedy."""
    if not text.startswith("/") or not text.isprintable() or len(text.encode()) > LONGEST_PATH:
        raise reject(text, FILE_ACCEPTS, f"write the path from the root, such as {such_as}")
    return Path(text)


def directory(text: str) -> Path:
    """An absolute path without `..`, free of what ocserv.conf would misread; raises `Rejected`."""
    if not text.startswith("/"):
        raise reject(text, DIRECTORY_ACCEPTS, "write the path from the root, such as /etc/ocserv")
    if not text.isprintable() or _UNSAFE_IN_PATH.search(text):
        remedy = "choose a path without spaces, quotes, '#', ';', '$' and backslashes"
        raise reject(text, DIRECTORY_ACCEPTS, remedy)
    path = Path("/" + text.lstrip("/"))
    if ".." in path.parts:
        raise reject(text, DIRECTORY_ACCEPTS, "write it without '..'")
    if path == Path("/"):
        raise reject(text, "a directory of its own, not /", "write one such as /etc/ocserv")
    if len(str(path).encode()) > LONGEST_DIRECTORY:
        raise reject(text, DIRECTORY_ACCEPTS, "choose a shorter path (Unix sockets stand in it)")
    return path


def url(text: str) -> str:
    """The server's public address as `https://NAME[:PORT][/PATH]`; raises `Rejected`."""
    full = text if "://" in text else f"https://{text}"
    try:
        parts = urlsplit(full)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise reject(text, URL_ACCEPTS, "write one such as https://vpn.example.org") from None
    if parts.username is not None or parts.password is not None:
        raise reject(None, URL_ACCEPTS, "leave user and password (what stands before '@') out")
    if parts.scheme != "https":
        raise reject(text, URL_ACCEPTS, f"write https://{host} (ocserv speaks nothing but TLS)")
    if not text.isprintable() or " " in text or not is_host(host) or port == 0:
        raise reject(text, URL_ACCEPTS, "write one such as https://vpn.example.org")
    return full.rstrip("/")


def user(text: str) -> str:
    """A name as ocserv's passwd file can hold it (`name:groups:hash`); raises `Rejected`."""
    if not text or not text.isprintable() or ":" in text or len(text.encode()) > LONGEST_USER:
        raise reject(text, USER_ACCEPTS, "write a shorter or plainer name, such as alice")
    return text


def password(text: str) -> SecretStr:
    """A password that openconnect can send as one line; the error never shows it."""
    bad = reject(None, PASSWORD_ACCEPTS, "write another one; it is not shown here")
    if not text.replace("\u00a0", " ").isprintable():
        raise bad  # also lone surrogates: bytes of the environment that are no UTF-8
    if not 1 <= len(text.encode()) <= LONGEST_PASSWORD:
        raise bad
    return SecretStr(text)


DIRECTORY = Form("directory", DIRECTORY_ACCEPTS, directory)
URL = Form("URL", URL_ACCEPTS, url)
USER = Form("user name", USER_ACCEPTS, user)
PASSWORD = Form("secret", PASSWORD_ACCEPTS, password, verbatim=True)

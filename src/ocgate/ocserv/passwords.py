"""Passwords: random ones a person can type, and their hashes in ocserv's passwd format.

An edge: runs the real `ocpasswd`, since Python 3.13 has no `crypt` module any more and ocserv
itself must agree with the hash. A password goes through stdin only, never argv, a file or a log.
"""

from __future__ import annotations

import secrets
import subprocess
import tempfile
from pathlib import Path

from ocgate.errors import ConfigurationError, MissingRequirement, Problem, ServerRefused

# Without what people confuse when they read a password aloud or type it on a phone: 0 o, 1 l i.
ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"

# 31 symbols are 4.95 bits each: 20 of them are 99 bits, more than the 96 we ask for, and four
# groups of five are what one keeps in mind while typing.
GROUPS, GROUP_LENGTH = 4, 5

# As in the settings (OCGATE_PASSWORD). ocpasswd itself reads 511 bytes and then cuts silently.
LONGEST_PASSWORD = 127

# ocpasswd hashes in 10 ms; ten seconds mean that it hangs.
_TIMEOUT = 10.0

_EXPECTED = f"1 to {LONGEST_PASSWORD} bytes of UTF-8 without control characters"


def random_password() -> str:
    """Such as `k7mpw-3xqhd-9rtna-vc4fy`: 99 bits from the kernel's random source."""
    groups = ("".join(secrets.choice(ALPHABET) for _ in range(GROUP_LENGTH)) for _ in range(GROUPS))
    return "-".join(groups)


def validate_password(password: str, *, source: str) -> None:
    """Raise `ConfigurationError` (which never shows the password) if clients could not send it.

    source: where it came from, for the message, such as `stdin`.
    """
    short_enough = 1 <= len(password.encode(errors="surrogateescape")) <= LONGEST_PASSWORD
    if short_enough and password.replace("\u00a0", " ").isprintable():
        return
    remedy = "choose another one; it is not shown here"
    raise ConfigurationError([Problem(source, 0, "password", None, _EXPECTED, remedy)])


def hash_password(password: str) -> str:
    """Its salted hash as ocserv's passwd file holds it (`$5$…`, crypt(5)).

    Raises `ConfigurationError` for an unusable password, `MissingRequirement` without ocpasswd.
    """
    validate_password(password, source="password")
    with tempfile.TemporaryDirectory(prefix="ocgate-hash-") as private:
        # A name of our own: the user's could begin with `-`, and ocpasswd would read an option.
        scratch = Path(private) / "passwd"
        _run_ocpasswd(scratch, password)
        return _hash_of_only_line(scratch.read_text())


def _run_ocpasswd(scratch: Path, password: str) -> None:
    # A session of its own has no controlling terminal that the prompt could turn to.
    try:
        done = subprocess.run(
            ["ocpasswd", "-c", str(scratch), "user"],
            input=f"{password}\n".encode(),
            capture_output=True,
            timeout=_TIMEOUT,
            start_new_session=True,
            check=False,
        )
    except FileNotFoundError:
        raise MissingRequirement(
            "ocpasswd is not installed", hint="Install the package ocserv, which holds it"
        ) from None
    if done.returncode != 0:
        raise ServerRefused(f"ocpasswd: {done.stderr.decode(errors='replace').strip()}")


def _hash_of_only_line(text: str) -> str:
    _, _, hashed = text.strip().partition(":")[2].partition(":")
    if not hashed.startswith("$"):
        raise ServerRefused("ocpasswd wrote no hash that we know")
    return hashed

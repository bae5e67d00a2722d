"""Whether the files that ocserv.conf names are there and are what they should be.

Pure: `files.observe` collected the facts. `ocserv -t` opens certificates only; a missing key,
passwd file or script shows when the first user logs in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ocgate.errors import Problem
from ocgate.ocserv.fields import problem
from ocgate.ocserv.view import PasswdFile, Placed, Scope, ScopeKind, ServerView

# Scalars that name a file which must be readable; ocserv falls back to nothing where it is not.
FILE_KEYS = (
    "ca-cert",
    "crl",
    "dh-params",
    "ocsp-response",
    "pin-file",
    "srk-pin-file",
    "user-profile",
    "default-user-config",
    "default-group-config",
)
SCRIPT_KEYS = ("connect-script", "disconnect-script", "host-update-script")


@dataclass(frozen=True)
class FileFact:
    """One path as it was found.

    missing:    why it can't be opened (the system's words), None if it can.
    executable: a regular file with an execute bit.
    content:    bytes of a passwd file; None for all others.
    public_key: SubjectPublicKeyInfo (DER) of the key in a certificate or key file, else None.
    mode:       permission bits; 0 where it can't be opened.
    """

    missing: str | None = None
    executable: bool = False
    content: bytes | None = None
    public_key: bytes | None = None
    mode: int = 0


@dataclass(frozen=True)
class FileFacts:
    """Facts by path, spelled as ocserv.conf spells it; relative ones were resolved by `observe`."""

    by_path: Mapping[str, FileFact] = field(default_factory=dict)

    def __getitem__(self, path: str) -> FileFact:
        return self.by_path.get(path, FileFact(missing="not looked at"))


def is_file(path: str) -> bool:
    """False for PKCS #11 and TPM URLs, which name keys in hardware."""
    return ":" not in path.split("/")[0]


def named_paths(view: ServerView) -> frozenset[str]:
    """Every path that `check_files` wants facts of."""
    paths = set()
    for scope in view.scopes:
        paths |= {text for key in (*FILE_KEYS, *SCRIPT_KEYS) if (text := scope.text(key))}
        for pair in scope.key_pairs:
            paths |= {placed.value for placed in (pair.certificate, pair.key) if placed}
        for passwd in scope.passwd_files:
            paths |= {passwd.value.path, passwd.value.otp or ""}
    return frozenset(path for path in paths if path and is_file(path))


def check_files(view: ServerView, facts: FileFacts) -> list[Problem]:
    """Every problem with the files, once each."""
    found: list[Problem] = []
    for scope in view.scopes:
        found += [*_files(scope, facts), *_scripts(scope, facts), *_keys(scope, facts)]
        for passwd in scope.passwd_files:
            found += [*_passwd(passwd, facts)]
    return list(dict.fromkeys(found))


def check_keys(view: ServerView, facts: FileFacts) -> list[Problem]:
    """Every problem with certificates and their keys alone, once each."""
    return list(dict.fromkeys(found for scope in view.scopes for found in _keys(scope, facts)))


def _files(scope: Scope, facts: FileFacts) -> Iterator[Problem]:
    for key in FILE_KEYS:
        found = scope.settings.get(key)
        if found and found.value and is_file(found.value):
            yield from _missing(found, found.value, facts)


def _missing(
    found: Placed[str] | Placed[PasswdFile], path: str, facts: FileFacts
) -> Iterator[Problem]:
    why = facts[path].missing
    if why is not None:
        expected = f"a readable file ({why})"
        yield problem(found, expected, "Create the file or correct the path", got=path)


def _scripts(scope: Scope, facts: FileFacts) -> Iterator[Problem]:
    if scope.kind is not ScopeKind.MAIN:
        return
    for key in SCRIPT_KEYS:
        found = scope.settings.get(key)
        if found is None or not found.value:
            continue
        yield from _missing(found, found.value, facts)
        if facts[found.value].missing is None and not facts[found.value].executable:
            yield problem(found, "an executable file", f"Run chmod +x {found.value}")


def _keys(scope: Scope, facts: FileFacts) -> Iterator[Problem]:
    for pair in scope.key_pairs:
        placed = [found for found in (pair.certificate, pair.key) if found and is_file(found.value)]
        for found in placed:
            yield from _missing(found, found.value, facts)
        if pair.key is None:
            yield problem(pair.certificate, "a server-key for it", "Add a line `server-key = FILE`")
            continue
        certificate, key = (facts[found.value] for found in (pair.certificate, pair.key))
        locked = scope.text("pin-file") or scope.text("key-pin")  # we don't ask for passphrases
        if len(placed) == 2 and certificate.missing is None and key.missing is None and not locked:
            yield from _match(pair.certificate, pair.key, certificate, key)


def _match(
    named: Placed[str], key_named: Placed[str], certificate: FileFact, key: FileFact
) -> Iterator[Problem]:
    if certificate.public_key is None:
        yield problem(named, "a PEM file with an X.509 certificate", "Put the certificate there")
    if key.public_key is None:
        yield problem(key_named, "a PEM file with an unencrypted key", "Put the key there")
    elif certificate.public_key not in (None, key.public_key):
        yield problem(
            key_named,
            f"the key of the certificate {named.value} ({named.place})",
            "Put matching files together; TLS would fail for every client",
        )


def _passwd(found: Placed[PasswdFile], facts: FileFacts) -> Iterator[Problem]:
    if not found.value.path:
        yield problem(found, "plain[passwd=FILE]", "Name the password file")
        return
    yield from _missing(found, found.value.path, facts)
    if found.value.otp:
        yield from _missing(found, found.value.otp, facts)
    content = facts[found.value.path].content
    if content is not None:
        yield from _users(found.value.path, content)


def _users(path: str, content: bytes) -> Iterator[Problem]:
    """Lines `user:groups:hash`; ocserv lets anyone in as a user whose hash is empty."""
    for number, line in enumerate(content.split(b"\n"), start=1):
        text = line.strip()
        if not text or text.startswith(b"#"):
            continue
        user, *rest = text.decode("utf-8", "surrogateescape").split(":")
        if len(rest) < 2:
            expected = f"user:groups:hash, three fields; this line has {1 + len(rest)} (it is not "
            expected += "shown here: it may hold a hash)"
            yield Problem(
                path, number, "user", None, expected, "Run ocgate user add, or remove the line"
            )
        elif not rest[1]:
            yield Problem(
                path,
                number,
                "user",
                user,
                "a password hash; an empty one lets anyone in with any password",
                "Run ocgate user add, or remove the line",
            )

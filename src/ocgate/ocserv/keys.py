"""Where ocserv finds certificates and keys: in copies of ours, whose names never change. Pure.

ocserv reads them again at a SIGHUP, from the paths that it was started with, and only those whose
modification time, in whole seconds, is later than its own last look: a key renewed within the same
second, or put in place with an older time (a restored backup, Kubernetes' `..data`), is overlooked
for ever, and handshakes fail. And whoever sends that SIGHUP for another reason, in the middle of a
renewal, would break the pair. So ocserv is given copies, made of pairs that were read whole and
found to match, with a time of ours (`key_copies` writes them).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from ocgate.ocserv.file_checks import is_file
from ocgate.ocserv.ini_parser import Document

KEYS = ("server-cert", "server-key")

# Of a vhost's name, whose bytes may be anything: 64 bits keep a few dozen names apart.
_NAME_DIGITS = 16


@dataclass(frozen=True)
class NamedFile:
    """One `server-cert` or `server-key` line. vhost: '' for main; value: path or PKCS #11 URL."""

    vhost: str
    key: str
    rank: int
    value: str

    @property
    def copied(self) -> bool:
        """False for a key in hardware, which only its URL leads to."""
        return bool(self.value) and is_file(self.value)

    @property
    def copy_name(self) -> str:
        """The copy's file name: of its place in the configuration, not of the path, so that a
        reload can take another path, too."""
        digest = hashlib.sha256(self.vhost.encode("utf-8", "surrogateescape")).hexdigest()
        scope = f"vhost-{digest[:_NAME_DIGITS]}" if self.vhost else "main"
        return f"{scope}-{self.rank}-{self.key.removeprefix('server-')}.pem"


def named_files(document: Document) -> Iterator[NamedFile]:
    """Every such line of main and virtual hosts, in file order."""
    ranks: dict[tuple[str, str], int] = {}
    for entry in document.entries:
        if entry.key not in KEYS or entry.vhost is None:
            continue
        rank = ranks.get((entry.vhost, entry.key), 0)
        ranks[entry.vhost, entry.key] = rank + 1
        yield NamedFile(entry.vhost, entry.key, rank, entry.value)

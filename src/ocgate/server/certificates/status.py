"""The certificates that ocserv has, as `ocgate status` tells them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from cryptography import x509

from ocgate.ocserv import key_copies
from ocgate.ocserv.keys import NamedFile, named_files
from ocgate.ocserv.view import DEFAULT_VHOST
from ocgate.runtime.counters import iso
from ocgate.server.desired.sources import Sources
from ocgate.server.status.schema import CertificateStatus

# Of a certificate that ocserv takes all the same: an extension that is there twice, and names of
# kinds that nobody uses (RFC 5280 4.2.1.6: x400Address, ediPartyName).
_UNREADABLE = (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)


def statuses(sources: Sources, run_dir: Path) -> list[CertificateStatus]:
    """Of every `server-cert` line, in file order."""
    named = (found for found in named_files(sources.document) if found.key == "server-cert")
    return [_status(found, run_dir) for found in named]


def _status(named: NamedFile, run_dir: Path) -> CertificateStatus:
    copy = key_copies.copy_of(run_dir, named) if named.copied else None
    names, not_after = _told(copy[0]) if copy else ((), None)
    return CertificateStatus(
        vhost=named.vhost or DEFAULT_VHOST,
        file=named.value,
        names=list(names),
        not_after=not_after,
        since=iso(copy[1]) if copy else None,
    )


@lru_cache(maxsize=64)
def _told(pem: bytes) -> tuple[tuple[str, ...], str | None]:
    """Whom the first certificate is for, and until when."""
    try:
        found = x509.load_pem_x509_certificate(pem)
    except ValueError:
        return (), None
    return tuple(_names(found)), iso(found.not_valid_after_utc.timestamp())


def _names(found: x509.Certificate) -> Iterator[str]:
    try:
        extension = found.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, *_UNREADABLE):
        return
    yield from extension.value.get_values_for_type(x509.DNSName)
    yield from map(str, extension.value.get_values_for_type(x509.IPAddress))

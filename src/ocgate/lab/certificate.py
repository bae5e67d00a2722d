"""A self-signed server certificate for the lab; never for a real server."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID


def write_certificate(
    certificate: Path, key: Path, addresses: Sequence[IPv4Address | IPv6Address]
) -> None:
    """Write a new P-256 key (mode 0600) and a certificate for `addresses`, valid for a day."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lab.example")])
    names = x509.SubjectAlternativeName([x509.IPAddress(a) for a in addresses])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .sign(private, hashes.SHA256())
    )
    certificate.write_bytes(built.public_bytes(Encoding.PEM))
    key.touch(mode=0o600)
    key.write_bytes(
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )

"""Throwaway certificates for the lab: a server's own, and those of an authority. Never for real."""

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
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


def write_certificate(
    certificate: Path, key: Path, addresses: Sequence[IPv4Address | IPv6Address]
) -> None:
    """Write a new P-256 key (mode 0600) and a certificate for `addresses`, valid for a day."""
    private = _write_key(key)
    name = _name("lab.example")
    names = x509.SubjectAlternativeName([x509.IPAddress(a) for a in addresses])
    built = _builder(name, name, private).add_extension(names, critical=False)
    _write_signed(certificate, built, private)


class Authority:
    """A certificate authority with a new key, which signs keys of servers and clients. With all
    that RFC 5280 asks for: Python 3.13 verifies strictly."""

    def __init__(self, directory: Path) -> None:
        self.certificate = directory / "ca.pem"
        self._directory = directory
        self._name = _name("lab authority")
        self._key = _write_key(directory / "ca-key.pem")
        built = _builder(self._name, self._name, self._key).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        own = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        built = built.add_extension(own, critical=False)
        built = built.add_extension(_may_sign(certificates=True), critical=True)
        _write_signed(self.certificate, built, self._key)

    def issue(self, name: str, *, server: bool) -> tuple[Path, Path]:
        """A new key and its certificate for `name`, usable as a TLS server or as a client."""
        certificate, key = self._directory / f"{name}.pem", self._directory / f"{name}-key.pem"
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        built = _builder(_name(name), self._name, _write_key(key))
        # What OpenVPN's `remote-cert-tls` asks for.
        built = built.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        built = built.add_extension(_may_sign(certificates=False), critical=True)
        by = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        built = built.add_extension(by, critical=False)
        called = x509.SubjectAlternativeName([x509.DNSName(name)])
        built = built.add_extension(called, critical=False)
        _write_signed(certificate, built, self._key)
        return certificate, key


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _may_sign(*, certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificates,
        crl_sign=certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )


def _write_signed(
    path: Path, builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey
) -> None:
    path.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))


def _write_key(path: Path) -> ec.EllipticCurvePrivateKey:
    private = ec.generate_private_key(ec.SECP256R1())
    path.touch(mode=0o600)
    path.write_bytes(
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )
    return private

"""The certificate of a fresh installation, read back from its PEM."""

from __future__ import annotations

import base64
import hashlib
import subprocess
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ocgate.ocserv import certificate

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NAMES = ("vpn.example.org", IPv4Address("192.0.2.5"), IPv6Address("2001:db8::5"), "vpn.example.org")


@pytest.fixture(scope="module")
def identity() -> certificate.Identity:
    return certificate.create(NAMES, now=NOW)


@pytest.fixture(scope="module")
def parsed(identity: certificate.Identity) -> x509.Certificate:
    return x509.load_pem_x509_certificate(identity.certificate)


def test_names(parsed: x509.Certificate) -> None:
    """Each name once, addresses as addresses, the first one as common name."""
    names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["vpn.example.org"]
    assert names.get_values_for_type(x509.IPAddress) == [*NAMES[1:3]]
    (common,) = parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert common.value == "vpn.example.org"


def test_usage_and_validity(parsed: x509.Certificate) -> None:
    """A server's certificate that vouches for no other, and that every platform takes."""
    find = parsed.extensions.get_extension_for_class
    assert not find(x509.BasicConstraints).value.ca
    usage = find(x509.KeyUsage).value
    assert usage.digital_signature and usage.key_encipherment and not usage.key_cert_sign
    assert list(find(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert find(x509.SubjectKeyIdentifier)
    assert parsed.not_valid_before_utc <= NOW - timedelta(hours=1)
    assert parsed.not_valid_after_utc - parsed.not_valid_before_utc <= timedelta(days=825)


def test_key_and_pin_belong_to_it(identity: certificate.Identity, parsed: x509.Certificate) -> None:
    """The pin is the hash of the certificate's public key, which is the private key's."""
    key = serialization.load_pem_private_key(identity.key, None)
    der = serialization.Encoding.DER
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    public = key.public_key().public_bytes(der, spki)
    assert public == parsed.public_key().public_bytes(der, spki)
    digest = base64.b64encode(hashlib.sha256(public).digest()).decode()
    assert identity.pin == f"pin-sha256:{digest}"
    assert certificate.pin_where_needed(identity.certificate) == identity.pin


def test_openssl_verifies_it_for_each_name(identity: certificate.Identity, tmp_path: Path) -> None:
    """Who imports it as trusted can connect by name and by address."""
    pem = tmp_path / "cert.pem"
    pem.write_bytes(certificate.create(NAMES[:3]).certificate)
    for option, name in (
        ("-verify_hostname", "vpn.example.org"),
        ("-verify_ip", "192.0.2.5"),
        ("-verify_ip", "2001:db8::5"),
    ):
        command = ["openssl", "verify", "-CAfile", str(pem), "-purpose", "sslserver", option, name]
        assert (
            subprocess.run([*command, str(pem)], capture_output=True, check=False).returncode == 0
        )


def test_no_pin_for_what_is_no_certificate() -> None:
    """A key file, or garbage, gives none."""
    assert certificate.pin_where_needed(b"nonsense") is None

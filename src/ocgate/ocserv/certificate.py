"""The server's key and self-signed certificate of a fresh installation. An edge (random numbers).

RSA with 3072 bits: what every client of this protocol can verify (old AnyConnect releases and
router firmware stumble over ECDSA), 128 bits strong (NIST SP 800-57, table 2), and verifying, the
part that a small router does, is RSA's cheap side. The price is the server's: 0.2 to 1 s once to
make the key and about 2 ms a handshake, below what ocserv itself needs for a login.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Name = str | IPv4Address | IPv6Address

KEY_BITS = 3072

# Clients trust it by its pin or by hand, so expiry protects nobody and ends service by surprise;
# Apple's platforms refuse TLS server certificates that are valid for more than 825 days.
VALID = timedelta(days=825)

# A client whose clock is a little slow must not find it in the future.
BACKDATED = timedelta(days=1)

_LONGEST_COMMON_NAME = 64  # ub-common-name, RFC 5280 appendix A.1


@dataclass(frozen=True)
class Identity:
    """A key pair: PEM texts, and the pin as openconnect's --servercert takes it.

    key:         PKCS #8, not encrypted, since ocserv starts without anyone to type a passphrase.
    certificate: X.509 v3.
    pin:         `pin-sha256:` and the base64 of the SHA-256 of the public key (RFC 7469 2.4): it
                 stays the same when the certificate is renewed with the same key.
    """

    key: bytes
    certificate: bytes
    pin: str


def create(names: Sequence[Name], *, now: datetime | None = None) -> Identity:
    """A new key and its certificate for all of `names`, the first of which is its common name.

    names: host names (DNS) and addresses, at least one. now: aware, for tests; default this moment.
    """
    key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    certificate = _certificate(key, tuple(dict.fromkeys(names)), now or datetime.now(UTC))
    return Identity(
        key=key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        certificate=certificate.public_bytes(serialization.Encoding.PEM),
        pin=pin_of(certificate),
    )


def pin_of(certificate: x509.Certificate) -> str:
    """The pin of a certificate's public key, `pin-sha256:BASE64`."""
    spki = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return f"pin-sha256:{base64.b64encode(hashlib.sha256(spki).digest()).decode()}"


def pin_where_needed(pem: bytes) -> str | None:
    """The pin of the first certificate, if it is its own issuer: nobody else vouches for it.

    None for one that a CA issued (a pin would break at its renewal), or for what is no PEM.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError:
        return None
    return pin_of(certificate) if certificate.issuer == certificate.subject else None


def _certificate(
    key: rsa.RSAPrivateKey, names: tuple[Name, ...], now: datetime
) -> x509.Certificate:
    subject = _subject(names[0])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now - BACKDATED + VALID)
    )
    for extension, critical in _extensions(key, names):
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(key, hashes.SHA256())


def _subject(name: Name) -> x509.Name:
    common = str(name)[:_LONGEST_COMMON_NAME]
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _extensions(
    key: rsa.RSAPrivateKey, names: tuple[Name, ...]
) -> list[tuple[x509.ExtensionType, bool]]:
    """What RFC 5280 section 4.2 asks of a server certificate that is its own issuer."""
    return [
        (x509.SubjectAlternativeName([_general_name(name) for name in names]), False),
        # No CA: who imports it as trusted does not give this server power over other names.
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_key_usage(), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
    ]


def _general_name(name: Name) -> x509.GeneralName:
    return x509.DNSName(name) if isinstance(name, str) else x509.IPAddress(name)


def _key_usage() -> x509.KeyUsage:
    """Signing for ECDHE; enciphering for clients that know only RSA key exchange."""
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=True,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )

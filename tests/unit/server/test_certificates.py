"""What status tells of certificates, whatever they hold."""

from __future__ import annotations

import base64

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificate

from ocgate.ocserv.certificate import create
from ocgate.server.certificates import status


def test_a_certificate_is_told_with_its_names_and_its_end() -> None:
    names, until = status._told(create(["a.example"]).certificate)
    assert names == ("a.example",)
    assert until is not None
    assert until.endswith("Z")


def test_a_name_of_a_kind_that_nobody_uses_does_not_end_the_status() -> None:
    """An x400Address, [3], in place of the dNSName, [2]: cryptography raises no ValueError."""
    found = load_pem_x509_certificate(create(["a.example"]).certificate)
    der = found.public_bytes(Encoding.DER)
    assert der.count(b"\x82\x09a.example") == 1
    der = der.replace(b"\x82\x09a.example", b"\xa3\x09\x0c\x07example")
    strange = base64.encodebytes(der).decode()
    pem = f"-----BEGIN CERTIFICATE-----\n{strange}-----END CERTIFICATE-----\n"
    names, until = status._told(pem.encode())
    assert names == ()
    assert until is not None

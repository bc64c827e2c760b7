"""Certificates of the client, read from files."""

import base64
import hashlib
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest

from django_phi_oidc.config.certificates import compute_certificate_thumbprint, get_expiry, read_certificate_chain
from django_phi_oidc.contrib.common.registration import get_subject_dn
from django_phi_oidc.errors import DeclarationInvalid
from tests.support.tls import create_certificate_authority, write_client_certificate

pytestmark = pytest.mark.sqlite


def test_chain_is_read_in_its_order_and_without_the_key(tmp_path: Path) -> None:
    authority = create_certificate_authority(tmp_path, "authority")
    path = write_client_certificate(tmp_path / "client.pem", authority=authority)
    path.write_text(path.read_text() + Path(authority.certificate_path).read_text())
    leaf = ssl.PEM_cert_to_DER_cert(path.read_text().partition("-----BEGIN PRIVATE KEY-----")[0])
    assert read_certificate_chain(path) == (
        leaf,
        ssl.PEM_cert_to_DER_cert(Path(authority.certificate_path).read_text()),
    )


def test_expiry_is_that_of_the_certificate(tmp_path: Path) -> None:
    expires_at = datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC)
    path = write_client_certificate(tmp_path / "client.pem", expires_at=expires_at)
    assert get_expiry(read_certificate_chain(path)[0]) == expires_at


def test_subject_is_that_of_rfc_4514(tmp_path: Path) -> None:
    path = write_client_certificate(tmp_path / "client.pem", subject="portal, example")
    assert get_subject_dn(read_certificate_chain(path)[0]) == "CN=portal\\, example"
    with pytest.raises(DeclarationInvalid, match="no subject"):
        get_subject_dn(read_certificate_chain(write_client_certificate(path, subject=""))[0])


def test_thumbprint_is_the_sha_256_digest_in_base64url() -> None:
    expected = base64.urlsafe_b64encode(hashlib.sha256(b"der").digest()).decode().rstrip("=")
    assert compute_certificate_thumbprint(b"der") == expected


@pytest.mark.parametrize(
    "content", [None, b"", b"no PEM", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"]
)
def test_file_without_a_certificate_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "client.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DeclarationInvalid):
        read_certificate_chain(path)

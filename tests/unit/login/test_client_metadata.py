"""The documents for providers: the client's public keys, and its sector's redirect URIs. They need no database."""

import base64
import ssl
from pathlib import Path
from typing import Any

import jwt
import pytest
from django.conf import settings
from django.contrib.sessions.backends.cache import SessionStore
from django.test import Client, override_settings
from django.urls import reverse

from django_phi_oidc import conf
from tests.support.client_keys import create_private_key_pem
from tests.support.tls import create_certificate_pem, write_client_certificate

pytestmark = pytest.mark.sqlite
PEMS = {kty: create_private_key_pem(kty) for kty in ("RSA", "EC", "OKP")}
SECRET = {"issuer": "https://op.example.test", "client_id": "portal", "client_secret": "s3cret"}


def encode_der(pem: str) -> str:
    """Return the certificate at the start of pem as in x5c."""
    der = ssl.PEM_cert_to_DER_cert(pem.partition("-----BEGIN PRIVATE KEY-----")[0])
    return base64.b64encode(der).decode()


def by_key(*ktys: str, **options: Any) -> dict[str, Any]:
    return {
        "issuer": "https://op.example.test",
        "client_id": "portal",
        "token_endpoint_auth_method": "private_key_jwt",
        "client_keys": [PEMS[kty] for kty in ktys],
        **options,
    }


def fetch(name: str, providers: dict[str, Any], *, method: str = "get", **options: Any) -> Any:
    phi_oidc = {**settings.PHI_OIDC, "PROVIDERS": providers, **options}
    with override_settings(PHI_OIDC=phi_oidc):
        return getattr(Client(), method)(reverse(name))


def published(**providers: Any) -> list[dict[str, Any]]:
    keys: list[dict[str, Any]] = fetch("oidc_jwks", providers).json()["keys"]
    return keys


def test_jwks_contains_the_public_key_of_each_client_key() -> None:
    keys = published(default=by_key("RSA", "EC", "OKP"), other=SECRET)
    assert [(key["kty"], key["alg"], key["use"]) for key in keys] == [
        ("RSA", "PS256", "sig"),
        ("EC", "ES256", "sig"),
        ("OKP", "EdDSA", "sig"),
    ]
    assert {name for key in keys for name in key} == {"kty", "kid", "alg", "use", "n", "e", "crv", "x", "y"}
    assert len({key["kid"] for key in keys}) == 3
    assert all(jwt.PyJWK(key).key_id == key["kid"] for key in keys)


def test_jwks_has_the_configured_alg_if_the_key_supports_it() -> None:
    keys = published(default=by_key("RSA", "EC", token_endpoint_auth_signing_alg="RS256"))
    assert [key["alg"] for key in keys] == ["RS256", "ES256"]


def test_jwks_lists_a_shared_key_once_without_alg_if_it_differs() -> None:
    (same,) = published(a=by_key("RSA"), b=by_key("RSA"))
    assert same["alg"] == "PS256"
    (differing,) = published(a=by_key("RSA"), b=by_key("RSA", token_endpoint_auth_signing_alg="RS256"))
    assert "alg" not in differing
    assert {**differing, "alg": "PS256"} == same


def test_jwks_has_keys_for_encryption_with_their_kid() -> None:
    encryption = {"key": create_private_key_pem("EC"), "kid": "decryption", "use": "enc"}
    _, key = published(default=by_key("EC", client_keys=[create_private_key_pem("EC"), encryption]))
    assert (key["kid"], key["use"]) == ("decryption", "enc")
    assert published(default={**SECRET, "client_keys": [encryption]}) == [key]


def test_jwks_has_the_alg_of_signed_requests() -> None:
    (key,) = published(default={**SECRET, "client_keys": PEMS["RSA"], "request_object_signing_alg": "PS384"})
    assert key["alg"] == "PS384"
    (key,) = published(default=by_key("RSA", request_object_signing_alg="PS384"))
    assert "alg" not in key, "assertions are signed with PS256"


def test_jwks_has_the_certificate_of_a_client_key() -> None:
    certificate = create_certificate_pem(PEMS["EC"])
    (key,) = published(default=by_key(client_keys={"key": PEMS["EC"], "certificate": certificate}))
    assert key["x5c"] == [encode_der(certificate)]


def test_jwks_has_self_signed_certificates_and_no_others(tmp_path: Path) -> None:
    """RFC 8705 2.2.2."""
    first, second = (write_client_certificate(tmp_path / f"{number}.pem") for number in range(2))
    options = {"issuer": "https://op.example.test", "client_id": "portal"}
    by_tls = {**options, "token_endpoint_auth_method": "tls_client_auth", "client_certificate": first}
    self_signed = {**by_tls, "token_endpoint_auth_method": "self_signed_tls_client_auth"}
    assert published(default=by_tls, other={**SECRET, "client_certificate": first}) == []
    (key,) = published(default=self_signed, other=self_signed)
    assert key["x5c"] == [encode_der(first.read_text())]
    assert (key["use"], "d" in key) == ("sig", False)
    assert jwt.PyJWK({**key, "alg": "ES256"}).key_id == key["kid"]
    # The next certificate is published before it is presented.
    pem = second.read_text()
    keys = published(default={**self_signed, "client_keys": {"key": pem, "certificate": pem}})
    assert [key["x5c"] for key in keys] == [[encode_der(pem)], [encode_der(first.read_text())]]


def test_jwks_keeps_other_keys_if_a_certificate_cannot_be_read(tmp_path: Path) -> None:
    missing = {
        **{"issuer": "https://op.example.test", "client_id": "portal"},
        "token_endpoint_auth_method": "self_signed_tls_client_auth",
        "client_certificate": tmp_path / "missing.pem",
    }
    assert [key["kty"] for key in published(default=missing, other=by_key("EC"))] == ["EC"]


def test_jwks_is_empty_with_a_client_secret() -> None:
    assert published(default=SECRET) == []


CALLBACKS = ["/oidc/callback/", "/oidc/default/callback/", "/oidc/other/callback/"]


def test_sector_identifier_lists_each_callback_at_each_origin() -> None:
    both = {"default": SECRET, "other": SECRET}
    here = fetch("oidc_sector_identifier", both).json()
    assert here == [f"http://testserver{path}" for path in CALLBACKS]
    further = ["https://portal.example.test", "https://clinic.example.test:8443"]
    everywhere = fetch("oidc_sector_identifier", both, SECTOR_ORIGINS=further).json()
    assert everywhere == [f"{origin}{path}" for origin in ("http://testserver", *further) for path in CALLBACKS]


def test_sector_identifier_lists_the_requested_origin_once() -> None:
    phi_oidc = {**settings.PHI_OIDC, "PROVIDERS": {"default": SECRET}, "SECTOR_ORIGINS": ["https://testserver"]}
    with override_settings(PHI_OIDC=phi_oidc):
        uris = Client().get(reverse("oidc_sector_identifier"), secure=True).json()
        assert conf.sector_origins() == ("https://testserver",)
    assert uris == [f"https://testserver{path}" for path in CALLBACKS[:2]]


def test_sector_identifier_of_another_host_is_refused() -> None:
    with override_settings(ALLOWED_HOSTS=["portal.example.test"]):
        for host, status in (("evil.example", 400), ("portal.example.test", 200)):
            assert Client().get(reverse("oidc_sector_identifier"), headers={"host": host}).status_code == status


@pytest.mark.parametrize(
    ("name", "content_type"),
    [("oidc_jwks", "application/jwk-set+json"), ("oidc_sector_identifier", "application/json")],
)
def test_document_is_public_and_cacheable(name: str, content_type: str) -> None:
    page = fetch(name, {"default": by_key("EC")})
    assert page.status_code == 200
    assert page["Content-Type"] == content_type
    assert page["Cache-Control"] == "public, max-age=300"
    assert not page.cookies
    assert "Vary" not in page
    assert fetch(name, {"default": by_key("EC")}, method="head").status_code == 200
    for method in ("post", "put", "delete", "options"):
        assert fetch(name, {"default": by_key("EC")}, method=method).status_code == 405


@pytest.mark.parametrize("name", ["oidc_jwks", "oidc_sector_identifier"])
@pytest.mark.parametrize(("is_known", "cache_control"), [(True, "private, no-store"), (False, "public, max-age=300")])
def test_document_with_a_session_cookie_is_not_cacheable(name: str, is_known: bool, cache_control: str) -> None:
    engine = "django.contrib.sessions.backends.cache"
    session = SessionStore()
    session.update({"language": "sv"})
    session.create()
    with override_settings(SESSION_ENGINE=engine, SESSION_SAVE_EVERY_REQUEST=True):
        client = Client()
        if is_known:
            client.cookies["sessionid"] = str(session.session_key)
        page = client.get(reverse(name))
    assert ("sessionid" in page.cookies) is is_known
    assert page["Cache-Control"] == cache_control


@pytest.mark.parametrize("name", ["oidc_jwks", "oidc_sector_identifier"])
def test_document_is_exempt_from_login_required_middleware(name: str) -> None:
    middleware = [*settings.MIDDLEWARE, "django.contrib.auth.middleware.LoginRequiredMiddleware"]
    with override_settings(MIDDLEWARE=middleware):
        assert Client().get(reverse(name)).status_code == 200

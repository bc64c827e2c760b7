"""How the client proves itself: never in the URL. Spec: RFC 6749 2.3.1, RFC 7523, OIDC Core 9."""

import base64
import hashlib
import ssl
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs

import jwt
import pytest

from django_phi_oidc.config.client_keys import ClientKey, parse_client_keys
from django_phi_oidc.config.providers import ProviderDeclaration
from django_phi_oidc.contrib.apis.introspection import build_introspection_request
from django_phi_oidc.http.transport import TransportRequest
from django_phi_oidc.oidc.client_auth import AssertionFreshness, build_client_authentication, build_client_request
from django_phi_oidc.oidc.jose import parse_compact_jws
from django_phi_oidc.oidc.metadata import ProviderMetadata
from django_phi_oidc.oidc.pushed_authorization import build_par_request
from django_phi_oidc.oidc.refresh import build_refresh_request
from django_phi_oidc.oidc.revocation import build_revocation_request
from django_phi_oidc.oidc.token import build_token_request
from tests.support.client_keys import create_private_key_pem
from tests.support.tls import create_certificate_pem

Declare = Callable[..., ProviderDeclaration]
Authenticate = Callable[..., tuple[dict[str, str], dict[str, str]]]
MTLS_METHODS = ["tls_client_auth", "self_signed_tls_client_auth"]
METHODS = ["client_secret_basic", "client_secret_post", "private_key_jwt", *MTLS_METHODS]


@pytest.fixture(scope="session")
def authenticate(metadata: ProviderMetadata, declare: Declare, freshness: AssertionFreshness) -> Authenticate:
    """authenticate(client_id=…): headers and parameters of a form with a=b."""

    def authenticate(*, now: datetime | None = None, jti: str = "", **declared: Any) -> Any:
        return build_client_authentication(
            url=metadata.revocation_endpoint,
            metadata=metadata,
            declaration=declare(**declared),
            parameters={"a": "b"},
            freshness=AssertionFreshness(now=now or freshness.now, jti=jti or freshness.jti),
        )

    return authenticate


@pytest.mark.parametrize(
    ("client_id", "client_secret", "userpass"),
    [
        # RFC 6749 4.1.3: Basic czZCaGRSa3F0MzpnWDFmQmF0M2JW
        pytest.param("s6BhdRkqt3", "gX1fBat3bV", b"s6BhdRkqt3:gX1fBat3bV", id="RFC 6749 4.1.3"),
        pytest.param("a:b", "c:d", b"a%3Ab:c%3Ad", id="colons"),
        pytest.param("https://rp.example/", "a b+c%", b"https%3A%2F%2Frp.example%2F:a+b%2Bc%25", id="form-encoded"),
        pytest.param("ü", "€", b"%C3%BC:%E2%82%AC", id="RFC 6749 appendix B"),
    ],
)
def test_authenticate_client_basic_encodes_each_half(
    authenticate: Authenticate, client_id: str, client_secret: str, userpass: bytes
) -> None:
    headers, parameters = authenticate(client_id=client_id, client_secret=client_secret)
    scheme, _, credentials = headers["Authorization"].partition(" ")
    assert (scheme, base64.b64decode(credentials)) == ("Basic", userpass)
    assert parameters == {"a": "b"}


def test_authenticate_client_post_puts_both_in_the_form_and_no_header(authenticate: Authenticate) -> None:
    headers, parameters = authenticate(token_endpoint_auth_method="client_secret_post")
    assert headers == {}
    assert parameters == {"a": "b", "client_id": "portal", "client_secret": "s3cret"}


@pytest.mark.parametrize("method", MTLS_METHODS)
def test_authenticate_client_by_certificate_names_the_client_in_the_form(
    authenticate: Authenticate, method: str
) -> None:
    headers, parameters = authenticate(token_endpoint_auth_method=method, client_secret="")
    assert (headers, parameters) == ({}, {"a": "b", "client_id": "portal"})


def by_key(key: ClientKey, **declared: Any) -> dict[str, Any]:
    return {
        "token_endpoint_auth_method": "private_key_jwt",
        "client_secret": "",
        "client_keys": (key,),
        **declared,
    }


@pytest.mark.parametrize(
    ("kid", "chosen", "alg"),
    [
        ("rsa", "", "PS256"),
        ("rsa", "PS256", "PS256"),
        ("rsa", "RS256", "RS256"),
        ("p256", "", "ES256"),
        ("ed25519", "", "EdDSA"),
    ],
)
def test_authenticate_client_private_key_jwt_matches_the_specification(
    authenticate: Authenticate, client_keys: dict[str, ClientKey], now: datetime, kid: str, chosen: str, alg: str
) -> None:
    key = client_keys[kid]
    headers, parameters = authenticate(**by_key(key, token_endpoint_auth_signing_alg=chosen))
    assertion = parameters.pop("client_assertion")
    assert headers == {}
    assert parameters == {
        "a": "b",
        "client_id": "portal",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    }
    assert jwt.get_unverified_header(assertion) == {"alg": alg, "kid": key.kid, "typ": "JWT"}
    issued_at = int(now.timestamp())
    options: Any = {"verify_exp": False, "verify_iat": False}
    public = jwt.PyJWK(key.build_public_jwk(alg))
    assert jwt.decode(assertion, public, algorithms=[alg], audience="https://op.example", options=options) == {
        "iss": "portal",
        "sub": "portal",
        "aud": "https://op.example",
        "iat": issued_at,
        "exp": issued_at + 60,
        "jti": "a-jti",
    }


def test_authenticate_client_assertion_is_signed_by_the_first_key(
    authenticate: Authenticate, client_keys: dict[str, ClientKey]
) -> None:
    first, second = client_keys["p256"], client_keys["rsa"]
    for keys in ((first, second), (second, first)):
        _, parameters = authenticate(**by_key(first, client_keys=keys))
        assert parse_compact_jws(parameters["client_assertion"]).kid == keys[0].kid


def test_authenticate_client_audience_is_the_declared_one(
    authenticate: Authenticate, client_keys: dict[str, ClientKey], metadata: ProviderMetadata
) -> None:
    audiences = {
        "issuer": metadata.issuer,
        "token_endpoint": metadata.token_endpoint,
        "endpoint": metadata.revocation_endpoint,
    }
    for declared, audience in audiences.items():
        _, parameters = authenticate(**by_key(client_keys["p256"], client_assertion_audience=declared))
        assert parse_compact_jws(parameters["client_assertion"]).payload["aud"] == audience


@pytest.mark.parametrize("kty", ["RSA", "EC", "OKP"])
def test_assertion_names_its_key_by_the_declared_header(authenticate: Authenticate, kty: str) -> None:
    """RFC 7515 4.1.4, 4.1.6, 4.1.8: x5t#S256 is base64url, x5c is base64 with padding."""
    pem = create_private_key_pem(kty)
    chain = [create_certificate_pem(pem), create_certificate_pem(pem)]
    (key,) = parse_client_keys("client_keys", {"key": pem, "certificate": "".join(chain)})
    ders = [ssl.PEM_cert_to_DER_cert(certificate) for certificate in chain]
    thumbprint = base64.urlsafe_b64encode(hashlib.sha256(ders[0]).digest()).decode().rstrip("=")
    for header, expected in (
        ("kid", {"kid": key.kid}),
        ("x5t#S256", {"x5t#S256": thumbprint}),
        ("x5c", {"x5c": [base64.b64encode(der).decode() for der in ders]}),
    ):
        _, parameters = authenticate(**by_key(key, client_key_header=header))
        decoded = jwt.get_unverified_header(parameters["client_assertion"])
        assert decoded == {"alg": key.list_algs()[0], "typ": "JWT", **expected}


def test_assertion_of_udap_comes_with_its_parameter(
    authenticate: Authenticate, client_keys: dict[str, ClientKey]
) -> None:
    for is_declared in (True, False):
        _, parameters = authenticate(**by_key(client_keys["rsa"], udap=is_declared))
        assert parameters.get("udap") == ("1" if is_declared else None)


@pytest.mark.parametrize("method", METHODS)
def test_build_client_request_any_method_keeps_url_and_repr_clean(
    declare: Declare,
    metadata: ProviderMetadata,
    client_keys: dict[str, ClientKey],
    freshness: AssertionFreshness,
    method: str,
) -> None:
    declaration = declare(
        token_endpoint_auth_method=method, client_secret="a secret", client_keys=(client_keys["ed25519"],)
    )
    request = build_client_request(
        operation="token",
        url="https://op.example/token?x=y",
        metadata=metadata,
        declaration=declaration,
        parameters={"code": "c&d=é"},
        freshness=freshness,
    )
    assert (request.method, request.url) == ("POST", "https://op.example/token?x=y")
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    form = parse_qs((request.body or b"").decode(), strict_parsing=True)
    used = {
        "client_secret_basic": "Authorization" in request.headers,
        "client_secret_post": form.get("client_secret") == ["a secret"],
        "private_key_jwt": "client_assertion" in form,
    }
    assert [name for name, is_used in used.items() if is_used] == [name for name in used if name == method]
    assert request.presents_certificate
    assert form["code"] == ["c&d=é"]
    assert "secret" not in repr(request)
    assert "jti" not in repr(freshness)


BUILDERS: dict[str, tuple[Callable[..., TransportRequest], dict[str, Any]]] = {
    "code": (build_token_request, {"code": "c", "redirect_uri": "https://rp.example/cb", "code_verifier": "v"}),
    "refresh": (build_refresh_request, {"refresh_token": "rt"}),
    "revocation": (build_revocation_request, {"token": "rt", "token_type_hint": "refresh_token"}),
    "introspection": (build_introspection_request, {"token": "at"}),
    "pushed authorization": (build_par_request, {"parameters": {"state": "s"}}),
}


@pytest.mark.parametrize(("build", "arguments"), BUILDERS.values(), ids=BUILDERS)
def test_each_request_has_an_assertion_for_this_provider_and_request(
    build: Callable[..., TransportRequest],
    arguments: dict[str, Any],
    declare: Declare,
    metadata: ProviderMetadata,
    client_keys: dict[str, ClientKey],
    freshness: AssertionFreshness,
) -> None:
    everything = replace(metadata, introspection_endpoint="https://op.example/introspect")
    declaration = declare(**by_key(client_keys["p256"], client_assertion_audience="token_endpoint"))
    request = build(metadata=everything, declaration=declaration, freshness=freshness, **arguments)
    form = parse_qs((request.body or b"").decode(), strict_parsing=True)
    claims = parse_compact_jws(form["client_assertion"][0]).payload
    assert (claims["aud"], claims["jti"]) == (metadata.token_endpoint, freshness.jti)

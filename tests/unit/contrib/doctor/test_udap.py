"""The software statement of UDAP. Spec: HL7 UDAP Security 3.1."""

import base64
import json
import ssl
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography import x509

from django_phi_oidc.config.client_keys import parse_client_keys
from django_phi_oidc.config.providers import ProviderDeclaration
from django_phi_oidc.contrib.doctor.udap import (
    UDAPClientInformation,
    build_udap_metadata,
    build_udap_registration_request,
    get_subject_uri,
)
from django_phi_oidc.errors import DeclarationInvalid
from django_phi_oidc.oidc.client_auth import AssertionFreshness
from tests.support.client_keys import create_private_key_pem
from tests.support.tls import create_certificate_pem

URI = "https://portal.example/app"
ENDPOINT = "https://op.example/register"
METADATA = {
    "redirect_uris": ["https://portal.example/cb"],
    "grant_types": ["authorization_code", "refresh_token"],
    "response_types": ["code"],
    "token_endpoint_auth_method": "private_key_jwt",
}
INFORMATION = UDAPClientInformation(
    client_name="Portal",
    contacts=("mailto:privacy@portal.example",),
    logo_uri="https://portal.example/p.png",
    scope="openid",
)
STATED = {
    **METADATA,
    "client_name": "Portal",
    "contacts": ["mailto:privacy@portal.example"],
    "logo_uri": "https://portal.example/p.png",
    "scope": "openid",
}


def declare_key(declare: Callable[..., ProviderDeclaration], *uris: str) -> ProviderDeclaration:
    pem = create_private_key_pem("RSA")
    keys = parse_client_keys("client_keys", {"key": pem, "certificate": create_certificate_pem(pem, uris=uris)})
    return declare(
        token_endpoint_auth_method="private_key_jwt",
        token_endpoint_auth_signing_alg="RS256",
        client_keys=keys,
        client_key_header="x5c",
        udap=True,
    )


def test_statement_is_signed_by_the_certified_key_for_this_endpoint(
    declare: Callable[..., ProviderDeclaration], freshness: AssertionFreshness
) -> None:
    metadata = build_udap_metadata({**METADATA, "jwks_uri": "https://portal.example/jwks"}, information=INFORMATION)
    assert metadata == STATED
    request = build_udap_registration_request(
        ENDPOINT, metadata=metadata, declaration=declare_key(declare, URI), freshness=freshness
    )
    assert (request.method, request.url) == ("POST", ENDPOINT)
    body = json.loads(request.body or b"")
    statement = body.pop("software_statement")
    assert body == {"udap": "1"}
    header = jwt.get_unverified_header(statement)
    assert (header["alg"], header.keys()) == ("RS256", {"alg", "typ", "x5c"})
    certificate = x509.load_der_x509_certificate(base64.b64decode(header["x5c"][0]))
    options: Any = {"verify_exp": False, "verify_iat": False}
    public: Any = certificate.public_key()
    claims = jwt.decode(statement, public, algorithms=["RS256"], audience=ENDPOINT, options=options)
    issued_at = int(freshness.now.timestamp())
    expected = {"iss": URI, "sub": URI, "aud": ENDPOINT, "iat": issued_at, "exp": issued_at + 300, "jti": "a-jti"}
    assert claims == {**STATED, **expected}


def test_certificate_without_a_uri_is_refused(
    declare: Callable[..., ProviderDeclaration], freshness: AssertionFreshness
) -> None:
    declaration = declare_key(declare)
    with pytest.raises(DeclarationInvalid):
        build_udap_registration_request(ENDPOINT, metadata=STATED, declaration=declaration, freshness=freshness)


def test_subject_uri_is_the_only_one() -> None:
    pem = create_private_key_pem("EC")

    def find_uri(*uris: str) -> str:
        return get_subject_uri(ssl.PEM_cert_to_DER_cert(create_certificate_pem(pem, uris=uris)))

    assert find_uri("https://portal.example/app") == "https://portal.example/app"
    for uris in ((), ("https://portal.example/app", "https://portal.example/other")):
        with pytest.raises(DeclarationInvalid):
            find_uri(*uris)

"""Signed authorization requests. Spec: RFC 9101, OIDC Core 6.1."""

from collections.abc import Callable
from typing import Any

import jwt
import pytest

from django_phi_oidc.config.client_keys import ClientKey
from django_phi_oidc.config.providers import ProviderDeclaration
from django_phi_oidc.oidc.authorization import AuthorizationRequest, build_authorization_parameters
from django_phi_oidc.oidc.client_auth import AssertionFreshness
from django_phi_oidc.oidc.metadata import ProviderMetadata
from django_phi_oidc.oidc.request_object import build_signed_parameters
from tests.support.protocol_fixtures import ISSUER

Declare = Callable[..., ProviderDeclaration]
REQUEST = AuthorizationRequest(state="s", nonce="n", code_verifier="v", redirect_uri="https://rp.example/cb")


def build(
    metadata: ProviderMetadata, declaration: ProviderDeclaration, freshness: AssertionFreshness, *, is_pushed: bool
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the parameters of the request, and those with which it is sent."""
    parameters = build_authorization_parameters(
        metadata=metadata,
        declaration=declaration,
        request=REQUEST,
        scope="openid profile",
        claims={"id_token": {"birthdate": None}},
    )
    sent = build_signed_parameters(parameters, declaration=declaration, freshness=freshness, is_pushed=is_pushed)
    return parameters, sent


@pytest.mark.parametrize("is_pushed", [True, False])
def test_request_is_sent_as_it_is_unless_signing_is_declared(
    metadata: ProviderMetadata, declare: Declare, freshness: AssertionFreshness, is_pushed: bool
) -> None:
    parameters, sent = build(metadata, declare(max_age=60), freshness, is_pushed=is_pushed)
    assert sent == parameters


@pytest.mark.parametrize(
    ("kid", "alg"), [("rsa", "PS256"), ("rsa", "RS256"), ("p256", "ES256"), ("p521", "ES512"), ("ed25519", "EdDSA")]
)
def test_object_contains_the_request_and_is_valid_for_five_minutes_at_one_provider(
    metadata: ProviderMetadata,
    declare: Declare,
    freshness: AssertionFreshness,
    client_keys: dict[str, ClientKey],
    kid: str,
    alg: str,
) -> None:
    key = client_keys[kid]
    levels: dict[str, Any] = {"acr_values": ("strong",), "vtr": ("P9.Cp", "P9.Cm"), "vtm": "https://op.example/mark"}
    declaration = declare(request_object_signing_alg=alg, client_keys=(key,), max_age=60, **levels)
    parameters, sent = build(metadata, declaration, freshness, is_pushed=True)
    assert sent.keys() == {"client_id", "request"}
    assert jwt.get_unverified_header(sent["request"]) == {"alg": alg, "typ": "oauth-authz-req+jwt", "kid": key.kid}
    options: Any = {"verify_exp": False, "verify_iat": False, "verify_nbf": False}
    public = jwt.PyJWK(key.build_public_jwk(alg))
    claims = jwt.decode(sent["request"], public, algorithms=[alg], audience=ISSUER, options=options)
    issued_at = int(freshness.now.timestamp())
    assert claims == {
        **parameters,
        "max_age": 60,
        "vtr": ["P9.Cp", "P9.Cm"],
        "claims": {"id_token": {"birthdate": None}},
        "iss": "portal",
        "aud": ISSUER,
        "iat": issued_at,
        "nbf": issued_at,
        "exp": issued_at + 300,
        "jti": "a-jti",
    }
    assert "sub" not in claims, "it would be a client assertion"


def test_request_by_the_browser_repeats_what_openid_connect_requires(
    metadata: ProviderMetadata, declare: Declare, freshness: AssertionFreshness, client_keys: dict[str, ClientKey]
) -> None:
    declaration = declare(request_object_signing_alg="ES256", client_keys=(client_keys["p256"],))
    _, sent = build(metadata, declaration, freshness, is_pushed=False)
    assert sent.pop("request")
    assert sent == {"client_id": "portal", "response_type": "code", "scope": "openid profile"}

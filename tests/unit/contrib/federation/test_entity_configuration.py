"""The portal's entity configuration, as a superior or a provider reads it. Spec: OpenID Federation 1.0 3, 5.1.2, 9."""

from datetime import timedelta
from typing import Any

import jwt
import pytest
from django.conf import settings
from django.http import HttpResponse
from django.test import Client, override_settings
from django.urls import include, path

from django_phi_oidc._internal import clock
from django_phi_oidc.contrib.federation.entity_statement import (
    parse_entity_statement,
    verify_entity_statement,
)
from django_phi_oidc.contrib.federation.views import EntityConfigurationView
from tests.support.client_keys import create_private_key_pem

pytestmark = pytest.mark.sqlite
PEM, FEDERATION_PEM, NEXT_PEM = (create_private_key_pem("EC") for _ in range(3))
MARK = {"trust_mark_type": "https://ta.example/mark", "trust_mark": "a.b.c"}
FEDERATION: dict[str, Any] = {
    "trust_anchor": "https://ta.example",
    "trust_anchor_keys": {"keys": [{"kty": "EC", "kid": "a"}]},
    "authority_hints": ["https://middle.example"],
    "keys": [FEDERATION_PEM, NEXT_PEM],
    "organization_name": "Clinic",
    "contacts": ["ops@portal.example"],
    "trust_marks": [MARK],
}
PROVIDER: dict[str, Any] = {
    "issuer": "https://op.example",
    "client_id": "https://portal.example/oidc",
    "token_endpoint_auth_method": "private_key_jwt",
    "client_keys": PEM,
    "request_object_signing_alg": "ES256",
    "id_token_signed_response_alg": ["ES256"],
    "acr_values": ["https://level.example/2"],
    "federation": FEDERATION,
}
URL = "/oidc/.well-known/openid-federation"
urlpatterns = [
    path("oidc/", include("django_phi_oidc.urls")),
    path(".well-known/openid-federation", EntityConfigurationView.as_view()),
    path("elsewhere/", lambda request: HttpResponse()),
]


def get(providers: dict[str, Any], url: str = URL, *, method: str = "get", **options: Any) -> Any:
    phi_oidc = {**settings.PHI_OIDC, "PROVIDERS": providers}
    with override_settings(PHI_OIDC=phi_oidc, ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"]):
        return getattr(Client(), method)(url, **options)


def get_claims(providers: dict[str, Any], url: str = URL, **options: Any) -> dict[str, Any]:
    """Return the claims of the statement, whose signature a superior could verify."""
    page = get(providers, url, **options)
    assert page.status_code == 200
    statement = parse_entity_statement(page.content.decode())
    verify_entity_statement(statement, keys=statement.keys, now=clock.now(), leeway=timedelta(0))
    return dict(statement.claims)


def test_statement_names_keys_superiors_and_trust_marks() -> None:
    page = get({"default": PROVIDER})
    assert page["Content-Type"] == "application/entity-statement+jwt"
    assert page["Cache-Control"] == "public, max-age=300"
    header = jwt.get_unverified_header(page.content.decode())
    claims = get_claims({"default": PROVIDER})
    assert header == {"alg": "ES256", "typ": "entity-statement+jwt", "kid": claims["jwks"]["keys"][0]["kid"]}
    assert claims["iss"] == claims["sub"] == "https://portal.example/oidc"
    assert claims["exp"] - claims["iat"] == 24 * 3600
    assert claims["authority_hints"] == ["https://middle.example"]
    assert claims["trust_marks"] == [MARK]
    assert [sorted(key) for key in claims["jwks"]["keys"]] == [["alg", "crv", "kid", "kty", "use", "x", "y"]] * 2
    assert claims["metadata"]["federation_entity"] == {
        "organization_name": "Clinic",
        "contacts": ["ops@portal.example"],
    }


def test_metadata_of_the_relying_party_are_those_of_the_declaration() -> None:
    members = get_claims({"default": PROVIDER})["metadata"]["openid_relying_party"]
    (key,) = members.pop("jwks")["keys"]
    assert (key["use"], "d" in key) == ("sig", False)
    assert members == {
        "client_id": "https://portal.example/oidc",
        "application_type": "web",
        "client_registration_types": ["automatic"],
        "client_name": "Clinic",
        "organization_name": "Clinic",
        "contacts": ["ops@portal.example"],
        "redirect_uris": [
            "https://portal.example/oidc/callback/",
            "https://portal.example/oidc/default/callback/",
        ],
        "post_logout_redirect_uris": ["https://portal.example/oidc/logged-out/"],
        "backchannel_logout_uri": "https://portal.example/oidc/backchannel-logout/",
        "backchannel_logout_session_required": True,
        "response_types": ["code"],
        "grant_types": ["authorization_code", "refresh_token"],
        "subject_type": "pairwise",
        "token_endpoint_auth_method": "private_key_jwt",
        "token_endpoint_auth_signing_alg": "ES256",
        "request_object_signing_alg": "ES256",
        "require_signed_request_object": True,
        "id_token_signed_response_alg": "ES256",
        "default_acr_values": ["https://level.example/2"],
        "scope": "openid profile address",
    }


def test_options_that_are_not_declared_are_not_published() -> None:
    optional = ("organization_name", "contacts", "trust_marks")
    federation = {name: value for name, value in FEDERATION.items() if name not in optional}
    claims = get_claims({"default": {**PROVIDER, "federation": federation, "acr_values": []}})
    assert "trust_marks" not in claims
    assert claims["metadata"]["federation_entity"] == {}
    published = claims["metadata"]["openid_relying_party"].keys()
    assert not published & {"organization_name", "client_name", "contacts", "default_acr_values"}


def test_scope_is_published_if_it_is_more_than_openid() -> None:
    parameter = {"default": {**PROVIDER, "claims_request": "parameter"}}
    assert "scope" not in get_claims(parameter)["metadata"]["openid_relying_party"]
    scopes = {"default": {**PROVIDER, "claims_request": "scopes"}}
    assert get_claims(scopes)["metadata"]["openid_relying_party"]["scope"] == "openid profile address"


def test_host_of_the_request_is_not_in_the_statement() -> None:
    claims = get_claims({"default": PROVIDER}, headers={"host": "evil.example"})
    assert "evil.example" not in str(claims)


@pytest.mark.parametrize(
    ("client_id", "url"),
    [
        ("https://portal.example", "/.well-known/openid-federation"),
        ("https://portal.example/", "/.well-known/openid-federation"),
        ("https://portal.example/oidc", URL),
        ("https://portal.example/oidc/", URL),
    ],
)
def test_statement_is_below_the_entity_identifier_only(client_id: str, url: str) -> None:
    providers = {"default": {**PROVIDER, "client_id": client_id}}
    assert get_claims(providers, url)["iss"] == client_id
    (other,) = {URL, "/.well-known/openid-federation"} - {url}
    assert get(providers, other).status_code == 404


def test_providers_of_one_entity_identifier_share_its_statement() -> None:
    other = {**PROVIDER, "issuer": "https://op2.example", "client_keys": create_private_key_pem("EC")}
    foreign = {**PROVIDER, "client_id": "https://portal.example/other"}
    members = get_claims({"a": PROVIDER, "b": other, "c": foreign})["metadata"]["openid_relying_party"]
    paths = ["callback/", "a/callback/", "b/callback/"]
    assert members["redirect_uris"] == [f"https://portal.example/oidc/{path}" for path in paths]
    assert len(members["jwks"]["keys"]) == 2


def test_entity_identifier_of_the_requested_host_is_preferred() -> None:
    other = {**PROVIDER, "client_id": "https://clinic.example/oidc"}
    providers = {"a": PROVIDER, "b": other}
    for host in ("portal.example", "clinic.example"):
        assert get_claims(providers, headers={"host": host})["iss"] == f"https://{host}/oidc"


def test_portal_without_federation_has_no_statement() -> None:
    secret = {"issuer": "https://op.example", "client_id": "https://portal.example/oidc", "client_secret": "s"}
    assert get({"default": secret}).status_code == 404


def test_only_get_and_head_are_answered() -> None:
    assert get({"default": PROVIDER}, method="head").status_code == 200
    for method in ("post", "put", "delete", "options"):
        assert get({"default": PROVIDER}, method=method).status_code == 405

"""Client metadata, and comparison with the registered client. Spec: RFC 7591."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from django_phi_oidc.config.certificates import read_certificate_chain
from django_phi_oidc.config.client_keys import parse_client_keys
from django_phi_oidc.config.providers import ProviderDeclaration
from django_phi_oidc.contrib.common.registration import (
    ClientURLs,
    Deviation,
    build_client_metadata,
    build_registration_request,
    compare_registration,
    process_registration_response,
)
from django_phi_oidc.contrib.common.registration_errors import RegistrationRefused
from django_phi_oidc.http.transport import TransportResponse
from tests.support.client_keys import create_private_key_pem
from tests.support.encrypted_tokens import ENCRYPTION_KEYS
from tests.support.tls import write_client_certificate

ADDRESSES = ClientURLs(
    callback="https://your.host/callback",
    logged_out="https://your.host/logged-out",
    backchannel_logout="https://your.host/back",
    frontchannel_logout="https://your.host/front",
    jwks="https://your.host/jwks",
)
DECLARED = ProviderDeclaration(name="default", issuer="https://op.example", client_id="none yet", client_secret="none")
PLAIN: dict[str, Any] = {
    "application_type": "web",
    "redirect_uris": ["https://your.host/callback"],
    "response_types": ["code"],
    "grant_types": ["authorization_code", "refresh_token"],
    "subject_type": "pairwise",
    "token_endpoint_auth_method": "client_secret_basic",
    "id_token_signed_response_alg": "PS256",
    "post_logout_redirect_uris": ["https://your.host/logged-out"],
}
BACK = "backchannel_logout"
FRONT = "frontchannel_logout"


def build(declared: ProviderDeclaration = DECLARED, **members: Any) -> dict[str, Any]:
    return build_client_metadata(declared, client_urls=ADDRESSES, provider_metadata=members, id_token_alg="PS256")


def test_client_metadata_contains_only_what_is_declared() -> None:
    assert build() == PLAIN
    assert build(replace(DECLARED, subject_type="public"))["subject_type"] == "public"
    assert build(replace(DECLARED, par="require")) == {**PLAIN, "require_pushed_authorization_requests": True}
    assert build(replace(DECLARED, par="never")) == PLAIN
    assert build(replace(DECLARED, dpop="require")) == {**PLAIN, "dpop_bound_access_tokens": True}
    assert build(replace(DECLARED, dpop="auto")) == PLAIN
    assert build(replace(DECLARED, max_age=0)) == {**PLAIN, "require_auth_time": True}
    signed = replace(DECLARED, userinfo_signed_response_alg=("ES256", "PS256"))
    assert build(signed) == {**PLAIN, "userinfo_signed_response_alg": "ES256"}


def test_client_metadata_with_keys_contains_jwks_uri_and_algorithm() -> None:
    keys = parse_client_keys("client_keys", [create_private_key_pem("EC"), create_private_key_pem("OKP")])
    declared = replace(DECLARED, token_endpoint_auth_method="private_key_jwt", client_keys=keys)
    assert build(declared) == {
        **PLAIN,
        "token_endpoint_auth_method": "private_key_jwt",
        "jwks_uri": "https://your.host/jwks",
        "token_endpoint_auth_signing_alg": "ES256",
    }
    # Unused client keys are not registered.
    assert build(replace(declared, token_endpoint_auth_method="client_secret_post")) == {
        **PLAIN,
        "token_endpoint_auth_method": "client_secret_post",
    }


def test_client_metadata_with_signed_requests_contains_jwks_uri_and_algorithm() -> None:
    """RFC 9101 10.5."""
    keys = parse_client_keys("client_keys", [create_private_key_pem("EC")])
    assert build(replace(DECLARED, request_object_signing_alg="ES256", client_keys=keys)) == {
        **PLAIN,
        "jwks_uri": "https://your.host/jwks",
        "request_object_signing_alg": "ES256",
        "require_signed_request_object": True,
    }


def test_client_metadata_with_a_certificate_contains_its_subject_or_jwks_uri(tmp_path: Path) -> None:
    """RFC 8705 2.1.2, 2.2, 3.4."""
    path = write_client_certificate(tmp_path / "client.pem")
    (certificate,) = read_certificate_chain(path)
    bound = {"tls_client_certificate_bound_access_tokens": True}
    for method, further in (
        ("tls_client_auth", {"tls_client_auth_subject_dn": "CN=portal.example"}),
        ("self_signed_tls_client_auth", {"jwks_uri": "https://your.host/jwks"}),
        ("client_secret_basic", {}),
    ):
        declared = replace(DECLARED, token_endpoint_auth_method=method, client_certificate=path)  # type: ignore[arg-type]
        metadata = build_client_metadata(
            declared, client_urls=ADDRESSES, provider_metadata={}, id_token_alg="PS256", certificate=certificate
        )
        assert metadata == {**PLAIN, "token_endpoint_auth_method": method, **bound, **further}


ENCRYPTION: dict[str, Any] = {
    "client_keys": ENCRYPTION_KEYS,
    "id_token_encrypted_response_alg": ("ECDH-ES+A256KW", "ECDH-ES"),
}


def test_client_metadata_with_encryption_has_what_the_provider_offers() -> None:
    members = {**PLAIN, "jwks_uri": "https://your.host/jwks"}
    encryption = {"id_token_encrypted_response_alg": "ECDH-ES+A256KW", "id_token_encrypted_response_enc": "A256GCM"}
    assert build(replace(DECLARED, **ENCRYPTION)) == {**members, **encryption}
    offered = {
        "id_token_encryption_alg_values_supported": ["RSA-OAEP", "ECDH-ES"],
        "id_token_encryption_enc_values_supported": ["A128GCM"],
        "userinfo_encryption_enc_values_supported": "A128GCM",
    }
    encryption = {"id_token_encrypted_response_alg": "ECDH-ES", "id_token_encrypted_response_enc": "A128GCM"}
    assert build(replace(DECLARED, **ENCRYPTION), **offered) == {**members, **encryption}
    userinfo: dict[str, Any] = {
        "userinfo_encrypted_response_alg": ("ECDH-ES",),
        "userinfo_signed_response_alg": ("ES256",),
    }
    assert build(replace(DECLARED, client_keys=ENCRYPTION_KEYS, **userinfo), **offered) == {
        **members,
        "userinfo_signed_response_alg": "ES256",
        "userinfo_encrypted_response_alg": "ECDH-ES",
        "userinfo_encrypted_response_enc": "A256GCM",
    }
    assert build(replace(DECLARED, client_keys=ENCRYPTION_KEYS)) == members


@pytest.mark.parametrize(
    ("members", "further"),
    [
        ({f"{BACK}_supported": True}, {f"{BACK}_uri": ADDRESSES.backchannel_logout, f"{BACK}_session_required": False}),
        (
            {f"{BACK}_supported": True, f"{BACK}_session_supported": True, f"{FRONT}_supported": True},
            {f"{BACK}_uri": ADDRESSES.backchannel_logout, f"{BACK}_session_required": True},
        ),
        (
            {f"{FRONT}_supported": True},
            {f"{FRONT}_uri": ADDRESSES.frontchannel_logout, f"{FRONT}_session_required": False},
        ),
        (
            {f"{BACK}_supported": "true", f"{FRONT}_supported": True, f"{FRONT}_session_supported": True},
            {f"{FRONT}_uri": ADDRESSES.frontchannel_logout, f"{FRONT}_session_required": True},
        ),
        ({f"{BACK}_supported": 1, f"{FRONT}_supported": "yes", f"{BACK}_session_supported": True}, {}),
    ],
    ids=["back-channel", "both", "front-channel", "a text is no promise", "neither"],
)
def test_logout_is_registered_as_the_provider_offers_it(members: dict[str, Any], further: dict[str, Any]) -> None:
    assert build(**members) == {**PLAIN, **further}


def test_request_is_json_with_the_initial_access_token_if_any() -> None:
    request = build_registration_request("https://op.example/reg", metadata=PLAIN, initial_access_token="")
    assert (request.method, request.url) == ("POST", "https://op.example/reg")
    assert request.headers == {"Content-Type": "application/json", "Accept": "application/json"}
    assert request.body is not None
    assert json.loads(request.body) == PLAIN
    request = build_registration_request("https://op.example/reg", metadata=PLAIN, initial_access_token="initial-token")
    assert request.headers["Authorization"] == "Bearer initial-token"
    assert "initial-token" not in repr(request)


def response(status: int, members: Any) -> TransportResponse:
    return TransportResponse(status=status, headers={}, body=json.dumps(members).encode())


@pytest.mark.parametrize("status", [200, 201])
def test_response_with_a_client_id_is_accepted(status: int) -> None:
    assert process_registration_response(response(status, {"client_id": "x", "more": 1})) == {
        "client_id": "x",
        "more": 1,
    }


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (response(202, {"client_id": "x"}), "status_202"),
        (response(201, {"client_id": ""}), "status_201"),
        (response(201, {"client_id": 7}), "status_201"),
        (response(201, {}), "status_201"),
        (response(201, []), "status_201"),
        (response(400, {"error": "invalid_redirect_uri", "client_id": "x"}), "invalid_redirect_uri"),
        (response(400, {"error": "invalid_client_metadata"}), "invalid_client_metadata"),
        (response(400, {"error": "unapproved_software_statement"}), "unapproved_software_statement"),
        (response(401, {"error": "invalid_token"}), "invalid_token"),
        (response(400, {"error": "of_its_own"}), "status_400"),
        (response(400, {"error": ["invalid_token"]}), "status_400"),
        (response(503, None), "status_503"),
    ],
)
def test_other_response_is_refused_with_a_known_error_code(response: TransportResponse, error: str) -> None:
    with pytest.raises(RegistrationRefused) as refused:
        process_registration_response(response)
    assert refused.value.error == error
    assert error in str(refused.value)


def compare(requested: dict[str, Any], **registered: Any) -> list[tuple[str, str]]:
    response = {name: value for name, value in (requested | registered).items() if value is not None}
    deviations = list(compare_registration(requested, response))
    assert all(type(deviation) is Deviation for deviation in deviations)
    return [(deviation.name, deviation.level) for deviation in deviations]


def test_member_registered_as_requested_is_not_a_deviation() -> None:
    assert compare(PLAIN) == []
    assert compare(PLAIN, client_id="x", anything=["more"]) == []
    assert compare(PLAIN, grant_types=["refresh_token", "authorization_code"]) == [], "in another order"
    assert compare(PLAIN, response_types=None, application_type=None) == [], "left out, and so the default"
    assert compare({**PLAIN, "id_token_signed_response_alg": "RS256"}, id_token_signed_response_alg=None) == []
    assert compare(PLAIN, token_endpoint_auth_method=None) == []


@pytest.mark.parametrize(
    ("requested", "registered", "level"),
    [
        ({}, {"redirect_uris": ["https://your.host/callback", "https://evil.example/"]}, "failure"),
        ({}, {"redirect_uris": "https://your.host/callback"}, "failure"),
        ({}, {"redirect_uris": [7]}, "failure"),
        ({}, {"redirect_uris": None}, "failure"),
        ({}, {"response_types": ["code", "token"]}, "failure"),
        ({}, {"subject_type": "public"}, "failure"),
        ({}, {"subject_type": None}, "failure"),
        ({}, {"token_endpoint_auth_method": "none"}, "failure"),
        ({}, {"id_token_signed_response_alg": None}, "failure"),
        ({"userinfo_signed_response_alg": "PS256"}, {"userinfo_signed_response_alg": None}, "failure"),
        ({"id_token_encrypted_response_alg": "ECDH-ES"}, {"id_token_encrypted_response_alg": None}, "failure"),
        ({"id_token_encrypted_response_enc": "A256GCM"}, {"id_token_encrypted_response_enc": None}, "failure"),
        ({"jwks_uri": "https://your.host/jwks"}, {"jwks_uri": "https://evil.example/jwks"}, "failure"),
        ({}, {"grant_types": None}, "warning"),
        ({}, {"post_logout_redirect_uris": []}, "warning"),
        ({"require_auth_time": True}, {"require_auth_time": False}, "warning"),
        ({}, {"application_type": "native"}, "warning"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else value,
)
def test_member_registered_otherwise_is_a_deviation(
    requested: dict[str, Any], registered: dict[str, Any], level: str
) -> None:
    (name,) = registered
    assert compare({**PLAIN, **requested}, **registered) == [(name, level)]


def test_ordered_list_is_compared_in_order() -> None:
    assert compare({"default_acr_values": ["strong", "weak"]}, default_acr_values=["weak", "strong"]) == [
        ("default_acr_values", "warning")
    ]

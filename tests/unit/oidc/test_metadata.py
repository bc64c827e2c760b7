"""Provider metadata (R2) and the https rule (R1). Spec: Discovery 3 and 4."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_phi_oidc.config.providers import ProviderDeclaration
from django_phi_oidc.errors import Code, MetadataError, SignInRefused, TransportError
from django_phi_oidc.http.transport import TransportResponse
from django_phi_oidc.oidc.metadata import (
    ProviderMetadata,
    build_jwks_request,
    build_metadata_request,
    build_metadata_url,
    build_oauth_metadata_requests,
    process_jwks_response,
    process_metadata_response,
    process_oauth_metadata_response,
    validate_https_url,
)
from tests.support.error_codes import raises

OP = "https://op.example"
DOCUMENT = {
    "issuer": OP,
    "authorization_endpoint": f"{OP}/authorize",
    "token_endpoint": f"{OP}/token",
    "jwks_uri": f"{OP}/jwks",
    "userinfo_endpoint": f"{OP}/userinfo",
    "revocation_endpoint": f"{OP}/revoke",
    "end_session_endpoint": f"{OP}/end",
    "pushed_authorization_request_endpoint": f"{OP}/par",
    "response_types_supported": ["code"],
    "subject_types_supported": ["public", "pairwise"],
    "id_token_signing_alg_values_supported": ["PS256", "RS256"],
    "authorization_response_iss_parameter_supported": True,
}
ABSENT = object()
Declare = Callable[..., ProviderDeclaration]


def document(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**DOCUMENT, **changes}.items() if value is not ABSENT}


def response(members: Any, status: int = 200) -> TransportResponse:
    body = members if isinstance(members, bytes) else json.dumps(members).encode()
    return TransportResponse(status=status, headers={"content-type": "application/json"}, body=body)


ES256_PROOFS = {"dpop_signing_alg_values_supported": ["ES256"]}
ENDPOINTS = [name for name in DOCUMENT if name.endswith(("endpoint", "_uri"))]
REQUIRED = ["authorization_endpoint", "token_endpoint", "jwks_uri"]
TABLES: dict[Code, list[tuple[str, dict[str, Any], Any, dict[str, Any], Any]]] = {
    # name, declaration, accepted document, declaration, refused document
    Code.ISSUER_MISMATCH: [
        ("another host", {}, document(), {}, document(issuer="https://evil.example")),
        ("a slash more", {}, document(), {}, document(issuer=OP + "/")),
        ("a slash less", {"issuer": OP + "/"}, document(issuer=OP + "/"), {"issuer": OP + "/"}, document()),
        ("upper case", {}, document(), {}, document(issuer="https://OP.example")),
        ("default port", {}, document(), {}, document(issuer=OP + ":443")),
        ("missing", {}, document(), {}, document(issuer=ABSENT)),
        ("a list", {}, document(), {}, document(issuer=[OP])),
    ],
    Code.METADATA_INVALID: [
        *[(f"no {name}", {}, document(), {}, document(**{name: ABSENT})) for name in REQUIRED],
        *[(f"{name} is a list", {}, document(), {}, document(**{name: [DOCUMENT[name]]})) for name in ENDPOINTS],
        *[(f"{name} is empty", {}, document(), {}, document(**{name: ""})) for name in ENDPOINTS],
        ("subject types as text", {}, document(), {}, document(subject_types_supported="pairwise")),
        ("a subject type is a number", {}, document(), {}, document(subject_types_supported=["pairwise", 1])),
        ("algs as text", {}, document(), {}, document(id_token_signing_alg_values_supported="PS256")),
        ("PAR flag as text", {}, document(), {}, document(require_pushed_authorization_requests="true")),
        ("prompts as text", {}, document(), {}, document(prompt_values_supported="consent")),
        ("aliases as a list", {}, document(mtls_endpoint_aliases={}), {}, document(mtls_endpoint_aliases=[])),
        (
            "an alias is a list",
            {"client_certificate": Path("/client.pem")},
            document(mtls_endpoint_aliases={"token_endpoint": f"{OP}/token"}),
            {"client_certificate": Path("/client.pem")},
            document(mtls_endpoint_aliases={"token_endpoint": [f"{OP}/token"]}),
        ),
        ("DPoP algs as text", {}, document(), {}, document(dpop_signing_alg_values_supported="ES256")),
        ("iss flag as text", {}, document(), {}, document(authorization_response_iss_parameter_supported="true")),
        ("a list", {}, document(), {}, [document()]),
        ("HTML", {}, document(), {}, b"<html></html>"),
        ("empty", {}, document(), {}, b""),
        ("absurd nesting", {}, document(x=[[]]), {}, b'{"x":' + b"[" * 100_000),
        ("issuer twice", {}, document(), {}, b'{"issuer":"a",' + json.dumps(DOCUMENT).encode()[1:]),
    ],
    Code.TRANSPORT_NOT_HTTPS: [
        *[(f"{name} on http", {}, document(), {}, document(**{name: "http://op.example/x"})) for name in ENDPOINTS],
        (
            "loopback, not allowed",
            {"allow_loopback_http": True},
            document(token_endpoint="http://127.0.0.1:8000/token"),
            {},
            document(token_endpoint="http://127.0.0.1:8000/token"),
        ),
        (
            "http, not loopback",
            {"allow_loopback_http": True},
            document(token_endpoint="http://localhost/token"),
            {"allow_loopback_http": True},
            document(token_endpoint="http://localhost.example/token"),
        ),
        (
            "an alias on http",
            {"client_certificate": Path("/client.pem")},
            document(mtls_endpoint_aliases={"token_endpoint": "https://mtls.example/token"}),
            {"client_certificate": Path("/client.pem")},
            document(mtls_endpoint_aliases={"token_endpoint": "http://mtls.example/token"}),
        ),
        (
            "issuer on http",
            {"issuer": OP},
            document(),
            {"issuer": "http://op.example"},
            document(issuer="http://op.example"),
        ),
    ],
    Code.PAIRWISE_UNSUPPORTED: [
        ("public only", {}, document(), {}, document(subject_types_supported=["public"])),
        ("absent", {}, document(), {}, document(subject_types_supported=ABSENT)),
        (
            "required",
            {"subject_type": "public"},
            document(subject_types_supported=["public"]),
            {"subject_type": "pairwise"},
            document(subject_types_supported=["public"]),
        ),
    ],
    Code.ALG_UNSUPPORTED: [
        ("HS256 only", {}, document(), {}, document(id_token_signing_alg_values_supported=["HS256", "none"])),
        ("absent", {}, document(), {}, document(id_token_signing_alg_values_supported=ABSENT)),
        (
            "not the declared one",
            {"id_token_signed_response_alg": ("PS256",)},
            document(),
            {"id_token_signed_response_alg": ("EdDSA",)},
            document(),
        ),
    ],
    Code.REVOCATION_UNSUPPORTED: [
        ("absent", {}, document(), {}, document(revocation_endpoint=ABSENT)),
        (
            "required",
            {"revocation": "best_effort"},
            document(revocation_endpoint=ABSENT),
            {"revocation": "required"},
            document(revocation_endpoint=ABSENT),
        ),
    ],
    Code.PAR_UNSUPPORTED: [
        (
            "required, and absent",
            {"par": "require"},
            document(),
            {"par": "require"},
            document(pushed_authorization_request_endpoint=ABSENT),
        ),
        (
            "required of one that lacks it",
            {"par": "auto"},
            document(pushed_authorization_request_endpoint=ABSENT),
            {"par": "require"},
            document(pushed_authorization_request_endpoint=ABSENT),
        ),
        (
            "never, but the provider requires it",
            {"par": "never"},
            document(require_pushed_authorization_requests=False),
            {"par": "never"},
            document(require_pushed_authorization_requests=True),
        ),
    ],
    Code.PROFILE_UNSUPPORTED: [
        (
            "fapi2 without iss in responses",
            {"profile": "fapi2", "dpop": "require"},
            document(authorization_response_iss_parameter_supported=True, **ES256_PROOFS),
            {"profile": "fapi2", "dpop": "require"},
            document(authorization_response_iss_parameter_supported=False, **ES256_PROOFS),
        ),
        (
            "fapi2 without tokens that are bound to the client certificate",
            {"profile": "fapi2", "dpop": "never"},
            document(
                authorization_response_iss_parameter_supported=True, tls_client_certificate_bound_access_tokens=True
            ),
            {"profile": "fapi2", "dpop": "never"},
            document(authorization_response_iss_parameter_supported=True),
        ),
        (
            "fapi2 without tokens that are bound at all",
            {"profile": "fapi2", "dpop": "require"},
            document(authorization_response_iss_parameter_supported=True, **ES256_PROOFS),
            {"profile": "fapi2", "dpop": "auto"},
            document(authorization_response_iss_parameter_supported=True, **ES256_PROOFS),
        ),
        (
            "another profile",
            {"profile": "baseline"},
            document(authorization_response_iss_parameter_supported=ABSENT),
            {"profile": "fapi2"},
            document(authorization_response_iss_parameter_supported=ABSENT),
        ),
    ],
    Code.DPOP_UNSUPPORTED: [
        (
            "required, and absent",
            {"dpop": "auto"},
            document(),
            {"dpop": "require"},
            document(),
        ),
        (
            "without ES256",
            {"dpop": "require"},
            document(dpop_signing_alg_values_supported=["RS256", "ES256"]),
            {"dpop": "require"},
            document(dpop_signing_alg_values_supported=["RS256"]),
        ),
    ],
}
ROWS = [pytest.param(error, *row[1:], id=f"{error}: {row[0]}") for error, rows in TABLES.items() for row in rows]


@pytest.mark.parametrize(("error", "declared", "accepted", "refused_declared", "refused"), ROWS)
def test_process_metadata_response_one_fault_is_refused(
    declare: Declare,
    error: Code,
    declared: dict[str, Any],
    accepted: Any,
    refused_declared: dict[str, Any],
    refused: Any,
) -> None:
    assert (
        process_metadata_response(response(accepted), declaration=declare(**declared)).jwks_uri == DOCUMENT["jwks_uri"]
    )
    with raises(error) as caught:
        process_metadata_response(response(refused), declaration=declare(**refused_declared))
    assert caught.value.code is error
    assert caught.value.__context__ is None


def test_process_metadata_response_every_code_of_r2_has_a_table() -> None:
    of_keys = {"key_not_found"}  # in test_jwks.py
    assert {code for code in Code if code.rule == "R2"} - of_keys <= set(TABLES)


@pytest.mark.parametrize("status", [201, 204, 301, 401, 404])
def test_process_metadata_response_status_other_than_200_is_metadata_invalid(declare: Declare, status: int) -> None:
    assert process_metadata_response(response(DOCUMENT, 200), declaration=declare())
    with raises(Code.METADATA_INVALID):
        process_metadata_response(response(DOCUMENT, status), declaration=declare())


@pytest.mark.parametrize("status", [429, 500, 503, 599])
@pytest.mark.parametrize("process", ["metadata", "keys"])
def test_process_response_of_an_outage_is_provider_unavailable(
    declare: Declare, jwks: dict[str, Any], process: str, status: int
) -> None:
    def run(status: int) -> object:
        if process == "metadata":
            return process_metadata_response(response(DOCUMENT, status), declaration=declare())
        return process_jwks_response(response(jwks, status))

    assert run(200)
    with raises(Code.PROVIDER_UNAVAILABLE) as caught:
        run(status)
    assert (caught.value.is_provider_fault, caught.value.retry_after) == (True, None)


@pytest.mark.parametrize(
    ("named", "declared_issuer", "is_accepted"),
    [
        (OP, "", True),
        (f"{OP}/fhir", "", False),
        (f"{OP}/fhir", f"{OP}/fhir", True),
        (f"{OP}/fhir/", f"{OP}/fhir", False),
        (OP, f"{OP}/fhir", False),
        (ABSENT, f"{OP}/fhir", False),
        (ABSENT, "", False),
    ],
)
def test_process_metadata_response_names_exactly_the_declared_metadata_issuer(
    declare: Declare, named: Any, declared_issuer: str, is_accepted: bool
) -> None:
    declared = declare(metadata_url="https://smart.example/x", metadata_issuer=declared_issuer)
    if is_accepted:
        metadata = process_metadata_response(response(document(issuer=named)), declaration=declared)
        assert (metadata.issuer, metadata.metadata_issuer or OP) == (OP, named)
    else:
        with raises(Code.ISSUER_MISMATCH):
            process_metadata_response(response(document(issuer=named)), declaration=declared)


def test_process_metadata_response_full_document_is_returned(declare: Declare) -> None:
    members = document(require_pushed_authorization_requests=True, prompt_values_supported=["none", "consent"])
    metadata = process_metadata_response(response(members), declaration=declare())
    assert metadata == ProviderMetadata(
        issuer=OP,
        authorization_endpoint=f"{OP}/authorize",
        token_endpoint=f"{OP}/token",
        jwks_uri=f"{OP}/jwks",
        userinfo_endpoint=f"{OP}/userinfo",
        revocation_endpoint=f"{OP}/revoke",
        end_session_endpoint=f"{OP}/end",
        pushed_authorization_request_endpoint=f"{OP}/par",
        require_pushed_authorization_requests=True,
        prompt_values_supported=("none", "consent"),
        subject_types_supported=("public", "pairwise"),
        id_token_signing_alg_values_supported=("PS256", "RS256"),
        authorization_response_iss_parameter_supported=True,
    )


def test_process_metadata_response_absent_members_have_their_defaults(declare: Declare) -> None:
    absent = dict.fromkeys(
        (
            "userinfo_endpoint",
            "pushed_authorization_request_endpoint",
            "authorization_response_iss_parameter_supported",
        ),
        ABSENT,
    )
    metadata = process_metadata_response(response(document(**absent)), declaration=declare())
    assert (metadata.userinfo_endpoint, metadata.pushed_authorization_request_endpoint) == ("", "")
    assert metadata.require_pushed_authorization_requests is False
    assert metadata.prompt_values_supported == ()
    assert metadata.authorization_response_iss_parameter_supported is False


ALIASES = {
    name: f"https://mtls.example/{name}"
    for name in (
        *("token_endpoint", "userinfo_endpoint", "revocation_endpoint", "introspection_endpoint"),
        "pushed_authorization_request_endpoint",
    )
}


def test_endpoint_aliases_are_used_with_a_client_certificate_and_no_others(declare: Declare) -> None:
    """RFC 8705 5. The browser and the keys have no use for a client certificate."""
    members = document(
        introspection_endpoint=f"{OP}/introspect",
        mtls_endpoint_aliases={
            **ALIASES,
            "authorization_endpoint": "https://mtls.example/",
            "jwks_uri": "https://x.y/",
        },
    )
    without = process_metadata_response(response(members), declaration=declare())
    assert without == process_metadata_response(
        response({**members, "mtls_endpoint_aliases": {}}), declaration=declare()
    )
    declaration = declare(client_certificate=Path("/client.pem"))
    metadata = process_metadata_response(response(members), declaration=declaration)
    assert metadata == replace(without, **ALIASES)
    assert process_metadata_response(response(document()), declaration=declaration).token_endpoint == f"{OP}/token"


def test_endpoint_alias_does_not_replace_an_override(declare: Declare) -> None:
    overrides = (("token_endpoint", "https://other.example/token"),)
    declaration = declare(client_certificate=Path("/client.pem"), metadata_overrides=overrides)
    members = document(mtls_endpoint_aliases=ALIASES)
    metadata = process_metadata_response(response(members), declaration=declaration)
    assert metadata.token_endpoint == "https://other.example/token"
    assert metadata.userinfo_endpoint == ALIASES["userinfo_endpoint"]


@pytest.mark.parametrize(
    ("accepted", "refused"),
    [
        ("https://op.example/x", "http://op.example/x"),
        ("https://op.example/x", "//op.example/x"),
        ("https://op.example/x", "op.example/x"),
        ("https://op.example/x", "https:///x"),
        ("https://op.example/x", "https:op.example/x"),
        ("https://op.example/x", "javascript:alert(1)"),
        ("https://op.example/x", "ftp://op.example/x"),
        ("https://op.example/x", ""),
        ("https://op.example:8443/x", "https://op.example:port/x"),
        ("https://op.example:8443/x", "https://op.example:99999/x"),
        ("https://op.example/x", "https://user:password@op.example/x"),
        ("https://op.example/x?a=b", "https://op.example/x#a"),
        ("https://op.example/x", "https://op.example/x#"),
        ("https://op.example/x", " https://op.example/x"),
        ("https://op.example/x", "https://op.example/x\n"),
        ("https://op.example/x", "https://op.exa\tmple/x"),
        ("https://op.example/x", "https://op.example\\.evil.example/x"),
        ("https://op.example/x", "https://öp.example/x"),
        ("https://[::1]/x", "https://[::1/x"),
        ("HTTPS://op.example/x", "HTTP://op.example/x"),
    ],
)
def test_validate_https_url_one_fault_is_transport_not_https(accepted: str, refused: str) -> None:
    assert validate_https_url(accepted, allow_loopback_http=False) is None
    for allowed in (False, True):
        with raises(Code.TRANSPORT_NOT_HTTPS) as caught:
            validate_https_url(refused, allow_loopback_http=allowed)
        assert caught.value.code == "transport_not_https"


@pytest.mark.parametrize(
    ("loopback", "other"),
    [
        ("http://127.0.0.1:8000/", "http://128.0.0.1:8000/"),
        ("http://127.8.8.8/", "http://10.0.0.1/"),
        ("http://[::1]:8000/", "http://[::2]:8000/"),
        ("http://localhost/", "http://localhost.evil.example/"),
        ("http://localhost:8000/", "http://localhost@evil.example/"),
        ("http://127.0.0.1/", "http://127.0.0.1.evil.example/"),
        ("http://127.0.0.1/", "http://0.0.0.0/"),
        ("http://127.0.0.1/", "ws://127.0.0.1/"),
    ],
)
def test_validate_https_url_http_is_accepted_only_on_loopback_if_allowed(loopback: str, other: str) -> None:
    assert validate_https_url(loopback, allow_loopback_http=True) is None
    with raises(Code.TRANSPORT_NOT_HTTPS):
        validate_https_url(loopback, allow_loopback_http=False)
    with raises(Code.TRANSPORT_NOT_HTTPS):
        validate_https_url(other, allow_loopback_http=True)


@given(st.text() | st.text(alphabet="htps:/[]@#?.1\\% ").map("https://".__add__))
def test_validate_https_url_any_text_is_accepted_or_transport_not_https(url: str) -> None:
    try:
        validate_https_url(url, allow_loopback_http=True)
        result: object = "passed"
    except TransportError as error:
        result = error.__context__
    assert result in ("passed", None)


@pytest.mark.parametrize(
    ("issuer", "url"),
    [
        ("https://op.example", "https://op.example/.well-known/openid-configuration"),
        ("https://op.example/", "https://op.example/.well-known/openid-configuration"),
        ("https://op.example/tenant", "https://op.example/tenant/.well-known/openid-configuration"),
        ("https://op.example/tenant/", "https://op.example/tenant/.well-known/openid-configuration"),
    ],
)
def test_metadata_url_issuer_with_or_without_slash_is_that_of_discovery_4_1(
    declare: Declare, issuer: str, url: str
) -> None:
    assert build_metadata_url(issuer) == url
    request = build_metadata_request(declare(issuer=issuer))
    assert (request.method, request.url, request.body) == ("GET", url, None)
    assert request.headers == {"Accept": "application/json"}
    elsewhere = "https://meta.example/.well-known/wallet-openid-configuration?v=1"
    assert build_metadata_request(declare(issuer=issuer, metadata_url=elsewhere)).url == elsewhere


def test_build_jwks_request_metadata_gives_a_get_of_jwks_uri(metadata: ProviderMetadata) -> None:
    request = build_jwks_request(metadata)
    assert (request.method, request.url, request.body) == ("GET", metadata.jwks_uri, None)
    assert request.headers == {"Accept": "application/jwk-set+json, application/json"}


def test_process_jwks_response_status_other_than_200_is_metadata_invalid(jwks: dict[str, Any]) -> None:
    assert len(process_jwks_response(response(jwks)).keys) == len(jwks["keys"])
    with raises(Code.METADATA_INVALID):
        process_jwks_response(response(jwks, 404))


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("https://op.example/x"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(sorted(DOCUMENT)), ANY_JSON, max_size=3), st.binary(max_size=20))
def test_process_metadata_response_any_response_is_processed_or_refused_by_our_error(
    declare: Declare, changes: dict[str, Any], damage: bytes
) -> None:
    whole = json.dumps({**DOCUMENT, **changes}).encode()
    for body in (whole, damage, whole[: len(whole) // 2] + damage):
        try:
            result: object = process_metadata_response(response(body), declaration=declare())
        except MetadataError as error:
            result = error
        except SignInRefused as error:
            result = error.code
        assert isinstance(result, ProviderMetadata | MetadataError) or result is Code.TRANSPORT_NOT_HTTPS


@pytest.mark.parametrize(
    ("issuer", "urls"),
    [
        *(
            (
                issuer,
                [
                    "https://op.example/.well-known/oauth-authorization-server",
                    "https://op.example/.well-known/smart-configuration",
                ],
            )
            for issuer in ("https://op.example", "https://op.example/")
        ),
        (
            "https://op.example:8443/o/a",
            [
                "https://op.example:8443/.well-known/oauth-authorization-server/o/a",
                "https://op.example:8443/o/a/.well-known/oauth-authorization-server",
                "https://op.example:8443/o/a/.well-known/smart-configuration",
            ],
        ),
        (
            "https://op.example/o/",
            [
                "https://op.example/.well-known/oauth-authorization-server/o",
                "https://op.example/o/.well-known/oauth-authorization-server",
                "https://op.example/o/.well-known/smart-configuration",
            ],
        ),
    ],
)
def test_c3_build_oauth_metadata_requests_has_both_forms_of_the_path(issuer: str, urls: list[str]) -> None:
    assert [request.url for request in build_oauth_metadata_requests(issuer=issuer)] == urls


@pytest.mark.parametrize(
    ("status", "members"),
    [
        pytest.param(200, document(issuer=f"{OP}/"), id="another issuer"),
        pytest.param(200, document(issuer=ABSENT), id="no issuer"),
        pytest.param(200, b"<html>", id="no JSON"),
        pytest.param(404, document(), id="not found"),
    ],
)
def test_c3_process_oauth_metadata_response_of_another_issuer_is_not_used(status: int, members: Any) -> None:
    assert process_oauth_metadata_response(response(document()), issuer=OP) == document()
    assert process_oauth_metadata_response(response(members, status), issuer=OP) is None


def test_c3_process_metadata_response_adds_what_the_document_lacks_and_replaces_nothing(declare: Declare) -> None:
    lacking = response(document(revocation_endpoint=ABSENT))
    with raises(Code.REVOCATION_UNSUPPORTED):
        process_metadata_response(lacking, declaration=declare())
    oauth = document(token_endpoint=f"{OP}/other", introspection_endpoint=f"{OP}/introspect")
    metadata = process_metadata_response(lacking, declaration=declare(), oauth_members=oauth)
    assert metadata.revocation_endpoint == f"{OP}/revoke"
    assert metadata.introspection_endpoint == f"{OP}/introspect"
    assert metadata.token_endpoint == f"{OP}/token"
    assert (metadata.issuer, metadata.is_partial) == (OP, False)


def test_c3_process_metadata_response_applies_the_overrides(declare: Declare) -> None:
    overrides = {
        "revocation_endpoint": f"{OP}/declared",
        "id_token_signing_alg_values_supported": ("ES256", "PS256"),
        "require_pushed_authorization_requests": True,
    }
    declared = declare(metadata_overrides=tuple(overrides.items()))
    oauth = document(revocation_endpoint=f"{OP}/oauth")
    metadata = process_metadata_response(response(document()), declaration=declared, oauth_members=oauth)
    assert metadata.revocation_endpoint == f"{OP}/declared"
    assert metadata.id_token_signing_alg_values_supported == ("ES256", "PS256")
    assert metadata.require_pushed_authorization_requests is True
    with raises(Code.ISSUER_MISMATCH):
        process_metadata_response(response(document(issuer=f"{OP}/")), declaration=declared, oauth_members=oauth)


def test_c3_process_metadata_response_with_an_override_that_is_not_https_is_refused(declare: Declare) -> None:
    for url in (f"{OP}/revoke", "http://op.example/revoke"):
        declared = declare(metadata_overrides=(("revocation_endpoint", url),))
        if url.startswith("https:"):
            process_metadata_response(response(document()), declaration=declared)
        else:
            with raises(Code.TRANSPORT_NOT_HTTPS):
                process_metadata_response(response(document()), declaration=declared)

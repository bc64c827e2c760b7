"""Each check of a provider on its own input."""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import MappingProxyType
from typing import Any

import pytest

from django_phi_oidc.config.claims import ClaimDeclaration
from django_phi_oidc.config.providers import ProviderDeclaration, parse_provider
from django_phi_oidc.contrib.common.provider_findings import ProviderFinding, sanitize_text
from django_phi_oidc.contrib.doctor import diagnostics
from django_phi_oidc.contrib.doctor.assurance_diagnostics import check_assurance
from django_phi_oidc.contrib.doctor.diagnostics import TLSPeer
from django_phi_oidc.contrib.doctor.recipe_diagnostics import check_known_provider
from django_phi_oidc.errors import PhiOidcError
from django_phi_oidc.http.transport import TransportResponse
from django_phi_oidc.oidc.metadata import process_metadata_response
from django_phi_oidc.testing.mock_provider import create_signing_key
from tests.support.client_keys import create_private_key_pem
from tests.support.encrypted_tokens import ENCRYPTION_KEY_ENTRY

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
ISSUER = "https://op.example"
METADATA: dict[str, Any] = {
    "issuer": ISSUER,
    **{f"{name}_endpoint": f"{ISSUER}/{name}" for name in ("authorization", "token", "userinfo", "revocation")},
    **{f"{name}_endpoint": f"{ISSUER}/{name}" for name in ("introspection", "end_session")},
    "pushed_authorization_request_endpoint": f"{ISSUER}/par",
    "require_pushed_authorization_requests": False,
    "jwks_uri": f"{ISSUER}/jwks",
    "prompt_values_supported": ["login"],
    "subject_types_supported": ["pairwise"],
    "id_token_signing_alg_values_supported": ["ES256"],
    "authorization_response_iss_parameter_supported": True,
    "code_challenge_methods_supported": ["S256"],
    "token_endpoint_auth_methods_supported": ["client_secret_basic"],
    "revocation_endpoint_auth_methods_supported": ["client_secret_basic"],
    "scopes_supported": ["openid"],
    "claims_supported": ["sub"],
    "acr_values_supported": ["gold"],
    "backchannel_logout_supported": True,
    "backchannel_logout_session_supported": True,
}
DECLARED = parse_provider("default", {"issuer": ISSUER, "client_id": "portal", "client_secret": "s"})


def refusal(members: dict[str, Any]) -> str:
    """Return the code of the rule that refuses a sign-in with that metadata; empty if none does."""
    response = TransportResponse(status=200, headers={}, body=json.dumps(members).encode())
    try:
        process_metadata_response(response, declaration=DECLARED)
    except PhiOidcError as error:
        return error.code
    return ""


def failures(members: dict[str, Any]) -> set[str]:
    return {finding.code for finding in run_checks(members, DECLARED) if finding.level == "failure"}


VALUES: list[Any] = [None, "", 7, [], ["x"], [7], "http://op.example/", "https://op.example", {}, True]


@pytest.mark.parametrize("name", METADATA)
def test_failures_match_the_reasons_for_which_a_sign_in_is_refused(name: str) -> None:
    assert (refusal(METADATA), failures(METADATA)) == ("", set())
    doctor_only = {"pkce_unsupported", "client_auth_unsupported"}
    for value in VALUES:
        members = {**METADATA, name: value}
        if value is None:
            del members[name]
        code, codes = refusal(members), failures(members)
        assert code in codes or not code, value
        assert codes <= doctor_only or code, value


def run_checks(
    members: dict[str, Any],
    declared: ProviderDeclaration,
    *,
    is_only_provider: bool = True,
    claims: Mapping[str, ClaimDeclaration] = MappingProxyType({}),
    acr_values: tuple[str, ...] = ("x",),
) -> Iterator[ProviderFinding]:
    yield diagnostics.check_issuer(members, issuer=declared.issuer)
    yield from diagnostics.check_metadata_issuer(declared)
    yield from diagnostics.check_members(members, allow_loopback_http=False)
    yield diagnostics.check_algorithms(members, allowed=declared.id_token_signed_response_alg)
    yield from diagnostics.check_encryption(members, declaration=declared)
    yield diagnostics.check_pairwise(members, declaration=declared)
    yield diagnostics.check_pkce(members)
    yield diagnostics.check_par(members, declaration=declared)
    yield from diagnostics.check_signed_requests(members, declaration=declared)
    yield diagnostics.check_client_authentication(members, declaration=declared)
    yield diagnostics.check_revocation(members, declaration=declared)
    yield from diagnostics.check_logout(members, declaration=declared)
    yield from check_known_provider(members, declaration=declared)
    yield diagnostics.check_response_issuer(members, is_only_provider=is_only_provider)
    yield diagnostics.check_requested_claims(members, declaration=declared, claims=claims)
    yield check_assurance(members, declaration=replace(declared, acr_values=acr_values))
    yield from diagnostics.check_reauthentication(members, declaration=declared)


COMPLETE = {**METADATA, "scopes_supported": ["openid", "email"], "claims_supported": ["sub", "email", "auth_time"]}
EMAIL_LINKING = {"link_verified_email": {"accounts_created_before": "2026-10-01", "until": "2026-12-30"}}
"""Requests `email_verified`, too."""
ALG_MEMBER, ENC_MEMBER = (f"id_token_encryption_{name}_values_supported" for name in ("alg", "enc"))
ENCRYPTION_OFFER = {ALG_MEMBER: ["ECDH-ES", "RSA-OAEP"], ENC_MEMBER: ["A128CBC-HS256", "A256GCM"]}
ENCRYPTED = {"client_keys": ENCRYPTION_KEY_ENTRY, "id_token_encrypted_response_alg": ["ECDH-ES"]}
SIGNED_REQUESTS = {"request_object_signing_alg": "ES256", "client_keys": create_private_key_pem("EC")}
FAULTS: list[tuple[str, dict[str, Any], dict[str, Any], tuple[str, str]]] = [
    # check, other members (None: missing), options of the declaration, level and code of the finding
    ("issuer", {"issuer": f"{ISSUER}/"}, {}, ("failure", "issuer_mismatch")),
    (
        "issuer",
        {},
        {"metadata_url": "https://op.example/x", "metadata_issuer": "https://fhir.example"},
        ("warning", "django_phi_oidc.W120"),
    ),
    ("metadata", {"token_endpoint": None}, {}, ("failure", "metadata_invalid")),
    ("metadata", {"userinfo_endpoint": 7}, {}, ("failure", "metadata_invalid")),
    ("metadata", {"prompt_values_supported": "login"}, {}, ("failure", "metadata_invalid")),
    ("metadata", {"require_pushed_authorization_requests": "no"}, {}, ("failure", "metadata_invalid")),
    ("metadata", {"dpop_signing_alg_values_supported": "ES256"}, {}, ("failure", "metadata_invalid")),
    ("metadata", {"tls_client_certificate_bound_access_tokens": "yes"}, {}, ("failure", "metadata_invalid")),
    ("metadata", {"jwks_uri": "http://op.example/jwks"}, {}, ("failure", "transport_not_https")),
    ("algorithms", {"id_token_signing_alg_values_supported": ["HS256"]}, {}, ("failure", "alg_unsupported")),
    ("encryption", {}, ENCRYPTED, ("failure", "encryption_unsupported")),
    ("encryption", ENCRYPTION_OFFER | {ALG_MEMBER: ["RSA-OAEP"]}, ENCRYPTED, ("failure", "encryption_unsupported")),
    ("encryption", ENCRYPTION_OFFER | {ENC_MEMBER: "A256GCM"}, ENCRYPTED, ("failure", "encryption_unsupported")),
    ("pairwise", {"subject_types_supported": ["public"]}, {}, ("failure", "pairwise_unsupported")),
    ("pairwise", {}, {"subject_type": "public"}, ("warning", "django_phi_oidc.W001")),
    ("pkce", {"code_challenge_methods_supported": ["plain"]}, {}, ("failure", "pkce_unsupported")),
    ("pkce", {"code_challenge_methods_supported": None}, {}, ("warning", "pkce_untold")),
    ("par", {"pushed_authorization_request_endpoint": None}, {"par": "require"}, ("failure", "par_unsupported")),
    ("par", {"require_pushed_authorization_requests": True}, {"par": "never"}, ("failure", "par_unsupported")),
    ("par", {}, {"par": "never"}, ("warning", "django_phi_oidc.W013")),
    ("request", {"require_signed_request_object": True}, {}, ("failure", "request_object_required")),
    ("request", {}, SIGNED_REQUESTS, ("failure", "request_object_unsupported")),
    (
        "request",
        {"request_object_signing_alg_values_supported": ["RS256"]},
        SIGNED_REQUESTS,
        ("failure", "request_object_unsupported"),
    ),
    ("client", {"token_endpoint_auth_methods_supported": ["none"]}, {}, ("failure", "client_auth_unsupported")),
    (
        "client",
        {"token_endpoint_auth_methods_supported": None, "revocation_endpoint_auth_methods_supported": None},
        {"token_endpoint_auth_method": "client_secret_post"},
        ("failure", "client_auth_unsupported"),
    ),
    ("revocation", {"revocation_endpoint": None}, {}, ("failure", "revocation_unsupported")),
    ("revocation", {"revocation_endpoint": None}, {"revocation": "best_effort"}, ("warning", "django_phi_oidc.W002")),
    ("revocation", {"revocation_endpoint_auth_methods_supported": []}, {}, ("failure", "client_auth_unsupported")),
    ("logout", {"end_session_endpoint": None}, {}, ("warning", "end_session_absent")),
    ("logout", {"backchannel_logout_supported": None}, {}, ("warning", "backchannel_absent")),
    ("logout", {"backchannel_logout_session_supported": False}, {}, ("warning", "backchannel_without_sid")),
    ("mix-up", {"authorization_response_iss_parameter_supported": False}, {}, ("warning", "iss_missing")),
    ("claims", {"scopes_supported": ["openid"]}, {}, ("warning", "claim_untold")),
    ("claims", {"claims_supported": ["sub", "auth_time"]}, {}, ("warning", "claim_untold")),
    ("claims", {}, EMAIL_LINKING, ("warning", "claim_untold")),
    ("claims", {}, {"claims_request": "parameter"}, ("warning", "claims_parameter_unsupported")),
    ("assurance", {"acr_values_supported": ["silver"]}, {}, ("warning", "acr_insufficient")),
    ("assurance", {"acr_values_supported": ["gold"]}, {"acr_accepted": ["silver"]}, ("warning", "acr_insufficient")),
    ("assurance", {"claims_supported": ["sub", "email"]}, {}, ("warning", "auth_time_missing")),
    ("assurance", {}, {"reauthentication": "request"}, ("warning", "django_phi_oidc.W034")),
]


@pytest.mark.parametrize(("check", "changes", "options", "expected"), FAULTS)
def test_each_fault_has_a_finding_and_a_complete_provider_has_none(
    check: str, changes: dict[str, Any], options: dict[str, Any], expected: tuple[str, str]
) -> None:
    email = ClaimDeclaration(name="email", purpose="TREAT", basis="contact", retention="session")

    def find_problems(members: dict[str, Any], declared: ProviderDeclaration) -> set[tuple[str, str, str]]:
        findings = run_checks(
            members, declared, is_only_provider=False, claims={"email": email}, acr_values=("gold", "platinum")
        )
        return {(finding.check, finding.level, finding.code) for finding in findings if finding.level != "ok"}

    assert find_problems(COMPLETE, DECLARED) == set()
    members = {name: value for name, value in (COMPLETE | changes).items() if value is not None}
    declared = parse_provider("default", {"issuer": ISSUER, "client_id": "portal", "client_secret": "s", **options})
    assert find_problems(members, declared) == {(check, *expected)}


def test_offered_encryption_is_named() -> None:
    declared = parse_provider("default", {"issuer": ISSUER, "client_id": "portal", "client_secret": "s", **ENCRYPTED})
    (finding,) = diagnostics.check_encryption(ENCRYPTION_OFFER, declaration=declared)
    assert (finding.level, finding.text) == ("ok", "id_token: ECDH-ES")


@pytest.mark.parametrize(("issuer", "is_named"), [(f"{ISSUER}/", True), ("https://other.example", False)])
def test_slash_at_the_end_of_the_issuer_is_named(issuer: str, is_named: bool) -> None:
    finding = diagnostics.check_issuer({"issuer": issuer}, issuer=ISSUER)
    assert (finding.level, finding.code) == ("failure", "issuer_mismatch")
    assert ("differ in the slash at the end" in finding.text) is is_named


@pytest.mark.parametrize(
    ("status", "body", "level"), [(200, b"{}", "ok"), (404, b"{}", "failure"), (200, b"<html>", "failure")]
)
def test_response_without_metadata_is_a_failure(status: int, body: bytes, level: str) -> None:
    response = TransportResponse(status=status, headers={}, body=body)
    finding = diagnostics.check_discovery(response)
    assert (finding.level, finding.code) == (level, "" if level == "ok" else "metadata_invalid")
    assert (diagnostics.find_metadata_members(response) is None) is (level == "failure")


def test_outage_at_discovery_is_not_taken_for_missing_metadata() -> None:
    finding = diagnostics.check_discovery(TransportResponse(status=503, headers={}, body=b""))
    assert (finding.level, finding.code) == ("failure", "provider_unavailable")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "no level is required"),
        ({"provider_requires_mfa": True}, "several factors are a rule of the provider, which is not verified"),
        ({"acr_values": ["a"], "acr_accepted": ["b", "c"]}, "each sign-in needs acr b, c"),
        (
            {"vtr": ["P9.Cp.Cd"], "vtm": "https://op.example/mark", "amr_required": ["mfa", "hwk"]},
            "each sign-in needs vot P9.Cp.Cd; one amr of mfa, hwk",
        ),
    ],
)
def test_levels_that_each_sign_in_needs_are_named(options: dict[str, Any], text: str) -> None:
    declared = parse_provider("default", {"issuer": ISSUER, "client_id": "portal", "client_secret": "s", **options})
    finding = check_assurance({}, declaration=declared)
    assert (finding.level, finding.text) == ("ok", text)


def test_resource_is_named_with_its_effect_on_userinfo() -> None:
    assert list(diagnostics.check_resource(DECLARED, wants_claims=True)) == []
    declared = replace(DECLARED, resource="https://api.example")
    checks = (diagnostics.check_resource(declared, wants_claims=wants) for wants in (False, True))
    texts = [finding.text for findings in checks for finding in findings]
    assert texts[0] == "access tokens are for https://api.example"
    assert texts[1] == f"{texts[0]}; UserInfo may refuse such a token"


def test_declared_introspection_without_an_endpoint_is_a_failure() -> None:
    assert diagnostics.check_introspection(METADATA).level == "ok"
    finding = diagnostics.check_introspection({**METADATA, "introspection_endpoint": 7})
    assert (finding.level, finding.code) == ("failure", "introspection_failed")


@pytest.mark.parametrize(
    ("status", "level", "code"),
    [(200, "ok", ""), (401, "failure", "invalid_client"), (503, "warning", "revocation_failed")],
)
def test_client_that_the_provider_does_not_know_is_a_failure(status: int, level: str, code: str) -> None:
    finding = diagnostics.check_client_is_known(TransportResponse(status=status, headers={}, body=b""))
    assert (finding.level, finding.code) == (level, code)


@pytest.mark.parametrize(
    ("mode", "claims", "codes"),
    [
        ("verify", ["sub", "auth_time"], []),
        ("verify", None, []),
        ("verify", ["sub"], ["auth_time_missing"]),
        ("request", ["sub", "auth_time"], ["django_phi_oidc.W034"]),
        ("never", ["sub"], ["django_phi_oidc.W034"]),
    ],
)
def test_b6_provider_without_auth_time_is_a_warning(mode: Any, claims: list[str] | None, codes: list[str]) -> None:
    members = {**METADATA, "claims_supported": claims} if claims else {}
    findings = list(diagnostics.check_reauthentication(members, declaration=replace(DECLARED, reauthentication=mode)))
    assert [(finding.level, finding.code) for finding in findings] == [("warning", code) for code in codes]


@pytest.mark.parametrize(("days", "level"), [(31, "ok"), (30, "ok"), (29, "warning"), (0, "warning")])
def test_certificate_that_ends_within_30_days_is_a_warning(days: int, level: str) -> None:
    peer = TLSPeer(host="op.example", tls_version="TLSv1.2", certificate_expires_at=NOW + timedelta(days=days))
    finding = diagnostics.check_peer(peer, now=NOW)
    assert (finding.level, f"({days} days)" in finding.text) == (level, True)


def test_expiry_of_the_certificate_is_unknown_behind_a_proxy() -> None:
    finding = diagnostics.check_peer(TLSPeer(host="op.example", tls_version="TLS"), now=NOW)
    assert (finding.level, "proxy" in finding.text) == ("ok", True)


@pytest.mark.parametrize(
    ("ahead", "level"),
    [
        *((0, "ok"), (1, "ok"), (15, "ok"), (16, "warning"), (30, "warning"), (31, "failure"), (86400, "failure")),
        # Date has whole seconds: up to one more may have passed.
        *((-1, "ok"), (-16, "ok"), (-17, "warning"), (-31, "warning"), (-32, "failure")),
    ],
)
def test_clock_that_differs_by_more_than_the_leeway_is_a_failure(ahead: int, level: str) -> None:
    headers = {"date": format_datetime(NOW + ahead * SECOND, usegmt=True)}
    times: dict[str, Any] = {"requested_at": NOW, "received_at": NOW, "leeway": 30 * SECOND}
    assert diagnostics.check_clock(headers, **times).level == level
    aged = {"date": format_datetime(NOW + (ahead - 600) * SECOND, usegmt=True), "age": "600"}
    assert diagnostics.check_clock(aged, **times).level == level


def test_duration_of_the_request_is_no_clock_skew() -> None:
    headers = {"date": format_datetime(NOW + 20 * SECOND, usegmt=True)}
    finding = diagnostics.check_clock(headers, requested_at=NOW, received_at=NOW + 20 * SECOND, leeway=30 * SECOND)
    assert (finding.level, finding.text) == ("ok", "no difference")


@pytest.mark.parametrize("zone", [" GMT", " -0000", ""])
def test_date_is_parsed_as_gmt_in_any_time_zone(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Stockholm")
    time.tzset()
    try:
        headers = {"date": f"Tue, 24 Nov 2026 12:00:00{zone}"}
        finding = diagnostics.check_clock(headers, requested_at=NOW, received_at=NOW, leeway=30 * SECOND)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert (finding.level, finding.text) == ("ok", "no difference")


@pytest.mark.parametrize(
    "headers",
    [
        *({}, {"date": "yesterday"}, {"date": "Tue, 24 Nov 2026 12:00:00 GMT", "age": "x"}),
        # Beyond what can be compared.
        *({"date": "Fri, 31 Dec 9999 23:59:59 GMT"}, {"date": "Fri, 31 Dec 9999 00:00:00 GMT", "age": "999999999"}),
    ],
)
def test_response_without_a_valid_date_is_a_warning(headers: dict[str, str]) -> None:
    finding = diagnostics.check_clock(headers, requested_at=NOW, received_at=NOW, leeway=30 * SECOND)
    assert (finding.level, finding.code) == ("warning", "clock_untold")


def keys(*jwks: dict[str, Any]) -> TransportResponse:
    return TransportResponse(status=200, headers={}, body=json.dumps({"keys": jwks}).encode())


def test_keys_must_have_distinct_kids_and_fit_the_algorithms() -> None:
    rsa, ec = (create_signing_key(alg, kid=alg).public_jwk() for alg in ("RS256", "ES256"))
    bare = {name: value for name, value in rsa.items() if name != "alg"}

    def findings(*jwks: dict[str, Any], algs: tuple[str, ...] = ("RS256", "ES256")) -> list[tuple[str, str]]:
        return [(finding.level, finding.code) for finding in diagnostics.check_keys(keys(*jwks), algs=algs)]

    assert findings(rsa, ec) == [("ok", "")]
    assert findings(rsa) == [("warning", "key_not_found")]
    assert findings(ec, algs=("RS256",)) == findings(algs=("RS256",)) == [("failure", "key_not_found")]
    assert findings(bare, ec, algs=("RS256", "PS256", "ES256")) == [("ok", "")]
    assert findings(rsa, ec, {**ec}) == [("failure", "key_not_found")]
    assert findings(rsa, {**rsa, "kid": "another"}, ec) == [("ok", "")]
    without_kid = {name: value for name, value in ec.items() if name != "kid"}
    assert findings(rsa, without_kid) == [("ok", "")]
    assert findings(rsa, without_kid, without_kid) == [("failure", "key_not_found")]
    assert findings(rsa, {**ec, "use": "enc"}) == [("warning", "key_not_found")]


def test_text_of_a_provider_is_shown_in_ascii() -> None:
    finding = diagnostics.check_issuer({"issuer": "https://\u043ep.example"}, issuer=ISSUER)
    assert (finding.level, r"https://\u043ep.example" in finding.text) == ("failure", True)
    assert sanitize_text(ISSUER) == ISSUER
    assert len(sanitize_text("é" * 1000)) == 200


OKTA = {"issuer": "https://example.okta.com/oauth2/default"}
COGNITO = {"issuer": "https://cognito-idp.us-east-1.amazonaws.com/us-east-1_EXAMPLE"}
SPRING = {"end_session_endpoint": "https://op.example/connect/logout"}
KEYCLOAK = {"authorization_endpoint": "https://op.example/realms/r/protocol/openid-connect/auth"}
LOGOUT_URI = {"end_session_parameters": {"logout_uri": "https://rp.example/oidc/logged-out/"}}
REQUIRED = "id_token_hint_required"


@pytest.mark.parametrize(
    ("members", "options", "code"),
    [
        ({}, {}, ""),
        ({}, {"id_token_hint": "never"}, ""),
        (KEYCLOAK, {}, ""),
        (OKTA, {}, REQUIRED),
        (OKTA, {"id_token_hint": "never"}, REQUIRED),
        (OKTA, {"id_token_hint": "never", "end_session_method": "post"}, REQUIRED),
        (OKTA, {"id_token_hint": "always"}, ""),
        (OKTA, {"end_session_method": "post"}, REQUIRED),
        (OKTA, {"end_session_method": "post", "id_token_hint": "always"}, ""),
        ({"issuer": "https://okta.com.example"}, {}, ""),
        (SPRING, {}, REQUIRED),
        (SPRING, {"id_token_hint": "always"}, ""),
        (COGNITO, {}, "end_session_parameter_missing"),
        (COGNITO, {"id_token_hint": "always"}, "end_session_parameter_missing"),
        (COGNITO, LOGOUT_URI, ""),
        ({"end_session_endpoint": None}, {}, "end_session_absent"),
    ],
)
def test_b4_logout_that_would_not_end_the_session_at_the_provider_is_a_warning(
    members: dict[str, Any], options: dict[str, Any], code: str
) -> None:
    raw = {"issuer": ISSUER, "client_id": "portal", "client_secret": "s", **options}
    declared = parse_provider("default", raw)
    first, *_ = diagnostics.check_logout({**METADATA, **members}, declaration=declared)
    assert (first.check, first.level, first.code) == ("logout", "warning" if code else "ok", code)
    assert bool(first.remedy) is bool(code)


def test_b4_logout_text_states_what_depends_on_the_id_token() -> None:
    unknown, *_ = diagnostics.check_logout(METADATA, declaration=DECLARED)
    assert "if the ID Token contains no claims about the person" in unknown.text
    raw = {"issuer": ISSUER, "client_id": "portal", "client_secret": "s", "id_token_hint": "always"}
    always, *_ = diagnostics.check_logout(METADATA, declaration=parse_provider("default", raw))
    assert always.text == "the session at the provider ends too: the ID Token is sent as the hint"

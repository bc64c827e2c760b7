"""Which claims are requested, kept, dropped and required."""

from typing import Any

import pytest

from django_phi_oidc.claims.minimization import (
    PROTOCOL_CLAIMS,
    ClaimsRequest,
    build_claims_request,
    get_minimal_scope,
    minimize,
    needs_userinfo,
    validate_essential_claims,
)
from django_phi_oidc.config.claims import ClaimDeclaration, parse_claim
from django_phi_oidc.config.providers import ProviderDeclaration, parse_provider
from django_phi_oidc.errors import Code
from tests.support.error_codes import raises


def declare(*names: str, **options: Any) -> dict[str, ClaimDeclaration]:
    raw = {"purpose": "TREAT", "basis": "treatment", "retention": "session", **options}
    return {name: parse_claim(name, raw) for name in names}


def provider(*resource_scopes: str, **options: Any) -> ProviderDeclaration:
    declaration = {"purpose": "TREAT", "basis": "the record is shown"}
    raw = {"issuer": "https://op.example", "client_id": "portal", "client_secret": "s3cret", **options}
    return parse_provider("default", {**raw, "resource_scopes": dict.fromkeys(resource_scopes, declaration)})


# OIDC Core 5.4.
SCOPES = {
    "profile": (
        "name family_name given_name middle_name nickname preferred_username profile picture website gender birthdate"
        " zoneinfo locale updated_at"
    ),
    "email": "email email_verified",
    "address": "address",
    "phone": "phone_number phone_number_verified",
}


@pytest.mark.parametrize(
    ("scope", "claim"), [(scope, name) for scope, names in SCOPES.items() for name in names.split()]
)
def test_scope_of_a_standard_claim_is_requested(scope: str, claim: str) -> None:
    assert get_minimal_scope(declare(claim)) == f"openid {scope}"


@pytest.mark.parametrize(
    ("claims", "scope"),
    [
        ((), "openid"),
        (("groups",), "openid"),
        (("groups", "sub"), "openid"),
        (("phone_number", "address", "name", "email", "birthdate"), "openid profile email address phone"),
        (("email", "groups"), "openid email"),
        (("family_name#ja-Kana-JP",), "openid profile"),
    ],
)
def test_scopes_of_several_claims_are_minimal_and_ordered(claims: tuple[str, ...], scope: str) -> None:
    assert get_minimal_scope(declare(*claims)) == scope
    assert get_minimal_scope(declare(*reversed(claims))) == scope


def test_request_by_scopes_has_no_claims_parameter() -> None:
    assert build_claims_request(declare("birthdate", "groups"), provider_declaration=provider()) == ClaimsRequest(
        scope="openid profile", claims=None
    )


@pytest.mark.parametrize(
    ("claims_request", "essential"), [("parameter", {"essential": True}), ("parameter_null", None)]
)
def test_request_by_parameter_names_each_claim_without_its_scope(claims_request: str, essential: Any) -> None:
    """OIDC Core 5.5, 5.5.1."""
    declared = {**declare("birthdate", "family_name#ja-Kana-JP", "groups"), **declare("address", essential=True)}
    request = build_claims_request(declared, provider_declaration=provider(claims_request=claims_request))
    assert request.scope == "openid"
    assert request.claims == {
        "userinfo": {"birthdate": None, "family_name#ja-Kana-JP": None, "groups": None, "address": essential}
    }


@pytest.mark.parametrize("claims_request", ["parameter", "parameter_null"])
def test_request_by_parameter_omits_protocol_claims(claims_request: str) -> None:
    declaration = provider(claims_request=claims_request)
    assert build_claims_request(declare(*PROTOCOL_CLAIMS), provider_declaration=declaration) == ClaimsRequest(
        scope="openid", claims=None
    )
    assert build_claims_request({}, provider_declaration=declaration).claims is None
    mixed = build_claims_request(declare("sub", "birthdate"), provider_declaration=declaration)
    assert mixed.claims == {"userinfo": {"birthdate": None}}


@pytest.mark.parametrize(
    ("claims_request", "scope"),
    [
        ("scopes", "openid profile email patient/*.read offline_access"),
        ("parameter", "openid patient/*.read profile offline_access"),
    ],
)
def test_resource_scopes_follow_the_others_once(claims_request: str, scope: str) -> None:
    declaration = provider("patient/*.read", "profile", "offline_access", claims_request=claims_request)
    assert build_claims_request(declare("name", "email"), provider_declaration=declaration).scope == scope


def test_minimize_separates_declared_and_undeclared_claims() -> None:
    received = {
        "iss": "https://op",
        "sub": "248",
        "aud": "portal",
        "exp": 1,
        "iat": 1,
        "nbf": 1,
        "auth_time": 1,
        "nonce": "n",
        "acr": "1",
        "amr": ["pwd"],
        "azp": "portal",
        "at_hash": "h",
        "c_hash": "h",
        "s_hash": "h",
        "sid": "s",
        "jti": "j",
        "birthdate": "1990-05-17",
        "ssn": "078-05-1120",
        "diagnosis": {"code": "E11"},
    }
    minimized = minimize(received, declare("birthdate", "address"))
    assert minimized.kept == {"birthdate": "1990-05-17"}
    assert minimized.undeclared_claims == ("diagnosis", "ssn")


@pytest.mark.parametrize("value", [None, "", "  ", [], {}], ids=repr)
def test_empty_value_is_neither_kept_nor_dropped(value: Any) -> None:
    minimized = minimize({"birthdate": value, "ssn": value}, declare("birthdate"))
    assert (minimized.kept, minimized.undeclared_claims) == ({}, ())


@pytest.mark.parametrize("value", [False, 0, 0.0, "0", ["a"], {"a": None}, [None]], ids=repr)
def test_falsy_value_is_kept(value: Any) -> None:
    assert minimize({"email_verified": value}, declare("email_verified")).kept == {"email_verified": value}


def test_declared_protocol_claim_is_not_kept() -> None:
    assert minimize({"sub": "248"}, declare("sub")).kept == {}


def test_name_with_a_language_tag_is_a_separate_claim() -> None:
    minimized = minimize({"name#de": "Erika", "name": "Erica"}, declare("name"))
    assert (minimized.kept, minimized.undeclared_claims) == ({"name": "Erica"}, ("name#de",))


ADDRESS = {
    "street_address": "Tulegatan 7B",
    "postal_code": "113 53",
    "country": "SE",
    "geo": {"precise": [59.344, 18.058], "floor": 3, "elevator": False},
}


def test_object_is_kept_with_its_types() -> None:
    minimized = minimize({"address": ADDRESS}, declare("address"))
    assert (minimized.kept, minimized.undeclared_claims) == ({"address": ADDRESS}, ())


def test_only_declared_members_are_kept() -> None:
    declared = declare("address", members=("country", "geo", "region"))
    minimized = minimize({"address": {**ADDRESS, "formatted": " "}}, declared)
    assert minimized.kept == {"address": {"country": "SE", "geo": ADDRESS["geo"]}}
    assert minimized.undeclared_claims == ("address.postal_code", "address.street_address")
    assert minimize({"address": ADDRESS}, declare("address", members=tuple(ADDRESS))).undeclared_claims == ()


@pytest.mark.parametrize("value", ["SE", 7, True, ["country"], [{"country": "SE"}]], ids=repr)
def test_declared_members_of_a_non_object_are_not_kept(value: Any) -> None:
    declared = declare("address", members=["country"], essential=True)
    minimized = minimize({"address": value}, declared)
    assert (minimized.kept, minimized.undeclared_claims) == ({}, ("address",))
    with raises(Code.CLAIM_MISSING):
        validate_essential_claims(minimized.kept, declared)
    validate_essential_claims(minimize({"address": {"country": "SE"}}, declared).kept, declared)


def test_object_without_declared_members_counts_as_missing() -> None:
    declared = declare("address", members=["region"], essential=True)
    minimized = minimize({"address": {"country": "SE", "region": ""}}, declared)
    assert (minimized.kept, minimized.undeclared_claims) == ({}, ("address.country",))
    with raises(Code.CLAIM_MISSING):
        validate_essential_claims(minimized.kept, declared)


def test_claims_by_reference_count_as_missing() -> None:
    """OIDC Core 5.6.2."""
    declared = declare("address", "birthdate", essential=True)
    received = {
        "birthdate": "1984-03-09",
        "_claim_names": {"address": "aggregated", "payment_info": "distributed"},
        "_claim_sources": {
            "aggregated": {"JWT": "eyJhbGciOiJub25lIn0.e30."},
            "distributed": {"endpoint": "https://elsewhere.example/claims", "access_token": "ksj3n283dke"},
        },
    }
    minimized = minimize(received, declared)
    assert minimized.kept == {"birthdate": "1984-03-09"}
    assert minimized.undeclared_claims == ("_claim_names", "_claim_sources")
    with raises(Code.CLAIM_MISSING, match="address"):
        validate_essential_claims(minimized.kept, declared)
    assert needs_userinfo(received, declared)
    by_value = minimize({**received, "address": ADDRESS}, declared)
    assert by_value.kept == {"birthdate": "1984-03-09", "address": ADDRESS}
    validate_essential_claims(by_value.kept, declared)


def test_repr_of_minimized_claims_shows_no_value() -> None:
    assert "1990" not in repr(minimize({"birthdate": "1990-05-17"}, declare("birthdate")))


@pytest.mark.parametrize("kept", [{}, {"address": None}, {"address": {}}, {"birthdate": "1990-05-17"}], ids=repr)
def test_missing_essential_claim_raises_claim_missing(kept: dict[str, Any]) -> None:
    declared = {**declare("address", essential=True), **declare("birthdate")}
    validate_essential_claims({"address": {"locality": "Bern"}}, declared)
    with raises(Code.CLAIM_MISSING, match="address") as refused:
        validate_essential_claims(kept, declared)
    assert (refused.value.code, refused.value.claims) == ("claim_missing", ("address",))
    assert "1990" not in str(refused.value)


@pytest.mark.parametrize(
    ("received", "needed"),
    [
        ({"birthdate": "1990-05-17", "email_verified": False}, False),
        ({"birthdate": "1990-05-17"}, True),
        ({"birthdate": "", "email_verified": True}, True),
        ({}, True),
    ],
    ids=repr,
)
def test_userinfo_is_needed_if_a_declared_claim_is_missing(received: dict[str, Any], *, needed: bool) -> None:
    assert needs_userinfo(received, declare("birthdate", "email_verified")) is needed


def test_userinfo_is_not_needed_without_declared_claims() -> None:
    assert needs_userinfo({}, {}) is False
    assert needs_userinfo({}, declare("acr")) is False


@pytest.mark.parametrize("mode", ["parameter", "parameter_null"])
def test_transient_claims_are_requested_as_voluntary_ones_in_userinfo(mode: str) -> None:
    declared, names = declare("birthdate", "email", essential=True), ("email", "email_verified")
    request = build_claims_request(declared, provider_declaration=provider(claims_request=mode), transient_claims=names)
    essential = {"essential": True} if mode == "parameter" else None
    userinfo = {"email": essential, "email_verified": None, "birthdate": essential}
    assert request == ClaimsRequest(scope="openid", claims={"userinfo": userinfo})


def test_transient_claims_add_their_scope_only() -> None:
    request = build_claims_request({}, provider_declaration=provider(), transient_claims=("email", "email_verified"))
    assert request == ClaimsRequest(scope="openid email", claims=None)

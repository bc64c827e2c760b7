"""R1 to R3 and R5 to R7 as cases: what the provider says is bent in two ways that differ in one thing.

`wrong` is refused with the rule's code, `right` is accepted. `wrong` is measured by the strict rule, `right` by what a
project declared where that is stricter still: so what it has loosened is seen to be accepted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from ...config.client_keys import parse_client_keys
from ...config.providers import ProviderDeclaration
from ..mock_provider import MutableExchange, Reply, compute_half_hash, corrupt_signature, sign_jwt, stream_slowly
from .tampering import (
    OMITTED,
    TamperFunction,
    create_token_with_duplicate_member,
    replace_jwt_with_json,
    replace_reply,
    replace_token,
    set_token_lifetime,
    sign_with_foreign_key,
    tamper_header,
    tamper_key_set,
    tamper_member,
    tamper_members,
    tamper_reply,
    tamper_time_claim,
)
from .throwaway_ca import create_private_key_pem


@dataclass(frozen=True)
class TamperingCase:
    """One rule: at an endpoint, `bend(exchange, wrong)` is refused with the code and `bend(exchange, right)` is not."""

    code: str
    endpoint: str
    tamper: TamperFunction
    invalid_value: Any
    valid_value: Any
    holds_tokens: bool = True
    """Whether the portal holds tokens when it refuses."""
    tamper_before_endpoint: bool = False
    """Bend before the endpoint acts, so that nothing is issued."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the provider's declaration."""
    stage: str = "callback"
    refusal_status: int = 0
    """Of the refusal's page; 0: as the error's class says."""
    is_claim_essential: bool = False
    """Whether the claim is an essential one."""
    provider_state: Mapping[str, Any] = field(default_factory=dict)
    """Of the provider: what it does where it is honest."""
    client_options: Mapping[str, Any] = field(default_factory=dict)
    """Of the portal's registration at the provider."""
    allowing_setting: str = ""
    """The option of the declaration by which a project lets the wrong one in."""
    sqlite_only: bool = False
    """No other database than SQLite need see it: what is written of it is written of other cases, too."""
    id: str = ""

    def __str__(self) -> str:
        return f"{self.code}-{self.id}" if self.id else self.code


def unchanged(name: str) -> Callable[[Mapping[str, Any]], Any]:
    """Return what says of a member what is there already."""
    return lambda members: members[name]


def set_foreign_at_hash(exchange: MutableExchange, is_tampered: bool) -> None:
    """Speak of another access token."""
    if is_tampered:
        exchange.claims["at_hash"] = compute_half_hash("another", alg=exchange.header["alg"])


MIB = 1024 * 1024
DAY = timedelta(days=1)
DEFAULT_LEEWAY = timedelta(seconds=30)
CLIENT_KEY_PEM = create_private_key_pem("EC")
(CLIENT_KEY,) = parse_client_keys("client_keys", CLIENT_KEY_PEM)
PRIVATE_KEY_JWT_OPTIONS = {
    "token_endpoint_auth_method": "private_key_jwt",
    "token_endpoint_auth_signing_alg": "",
    "client_secret": "",
    "client_keys": CLIENT_KEY_PEM,
}
"""Of a declaration. The registration that goes with it:"""
PRIVATE_KEY_JWT_CLIENT = {
    "token_endpoint_auth_methods": ("private_key_jwt",),
    "jwks": {"keys": [CLIENT_KEY.build_public_jwk("ES256")]},
}

REQUEST_STAGE_FIELDS: dict[str, Any] = {"holds_tokens": False, "stage": "request"}

TRANSPORT_CASES = [
    TamperingCase(
        "transport_redirect",
        "token",
        tamper_reply,
        {"status": 302, "headers": {"Location": "/token"}},
        None,
        holds_tokens=False,
    ),
    TamperingCase("transport_unreachable", "token", tamper_reply, {"raw": ()}, None, holds_tokens=False),
    TamperingCase("transport_too_large", "token", tamper_reply, {"body": b" " * (MIB + 1)}, {}, holds_tokens=False),
    TamperingCase(
        "transport_encoding",
        "token",
        tamper_reply,
        {"headers": {"Content-Encoding": "gzip"}},
        {"headers": {}},
        holds_tokens=False,
    ),
    TamperingCase(
        "transport_timeout",
        "token",
        tamper_reply,
        {"raw": lambda answer: stream_slowly(answer, pause_seconds=0.05)},
        {"raw": lambda answer: stream_slowly(answer, pause_seconds=0)},
        holds_tokens=False,
    ),
    TamperingCase(
        "transport_not_https",
        "discovery",
        tamper_member("token_endpoint"),
        lambda found: found["token_endpoint"].replace("https:", "http:"),
        unchanged("token_endpoint"),
        **REQUEST_STAGE_FIELDS,
        allowing_setting="allow_loopback_http",
    ),
]
METADATA_CASES = [
    TamperingCase(
        "issuer_mismatch",
        "discovery",
        tamper_member("issuer"),
        lambda found: found["issuer"] + "/",
        unchanged("issuer"),
        **REQUEST_STAGE_FIELDS,
    ),
    TamperingCase(
        "metadata_invalid",
        "discovery",
        tamper_member("jwks_uri"),
        OMITTED,
        unchanged("jwks_uri"),
        **REQUEST_STAGE_FIELDS,
    ),
    TamperingCase(
        "metadata_invalid", "discovery", tamper_reply, {"body": b"<html>"}, None, **REQUEST_STAGE_FIELDS, id="html"
    ),
    TamperingCase(
        "pairwise_unsupported",
        "discovery",
        tamper_member("subject_types_supported"),
        ["public"],
        ["pairwise", "public"],
        **REQUEST_STAGE_FIELDS,
        allowing_setting="subject_type",
    ),
    TamperingCase(
        "alg_unsupported",
        "discovery",
        tamper_member("id_token_signing_alg_values_supported"),
        ["HS256", "none"],
        lambda found: ["HS256", *found["id_token_signing_alg_values_supported"]],
        **REQUEST_STAGE_FIELDS,
    ),
    TamperingCase(
        "revocation_unsupported",
        "discovery",
        tamper_member("revocation_endpoint"),
        OMITTED,
        unchanged("revocation_endpoint"),
        **REQUEST_STAGE_FIELDS,
        allowing_setting="revocation",
    ),
    TamperingCase("key_not_found", "id_token", tamper_header("kid"), "nobody's", OMITTED),
    TamperingCase("key_not_found", "jwks", tamper_key_set("use"), True, False, id="for encryption"),
]
PAR_CASE_FIELDS: dict[str, Any] = {"provider_state": {"par": "offered"}, **REQUEST_STAGE_FIELDS, "sqlite_only": True}
HTML_REPLY_CHANGES = {"headers": {"Content-Type": "text/html"}}
METADATA_CASES += [
    TamperingCase(
        "par_unsupported",
        "discovery",
        tamper_member("pushed_authorization_request_endpoint"),
        OMITTED,
        unchanged("pushed_authorization_request_endpoint"),
        **PAR_CASE_FIELDS,
        options={"par": "require"},
    ),
    TamperingCase(
        "par_unsupported",
        "discovery",
        tamper_member("require_pushed_authorization_requests"),
        True,
        False,
        **PAR_CASE_FIELDS,
        options={"par": "never"},
        id="never",
    ),
]
PAR_CASE_FIELDS["options"] = {"par": "auto"}
PAR_ERROR_REPLY = Reply(status=400, json={"error": "invalid_request"})
PAR_CASES = [
    TamperingCase(
        "par_error", "par", replace_reply, PAR_ERROR_REPLY, None, **PAR_CASE_FIELDS, tamper_before_endpoint=True
    ),
    TamperingCase(
        "par_error",
        "par",
        tamper_reply,
        {"status": 500},
        {"status": 201},
        **PAR_CASE_FIELDS,
        refusal_status=503,
        id="500",
    ),
    TamperingCase("par_response_invalid", "par", tamper_reply, {"status": 200}, {"status": 201}, **PAR_CASE_FIELDS),
    TamperingCase(
        "par_response_invalid",
        "par",
        tamper_member("request_uri"),
        OMITTED,
        unchanged("request_uri"),
        **PAR_CASE_FIELDS,
        id="no request_uri",
    ),
    TamperingCase("par_response_invalid", "par", tamper_member("expires_in"), 0, 1, **PAR_CASE_FIELDS, id="expires_in"),
    TamperingCase(
        "par_response_invalid",
        "par",
        tamper_reply,
        HTML_REPLY_CHANGES,
        {"headers": {"Content-Type": "application/json"}},
        **PAR_CASE_FIELDS,
        id="as html",
    ),
]
MAX_AGE_OPTIONS: dict[str, Any] = {"max_age": 60}
HEART_CASE_FIELDS: dict[str, Any] = {
    "options": {
        **PRIVATE_KEY_JWT_OPTIONS,
        "profile": "heart",
        "revocation": "required",
        "allow_auth_time_zero": False,
        "max_access_token_lifetime": DAY,
    },
    "client_options": PRIVATE_KEY_JWT_CLIENT,
    "provider_state": {"heart_claims": True},
    "sqlite_only": True,
}
_TOKEN_RESPONSE_CASES = [
    TamperingCase(
        "token_error",
        "token",
        replace_reply,
        Reply(status=400, json={"error": "invalid_grant"}),
        None,
        holds_tokens=False,
        tamper_before_endpoint=True,
    ),
    TamperingCase(
        "token_error", "token", tamper_reply, {"status": 500}, {"status": 200}, refusal_status=503, id="500 with tokens"
    ),
    TamperingCase("token_error", "token", tamper_member("error"), "server_error", OMITTED, id="200 with an error"),
    TamperingCase(
        "token_response_invalid",
        "token",
        replace_reply,
        Reply(json=["tokens"]),
        None,
        holds_tokens=False,
        tamper_before_endpoint=True,
    ),
    TamperingCase(
        "token_response_invalid",
        "token",
        tamper_reply,
        {"headers": {"Content-Type": "text/html"}},
        {"headers": {"Content-Type": "application/json;charset=UTF-8"}},
        id="as html",
    ),
    TamperingCase("token_type_unsupported", "token", tamper_member("token_type"), "DPoP", "bEARER"),
    TamperingCase("token_type_unsupported", "token", tamper_member("token_type"), OMITTED, "Bearer", id="absent"),
    TamperingCase("id_token_missing", "token", tamper_member("id_token"), OMITTED, unchanged("id_token")),
    TamperingCase("id_token_missing", "token", tamper_member("id_token"), {}, unchanged("id_token"), id="an object"),
    TamperingCase("access_token_missing", "token", tamper_member("access_token"), OMITTED, unchanged("access_token")),
    TamperingCase(
        "access_token_missing", "token", tamper_member("access_token"), "", unchanged("access_token"), id="empty"
    ),
    TamperingCase("access_token_lifetime", "token", tamper_member("expires_in"), "300", 300, id="a string"),
    TamperingCase("access_token_lifetime", "token", tamper_member("expires_in"), 0, 1, id="zero"),
    TamperingCase("access_token_lifetime", "token", tamper_member("expires_in"), True, OMITTED, id="a bool"),
    TamperingCase(
        "access_token_lifetime", "token", tamper_member("expires_in"), 3601, 3600, **HEART_CASE_FIELDS, id="heart"
    ),
    TamperingCase(
        "access_token_lifetime",
        "token",
        tamper_member("expires_in"),
        OMITTED,
        3600,
        **HEART_CASE_FIELDS,
        id="heart, absent",
    ),
]
_ID_TOKEN_CASES = [
    TamperingCase("token_malformed", "id_token", replace_token, lambda it: "not.a.token", None),
    TamperingCase(
        "token_malformed", "id_token", replace_token, create_token_with_duplicate_member, None, id="duplicate member"
    ),
    TamperingCase("token_malformed", "id_token", tamper_header("crit"), ["exp"], OMITTED, id="crit"),
    TamperingCase("token_malformed", "id_token", tamper_member("padding"), "x" * 65536, "x" * 1024, id="64 KiB"),
    TamperingCase("alg_not_allowed", "id_token", tamper_header("alg"), "none", OMITTED),
    TamperingCase(
        "alg_not_allowed", "id_token", tamper_header("alg"), "HS256", OMITTED, id="HS256 with the public key"
    ),
    TamperingCase(
        "signature_invalid",
        "id_token",
        replace_token,
        lambda it: corrupt_signature(sign_jwt(it.header, it.claims, it.key)),
        None,
    ),
    TamperingCase("signature_invalid", "id_token", sign_with_foreign_key, True, False, id="foreign key"),
    TamperingCase(
        "iss_invalid", "id_token", tamper_member("iss"), lambda claims: claims["iss"] + "/", unchanged("iss")
    ),
    TamperingCase("aud_invalid", "id_token", tamper_member("aud"), "another", unchanged("aud")),
    TamperingCase(
        "aud_invalid",
        "id_token",
        tamper_member("aud"),
        lambda it: [it["aud"], "another"],
        lambda it: [it["aud"]],
        id="one more",
    ),
    TamperingCase("aud_invalid", "id_token", tamper_member("aud"), [], lambda it: [it["aud"]], id="none"),
    TamperingCase("azp_invalid", "id_token", tamper_member("azp"), "another", unchanged("aud")),
    TamperingCase(
        "azp_invalid",
        "id_token",
        tamper_members,
        {"aud": lambda it: [it["aud"], "billing"], "azp": OMITTED},
        {"aud": lambda it: [it["aud"], "billing"], "azp": lambda it: it["aud"][0]},
        options={"trusted_audiences": ["billing"]},
        id="absent beside two audiences",
    ),
    TamperingCase("exp_invalid", "id_token", tamper_time_claim("exp"), -3600, 60, id="an hour ago"),
    TamperingCase("exp_invalid", "id_token", tamper_time_claim("exp"), "soon", 60, id="a string"),
    TamperingCase("exp_invalid", "id_token", tamper_time_claim("exp"), OMITTED, 60, id="absent"),
    TamperingCase("iat_invalid", "id_token", tamper_time_claim("iat"), True, 0, id="a bool"),
    TamperingCase("nonce_invalid", "id_token", tamper_member("nonce"), OMITTED, unchanged("nonce")),
    TamperingCase("nonce_invalid", "id_token", tamper_member("nonce"), "x" * 64, unchanged("nonce"), id="foreign"),
    TamperingCase("sub_invalid", "id_token", tamper_member("sub"), "", "x"),
    TamperingCase("sub_invalid", "id_token", tamper_member("sub"), "x" * 256, "x" * 255, id="256 characters"),
    TamperingCase("sub_invalid", "id_token", tamper_member("sub"), 7, "7", id="a number"),
    TamperingCase("sub_invalid", "id_token", tamper_member("sub"), "ü", "u", id="not ASCII"),
    TamperingCase(
        "sub_not_pairwise",
        "id_token",
        tamper_member("sub"),
        "amina@example.org",
        "amina.example.org",
        allowing_setting="subject_type",
    ),
    TamperingCase("auth_time_missing", "id_token", tamper_time_claim("auth_time"), OMITTED, 0, options=MAX_AGE_OPTIONS),
    TamperingCase(
        "auth_time_stale",
        "id_token",
        tamper_member("auth_time"),
        0,
        unchanged("iat"),
        options=MAX_AGE_OPTIONS,
        id="1970",
        allowing_setting="allow_auth_time_zero",
    ),
    TamperingCase("acr_insufficient", "id_token", tamper_member("acr"), "1", "2", options={"acr_values": ["2", "3"]}),
    TamperingCase("at_hash_invalid", "id_token", set_foreign_at_hash, True, False),
    TamperingCase("id_token_lifetime", "id_token", set_token_lifetime, 301, 300, **HEART_CASE_FIELDS),
]
SIGNED_USERINFO_CASE_FIELDS: dict[str, Any] = {
    "options": {"userinfo_signed_response_alg": ["RS256"]},
    "client_options": {"userinfo_signed_response_alg": "RS256"},
    "sqlite_only": True,
}
_USERINFO_CASES = [
    TamperingCase("userinfo_invalid", "userinfo", tamper_reply, {"status": 500}, {"status": 200}),
    TamperingCase("userinfo_invalid", "userinfo", tamper_reply, {"body": b"[]"}, None, id="no object"),
    TamperingCase("userinfo_sub_mismatch", "userinfo", tamper_member("sub"), "another", unchanged("sub")),
]
SIGNED_USERINFO_CASES = [
    TamperingCase(
        "userinfo_invalid",
        "userinfo",
        replace_jwt_with_json,
        True,
        False,
        **SIGNED_USERINFO_CASE_FIELDS,
        id="plain where signed is demanded",
    ),
    TamperingCase(
        "userinfo_invalid",
        "userinfo_jwt",
        tamper_header("alg"),
        "none",
        OMITTED,
        **SIGNED_USERINFO_CASE_FIELDS,
        id="alg none",
    ),
    TamperingCase(
        "userinfo_invalid",
        "userinfo_jwt",
        tamper_header("alg"),
        "HS256",
        OMITTED,
        **SIGNED_USERINFO_CASE_FIELDS,
        id="HS256 with the public key",
    ),
    TamperingCase(
        "userinfo_invalid",
        "userinfo_jwt",
        sign_with_foreign_key,
        True,
        False,
        **SIGNED_USERINFO_CASE_FIELDS,
        id="foreign key",
    ),
    TamperingCase(
        "userinfo_invalid",
        "userinfo_jwt",
        tamper_member("iss"),
        lambda it: it["iss"] + "/",
        unchanged("iss"),
        **SIGNED_USERINFO_CASE_FIELDS,
        id="iss",
    ),
    TamperingCase(
        "userinfo_invalid",
        "userinfo_jwt",
        tamper_member("aud"),
        "another",
        unchanged("aud"),
        **SIGNED_USERINFO_CASE_FIELDS,
        id="aud",
    ),
    TamperingCase(
        "userinfo_invalid", "userinfo_jwt", tamper_time_claim("exp"), -31, 60, **SIGNED_USERINFO_CASE_FIELDS, id="exp"
    ),
    TamperingCase(
        "userinfo_sub_mismatch",
        "userinfo_jwt",
        tamper_member("sub"),
        "another",
        unchanged("sub"),
        **SIGNED_USERINFO_CASE_FIELDS,
        id="signed",
    ),
    TamperingCase(
        "key_not_found",
        "userinfo_jwt",
        tamper_header("kid"),
        "nobody's",
        OMITTED,
        **SIGNED_USERINFO_CASE_FIELDS,
        id="of UserInfo",
    ),
]


def list_token_response_cases(*, max_lifetime: timedelta = DAY) -> list[TamperingCase]:
    """Return the cases of R5. longest: what the project declared for an access token."""
    accepted = int(min(max_lifetime, DAY).total_seconds())
    by: dict[str, Any] = {"allowing_setting": "max_access_token_lifetime"}
    at_most = TamperingCase("access_token_lifetime", "token", tamper_member("expires_in"), 86401, accepted, **by)
    return [*_TOKEN_RESPONSE_CASES, at_most]


def list_id_token_cases(
    *, leeway: timedelta = DEFAULT_LEEWAY, trusted_audiences: Sequence[str] = ()
) -> list[TamperingCase]:
    """Return the cases of R6. leeway, trusted: audiences: as the project declared them."""
    within = int(min(leeway, DEFAULT_LEEWAY).total_seconds()) - 5
    other = [*trusted_audiences, "another"][0]
    by: dict[str, Any] = {"allowing_setting": "leeway"}
    stale: dict[str, Any] = {"options": MAX_AGE_OPTIONS, **by}
    far, beyond = int(leeway.total_seconds()) + 5, "beyond the leeway"
    loosened = [
        TamperingCase("exp_invalid", "id_token", tamper_time_claim("exp"), -far, 60, id=beyond),
        TamperingCase("iat_invalid", "id_token", tamper_time_claim("iat"), -600 - far, 0, id=beyond),
        TamperingCase("nbf_invalid", "id_token", tamper_time_claim("nbf"), far, 0, id=beyond),
        TamperingCase(
            "auth_time_stale",
            "id_token",
            tamper_time_claim("auth_time"),
            -60 - far,
            0,
            options=MAX_AGE_OPTIONS,
            id=beyond,
        ),
    ]
    return [
        *_ID_TOKEN_CASES,
        TamperingCase("exp_invalid", "id_token", tamper_time_claim("exp"), -31, -within, **by),
        TamperingCase("iat_invalid", "id_token", tamper_time_claim("iat"), -635, -600 - within, **by),
        TamperingCase("iat_invalid", "id_token", tamper_time_claim("iat"), 35, within, id="future", **by),
        TamperingCase("nbf_invalid", "id_token", tamper_time_claim("nbf"), 35, within, **by),
        TamperingCase("auth_time_stale", "id_token", tamper_time_claim("auth_time"), -95, -60 - within, **stale),
        TamperingCase(
            "aud_invalid",
            "id_token",
            tamper_members,
            {"aud": lambda it: [it["aud"], other], "azp": lambda it: it["aud"][0]},
            {"azp": lambda it: it["aud"]},
            id="one that others trust",
            allowing_setting="trusted_audiences",
        ),
        *(loosened if leeway > DEFAULT_LEEWAY else ()),
    ]


def list_userinfo_cases(*, claim_name: str = "birthdate") -> list[TamperingCase]:
    """Return the cases of R7. claim: one that is declared."""
    return [
        *_USERINFO_CASES,
        TamperingCase(
            "claim_missing",
            "userinfo",
            tamper_member(claim_name),
            OMITTED,
            unchanged(claim_name),
            is_claim_essential=True,
        ),
    ]


def list_cases(declaration: ProviderDeclaration, *, claim_name: str) -> list[TamperingCase]:
    """Return all cases, as they differ by what the project declared. claim: one that it asks for; empty: none."""
    heart = timedelta(hours=1) if declaration.profile == "heart" else DAY
    return [
        *TRANSPORT_CASES,
        *METADATA_CASES,
        *PAR_CASES,
        *list_token_response_cases(max_lifetime=min(declaration.max_access_token_lifetime, heart)),
        *list_id_token_cases(leeway=declaration.leeway, trusted_audiences=declaration.trusted_audiences),
        *list_userinfo_cases(claim_name=claim_name),
        *SIGNED_USERINFO_CASES,
    ]

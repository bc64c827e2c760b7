"""Attack cases for R1 to R3 and R5 to R7. Each tampers with a provider response in two ways that
differ in one value.

With `invalid_value`, the portal must refuse the sign-in with the rule's code. With `valid_value`,
it must accept it. `invalid_value` breaks the strict default rule. `valid_value` also meets a
stricter setting of the project. If the project loosened the rule, the portal accepts
`invalid_value`, and the report names the setting.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Protocol, TypedDict, Unpack

from ...config.client_keys import parse_client_keys
from ...config.providers import ProviderDeclaration
from ..mock_provider import (
    MutableExchange,
    Reply,
    compute_half_hash,
    corrupt_signature,
    sign_jwt,
    stream_slowly,
)
from ..mock_provider.backchannel import BACKCHANNEL_LOGOUT_EVENT
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
    """One rule: `tamper(exchange, invalid_value)` at the endpoint leads to a refusal, `valid_value`
    does not.
    """

    code: str
    endpoint: str
    tamper: TamperFunction
    invalid_value: Any
    valid_value: Any
    holds_tokens: bool = True
    """Whether the portal has received tokens when it refuses."""
    tamper_before_endpoint: bool = False
    """Tamper before the endpoint runs, so that it issues nothing."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the provider's declaration."""
    stage: str = "callback"
    refusal_status: int = 0
    """The status of the refusal page; 0: that of the error class."""
    is_claim_essential: bool = False
    """Whether the case needs an essential claim."""
    provider_state: Mapping[str, Any] = field(default_factory=dict)
    """Attributes to set on the provider's state."""
    client_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the portal's registration at the provider."""
    is_federated: bool = False
    """Whether the provider is declared as a member of its federation."""
    allowing_setting: str = ""
    """The option of the declaration with which a project accepts the invalid value."""
    sqlite_only: bool = False
    """Testing on SQLite is enough: other cases write the same rows to the database."""
    id: str = ""

    def __str__(self) -> str:
        if self.id:
            return f"{self.code}-{self.id}"
        return self.code


class CaseFields(TypedDict, total=False):
    """The optional fields of `TamperingCase`."""

    holds_tokens: bool
    tamper_before_endpoint: bool
    options: Mapping[str, Any]
    stage: str
    refusal_status: int
    is_claim_essential: bool
    provider_state: Mapping[str, Any]
    client_options: Mapping[str, Any]
    is_federated: bool
    allowing_setting: str
    sqlite_only: bool


class CaseFactory(Protocol):
    """Creates cases at one endpoint."""

    def __call__(
        self,
        code: str,
        tamper: TamperFunction,
        invalid_value: Any,
        valid_value: Any,
        case_id: str = "",
        **fields: Unpack[CaseFields],
    ) -> TamperingCase: ...


def create_case_factory(endpoint: str, **common_fields: Unpack[CaseFields]) -> CaseFactory:
    """Return a function that creates cases at one endpoint with common field values."""

    def create_case(
        code: str,
        tamper: TamperFunction,
        invalid_value: Any,
        valid_value: Any,
        case_id: str = "",
        **fields: Unpack[CaseFields],
    ) -> TamperingCase:
        case = TamperingCase(
            code, endpoint, tamper, invalid_value, valid_value, id=case_id, **common_fields
        )
        return replace(case, **fields)

    return create_case


def unchanged(name: str) -> Callable[[Mapping[str, Any]], Any]:
    """Return a function that returns the member's current value."""
    return lambda members: members[name]


def with_slash(name: str) -> Callable[[Mapping[str, Any]], Any]:
    """Return a function that returns the member's current value with a slash added."""
    return lambda members: members[name] + "/"


def set_foreign_at_hash(exchange: MutableExchange, is_tampered: bool) -> None:
    """Set the at_hash of another access token."""
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
    "id_token_encrypted_response_alg": [],
}
"""Options of the declaration. The matching options of the client registration:"""
PRIVATE_KEY_JWT_CLIENT = {
    "token_endpoint_auth_methods": ("private_key_jwt",),
    "jwks": {"keys": [CLIENT_KEY.build_public_jwk("ES256")]},
    "id_token_encrypted_response_alg": "",
}
MAX_AGE_OPTIONS: dict[str, Any] = {"max_age": 60}
HEART_FIELDS: CaseFields = {
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
TRUST_MARK = "https://op.example/trust-mark"
VECTOR = {"vot": "Cd.P9.Cp", "vtm": TRUST_MARK}
VECTOR_FIELDS: CaseFields = {
    "options": {"vtr": ["P9.Cp.Cd", "P9.Cm"], "vtm": TRUST_MARK},
    "sqlite_only": True,
}
REQUEST_STAGE_FIELDS: CaseFields = {"holds_tokens": False, "stage": "request"}
PAR_FIELDS: CaseFields = {
    "provider_state": {"par": "offered"},
    "sqlite_only": True,
    **REQUEST_STAGE_FIELDS,
}
_PAR_ENDPOINT_FIELDS: CaseFields = {"options": {"par": "auto"}, **PAR_FIELDS}
HTML_HEADERS = {"headers": {"Content-Type": "text/html"}}

_discovery_case = create_case_factory("discovery", **REQUEST_STAGE_FIELDS)
_par_metadata_case = create_case_factory("discovery", **PAR_FIELDS)
_par_case = create_case_factory("par", **_PAR_ENDPOINT_FIELDS)
_transport_case = create_case_factory("token", holds_tokens=False)
_token_case = create_case_factory("token")
_id_token_case = create_case_factory("id_token")
_userinfo_case = create_case_factory("userinfo")
_SIGNED_USERINFO_FIELDS: CaseFields = {
    "options": {"userinfo_signed_response_alg": ["RS256"]},
    "client_options": {"userinfo_signed_response_alg": "RS256"},
    "sqlite_only": True,
}
_signed_userinfo_case = create_case_factory("userinfo_jwt", **_SIGNED_USERINFO_FIELDS)

TRANSPORT_CASES = [
    _transport_case(
        "transport_redirect", tamper_reply, {"status": 302, "headers": {"Location": "/token"}}, None
    ),
    _transport_case("transport_unreachable", tamper_reply, {"raw": ()}, None),
    _transport_case("transport_too_large", tamper_reply, {"body": b" " * (MIB + 1)}, {}),
    _transport_case(
        "transport_encoding",
        tamper_reply,
        {"headers": {"Content-Encoding": "gzip"}},
        {"headers": {}},
    ),
    _transport_case(
        "transport_timeout",
        tamper_reply,
        {"raw": lambda reply: stream_slowly(reply, pause_seconds=0.05)},
        {"raw": lambda reply: stream_slowly(reply, pause_seconds=0)},
    ),
    _discovery_case("provider_unavailable", tamper_reply, {"status": 503}, {"status": 200}),
    create_case_factory("jwks")(
        "provider_unavailable", tamper_reply, {"status": 429}, {"status": 200}, "keys"
    ),
    _discovery_case(
        "transport_not_https",
        tamper_member("token_endpoint"),
        lambda metadata: metadata["token_endpoint"].replace("https:", "http:"),
        unchanged("token_endpoint"),
        allowing_setting="allow_loopback_http",
    ),
]
METADATA_CASES = [
    _discovery_case(
        "issuer_mismatch", tamper_member("issuer"), with_slash("issuer"), unchanged("issuer")
    ),
    _discovery_case("metadata_invalid", tamper_member("jwks_uri"), OMITTED, unchanged("jwks_uri")),
    _discovery_case("metadata_invalid", tamper_reply, {"body": b"<html>"}, None, "html"),
    _discovery_case(
        "pairwise_unsupported",
        tamper_member("subject_types_supported"),
        ["public"],
        ["pairwise", "public"],
        allowing_setting="subject_type",
    ),
    _discovery_case(
        "alg_unsupported",
        tamper_member("id_token_signing_alg_values_supported"),
        ["HS256", "none"],
        lambda metadata: ["HS256", *metadata["id_token_signing_alg_values_supported"]],
    ),
    _discovery_case(
        "revocation_unsupported",
        tamper_member("revocation_endpoint"),
        OMITTED,
        unchanged("revocation_endpoint"),
        allowing_setting="revocation",
    ),
    _id_token_case("key_not_found", tamper_header("kid"), "unknown", OMITTED),
    create_case_factory("jwks")(
        "key_not_found", tamper_key_set("use"), True, False, "encryption key"
    ),
    _par_metadata_case(
        "par_unsupported",
        tamper_member("pushed_authorization_request_endpoint"),
        OMITTED,
        unchanged("pushed_authorization_request_endpoint"),
        options={"par": "require"},
    ),
    _par_metadata_case(
        "par_unsupported",
        tamper_member("require_pushed_authorization_requests"),
        True,
        False,
        "never",
        options={"par": "never"},
    ),
]
PAR_ERROR_REPLY = Reply(status=400, json={"error": "invalid_request"})
JSON_HEADERS = {"headers": {"Content-Type": "application/json"}}
PAR_CASES = [
    _par_case("par_error", replace_reply, PAR_ERROR_REPLY, None, tamper_before_endpoint=True),
    _par_case(
        "par_error", tamper_reply, {"status": 500}, {"status": 201}, "500", refusal_status=503
    ),
    _par_case("par_response_invalid", tamper_reply, {"status": 200}, {"status": 201}),
    _par_case(
        "par_response_invalid",
        tamper_member("request_uri"),
        OMITTED,
        unchanged("request_uri"),
        "no request_uri",
    ),
    _par_case("par_response_invalid", tamper_member("expires_in"), 0, 1, "expires_in"),
    _par_case("par_response_invalid", tamper_reply, HTML_HEADERS, JSON_HEADERS, "html"),
]
_TOKEN_RESPONSE_CASES = [
    _transport_case(
        "token_error",
        replace_reply,
        Reply(status=400, json={"error": "invalid_grant"}),
        None,
        tamper_before_endpoint=True,
    ),
    _token_case(
        "token_error",
        tamper_reply,
        {"status": 500},
        {"status": 200},
        "500 with tokens",
        refusal_status=503,
    ),
    _token_case(
        "token_error", tamper_member("error"), "server_error", OMITTED, "200 with an error"
    ),
    _transport_case(
        "token_response_invalid",
        replace_reply,
        Reply(json=["tokens"]),
        None,
        tamper_before_endpoint=True,
    ),
    _token_case(
        "token_response_invalid",
        tamper_reply,
        HTML_HEADERS,
        {"headers": {"Content-Type": "application/json;charset=UTF-8"}},
        "html",
    ),
    _token_case(
        "token_type_unsupported",
        tamper_member("token_type"),
        "DPoP",
        "bEARER",
        options={"dpop": "never"},
    ),
    _token_case(
        "token_type_unsupported",
        tamper_member("token_type"),
        OMITTED,
        "Bearer",
        "missing",
        options={"dpop": "never"},
    ),
    _token_case("id_token_missing", tamper_member("id_token"), OMITTED, unchanged("id_token")),
    _token_case(
        "id_token_missing", tamper_member("id_token"), {}, unchanged("id_token"), "an object"
    ),
    _token_case(
        "access_token_missing", tamper_member("access_token"), OMITTED, unchanged("access_token")
    ),
    _token_case(
        "access_token_missing",
        tamper_member("access_token"),
        "",
        unchanged("access_token"),
        "empty",
    ),
    _token_case("access_token_lifetime", tamper_member("expires_in"), "300", 300, "a string"),
    _token_case("access_token_lifetime", tamper_member("expires_in"), 0, 1, "zero"),
    _token_case("access_token_lifetime", tamper_member("expires_in"), True, OMITTED, "a bool"),
    _token_case(
        "access_token_lifetime", tamper_member("expires_in"), 3601, 3600, "heart", **HEART_FIELDS
    ),
    _token_case(
        "access_token_lifetime",
        tamper_member("expires_in"),
        OMITTED,
        3600,
        "heart, missing",
        **HEART_FIELDS,
    ),
]
_ID_TOKEN_CASES = [
    _id_token_case("token_malformed", replace_token, lambda exchange: "not.a.token", None),
    _id_token_case(
        "token_malformed",
        replace_token,
        create_token_with_duplicate_member,
        None,
        "duplicate member",
    ),
    _id_token_case("token_malformed", tamper_header("crit"), ["exp"], OMITTED, "crit"),
    _id_token_case("token_malformed", tamper_member("padding"), "x" * 65536, "x" * 1024, "64 KiB"),
    _id_token_case("alg_not_allowed", tamper_header("alg"), "none", OMITTED),
    _id_token_case(
        "alg_not_allowed", tamper_header("alg"), "HS256", OMITTED, "HS256 with the public key"
    ),
    _id_token_case(
        "signature_invalid",
        replace_token,
        lambda exchange: corrupt_signature(
            sign_jwt(exchange.header, exchange.claims, exchange.key)
        ),
        None,
    ),
    _id_token_case("signature_invalid", sign_with_foreign_key, True, False, "foreign key"),
    _id_token_case("typ_invalid", tamper_header("typ"), "logout+jwt", "JWT"),
    _id_token_case(
        "typ_invalid", tamper_header("typ"), "application/at+jwt", OMITTED, "access token"
    ),
    _id_token_case("iss_invalid", tamper_member("iss"), with_slash("iss"), unchanged("iss")),
    _id_token_case("aud_invalid", tamper_member("aud"), "another", unchanged("aud")),
    _id_token_case(
        "aud_invalid",
        tamper_member("aud"),
        lambda claims: [claims["aud"], "another"],
        lambda claims: [claims["aud"]],
        "additional audience",
    ),
    _id_token_case(
        "aud_invalid", tamper_member("aud"), [], lambda claims: [claims["aud"]], "empty"
    ),
    _id_token_case("azp_invalid", tamper_member("azp"), "another", unchanged("aud")),
    _id_token_case(
        "azp_invalid",
        tamper_members,
        {"aud": lambda claims: [claims["aud"], "billing"], "azp": OMITTED},
        {"aud": lambda claims: [claims["aud"], "billing"], "azp": lambda claims: claims["aud"][0]},
        "missing with two audiences",
        options={"trusted_audiences": ["billing"]},
    ),
    _id_token_case("exp_invalid", tamper_time_claim("exp"), -3600, 60, "an hour ago"),
    _id_token_case("exp_invalid", tamper_time_claim("exp"), "soon", 60, "a string"),
    _id_token_case("exp_invalid", tamper_time_claim("exp"), OMITTED, 60, "missing"),
    _id_token_case("iat_invalid", tamper_time_claim("iat"), True, 0, "a bool"),
    _id_token_case("nonce_invalid", tamper_member("nonce"), OMITTED, unchanged("nonce")),
    _id_token_case(
        "nonce_invalid", tamper_member("nonce"), "x" * 64, unchanged("nonce"), "foreign"
    ),
    _id_token_case(
        "nonce_invalid",
        tamper_members,
        {"nonce": OMITTED, "jti": "x", "events": {BACKCHANNEL_LOGOUT_EVENT: {}}},
        {"jti": "x"},
        "a logout token",
        sqlite_only=True,
    ),
    _id_token_case("sub_invalid", tamper_member("sub"), "", "x"),
    _id_token_case("sub_invalid", tamper_member("sub"), "x" * 256, "x" * 255, "256 characters"),
    _id_token_case("sub_invalid", tamper_member("sub"), 7, "7", "a number"),
    _id_token_case("sub_invalid", tamper_member("sub"), "ü", "u", "not ASCII"),
    _id_token_case(
        "sub_not_pairwise",
        tamper_member("sub"),
        "amina@example.org",
        "amina.example.org",
        allowing_setting="subject_type",
    ),
    _id_token_case(
        "auth_time_missing", tamper_time_claim("auth_time"), OMITTED, 0, options=MAX_AGE_OPTIONS
    ),
    _id_token_case(
        "auth_time_stale",
        tamper_member("auth_time"),
        0,
        unchanged("iat"),
        "1970",
        options=MAX_AGE_OPTIONS,
        allowing_setting="allow_auth_time_zero",
    ),
    _id_token_case(
        "acr_insufficient",
        tamper_member("acr"),
        "1",
        "2",
        options={"acr_values": ["2", "3"], "acr_accepted": []},
    ),
    _id_token_case(
        "acr_insufficient",
        tamper_member("acr"),
        "3",
        "2",
        "requested but not accepted",
        options={"acr_values": ["3"], "acr_accepted": ["2"]},
    ),
    _id_token_case(
        "vtm_invalid", tamper_members, {**VECTOR, "vtm": f"{TRUST_MARK}/"}, VECTOR, **VECTOR_FIELDS
    ),
    _id_token_case(
        "vtm_invalid",
        tamper_members,
        {**VECTOR, "vtm": OMITTED},
        VECTOR,
        "missing",
        **VECTOR_FIELDS,
    ),
    _id_token_case(
        "vot_insufficient", tamper_members, {**VECTOR, "vot": "P9.Cp"}, VECTOR, **VECTOR_FIELDS
    ),
    _id_token_case(
        "vot_insufficient",
        tamper_members,
        {**VECTOR, "vot": OMITTED},
        VECTOR,
        "missing",
        **VECTOR_FIELDS,
    ),
    _id_token_case(
        "amr_insufficient",
        tamper_member("amr"),
        ["pwd"],
        ["pwd", "mfa"],
        options={"amr_required": ["mfa", "hwk"]},
    ),
    _id_token_case(
        "amr_insufficient",
        tamper_member("amr"),
        "mfa",
        ["mfa"],
        "a string",
        options={"amr_required": ["mfa"]},
    ),
    _id_token_case("at_hash_invalid", set_foreign_at_hash, True, False),
    _id_token_case("id_token_lifetime", set_token_lifetime, 301, 300, **HEART_FIELDS),
]
SIGNED_USERINFO_CASES = [
    _userinfo_case(
        "userinfo_invalid",
        replace_jwt_with_json,
        True,
        False,
        "unsigned instead of signed",
        **_SIGNED_USERINFO_FIELDS,
    ),
    _signed_userinfo_case("userinfo_invalid", tamper_header("alg"), "none", OMITTED, "alg none"),
    _signed_userinfo_case(
        "userinfo_invalid", tamper_header("alg"), "HS256", OMITTED, "HS256 with the public key"
    ),
    _signed_userinfo_case("userinfo_invalid", sign_with_foreign_key, True, False, "foreign key"),
    _signed_userinfo_case(
        "userinfo_invalid", tamper_member("iss"), with_slash("iss"), unchanged("iss"), "iss"
    ),
    _signed_userinfo_case(
        "userinfo_invalid", tamper_member("aud"), "another", unchanged("aud"), "aud"
    ),
    _signed_userinfo_case("userinfo_invalid", tamper_time_claim("exp"), -31, 60, "exp"),
    _signed_userinfo_case(
        "userinfo_sub_mismatch", tamper_member("sub"), "another", unchanged("sub"), "signed"
    ),
    _signed_userinfo_case("key_not_found", tamper_header("kid"), "unknown", OMITTED, "UserInfo"),
]


def list_token_response_cases(*, max_lifetime: timedelta = DAY) -> list[TamperingCase]:
    """Return the cases of R5. max_lifetime: the declared limit for access tokens."""
    longest_seconds = int(min(max_lifetime, DAY).total_seconds())
    setting = "max_access_token_lifetime"
    case = _token_case(
        "access_token_lifetime",
        tamper_member("expires_in"),
        86401,
        longest_seconds,
        allowing_setting=setting,
    )
    return [*_TOKEN_RESPONSE_CASES, case]


def list_id_token_cases(
    *, leeway: timedelta = DEFAULT_LEEWAY, trusted_audiences: Sequence[str] = ()
) -> list[TamperingCase]:
    """Return the cases of R6 for the declared leeway and trusted audiences."""
    within = int(min(leeway, DEFAULT_LEEWAY).total_seconds()) - 5
    other_audience = [*trusted_audiences, "another"][0]
    exp = tamper_time_claim("exp")
    iat = tamper_time_claim("iat")
    nbf = tamper_time_claim("nbf")
    auth_time = tamper_time_claim("auth_time")
    # Also with a larger leeway, the portal refuses what is beyond it.
    beyond = int(leeway.total_seconds()) + 5
    beyond_id = "beyond the leeway"
    loosened_cases = []
    if leeway > DEFAULT_LEEWAY:
        loosened_cases = [
            _id_token_case("exp_invalid", exp, -beyond, 60, beyond_id),
            _id_token_case("iat_invalid", iat, -600 - beyond, 0, beyond_id),
            _id_token_case("nbf_invalid", nbf, beyond, 0, beyond_id),
            _id_token_case(
                "auth_time_stale", auth_time, -60 - beyond, 0, beyond_id, options=MAX_AGE_OPTIONS
            ),
        ]
    return [
        *_ID_TOKEN_CASES,
        _id_token_case("exp_invalid", exp, -31, -within, allowing_setting="leeway"),
        _id_token_case("iat_invalid", iat, -635, -600 - within, allowing_setting="leeway"),
        _id_token_case("iat_invalid", iat, 35, within, "future", allowing_setting="leeway"),
        _id_token_case("nbf_invalid", nbf, 35, within, allowing_setting="leeway"),
        _id_token_case(
            "auth_time_stale",
            auth_time,
            -95,
            -60 - within,
            options=MAX_AGE_OPTIONS,
            allowing_setting="leeway",
        ),
        _id_token_case(
            "aud_invalid",
            tamper_members,
            {
                "aud": lambda claims: [claims["aud"], other_audience],
                "azp": lambda claims: claims["aud"][0],
            },
            {"azp": lambda claims: claims["aud"]},
            "additional audience with azp",
            allowing_setting="trusted_audiences",
        ),
        *loosened_cases,
    ]


def list_userinfo_cases(*, claim_name: str = "birthdate") -> list[TamperingCase]:
    """Return the cases of R7. claim_name: a declared claim."""
    claim = tamper_member(claim_name)
    return [
        _userinfo_case("userinfo_invalid", tamper_reply, {"status": 500}, {"status": 200}),
        _userinfo_case("userinfo_invalid", tamper_reply, {"body": b"[]"}, None, "not an object"),
        _userinfo_case("userinfo_sub_mismatch", tamper_member("sub"), "another", unchanged("sub")),
        _userinfo_case(
            "claim_missing", claim, OMITTED, unchanged(claim_name), is_claim_essential=True
        ),
    ]


def list_cases(declaration: ProviderDeclaration, *, claim_name: str) -> list[TamperingCase]:
    """Return all cases for that declaration. claim_name: a claim that the project requests; empty:
    none.
    """
    if declaration.profile == "heart":
        max_lifetime = timedelta(hours=1)
    else:
        max_lifetime = DAY
    return [
        *TRANSPORT_CASES,
        *METADATA_CASES,
        *PAR_CASES,
        *list_token_response_cases(
            max_lifetime=min(declaration.max_access_token_lifetime, max_lifetime)
        ),
        *list_id_token_cases(
            leeway=declaration.leeway, trusted_audiences=declaration.trusted_audiences
        ),
        *list_userinfo_cases(claim_name=claim_name),
        *SIGNED_USERINFO_CASES,
    ]

"""R1 to R3 and R5 to R7 as cases: what the provider says is bent in two ways that differ in one thing.

`wrong` is refused with the rule's code, `right` is accepted. `wrong` is measured by the strict rule, `right` by what a
project declared where that is stricter still: so what it has loosened is seen to be accepted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from ..client_keys import read_client_keys
from ..declarations import ProviderDeclaration
from .bending import (
    NO,
    Bend,
    duplicate_member,
    header,
    instead,
    keyset,
    lifetime,
    member,
    members,
    reply,
    signed_by,
    timing,
    token,
    unsigned,
)
from .op import Exchange, Reply, dripping, garbled, half_hash, sign
from .pems import new_pem


@dataclass(frozen=True)
class Case:
    """One rule: at an endpoint, `bend(exchange, wrong)` is refused with the code and `bend(exchange, right)` is not."""

    code: str
    endpoint: str
    bend: Bend
    wrong: Any
    right: Any
    held: bool = True
    """Whether the portal holds tokens when it refuses."""
    before: bool = False
    """Bend before the endpoint acts, so that nothing is issued."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the provider's declaration."""
    stage: str = "callback"
    status: int = 0
    """Of the refusal's page; 0: as the error's class says."""
    essential: bool = False
    """Whether the claim is an essential one."""
    state: Mapping[str, Any] = field(default_factory=dict)
    """Of the provider: what it does where it is honest."""
    client: Mapping[str, Any] = field(default_factory=dict)
    """Of the portal's registration at the provider."""
    loosened_by: str = ""
    """The option of the declaration by which a project lets the wrong one in."""
    once: bool = False
    """No other database than SQLite need see it: what is written of it is written of other cases, too."""
    id: str = ""

    def __str__(self) -> str:
        return f"{self.code}-{self.id}" if self.id else self.code


def itself(name: str) -> Callable[[Mapping[str, Any]], Any]:
    """Return what says of a member what is there already."""
    return lambda members: members[name]


def wrong_at_hash(exchange: Exchange, wrong: bool) -> None:
    """Speak of another access token."""
    if wrong:
        exchange.claims["at_hash"] = half_hash("another", alg=exchange.header["alg"])


MIB = 1024 * 1024
DAY = timedelta(days=1)
LEEWAY = timedelta(seconds=30)
CLIENT_PEM = new_pem("EC")
(CLIENT_KEY,) = read_client_keys("client_keys", CLIENT_PEM)
BY_KEY = {
    "token_endpoint_auth_method": "private_key_jwt",
    "token_endpoint_auth_signing_alg": "",
    "client_secret": "",
    "client_keys": CLIENT_PEM,
}
"""Of a declaration. The registration that goes with it:"""
KEY_CLIENT = {
    "token_endpoint_auth_methods": ("private_key_jwt",),
    "jwks": {"keys": [CLIENT_KEY.public_jwk("ES256")]},
}

AT_REQUEST: dict[str, Any] = {"held": False, "stage": "request"}

R1 = [
    Case("transport_redirect", "token", reply, {"status": 302, "headers": {"Location": "/token"}}, None, held=False),
    Case("transport_unreachable", "token", reply, {"raw": ()}, None, held=False),
    Case("transport_too_large", "token", reply, {"body": b" " * (MIB + 1)}, {}, held=False),
    Case("transport_encoding", "token", reply, {"headers": {"Content-Encoding": "gzip"}}, {"headers": {}}, held=False),
    Case(
        "transport_timeout",
        "token",
        reply,
        {"raw": lambda answer: dripping(answer, pause=0.05)},
        {"raw": lambda answer: dripping(answer, pause=0)},
        held=False,
    ),
    Case(
        "transport_not_https",
        "discovery",
        member("token_endpoint"),
        lambda found: found["token_endpoint"].replace("https:", "http:"),
        itself("token_endpoint"),
        **AT_REQUEST,
        loosened_by="allow_loopback_http",
    ),
]
R2 = [
    Case(
        "issuer_mismatch",
        "discovery",
        member("issuer"),
        lambda found: found["issuer"] + "/",
        itself("issuer"),
        **AT_REQUEST,
    ),
    Case("metadata_invalid", "discovery", member("jwks_uri"), NO, itself("jwks_uri"), **AT_REQUEST),
    Case("metadata_invalid", "discovery", reply, {"body": b"<html>"}, None, **AT_REQUEST, id="html"),
    Case(
        "pairwise_unsupported",
        "discovery",
        member("subject_types_supported"),
        ["public"],
        ["pairwise", "public"],
        **AT_REQUEST,
        loosened_by="subject_type",
    ),
    Case(
        "alg_unsupported",
        "discovery",
        member("id_token_signing_alg_values_supported"),
        ["HS256", "none"],
        lambda found: ["HS256", *found["id_token_signing_alg_values_supported"]],
        **AT_REQUEST,
    ),
    Case(
        "revocation_unsupported",
        "discovery",
        member("revocation_endpoint"),
        NO,
        itself("revocation_endpoint"),
        **AT_REQUEST,
        loosened_by="revocation",
    ),
    Case("key_not_found", "id_token", header("kid"), "nobody's", NO),
    Case("key_not_found", "jwks", keyset("use"), True, False, id="for encryption"),
]
PUSHED: dict[str, Any] = {"state": {"par": "offered"}, **AT_REQUEST, "once": True}
PLAIN = {"headers": {"Content-Type": "text/html"}}
R2 += [
    Case(
        "par_unsupported",
        "discovery",
        member("pushed_authorization_request_endpoint"),
        NO,
        itself("pushed_authorization_request_endpoint"),
        **PUSHED,
        options={"par": "require"},
    ),
    Case(
        "par_unsupported",
        "discovery",
        member("require_pushed_authorization_requests"),
        True,
        False,
        **PUSHED,
        options={"par": "never"},
        id="never",
    ),
]
PUSHED["options"] = {"par": "auto"}
REFUSED_PUSH = Reply(status=400, json={"error": "invalid_request"})
R3 = [
    Case("par_error", "par", instead, REFUSED_PUSH, None, **PUSHED, before=True),
    Case("par_error", "par", reply, {"status": 500}, {"status": 201}, **PUSHED, status=503, id="500"),
    Case("par_response_invalid", "par", reply, {"status": 200}, {"status": 201}, **PUSHED),
    Case(
        "par_response_invalid", "par", member("request_uri"), NO, itself("request_uri"), **PUSHED, id="no request_uri"
    ),
    Case("par_response_invalid", "par", member("expires_in"), 0, 1, **PUSHED, id="expires_in"),
    Case(
        "par_response_invalid",
        "par",
        reply,
        PLAIN,
        {"headers": {"Content-Type": "application/json"}},
        **PUSHED,
        id="as html",
    ),
]
MAX_AGE: dict[str, Any] = {"max_age": 60}
HEART: dict[str, Any] = {
    "options": {
        **BY_KEY,
        "profile": "heart",
        "revocation": "required",
        "allow_auth_time_zero": False,
        "max_access_token_lifetime": DAY,
    },
    "client": KEY_CLIENT,
    "state": {"heart_claims": True},
    "once": True,
}
_R5 = [
    Case(
        "token_error",
        "token",
        instead,
        Reply(status=400, json={"error": "invalid_grant"}),
        None,
        held=False,
        before=True,
    ),
    Case("token_error", "token", reply, {"status": 500}, {"status": 200}, status=503, id="500 with tokens"),
    Case("token_error", "token", member("error"), "server_error", NO, id="200 with an error"),
    Case("token_response_invalid", "token", instead, Reply(json=["tokens"]), None, held=False, before=True),
    Case(
        "token_response_invalid",
        "token",
        reply,
        {"headers": {"Content-Type": "text/html"}},
        {"headers": {"Content-Type": "application/json;charset=UTF-8"}},
        id="as html",
    ),
    Case("token_type_unsupported", "token", member("token_type"), "DPoP", "bEARER"),
    Case("token_type_unsupported", "token", member("token_type"), NO, "Bearer", id="absent"),
    Case("id_token_missing", "token", member("id_token"), NO, itself("id_token")),
    Case("id_token_missing", "token", member("id_token"), {}, itself("id_token"), id="an object"),
    Case("access_token_missing", "token", member("access_token"), NO, itself("access_token")),
    Case("access_token_missing", "token", member("access_token"), "", itself("access_token"), id="empty"),
    Case("access_token_lifetime", "token", member("expires_in"), "300", 300, id="a string"),
    Case("access_token_lifetime", "token", member("expires_in"), 0, 1, id="zero"),
    Case("access_token_lifetime", "token", member("expires_in"), True, NO, id="a bool"),
    Case("access_token_lifetime", "token", member("expires_in"), 3601, 3600, **HEART, id="heart"),
    Case("access_token_lifetime", "token", member("expires_in"), NO, 3600, **HEART, id="heart, absent"),
]
_R6 = [
    Case("token_malformed", "id_token", token, lambda it: "not.a.token", None),
    Case("token_malformed", "id_token", token, duplicate_member, None, id="duplicate member"),
    Case("token_malformed", "id_token", header("crit"), ["exp"], NO, id="crit"),
    Case("token_malformed", "id_token", member("padding"), "x" * 65536, "x" * 1024, id="64 KiB"),
    Case("alg_not_allowed", "id_token", header("alg"), "none", NO),
    Case("alg_not_allowed", "id_token", header("alg"), "HS256", NO, id="HS256 with the public key"),
    Case("signature_invalid", "id_token", token, lambda it: garbled(sign(it.header, it.claims, it.key)), None),
    Case("signature_invalid", "id_token", signed_by, True, False, id="foreign key"),
    Case("iss_invalid", "id_token", member("iss"), lambda claims: claims["iss"] + "/", itself("iss")),
    Case("aud_invalid", "id_token", member("aud"), "another", itself("aud")),
    Case(
        "aud_invalid",
        "id_token",
        member("aud"),
        lambda it: [it["aud"], "another"],
        lambda it: [it["aud"]],
        id="one more",
    ),
    Case("aud_invalid", "id_token", member("aud"), [], lambda it: [it["aud"]], id="none"),
    Case("azp_invalid", "id_token", member("azp"), "another", itself("aud")),
    Case(
        "azp_invalid",
        "id_token",
        members,
        {"aud": lambda it: [it["aud"], "billing"], "azp": NO},
        {"aud": lambda it: [it["aud"], "billing"], "azp": lambda it: it["aud"][0]},
        options={"trusted_audiences": ["billing"]},
        id="absent beside two audiences",
    ),
    Case("exp_invalid", "id_token", timing("exp"), -3600, 60, id="an hour ago"),
    Case("exp_invalid", "id_token", timing("exp"), "soon", 60, id="a string"),
    Case("exp_invalid", "id_token", timing("exp"), NO, 60, id="absent"),
    Case("iat_invalid", "id_token", timing("iat"), True, 0, id="a bool"),
    Case("nonce_invalid", "id_token", member("nonce"), NO, itself("nonce")),
    Case("nonce_invalid", "id_token", member("nonce"), "x" * 64, itself("nonce"), id="foreign"),
    Case("sub_invalid", "id_token", member("sub"), "", "x"),
    Case("sub_invalid", "id_token", member("sub"), "x" * 256, "x" * 255, id="256 characters"),
    Case("sub_invalid", "id_token", member("sub"), 7, "7", id="a number"),
    Case("sub_invalid", "id_token", member("sub"), "ü", "u", id="not ASCII"),
    Case(
        "sub_not_pairwise",
        "id_token",
        member("sub"),
        "amina@example.org",
        "amina.example.org",
        loosened_by="subject_type",
    ),
    Case("auth_time_missing", "id_token", timing("auth_time"), NO, 0, options=MAX_AGE),
    Case(
        "auth_time_stale",
        "id_token",
        member("auth_time"),
        0,
        itself("iat"),
        options=MAX_AGE,
        id="1970",
        loosened_by="allow_auth_time_zero",
    ),
    Case("acr_insufficient", "id_token", member("acr"), "1", "2", options={"acr_values": ["2", "3"]}),
    Case("at_hash_invalid", "id_token", wrong_at_hash, True, False),
    Case("id_token_lifetime", "id_token", lifetime, 301, 300, **HEART),
]
SIGNED: dict[str, Any] = {
    "options": {"userinfo_signed_response_alg": ["RS256"]},
    "client": {"userinfo_signed_response_alg": "RS256"},
    "once": True,
}
_R7 = [
    Case("userinfo_invalid", "userinfo", reply, {"status": 500}, {"status": 200}),
    Case("userinfo_invalid", "userinfo", reply, {"body": b"[]"}, None, id="no object"),
    Case("userinfo_sub_mismatch", "userinfo", member("sub"), "another", itself("sub")),
]
SIGNED_R7 = [
    Case("userinfo_invalid", "userinfo", unsigned, True, False, **SIGNED, id="plain where signed is demanded"),
    Case("userinfo_invalid", "userinfo_jwt", header("alg"), "none", NO, **SIGNED, id="alg none"),
    Case("userinfo_invalid", "userinfo_jwt", header("alg"), "HS256", NO, **SIGNED, id="HS256 with the public key"),
    Case("userinfo_invalid", "userinfo_jwt", signed_by, True, False, **SIGNED, id="foreign key"),
    Case(
        "userinfo_invalid", "userinfo_jwt", member("iss"), lambda it: it["iss"] + "/", itself("iss"), **SIGNED, id="iss"
    ),
    Case("userinfo_invalid", "userinfo_jwt", member("aud"), "another", itself("aud"), **SIGNED, id="aud"),
    Case("userinfo_invalid", "userinfo_jwt", timing("exp"), -31, 60, **SIGNED, id="exp"),
    Case("userinfo_sub_mismatch", "userinfo_jwt", member("sub"), "another", itself("sub"), **SIGNED, id="signed"),
    Case("key_not_found", "userinfo_jwt", header("kid"), "nobody's", NO, **SIGNED, id="of UserInfo"),
]


def r5(*, longest: timedelta = DAY) -> list[Case]:
    """Return the cases of R5. longest: what the project declared for an access token."""
    accepted = int(min(longest, DAY).total_seconds())
    by: dict[str, Any] = {"loosened_by": "max_access_token_lifetime"}
    at_most = Case("access_token_lifetime", "token", member("expires_in"), 86401, accepted, **by)
    return [*_R5, at_most]


def r6(*, leeway: timedelta = LEEWAY, trusted: Sequence[str] = ()) -> list[Case]:
    """Return the cases of R6. leeway, trusted: audiences: as the project declared them."""
    within = int(min(leeway, LEEWAY).total_seconds()) - 5
    other = [*trusted, "another"][0]
    by: dict[str, Any] = {"loosened_by": "leeway"}
    stale: dict[str, Any] = {"options": MAX_AGE, **by}
    far, beyond = int(leeway.total_seconds()) + 5, "beyond the leeway"
    loosened = [
        Case("exp_invalid", "id_token", timing("exp"), -far, 60, id=beyond),
        Case("iat_invalid", "id_token", timing("iat"), -600 - far, 0, id=beyond),
        Case("nbf_invalid", "id_token", timing("nbf"), far, 0, id=beyond),
        Case("auth_time_stale", "id_token", timing("auth_time"), -60 - far, 0, options=MAX_AGE, id=beyond),
    ]
    return [
        *_R6,
        Case("exp_invalid", "id_token", timing("exp"), -31, -within, **by),
        Case("iat_invalid", "id_token", timing("iat"), -635, -600 - within, **by),
        Case("iat_invalid", "id_token", timing("iat"), 35, within, id="future", **by),
        Case("nbf_invalid", "id_token", timing("nbf"), 35, within, **by),
        Case("auth_time_stale", "id_token", timing("auth_time"), -95, -60 - within, **stale),
        Case(
            "aud_invalid",
            "id_token",
            members,
            {"aud": lambda it: [it["aud"], other], "azp": lambda it: it["aud"][0]},
            {"azp": lambda it: it["aud"]},
            id="one that others trust",
            loosened_by="trusted_audiences",
        ),
        *(loosened if leeway > LEEWAY else ()),
    ]


def r7(*, claim: str = "birthdate") -> list[Case]:
    """Return the cases of R7. claim: one that is declared."""
    return [*_R7, Case("claim_missing", "userinfo", member(claim), NO, itself(claim), essential=True)]


def cases_for(declared: ProviderDeclaration, *, claim: str) -> list[Case]:
    """Return all cases, as they differ by what the project declared. claim: one that it asks for; empty: none."""
    heart = timedelta(hours=1) if declared.profile == "heart" else DAY
    return [
        *R1,
        *R2,
        *R3,
        *r5(longest=min(declared.max_access_token_lifetime, heart)),
        *r6(leeway=declared.leeway, trusted=declared.trusted_audiences),
        *r7(claim=claim),
        *SIGNED_R7,
    ]

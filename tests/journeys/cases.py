"""R1 to R3 and R5 to R7 as cases: what the provider says is bent in two ways that differ in one thing.

`wrong` is refused with the rule's code, `right` is accepted.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django_phi_oidc import clock
from django_phi_oidc.attack.op import Exchange, Reply, dripping, garbled, half_hash, make_key, sign, sign_bytes
from django_phi_oidc.attack.op.signing import unverified
from django_phi_oidc.client_keys import read_client_keys
from tests.keys import new_pem

Bend = Callable[[Exchange, Any], Reply | str | None]
NO = object()
"""A member left out."""


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
    """Whether birthdate is an essential claim."""
    state: Mapping[str, Any] = field(default_factory=dict)
    """Of the provider: what it does where it is honest."""
    client: Mapping[str, Any] = field(default_factory=dict)
    """Of the portal's registration at the provider."""
    once: bool = False
    """No other database than SQLite need see it: what is written of it is written of other cases, too."""
    id: str = ""

    def __str__(self) -> str:
        return f"{self.code}-{self.id}" if self.id else self.code


def member(name: str) -> Bend:
    """Set, or leave out, one member of a JSON answer or of a token's claims."""

    def bend(exchange: Exchange, value: Any) -> None:
        members = exchange.reply.json if exchange.reply.json is not None else exchange.claims
        if value is NO:
            members.pop(name, None)
        else:
            members[name] = value(members) if callable(value) else value

    return bend


def header(name: str) -> Bend:
    """Set one member of a token's header."""

    def bend(exchange: Exchange, value: Any) -> None:
        if value is not NO:
            exchange.header[name] = value

    return bend


def reply(exchange: Exchange, change: Mapping[str, Any] | None) -> None:
    """Set attributes of the HTTP answer; nothing when there is no change."""
    for name, value in (change or {}).items():
        if name == "headers":
            exchange.reply.headers.update(value)
        else:
            setattr(exchange.reply, name, value(exchange.reply) if callable(value) else value)
    if change and "body" in change:
        exchange.reply.json = None


def instead(exchange: Exchange, answer: Reply | None) -> Reply | None:
    return answer


def token(exchange: Exchange, make: Callable[[Exchange], str] | None) -> None:
    if make is not None:
        exchange.token = make(exchange)


def signed_by(exchange: Exchange, foreign: bool) -> None:
    if foreign:
        exchange.key = make_key("RS256", kid=exchange.header["kid"])


def timing(name: str) -> Bend:
    """Set a time claim that many seconds from now."""

    def bend(exchange: Exchange, seconds: Any) -> None:
        if isinstance(seconds, int | float) and not isinstance(seconds, bool):
            exchange.claims[name] = clock.now().timestamp() + seconds
        else:
            member(name)(exchange, seconds)

    return bend


def duplicate_member(exchange: Exchange) -> str:
    payload = json.dumps(exchange.claims)
    return sign_bytes(
        json.dumps(exchange.header).encode(), f'{payload[:-1]}, "sub": "x"}}'.encode(), exchange.key, alg="RS256"
    )


def keyset(change: str) -> Bend:
    def bend(exchange: Exchange, wrong: bool) -> None:
        if wrong:
            for key in exchange.reply.json["keys"]:
                key[change] = "enc" if change == "use" else "another"

    return bend


def unsigned(exchange: Exchange, wrong: bool) -> None:
    """Send plainly what was signed."""
    if wrong:
        exchange.reply.json = unverified(exchange.reply.body.decode())[1]
        exchange.reply.headers["Content-Type"] = "application/json"


def lifetime(exchange: Exchange, seconds: int) -> None:
    exchange.claims["exp"] = exchange.claims["iat"] + seconds


MIB = 1024 * 1024
CLIENT = "portal"
CLIENT_PEM = new_pem("EC")
(CLIENT_KEY,) = read_client_keys("client_keys", CLIENT_PEM)
BY_KEY = {"token_endpoint_auth_method": "private_key_jwt", "client_secret": "", "client_keys": CLIENT_PEM}
"""Of a declaration. The registration that goes with it:"""
KEY_CLIENT = {
    "token_endpoint_auth_methods": ("private_key_jwt",),
    "jwks": {"keys": [CLIENT_KEY.public_jwk("ES256")]},
}

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
        lambda found: found["token_endpoint"],
        held=False,
        stage="request",
    ),
]
R2 = [
    Case(
        "issuer_mismatch",
        "discovery",
        member("issuer"),
        lambda found: found["issuer"] + "/",
        lambda found: found["issuer"],
        held=False,
        stage="request",
    ),
    Case(
        "metadata_invalid",
        "discovery",
        member("jwks_uri"),
        NO,
        lambda found: found["jwks_uri"],
        held=False,
        stage="request",
    ),
    Case("metadata_invalid", "discovery", reply, {"body": b"<html>"}, None, held=False, stage="request", id="html"),
    Case(
        "pairwise_unsupported",
        "discovery",
        member("subject_types_supported"),
        ["public"],
        ["pairwise", "public"],
        held=False,
        stage="request",
    ),
    Case(
        "alg_unsupported",
        "discovery",
        member("id_token_signing_alg_values_supported"),
        ["HS256", "none"],
        ["HS256", "RS256"],
        held=False,
        stage="request",
    ),
    Case(
        "revocation_unsupported",
        "discovery",
        member("revocation_endpoint"),
        NO,
        lambda found: found["revocation_endpoint"],
        held=False,
        stage="request",
    ),
    Case("key_not_found", "id_token", header("kid"), "nobody's", NO),
    Case("key_not_found", "jwks", keyset("use"), True, False, id="for encryption"),
]
PUSHED: dict[str, Any] = {"state": {"par": "offered"}, "held": False, "stage": "request", "once": True}
PLAIN = {"headers": {"Content-Type": "text/html"}}
R2 += [
    Case(
        "par_unsupported",
        "discovery",
        member("pushed_authorization_request_endpoint"),
        NO,
        lambda found: found["pushed_authorization_request_endpoint"],
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
REFUSED_PUSH = Reply(status=400, json={"error": "invalid_request"})
R3 = [
    Case("par_error", "par", instead, REFUSED_PUSH, None, **PUSHED, before=True),
    Case("par_error", "par", reply, {"status": 500}, {"status": 201}, **PUSHED, status=503, id="500"),
    Case("par_response_invalid", "par", reply, {"status": 200}, {"status": 201}, **PUSHED),
    Case(
        "par_response_invalid",
        "par",
        member("request_uri"),
        NO,
        lambda found: found["request_uri"],
        **PUSHED,
        id="no request_uri",
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
HEART: dict[str, Any] = {
    "options": {**BY_KEY, "profile": "heart"},
    "client": KEY_CLIENT,
    "state": {"heart_claims": True},
    "once": True,
}
R5 = [
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
    Case("id_token_missing", "token", member("id_token"), NO, lambda found: found["id_token"]),
    Case("id_token_missing", "token", member("id_token"), {}, lambda found: found["id_token"], id="an object"),
    Case("access_token_missing", "token", member("access_token"), NO, lambda found: found["access_token"]),
    Case("access_token_missing", "token", member("access_token"), "", lambda found: found["access_token"], id="empty"),
    Case("access_token_lifetime", "token", member("expires_in"), 86401, 86400),
    Case("access_token_lifetime", "token", member("expires_in"), "3600", 3600, id="a string"),
    Case("access_token_lifetime", "token", member("expires_in"), 0, 1, id="zero"),
    Case("access_token_lifetime", "token", member("expires_in"), True, NO, id="a bool"),
    Case("access_token_lifetime", "token", member("expires_in"), 3601, 3600, **HEART, id="heart"),
    Case("access_token_lifetime", "token", member("expires_in"), NO, 3600, **HEART, id="heart, absent"),
]
R6 = [
    Case("token_malformed", "id_token", token, lambda it: "not.a.token", None),
    Case("token_malformed", "id_token", token, duplicate_member, None, id="duplicate member"),
    Case("token_malformed", "id_token", header("crit"), ["exp"], NO, id="crit"),
    Case("token_malformed", "id_token", member("padding"), "x" * 65536, "x" * 1024, id="64 KiB"),
    Case("alg_not_allowed", "id_token", header("alg"), "none", "RS256"),
    Case("alg_not_allowed", "id_token", header("alg"), "HS256", "RS256", id="HS256 with the public key"),
    Case("signature_invalid", "id_token", token, lambda it: garbled(sign(it.header, it.claims, it.key)), None),
    Case("signature_invalid", "id_token", signed_by, True, False, id="foreign key"),
    Case("iss_invalid", "id_token", member("iss"), lambda claims: claims["iss"] + "/", lambda claims: claims["iss"]),
    Case("aud_invalid", "id_token", member("aud"), "another", CLIENT),
    Case("aud_invalid", "id_token", member("aud"), [CLIENT, "another"], [CLIENT], id="one more"),
    Case("aud_invalid", "id_token", member("aud"), [], [CLIENT], id="none"),
    Case("azp_invalid", "id_token", member("azp"), "another", CLIENT),
    Case("exp_invalid", "id_token", timing("exp"), -31, -25),
    Case("exp_invalid", "id_token", timing("exp"), "soon", 60, id="a string"),
    Case("exp_invalid", "id_token", timing("exp"), NO, 60, id="absent"),
    Case("iat_invalid", "id_token", timing("iat"), -635, -620),
    Case("iat_invalid", "id_token", timing("iat"), 60, 20, id="future"),
    Case("iat_invalid", "id_token", timing("iat"), True, 0, id="a bool"),
    Case("nbf_invalid", "id_token", timing("nbf"), 60, 20),
    Case("nonce_invalid", "id_token", member("nonce"), NO, lambda claims: claims["nonce"]),
    Case("nonce_invalid", "id_token", member("nonce"), "x" * 64, lambda claims: claims["nonce"], id="foreign"),
    Case("sub_invalid", "id_token", member("sub"), "", "x"),
    Case("sub_invalid", "id_token", member("sub"), "x" * 256, "x" * 255, id="256 characters"),
    Case("sub_invalid", "id_token", member("sub"), 7, "7", id="a number"),
    Case("sub_invalid", "id_token", member("sub"), "ü", "u", id="not ASCII"),
    Case("sub_not_pairwise", "id_token", member("sub"), "amina@example.org", "amina.example.org"),
    Case("auth_time_missing", "id_token", timing("auth_time"), NO, 0, options={"max_age": 60}),
    Case("auth_time_stale", "id_token", timing("auth_time"), -95, -85, options={"max_age": 60}),
    Case("acr_insufficient", "id_token", member("acr"), "1", "2", options={"acr_values": ["2", "3"]}),
    Case(
        "at_hash_invalid",
        "id_token",
        member("at_hash"),
        half_hash("another", alg="RS256"),
        lambda claims: claims["at_hash"],
    ),
    Case("id_token_lifetime", "id_token", lifetime, 301, 300, **HEART),
]
SIGNED: dict[str, Any] = {
    "options": {"userinfo_signed_response_alg": ["RS256"]},
    "client": {"userinfo_signed_response_alg": "RS256"},
    "once": True,
}
R7 = [
    Case("userinfo_invalid", "userinfo", reply, {"status": 500}, {"status": 200}),
    Case("userinfo_invalid", "userinfo", reply, {"body": b"[]"}, None, id="no object"),
    Case("userinfo_sub_mismatch", "userinfo", member("sub"), "another", lambda found: found["sub"]),
    Case("claim_missing", "userinfo", member("birthdate"), NO, "1984-03-09", essential=True),
]
SIGNED_R7 = [
    Case("userinfo_invalid", "userinfo", unsigned, True, False, **SIGNED, id="plain where signed is demanded"),
    Case("userinfo_invalid", "userinfo_jwt", header("alg"), "none", "RS256", **SIGNED, id="alg none"),
    Case("userinfo_invalid", "userinfo_jwt", header("alg"), "HS256", "RS256", **SIGNED, id="HS256 with the public key"),
    Case("userinfo_invalid", "userinfo_jwt", signed_by, True, False, **SIGNED, id="foreign key"),
    Case(
        "userinfo_invalid",
        "userinfo_jwt",
        member("iss"),
        lambda it: it["iss"] + "/",
        lambda it: it["iss"],
        **SIGNED,
        id="iss",
    ),
    Case("userinfo_invalid", "userinfo_jwt", member("aud"), "another", CLIENT, **SIGNED, id="aud"),
    Case("userinfo_invalid", "userinfo_jwt", timing("exp"), -31, -25, **SIGNED, id="exp"),
    Case(
        "userinfo_sub_mismatch", "userinfo_jwt", member("sub"), "another", lambda it: it["sub"], **SIGNED, id="signed"
    ),
    Case("key_not_found", "userinfo_jwt", header("kid"), "nobody's", NO, **SIGNED, id="of UserInfo"),
]
BENT = [*R1, *R2, *R3, *R5, *R6, *R7, *SIGNED_R7]

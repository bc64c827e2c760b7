"""Each refusal of R1 to R7, over real sockets, beside an acceptance that differs in that one thing.

A case bends what the provider (or the browser) says in two ways with one function: `wrong` is refused with the rule's
code, `right` is accepted. Where the portal held tokens, they are dead at the provider when the page comes.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from django_phi_oidc import clock, errors
from django_phi_oidc.attack.op import (
    DemoProvider,
    Exchange,
    Reply,
    dripping,
    garbled,
    half_hash,
    make_key,
    sign,
    sign_bytes,
)
from tests.tls import Authority

from .browser import Browser, Page
from .conftest import EVERYTHING, declaration, events

pytestmark = pytest.mark.django_db(**EVERYTHING)

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


MIB = 1024 * 1024
CLIENT = "portal"

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
]
R7 = [
    Case("userinfo_invalid", "userinfo", reply, {"status": 500}, {"status": 200}),
    Case("userinfo_invalid", "userinfo", reply, {"body": b"[]"}, None, id="no object"),
    Case("userinfo_sub_mismatch", "userinfo", member("sub"), "another", lambda found: found["sub"]),
    Case("claim_missing", "userinfo", member("birthdate"), NO, "1984-03-09", essential=True),
]
BENT = [*R1, *R2, *R5, *R6, *R7]

CLASSES = {
    cls.code: cls
    for cls in vars(errors).values()
    if isinstance(cls, type) and issubclass(cls, errors.SignInRefused) and "code" in vars(cls)
}


def declare(settings: Any, op: DemoProvider, case: Case) -> None:
    provider = {**settings.PHI_OIDC["PROVIDERS"]["default"], **case.options}
    claims = dict(settings.PHI_OIDC["CLAIMS"])
    claims["birthdate"] = {**claims["birthdate"], "essential": case.essential}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": provider}, "CLAIMS": claims}


def bend_with(op: DemoProvider, case: Case, value: Any) -> None:
    def hook(endpoint: str, exchange: Exchange) -> Reply | None:
        return case.bend(exchange, value) if endpoint == case.endpoint else None

    # Where UserInfo would be asked, it would speak of the sub that the ID Token no longer names.
    op.state.scope_claims_in_id_token = case.endpoint == "id_token"
    if case.before:
        op.intercept = hook
    else:
        op.mutate = hook


def assert_refused(page: Page, browser: Browser, code: str, *, status: int = 0) -> None:
    """The page tells nothing but a reference; the trail tells the code; nobody is signed in."""
    (event,) = events(action="login.refused")
    assert event.reason == code
    assert page.status == (status or (503 if CLASSES[code].provider_fault else 403)), page.body
    assert code not in page.body
    assert str(event.id) in page.body
    assert page.header("Cache-Control") == "no-store"
    assert browser.user() == ""
    assert events(action="login.succeeded") == []


def assert_accepted(page: Page, browser: Browser, op: DemoProvider) -> None:
    assert (page.status, page.location) == (302, "/portal/home/"), page.body
    assert browser.user() != ""
    assert events(action="login.refused") == []
    assert len(events(action="login.succeeded")) == 1
    assert {token.kind for token in op.live_tokens} == {"access_token", "refresh_token"}


@pytest.mark.parametrize("case", BENT, ids=str)
def test_sign_in_bent_by_the_provider_is_refused(
    case: Case, request: pytest.FixtureRequest, settings: Any, browser: Browser
) -> None:
    op = request.getfixturevalue("tls_op" if case in R1 else "op")
    declare(settings, op, case)
    bend_with(op, case, case.wrong)
    page = browser.begin() if case.stage == "request" else browser.sign_in(op)
    assert_refused(page, browser, case.code, status=case.status)
    if case.held:
        assert {token.kind for token in op.tokens} == {"access_token", "refresh_token"}
        assert op.live_tokens == []
        assert events(action="token.revoked", outcome="success") != []
    if case.before or case.stage == "request":
        assert op.tokens == []


@pytest.mark.parametrize("case", BENT, ids=str)
def test_sign_in_that_differs_in_that_one_thing_is_accepted(
    case: Case, request: pytest.FixtureRequest, settings: Any, browser: Browser
) -> None:
    op = request.getfixturevalue("tls_op" if case in R1 else "op")
    declare(settings, op, case)
    bend_with(op, case, case.right)
    assert_accepted(browser.sign_in(op), browser, op)


def test_certificate_of_another_ca_is_refused(
    tls_op: DemoProvider, settings: Any, browser: Browser, other_authority: Authority
) -> None:
    provider = settings.PHI_OIDC["PROVIDERS"]["default"]
    foreign = {**provider, "ca_bundle": other_authority.path}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": foreign}}
    assert_refused(browser.begin(), browser, "transport_tls")


def test_certificate_of_the_declared_ca_is_accepted(tls_op: DemoProvider, browser: Browser) -> None:
    assert_accepted(browser.sign_in(tls_op), browser, tls_op)


def altered(url: str, **changes: Any) -> str:
    """Return url with parameters replaced, left out (NO) or repeated (a list)."""
    parts = urlsplit(url)
    query = {**dict(parse_qsl(parts.query)), **changes}
    return parts._replace(query=urlencode({k: v for k, v in query.items() if v is not NO}, doseq=True)).geturl()


# code -> (what the browser brings back, a callback that differs in that one thing and is accepted)
R4 = {
    "state_missing": ({"state": NO}, {}),
    "state_unknown": ({"state": "x" * 43}, {}),
    "iss_mismatch": ({"iss": "https://elsewhere.example"}, {}),
    "iss_missing": ({"iss": NO}, {}),
    "provider_error": ({"error": "access_denied"}, {"remark": "access_denied"}),
    "parameter_repeated": ({"code": ["a", "b"]}, {"remark": ["a", "b"]}),
    "code_missing": ({"code": NO}, {}),
}


@pytest.mark.parametrize("code", R4)
def test_callback_bent_by_the_browser_is_refused(code: str, op: DemoProvider, browser: Browser) -> None:
    page = browser.get(altered(browser.callback(op), **R4[code][0]))
    assert_refused(page, browser, code)
    assert op.tokens == []


@pytest.mark.parametrize("code", R4)
def test_callback_that_differs_in_that_one_thing_is_accepted(code: str, op: DemoProvider, browser: Browser) -> None:
    assert_accepted(browser.get(altered(browser.callback(op), **R4[code][1])), browser, op)


def test_callback_in_another_browser_is_refused_and_in_its_own_accepted(
    op: DemoProvider, browser: Browser, portal: str
) -> None:
    callback = browser.callback(op)
    stranger = Browser(portal)
    assert_refused(stranger.get(callback), stranger, "state_unknown")
    assert op.tokens == []
    assert browser.get(callback).status == 302


def test_callback_again_is_refused_and_the_first_accepted(op: DemoProvider, browser: Browser) -> None:
    callback = browser.callback(op)
    kept = dict(browser.cookies)
    assert_accepted(browser.get(callback), browser, op)
    signed_in = dict(browser.cookies)
    for cookies in (signed_in, {**signed_in, **kept}):
        browser.cookies = cookies
        page = browser.get(callback)
        assert page.status == 403
        assert [event.reason for event in events(action="login.refused")][-1] == "state_replayed"
        assert browser.user() != "", "a refused callback signs nobody out"
    assert [request.path for request in op.requests].count("/token") == 1


@pytest.mark.parametrize(("minutes", "status"), [(10.1, 403), (9.9, 302)])
def test_callback_after_ten_minutes_is_refused(minutes: float, status: int, op: DemoProvider, browser: Browser) -> None:
    begun = browser.begin()
    later = clock.now() + timedelta(minutes=minutes)
    with clock.running(lambda: later):
        page = browser.get(op.authorize(begun.location, "amina"))
        assert page.status == status
        if status == 403:
            assert_refused(page, browser, "state_expired")


def test_token_of_an_earlier_sign_in_is_refused_and_told_apart(op: DemoProvider, browser: Browser, portal: str) -> None:
    earlier: list[str] = []

    def keep(endpoint: str, exchange: Exchange) -> None:
        if endpoint == "token":
            earlier.append(exchange.reply.json["id_token"])

    def replay(endpoint: str, exchange: Exchange) -> None:
        if endpoint == "id_token":
            exchange.token = earlier[0]

    op.mutate = keep
    assert_accepted(browser.sign_in(op), browser, op)
    op.mutate = replay
    again = Browser(portal)
    page = again.sign_in(op)
    assert page.status == 403
    assert [event.reason for event in events(action="login.refused")] == ["token_replayed"]
    assert len(op.live_tokens) == 2, "those of the accepted sign-in"


@pytest.mark.parametrize("azp", [NO, "another", CLIENT])
def test_azp_is_demanded_with_a_second_audience(azp: Any, op: DemoProvider, settings: Any, browser: Browser) -> None:
    provider = {**settings.PHI_OIDC["PROVIDERS"]["default"], "trusted_audiences": ["billing"]}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": provider}}

    def two(endpoint: str, exchange: Exchange) -> None:
        if endpoint == "id_token":
            exchange.claims["aud"] = [CLIENT, "billing"]
            member("azp")(exchange, azp)

    op.mutate = two
    page = browser.sign_in(op)
    if azp == CLIENT:
        assert_accepted(page, browser, op)
    else:
        assert_refused(page, browser, "azp_invalid")


@pytest.mark.parametrize("alg", ["PS256", "ES256", "EdDSA", "RS256"])
def test_each_allowed_algorithm_is_accepted(alg: str, op: DemoProvider, browser: Browser) -> None:
    op.signing_alg = alg
    assert_accepted(browser.sign_in(op), browser, op)


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_each_client_authentication_is_accepted(method: str, op: DemoProvider, settings: Any, browser: Browser) -> None:
    provider = declaration(op, token_endpoint_auth_method=method)
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": provider}}
    assert_accepted(browser.sign_in(op), browser, op)
    schemes = {request.authorization for request in op.requests if request.path == "/token"}
    assert schemes == ({"Basic"} if method == "client_secret_basic" else {""})


TESTED_ALONE = {"transport_tls", "state_replayed", "state_expired", "token_replayed"}
LATER = {"subject_key_missing", "not_provisioned", "user_inactive", "provider_unknown"}
"""No rule of R1 to R7; tests/journeys/test_accounts.py has them."""


def test_every_code_has_a_pair() -> None:
    codes = set(CLASSES) - {errors.SignInRefused.code}
    covered = {case.code for case in BENT} | set(R4) | TESTED_ALONE
    assert codes - covered == LATER
    assert covered <= codes

"""Options, keys and responses of one provider have no effect at another."""

import base64
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange, Reply
from tests.integration.journeys.test_rule_refusals import change_query
from tests.integration.journeys.two_providers import (
    SECRETS,
    Declare,
    assert_refused,
    assert_signed_in,
    callback_of,
    count_requests,
    register,
    sign_in_at,
    start_sign_in_at,
)
from tests.support.http_browser import Browser
from tests.support.portal_fixtures import EVERYTHING, events

pytestmark = [pytest.mark.django_db(**EVERYTHING), pytest.mark.sqlite, pytest.mark.usefixtures("declare")]


# Weaker options of one provider


def with_id_claims(**claims: Any) -> Callable[[str, MutableExchange], None]:
    def tamper(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint == "id_token":
            exchange.claims.update({name: value() if callable(value) else value for name, value in claims.items()})

    return tamper


def with_json(at: str, **members: Any) -> Callable[[str, MutableExchange], None]:
    def tamper(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint == at:
            exchange.reply.json = {**exchange.reply.json, **members}
            exchange.reply.json = {name: value for name, value in exchange.reply.json.items() if value is not None}

    return tamper


def unchanged(endpoint: str, exchange: MutableExchange) -> None:
    return None


# code of the region → options of the clinic, options of the region, behaviour of both
WEAKER_OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any], Callable[[str, MutableExchange], None]]] = {
    "aud_invalid": (
        {"trusted_audiences": ["billing"]},
        {},
        with_id_claims(aud=["portal", "billing"], azp="portal"),
    ),
    "alg_not_allowed": (
        {"id_token_signed_response_alg": ["RS256"]},
        {"id_token_signed_response_alg": ["PS256"]},
        unchanged,
    ),
    "exp_invalid": ({"leeway": 120}, {}, with_id_claims(exp=lambda: time.time() - 100)),
    "sub_not_pairwise": ({"subject_type": "public"}, {}, with_id_claims(sub="amina@example.org")),
    "access_token_lifetime": ({"max_access_token_lifetime": 200_000}, {}, with_json("token", expires_in=100_000)),
    "auth_time_stale": (
        {"max_age": 60, "allow_auth_time_zero": True},
        {"max_age": 60},
        with_id_claims(auth_time=0),
    ),
}


@pytest.mark.parametrize("code", WEAKER_OPTIONS)
def test_loosened_check_of_one_provider_still_applies_to_another(
    code: str, clinic: DemoProvider, region: DemoProvider, declare: Declare, portal: str
) -> None:
    at_clinic, at_region, tamper = WEAKER_OPTIONS[code]
    declare(clinic=at_clinic, region=at_region)
    for op in (clinic, region):
        op.state.scope_claims_in_id_token = True
        op.mutate = tamper
    first, second = Browser(portal), Browser(portal)
    assert_signed_in(sign_in_at(first, "clinic", clinic), first, clinic)
    assert_refused(sign_in_at(second, "region", region), second, code)
    assert region.tokens != []
    assert region.active_tokens == []
    assert first.user() != ""


# required only at the region
WAIVED_REQUIREMENTS: dict[str, tuple[dict[str, Any], dict[str, Any], Callable[[str, MutableExchange], None], int]] = {
    "revocation_unsupported": (
        {"revocation": "best_effort"},
        {},
        with_json("discovery", revocation_endpoint=None),
        403,
    ),
    "transport_not_https": ({}, {"allow_loopback_http": False}, unchanged, 503),
}


@pytest.mark.parametrize("code", WAIVED_REQUIREMENTS)
def test_requirement_waived_for_one_provider_still_applies_to_another(
    code: str, clinic: DemoProvider, region: DemoProvider, declare: Declare, browser: Browser
) -> None:
    at_clinic, at_region, tamper, status = WAIVED_REQUIREMENTS[code]
    declare(clinic=at_clinic, region=at_region)
    clinic.mutate = region.mutate = tamper
    assert_refused(start_sign_in_at(browser, "region"), browser, code, status=status)
    assert_signed_in(sign_in_at(browser, "clinic", clinic), browser, clinic)


def test_ca_bundle_of_one_provider_is_not_trusted_for_another(
    tls_op: DemoProvider, settings: Any, portal: str, browser: Browser
) -> None:
    register(tls_op, "clinic", portal)
    trusting = {**settings.PHI_OIDC["PROVIDERS"]["default"], "client_secret": SECRETS["clinic"]}
    both = {"clinic": trusting, "region": {**trusting, "ca_bundle": ""}}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": both}
    assert_refused(start_sign_in_at(browser, "region"), browser, "transport_tls", status=503)
    assert_signed_in(sign_in_at(browser, "clinic", tls_op), browser, tls_op)


# Forgeries


def foreign_key(exchange: MutableExchange, clinic: DemoProvider, region: DemoProvider) -> None:
    """The clinic's key under the kid of the region's key."""
    exchange.key = clinic.state.keys["RS256"]


def foreign_kid(exchange: MutableExchange, clinic: DemoProvider, region: DemoProvider) -> None:
    foreign_key(exchange, clinic, region)
    exchange.header["kid"] = clinic.state.keys["RS256"].kid


def foreign_issuer(exchange: MutableExchange, clinic: DemoProvider, region: DemoProvider) -> None:
    exchange.claims["iss"] = clinic.issuer


@pytest.mark.parametrize(
    ("forge", "code", "status"),
    [
        (foreign_key, "signature_invalid", 403),
        (foreign_kid, "key_not_found", 503),
        (foreign_issuer, "iss_invalid", 403),
    ],
    ids=["key", "kid", "iss"],
)
def test_id_token_forged_by_another_provider_is_refused(
    forge: Any, code: str, status: int, clinic: DemoProvider, region: DemoProvider, browser: Browser
) -> None:
    sign_in_at(Browser(browser.base_url), "clinic", clinic)  # so that this process knows its keys
    region.mutate = lambda at, exchange: forge(exchange, clinic, region) if at == "id_token" else None
    assert_refused(sign_in_at(browser, "region", region), browser, code, status=status)
    assert region.tokens != []
    assert region.active_tokens == []
    region.mutate = None
    assert_signed_in(sign_in_at(browser, "region", region), browser, region)


def test_token_response_replayed_by_another_provider_is_refused(
    clinic: DemoProvider, region: DemoProvider, browser: Browser
) -> None:
    stolen: list[Reply] = []
    clinic.mutate = lambda at, exchange: stolen.append(exchange.reply) if at == "token" else None
    sign_in_at(Browser(browser.base_url), "clinic", clinic)
    region.intercept = lambda at, exchange: Reply(json=stolen[0].json) if at == "token" else None
    assert_refused(sign_in_at(browser, "region", region), browser, "key_not_found", status=503)
    assert count_requests(region, "/revoke") == 2, "the tokens are revoked at the provider that returned them"
    region.intercept = None
    assert_signed_in(sign_in_at(browser, "region", region), browser, region)


# Mix-up attacks. Spec: RFC 9700 4.4


@pytest.mark.parametrize("name", ["clinic", "region"])
@pytest.mark.parametrize("at", ["/oidc/clinic/callback/", "/oidc/region/callback/", "/oidc/callback/"])
def test_response_is_accepted_only_at_the_callback_of_its_provider(
    name: str, at: str, request: pytest.FixtureRequest, clinic: DemoProvider, region: DemoProvider, browser: Browser
) -> None:
    op = {"clinic": clinic, "region": region}[name]
    page = browser.get(callback_of(browser, name, op).replace(f"/oidc/{name}/callback/", at))
    if at == f"/oidc/{name}/callback/" or (name, at) == ("clinic", "/oidc/callback/"):
        assert_signed_in(page, browser, op)
    else:
        assert_refused(page, browser, "state_unknown")
        assert clinic.tokens == region.tokens == []


@pytest.mark.parametrize(
    ("iss", "code"), [("clinic", "iss_mismatch"), ("none", "iss_missing"), ("region", "token_error")]
)
def test_code_of_one_provider_with_the_state_of_another_is_refused(
    iss: str, code: str, clinic: DemoProvider, region: DemoProvider, browser: Browser
) -> None:
    stolen = dict(parse_qsl(urlsplit(callback_of(browser, "clinic", clinic)).query))["code"]
    own = callback_of(browser, "region", region)
    issuers = {"clinic": {"iss": clinic.issuer}, "region": {}}
    mixed = change_query(own, code=stolen, **issuers.get(iss, {}))
    page = browser.get(mixed if iss != "none" else mixed.replace(urlencode({"iss": region.issuer}), ""))
    assert_refused(page, browser, code)
    assert clinic.tokens == region.tokens == []
    assert_signed_in(sign_in_at(browser, "region", region), browser, region)


@pytest.mark.parametrize(("to", "code"), [("clinic", "state_unknown"), ("region", "iss_mismatch")])
def test_mix_up_attack_does_not_send_the_code_to_the_attacker(
    to: str, code: str, clinic: DemoProvider, region: DemoProvider, browser: Browser, portal: str
) -> None:
    register(clinic, "clinic", portal, f"{portal}/oidc/region/callback/")
    request_url = start_sign_in_at(browser, "region").location
    diverted = change_query(request_url, redirect_uri=f"{portal}/oidc/{to}/callback/").replace(
        region.issuer, clinic.issuer
    )
    assert_refused(browser.get(clinic.authorize(diverted, "amina")), browser, code)
    assert count_requests(region, "/token") == count_requests(clinic, "/token") == 0
    assert_signed_in(browser.get(callback_of(browser, "region", region)), browser, region)


# member of the region's metadata that names the clinic → code
BORROWED = {
    "issuer": ("issuer_mismatch", 503),
    "authorization_endpoint": ("iss_mismatch", 403),
    "token_endpoint": ("token_error", 403),
    "jwks_uri": ("key_not_found", 503),
    "userinfo_endpoint": ("userinfo_invalid", 503),
}


@pytest.mark.parametrize("member", BORROWED)
def test_metadata_with_an_endpoint_of_another_provider_is_refused(
    member: str, clinic: DemoProvider, region: DemoProvider, declare: Declare, browser: Browser, portal: str
) -> None:
    register(clinic, "clinic", portal, f"{portal}/oidc/region/callback/")

    def borrow(at: str, exchange: MutableExchange) -> None:
        if at == "discovery":
            own = exchange.reply.json[member]
            exchange.reply.json[member] = own.replace(region.issuer, clinic.issuer)

    region.mutate = borrow
    code, status = BORROWED[member]
    page = start_sign_in_at(browser, "region")
    if page.status == 302:
        signing = clinic if member == "authorization_endpoint" else region
        page = browser.get(signing.authorize(page.location, "amina"))
    assert_refused(page, browser, code, status=status)
    assert clinic.tokens == []
    assert region.active_tokens == []
    region.mutate = None
    declare()
    assert_signed_in(sign_in_at(browser, "region", region), browser, region)


def test_state_cookie_renamed_to_that_of_another_provider_is_refused(
    clinic: DemoProvider, region: DemoProvider, browser: Browser
) -> None:
    at_region = callback_of(browser, "region", region)
    (name,) = browser.cookies
    own = browser.cookies[name]
    at_clinic = callback_of(browser, "clinic", clinic)
    (others,) = set(browser.cookies) - {name}
    swapped = {**browser.cookies, name: browser.cookies[others], others: own}
    browser.cookies = dict(swapped)
    for url in (at_region, at_clinic):
        assert_refused(browser.get(url), browser, "state_unknown")
    browser.cookies = {name: own}
    assert_signed_in(browser.get(at_region), browser, region)


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_client_secret_is_sent_only_to_its_provider(
    method: str, clinic: DemoProvider, region: DemoProvider, declare: Declare, portal: str
) -> None:
    declare(
        clinic={"token_endpoint_auth_method": method},
        region={"token_endpoint_auth_method": method, "max_access_token_lifetime": 60},
    )
    seen: dict[str, str] = {"clinic": "", "region": ""}

    def recorder(name: str) -> Callable[[str, MutableExchange], None]:
        def record(at: str, exchange: MutableExchange) -> None:
            basic = exchange.headers.get("authorization", "").partition("Basic ")[2]
            seen[name] += f"{dict(exchange.parameters)} {dict(exchange.headers)} {base64.b64decode(basic)!r}\n"

        return record

    clinic.mutate, region.mutate = recorder("clinic"), recorder("region")
    for name, op in (("clinic", clinic), ("region", region)):
        sign_in_at(Browser(portal), name, op)  # the region's sign-in is refused and its tokens are revoked
        for owner, secret in SECRETS.items():
            assert (secret in seen[name]) == (owner == name)
    assert [event.reason for event in events(action="login.refused")] == ["access_token_lifetime"]

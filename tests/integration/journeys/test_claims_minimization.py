"""Claims in the ID Token or at UserInfo: declared claims are stored unchanged, everything else is dropped."""

import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model

from django_phi_oidc.claims import disclosure
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange, sign_bytes
from tests.integration.journeys.test_rule_refusals import assert_refused
from tests.integration.journeys.test_transactions import actor_of
from tests.support.http_browser import Browser
from tests.support.portal_fixtures import EVERYTHING, events

pytestmark = pytest.mark.django_db(**EVERYTHING)

GROUNDS = {"purpose": "TREAT", "basis": "treatment", "retention": "session"}
ADDRESS = {"street_address": "Tulegatan 7B", "postal_code": "113 58", "country": "SE"}
REFERENCES = {
    "_claim_names": {"address": "aggregated", "payment_info": "distributed"},
    "_claim_sources": {
        "aggregated": {"JWT": "eyJhbGciOiJub25lIn0.eyJhZGRyZXNzIjp7fX0."},
        "distributed": {"endpoint": "http://127.0.0.1:9/claims", "access_token": "ksj3n283dke"},
    },
}
Provide = Callable[[Mapping[str, Any]], None]


@pytest.fixture(params=["id_token", "userinfo"])
def provide(request: pytest.FixtureRequest, op: DemoProvider) -> Provide:
    """Return a function that sets the provider's claims, once in the ID Token and once at UserInfo."""

    def set_claims(claims: Mapping[str, Any]) -> None:
        def change(endpoint: str, exchange: MutableExchange) -> None:
            if endpoint == "userinfo":
                exchange.reply.json = {"sub": exchange.reply.json["sub"]}
                exchange.reply.json |= claims if request.param == endpoint else {}
            elif endpoint == request.param:
                exchange.claims |= claims

        op.mutate = change

    return set_claims


def declare(settings: Any, **declared: Mapping[str, Any]) -> None:
    settings.PHI_OIDC = {**settings.PHI_OIDC, "CLAIMS": {name: {**GROUNDS, **raw} for name, raw in declared.items()}}


def reveal_claim(name: str) -> Any:
    session = OIDCSession.objects.get()
    return disclosure.reveal(actor_of(session), session.user, name, purpose="TREAT")


def overfetched_claims() -> list[list[str]]:
    return [json.loads(event.detail)["claims"] for event in events(action="claim.overfetched")]


VALUES: dict[str, Any] = {
    "text": "Ægir 中 \U0001f9ea e\u0301 \"'<&\\",
    "a number": 7,
    "zero": 0,
    "a number larger than 64 bits": 10**40 + 1,
    "a negative number": -(2**63) - 1,
    "a fraction": 0.1,
    "a fraction that is whole": 1.0,
    "a tiny fraction": 5e-324,
    "true": True,
    "false": False,
    "a list": ["a", 1, 1.0, True, None, ["b"], {"c": []}],
    "an object": {**ADDRESS, "geo": {"at": [59.344, 18.058], "floor": 3, "lift": False, "note": None, "": {}}},
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_declared_claim_keeps_its_json_types(
    value: Any, provide: Provide, op: DemoProvider, settings: Any, browser: Browser
) -> None:
    declare(settings, here={}, lasting={"retention": timedelta(days=1)})
    provide({"here": value, "lasting": value, "other": value})
    assert browser.sign_in(op).status == 302
    for name in ("here", "lasting"):
        # Compared as JSON, because 1, 1.0 and True are equal in Python.
        assert json.dumps(reveal_claim(name)) == json.dumps(value)
    assert overfetched_claims() == [["other"]]


def test_undeclared_members_are_dropped_and_logged_by_name(
    provide: Provide, op: DemoProvider, settings: Any, browser: Browser
) -> None:
    settings.AUTHENTICATION_BACKENDS = ["tests.integration.journeys.authentication_backends.Showing"]
    declare(settings, address={"members": ["postal_code", "country", "region"], "essential": True})
    provide({"address": ADDRESS, "nickname": "Ami"})
    assert browser.sign_in(op).status == 302
    assert reveal_claim("address") == {"postal_code": "113 58", "country": "SE"}
    assert overfetched_claims() == [["address.street_address", "nickname"]]
    received = get_user_model().objects.get().last_name  # type: ignore[attr-defined]  # of Django's own user
    assert json.loads(received) == {"address": {"postal_code": "113 58", "country": "SE"}}, (
        "the backend received only these members"
    )


@pytest.mark.parametrize(
    "address", ["SE", ["country"], {"street_address": "Tulegatan 7B"}, {"country": None}, {}, None], ids=repr
)
def test_essential_claim_without_a_declared_member_is_refused(
    address: Any, provide: Provide, op: DemoProvider, settings: Any, browser: Browser
) -> None:
    declare(settings, address={"members": ["country"], "essential": True})
    provide({"address": address})
    assert_refused(browser.sign_in(op), browser, "claim_missing")
    assert op.active_tokens == []
    assert not StoredClaim.objects.exists()


@pytest.mark.parametrize("address", ["SE", ["country"], {"street_address": "Tulegatan 7B"}], ids=repr)
def test_claim_without_a_declared_member_is_not_stored(
    address: Any, provide: Provide, op: DemoProvider, settings: Any, browser: Browser
) -> None:
    declare(settings, address={"members": ["country"]}, birthdate={})
    provide({"address": address, "birthdate": "1990-05-17"})
    assert browser.sign_in(op).status == 302
    assert [claim.name for claim in StoredClaim.objects.all()] == ["birthdate"]
    assert overfetched_claims() == [["address.street_address"] if isinstance(address, dict) else ["address"]]


@pytest.mark.parametrize("essential", [True, False])
def test_aggregated_and_distributed_claims_are_missing_and_not_fetched(
    essential: bool, provide: Provide, op: DemoProvider, settings: Any, browser: Browser
) -> None:
    """A request to the endpoint would raise, because nothing listens there. Spec: OIDC Core 5.6.2."""
    declare(settings, address={"essential": essential}, birthdate={})
    provide({"birthdate": "1990-05-17", **REFERENCES})
    page = browser.sign_in(op)
    if essential:
        assert_refused(page, browser, "claim_missing")
        provide({"birthdate": "1990-05-17", "address": ADDRESS, **REFERENCES})
        page = browser.sign_in(op)
    assert page.status == 302
    assert reveal_claim("birthdate") == "1990-05-17"
    assert reveal_claim("address") == (ADDRESS if essential else None)
    assert overfetched_claims() == [["_claim_names", "_claim_sources"]]
    assert {claim.name for claim in StoredClaim.objects.all()} <= {"birthdate", "address"}


DUPLICATED = {
    "a claim": '"birthdate":"2000-01-01"',
    "a member": '"address":{"country":"SE","country":"NO"}',
    "a member, once escaped": r'"address":{"country":"SE","\u0063ountry":"NO"}',
    "a member of an undeclared claim": '"other":{"a":1,"a":2}',
}
REFUSED_AT = {"id_token": "token_malformed", "userinfo": "userinfo_invalid"}


@pytest.mark.parametrize("member", DUPLICATED)
@pytest.mark.parametrize("where", REFUSED_AT)
@pytest.mark.parametrize("twice", [True, False])
def test_duplicate_member_refuses_the_sign_in(
    twice: bool, where: str, member: str, op: DemoProvider, settings: Any, browser: Browser
) -> None:
    declare(settings, birthdate={}, address={})
    more = DUPLICATED[member] if twice else '"nickname":"Ami"'

    def duplicate(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint != where:
            return
        if where == "id_token":
            payload = json.dumps({**exchange.claims, "birthdate": "1990-05-17"})
            header = json.dumps(exchange.header).encode()
            exchange.token = sign_bytes(header, f"{payload[:-1]},{more}}}".encode(), exchange.key, alg="RS256")
        else:
            body = json.dumps({**exchange.reply.json, "birthdate": "1990-05-17"})
            exchange.reply.json, exchange.reply.body = None, f"{body[:-1]},{more}}}".encode()
            exchange.reply.headers["Content-Type"] = "application/json"

    op.mutate = duplicate
    page = browser.sign_in(op)
    if twice:
        assert_refused(page, browser, REFUSED_AT[where])
    else:
        assert page.status == 302
        assert reveal_claim("birthdate") == "1990-05-17"

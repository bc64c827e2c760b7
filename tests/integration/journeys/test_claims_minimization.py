"""What a provider says of a person, in the ID Token or at UserInfo: the declared comes in whole, and nothing else."""

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

WHY = {"purpose": "TREAT", "basis": "treatment", "retention": "session"}
ADDRESS = {"street_address": "Tulegatan 7B", "postal_code": "113 58", "country": "SE"}
REFERENCES = {
    "_claim_names": {"address": "aggregated", "payment_info": "distributed"},
    "_claim_sources": {
        "aggregated": {"JWT": "eyJhbGciOiJub25lIn0.eyJhZGRyZXNzIjp7fX0."},
        "distributed": {"endpoint": "http://127.0.0.1:9/claims", "access_token": "ksj3n283dke"},
    },
}
Says = Callable[[Mapping[str, Any]], None]


@pytest.fixture(params=["id_token", "userinfo"])
def says(request: pytest.FixtureRequest, op: DemoProvider) -> Says:
    """Return what lets the provider say these claims alone of a person, once in the ID Token and once at UserInfo."""

    def say(told: Mapping[str, Any]) -> None:
        def bend(endpoint: str, exchange: MutableExchange) -> None:
            if endpoint == "userinfo":
                exchange.reply.json = {"sub": exchange.reply.json["sub"]}
                exchange.reply.json |= told if request.param == endpoint else {}
            elif endpoint == request.param:
                exchange.claims |= told

        op.mutate = bend

    return say


def declare(settings: Any, **declared: Mapping[str, Any]) -> None:
    settings.PHI_OIDC = {**settings.PHI_OIDC, "CLAIMS": {name: {**WHY, **raw} for name, raw in declared.items()}}


def held(name: str) -> Any:
    session = OIDCSession.objects.get()
    return disclosure.reveal(actor_of(session), session.user, name, purpose="TREAT")


def overfetched() -> list[list[str]]:
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
def test_declared_claim_is_given_back_with_its_types(
    value: Any, says: Says, op: DemoProvider, settings: Any, browser: Browser
) -> None:
    declare(settings, here={}, lasting={"retention": timedelta(days=1)})
    says({"here": value, "lasting": value, "other": value})
    assert browser.sign_in(op).status == 302
    for name in ("here", "lasting"):
        # As JSON says it: for Python, 1, 1.0 and True are equal.
        assert json.dumps(held(name)) == json.dumps(value)
    assert overfetched() == [["other"]]


def test_members_that_are_not_declared_are_dropped_and_named(
    says: Says, op: DemoProvider, settings: Any, browser: Browser
) -> None:
    settings.AUTHENTICATION_BACKENDS = ["tests.integration.journeys.authentication_backends.Showing"]
    declare(settings, address={"members": ["postal_code", "country", "region"], "essential": True})
    says({"address": ADDRESS, "nickname": "Ami"})
    assert browser.sign_in(op).status == 302
    assert held("address") == {"postal_code": "113 58", "country": "SE"}
    assert overfetched() == [["address.street_address", "nickname"]]
    given = get_user_model().objects.get().last_name  # type: ignore[attr-defined]  # of Django's own user
    assert json.loads(given) == {"address": {"postal_code": "113 58", "country": "SE"}}, "the host's code got no more"


@pytest.mark.parametrize(
    "address", ["SE", ["country"], {"street_address": "Tulegatan 7B"}, {"country": None}, {}, None], ids=repr
)
def test_essential_claim_without_a_declared_member_refuses(
    address: Any, says: Says, op: DemoProvider, settings: Any, browser: Browser
) -> None:
    declare(settings, address={"members": ["country"], "essential": True})
    says({"address": address})
    assert_refused(browser.sign_in(op), browser, "claim_missing")
    assert op.active_tokens == []
    assert not StoredClaim.objects.exists()


@pytest.mark.parametrize("address", ["SE", ["country"], {"street_address": "Tulegatan 7B"}], ids=repr)
def test_claim_without_a_declared_member_is_not_kept(
    address: Any, says: Says, op: DemoProvider, settings: Any, browser: Browser
) -> None:
    declare(settings, address={"members": ["country"]}, birthdate={})
    says({"address": address, "birthdate": "1990-05-17"})
    assert browser.sign_in(op).status == 302
    assert [claim.name for claim in StoredClaim.objects.all()] == ["birthdate"]
    assert overfetched() == [["address.street_address"] if isinstance(address, dict) else ["address"]]


@pytest.mark.parametrize("essential", [True, False])
def test_claim_that_comes_by_reference_is_missing_and_nothing_is_fetched(
    essential: bool, says: Says, op: DemoProvider, settings: Any, browser: Browser
) -> None:
    """OIDC Core 5.6.2. The endpoint would answer nobody: a request to it were an error, not a page."""
    declare(settings, address={"essential": essential}, birthdate={})
    says({"birthdate": "1990-05-17", **REFERENCES})
    page = browser.sign_in(op)
    if essential:
        assert_refused(page, browser, "claim_missing")
        says({"birthdate": "1990-05-17", "address": ADDRESS, **REFERENCES})
        page = browser.sign_in(op)
    assert page.status == 302
    assert held("birthdate") == "1990-05-17"
    assert held("address") == (ADDRESS if essential else None)
    assert overfetched() == [["_claim_names", "_claim_sources"]]
    assert {claim.name for claim in StoredClaim.objects.all()} <= {"birthdate", "address"}


DUPLICATED = {
    "a claim": '"birthdate":"2000-01-01"',
    "a member": '"address":{"country":"SE","country":"NO"}',
    "a member, once escaped": r'"address":{"country":"SE","\u0063ountry":"NO"}',
    "a member of what is not declared": '"other":{"a":1,"a":2}',
}
REFUSED_AT = {"id_token": "token_malformed", "userinfo": "userinfo_invalid"}


@pytest.mark.parametrize("said", DUPLICATED)
@pytest.mark.parametrize("where", REFUSED_AT)
@pytest.mark.parametrize("twice", [True, False])
def test_member_that_stands_twice_refuses_the_sign_in(
    twice: bool, where: str, said: str, op: DemoProvider, settings: Any, browser: Browser
) -> None:
    declare(settings, birthdate={}, address={})
    more = DUPLICATED[said] if twice else '"nickname":"Ami"'

    def bend(endpoint: str, exchange: MutableExchange) -> None:
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

    op.mutate = bend
    page = browser.sign_in(op)
    if twice:
        assert_refused(page, browser, REFUSED_AT[where])
    else:
        assert page.status == 302
        assert held("birthdate") == "1990-05-17"

"""The leak guard reports leaks, withholds the response in block mode, and passes everything else."""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.conf import settings as django_settings
from django.test import AsyncClient, RequestFactory
from django.utils.http import urlencode

from django_phi_oidc._internal import request_secrets
from django_phi_oidc.middleware import LeakageGuardMiddleware
from tests.integration.journeys.test_transactions import audit_database_away
from tests.support.leaking_views import JWE, JWT, respond
from tests.support.session_fixtures import ACCESS_TOKEN, SignedIn, events

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.support.leaking_views"),
    pytest.mark.usefixtures("at_noon"),
]
SignIn = Callable[..., SignedIn]
GUARD = "django_phi_oidc.middleware.LeakageGuardMiddleware"
VALUES = {"claim": "a value", "access_token": ACCESS_TOKEN, "jwt": JWT, "jwe": JWE, "bearer": "0123456789abcdefXYZ"}
NAVIGATION = {"Sec-Fetch-Mode": "navigate"}


@pytest.fixture(autouse=True)
def _guarded(settings: Any) -> None:
    settings.MIDDLEWARE = [GUARD, *settings.MIDDLEWARE]


@pytest.fixture
def blocking(settings: Any) -> None:
    settings.PHI_OIDC = {**settings.PHI_OIDC, "LEAKAGE_GUARD": "block"}


def get(path: str, person: SignedIn, **headers: str) -> Any:
    client = person.client()
    client.raise_request_exception = False
    return client.get(path, headers=headers)


@async_to_sync
async def get_async(path: str, person: SignedIn) -> Any:
    client = AsyncClient()
    client.cookies[django_settings.SESSION_COOKIE_NAME] = person.django_key
    return await client.get(path, secure=True)


def alerts() -> list[str]:
    return sorted(json.loads(event.detail)["rule"] for event in events("alert.raised"))


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "django_phi_oidc.leakage"]


@pytest.mark.parametrize("leak", VALUES)
@pytest.mark.parametrize("at", ["location", "header", "cookie", "body", "json"])
def test_leak_in_a_response_is_reported_without_the_value(
    leak: str, at: str, sign_in: SignIn, caplog: pytest.LogCaptureFixture
) -> None:
    response = get(f"/page/?leak={leak}&at={at}", sign_in())
    assert response.status_code == (302 if at == "location" else 200), "reported and sent"
    if leak == "claim" and at in ("body", "json"):
        assert logged(caplog) == alerts() == [], "a revealed claim belongs there"
        return
    (line,) = logged(caplog)
    place = "body" if at == "json" else at
    kind = leak if leak in ("claim", "access_token") else "token"
    assert line.startswith(f"Leaked: ['{kind}'] in {place}, view=page/ request=")
    assert not any(value in line for value in VALUES.values())
    assert alerts() == [f"leak_{place}"]


@pytest.mark.parametrize("leak", ["jwt", "access_token"])
def test_leaking_response_is_withheld_in_block_mode(leak: str, blocking: None, sign_in: SignIn) -> None:
    person = sign_in()
    page = get(f"/page/?leak={leak}", person, **NAVIGATION)
    assert (page.status_code, page["Cache-Control"]) == (500, "no-store")
    assert "This page was withheld" in page.content.decode()
    assert VALUES[leak] not in page.content.decode()
    script = get(f"/page/?leak={leak}&at=cookie", person)
    assert (script.status_code, script.json()["code"], list(script.cookies)) == (500, "leak_blocked", [])
    assert script["Content-Type"] == "application/problem+json"
    assert "Location" not in get(f"/page/?leak={leak}&at=location", person)
    assert get("/page/?leak=nothing", person).status_code == 200


def test_revealed_claim_passes_in_the_body_only(blocking: None, sign_in: SignIn) -> None:
    person = sign_in()
    page = get("/page/?leak=claim", person)
    assert (page.status_code, page.content.decode()) == (200, "<p>a value</p>")
    assert alerts() == []
    assert get("/page/?leak=claim&at=location", person).status_code == 500
    assert alerts() == ["leak_location"]


def test_secret_is_known_only_in_its_request(sign_in: SignIn, blocking: None) -> None:
    """Another request in the same thread may contain the same text by chance."""
    person = sign_in()
    assert get("/page/?leak=claim", person).status_code == 200
    assert get("/page/?leak=nothing&at=location&of=a+value", person).status_code == 302
    assert list(request_secrets.current_secrets()) == []
    assert alerts() == []


@pytest.mark.parametrize(("page", "at"), [("apage", "location"), ("apage", "cookie"), ("awaited", "location")])
def test_leaking_response_of_a_coroutine_is_withheld(page: str, at: str, blocking: None, sign_in: SignIn) -> None:
    person = sign_in()
    assert get_async(f"/{page}/?leak=claim&at={at}", person).status_code == 500
    assert alerts() == [f"leak_{at}"]
    assert get_async("/apage/?leak=claim", person).status_code == 200
    get_async(f"/apage/?leak=nothing&x={JWT}", person)
    assert alerts() == sorted([f"leak_{at}", "leak_url"])


def test_concurrent_requests_do_not_share_secrets() -> None:
    known_values: dict[str, set[str]] = {}
    barrier = asyncio.Barrier(2)

    async def view(request: Any) -> Any:
        request_secrets.register_secret(request.headers["X-Value"], "claim", location="body")
        await barrier.wait()
        known_values[request.headers["X-Value"]] = {secret.value for secret in request_secrets.current_secrets()}
        return respond(RequestFactory().get("/page/?leak=nothing"))

    async def both() -> None:
        guard: Any = LeakageGuardMiddleware(view)
        await asyncio.gather(
            *(guard(RequestFactory().get("/", headers={"X-Value": value})) for value in ("first", "second"))
        )

    asyncio.run(both())
    assert known_values == {"first": {"first"}, "second": {"second"}}


@pytest.mark.parametrize("at", ["stream", "compressed", "picture"])
def test_unchecked_response_types_pass(at: str, blocking: None, sign_in: SignIn) -> None:
    """As documented: the guard is a safety net."""
    assert get(f"/page/?leak=jwt&at={at}", sign_in()).status_code == 200
    assert alerts() == []


@pytest.mark.parametrize(
    ("query", "headers", "rule"),
    [
        ({"token": JWT}, {}, "leak_url"),
        ({"access_token": "opaque-0123456789"}, {}, "leak_url"),
        ({}, {"Referer": f"https://portal.example/?x={JWT}"}, "leak_referer"),
        ({}, {"Cookie": f"own={JWT}"}, "leak_request_cookie"),
    ],
)
def test_token_in_a_request_is_reported_and_not_blocked(
    query: dict[str, str], headers: dict[str, str], rule: str, blocking: None, sign_in: SignIn
) -> None:
    person = sign_in()
    if "Cookie" in headers:
        headers = {"Cookie": f"{headers['Cookie']}; {django_settings.SESSION_COOKIE_NAME}={person.django_key}"}
    assert get(f"/plain/?{urlencode(query)}", person, **headers).status_code == 200
    assert alerts() == [rule]


def test_revealed_claim_in_the_url_of_its_request_is_reported(sign_in: SignIn) -> None:
    person = sign_in()
    get("/page/?leak=nothing&born=a+value", person)
    assert alerts() == []
    get("/page/?leak=claim&born=a+value", person)
    assert alerts() == ["leak_url"]


def test_guard_blocks_during_an_outage_of_the_audit_database(
    blocking: None, sign_in: SignIn, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    person = sign_in()
    with audit_database_away():
        assert get("/page/?leak=jwt", person).status_code == 500
    assert len(logged(caplog)) == 2
    assert "Could not record the alert for this leak." in logged(caplog)[1]
    assert alerts() == []


def test_leaks_in_one_location_raise_one_alert_an_hour(sign_in: SignIn, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    person = sign_in()
    for _ in range(3):
        get("/page/?leak=jwt", person)
    assert len(logged(caplog)) == 3
    assert alerts() == ["leak_body"]

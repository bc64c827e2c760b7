"""Front-channel logout: ended sessions, permitted frames, and ignored cookies. Spec: FCL 1.0, R9."""

from collections.abc import Callable
from typing import Any, cast
from urllib.parse import urlencode

import pytest
from asgiref.sync import async_to_sync
from django.db import connection
from django.http import HttpResponse
from django.test import AsyncClient, Client

from django_phi_oidc.audit.events import Action
from django_phi_oidc.sessions.models import OIDCSession, PendingRevocation
from django_phi_oidc.testing.mock_provider import Client as Registered
from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange
from tests.support.session_fixtures import SignedIn, events
from tests.unit.sessions.logout_token_provider import (
    FRONTCHANNEL,
    SECRET,
    Answer,
    _signing_provider,
    declaration,
    declare,
    exchange,
    portal,
    provider,
)
from tests.unit.sessions.provider_sessions import is_live, name

__all__ = ["_signing_provider", "portal", "provider"]  # fixtures
pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])

SignIn = Callable[..., SignedIn]
SID = "sid-canary"
FRAMED = "django.middleware.clickjacking.XFrameOptionsMiddleware"


@pytest.fixture
def amina(sign_in: SignIn, provider: DemoProvider) -> SignedIn:
    """Return a person in a session with the provider's SID."""
    return name(sign_in(), sub="amina", sid=SID, issuer=provider.issuer)


def frame(base: str, **parameters: str) -> Answer:
    """Send the request of an iframe in a page of the provider."""
    return exchange(base, "GET", f"{FRONTCHANNEL}?{urlencode(parameters)}")


def ancestors(answer: Answer) -> str:
    return answer.headers["content-security-policy"].removeprefix("frame-ancestors ")


NOTHING: dict[str, Callable[[str], dict[str, str]]] = {
    "an unknown sid": lambda iss: {"iss": iss, "sid": "unknown"},
    "an empty sid": lambda iss: {"iss": iss, "sid": ""},
    "no sid": lambda iss: {"iss": iss},
    "NUL in the sid": lambda iss: {"iss": iss, "sid": "\0"},
    "a huge sid": lambda iss: {"iss": iss, "sid": "x" * 30_000},
    "an unknown iss": lambda iss: {"iss": f"{iss}/", "sid": SID},
    "an empty iss": lambda iss: {"iss": "", "sid": SID},
    "no iss": lambda iss: {"sid": SID},
    "nothing": lambda iss: {},
}


@pytest.mark.parametrize("parameters", NOTHING.values(), ids=NOTHING)
def test_frontchannel_logout_responds_equally_to_unknown_and_known_sids(
    portal: str, provider: DemoProvider, amina: SignedIn, parameters: Callable[[str], dict[str, str]]
) -> None:
    unknown = frame(portal, **parameters(provider.issuer))
    assert is_live(amina)
    known = frame(portal, iss=provider.issuer, sid=SID)
    assert not is_live(amina)
    assert (unknown.status, unknown.body) == (known.status, known.body) == (200, b"")
    for response in (unknown, known):
        assert (response.headers["cache-control"], response.headers["referrer-policy"]) == ("no-store", "no-referrer")
        assert not {"set-cookie", "vary", "x-frame-options"} & set(response.headers)
    assert OIDCSession.objects.get().end_reason == "frontchannel_logout"


def test_frontchannel_logout_ends_only_the_sessions_of_that_sid(
    portal: str, provider: DemoProvider, amina: SignedIn, sign_in: SignIn
) -> None:
    other = name(sign_in(), sub="jonas", sid="another", issuer=provider.issuer)
    elsewhere = name(sign_in(), sub="amina", sid=SID, issuer="https://other.example")
    frame(portal, iss=provider.issuer, sid=SID)
    assert [is_live(item) for item in (amina, other, elsewhere)] == [False, True, True]


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "POST", "PUT", "DELETE"])
def test_frontchannel_logout_by_another_method_ends_nothing(
    portal: str, provider: DemoProvider, amina: SignedIn, method: str
) -> None:
    response = exchange(portal, method, f"{FRONTCHANNEL}?{urlencode({'iss': provider.issuer, 'sid': SID})}")
    if method in ("HEAD", "OPTIONS"):
        assert (response.status, response.headers["allow"], response.headers["cache-control"]) == (
            405,
            "GET",
            "no-store",
        )
    else:
        assert response.status == 403
    assert is_live(amina)


def test_frontchannel_logout_leaves_tokens_to_the_sweep(portal: str, provider: DemoProvider, amina: SignedIn) -> None:
    frame(portal, iss=provider.issuer, sid=SID)
    assert {(row.status, row.attempts) for row in PendingRevocation.objects.all()} == {("pending", 0)}
    assert "/revoke" not in {request.path for request in provider.requests}


def test_frontchannel_logout_during_a_database_outage_is_503(
    portal: str, provider: DemoProvider, amina: SignedIn
) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE django_phi_oidc_pendingrevocation RENAME TO away")
    try:
        failed = frame(portal, iss=provider.issuer, sid=SID)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE away RENAME TO django_phi_oidc_pendingrevocation")
    assert (failed.status, failed.headers["cache-control"]) == (503, "no-store")
    assert is_live(amina)
    assert frame(portal, iss=provider.issuer, sid=SID).status == 200
    assert not is_live(amina)


# Permitted frames


def test_frontchannel_logout_may_be_framed_only_by_its_provider(
    provider: DemoProvider, amina: SignedIn, settings: Any
) -> None:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, FRAMED]
    known = Client().get(FRONTCHANNEL, {"iss": provider.issuer, "sid": "unknown"}, secure=True)
    assert known["Content-Security-Policy"] == f"frame-ancestors {provider.issuer}"
    assert "X-Frame-Options" not in known
    unknown = Client().get(FRONTCHANNEL, {"iss": "https://evil.example", "sid": SID}, secure=True)
    assert (unknown["Content-Security-Policy"], unknown["X-Frame-Options"]) == ("frame-ancestors 'none'", "DENY")
    for path in ("/oidc/logged-out/", "/oidc/authenticate/", "/portal/home/"):
        other = Client().get(path, {"iss": provider.issuer}, secure=True)
        assert other["X-Frame-Options"] == "DENY"


def test_frontchannel_logout_may_be_framed_by_the_endpoints_of_the_metadata(
    portal: str, provider: DemoProvider, settings: Any
) -> None:
    def elsewhere(stage: str, exchange: MutableExchange) -> None:
        if stage == "discovery":
            exchange.reply.json["end_session_endpoint"] = "https://login.example:8443/end?tenant=1"
            exchange.reply.json["authorization_endpoint"] = "https://[2001:db8::1]/authorize"

    provider.mutate = elsewhere
    declare(settings, default=declaration(provider))
    response = frame(portal, iss=provider.issuer, sid=SID)
    assert set(ancestors(response).split()) == {
        provider.issuer,
        "https://login.example:8443",
        "https://[2001:db8::1]",
    }


def test_frontchannel_logout_ignores_origins_that_would_inject_a_directive(
    portal: str, provider: DemoProvider, settings: Any
) -> None:
    def hostile(stage: str, exchange: MutableExchange) -> None:
        if stage == "discovery":
            exchange.reply.json["end_session_endpoint"] = "https://a;frame-ancestors*/end"

    provider.mutate = hostile
    declare(settings, default=declaration(provider))
    assert ancestors(frame(portal, iss=provider.issuer, sid=SID)) == provider.issuer


def test_frontchannel_logout_with_an_unavailable_provider_may_be_framed_by_its_issuer(
    portal: str, settings: Any, sign_in: SignIn
) -> None:
    provider = DemoProvider([Registered("portal", SECRET, [f"{portal}/oidc/callback/"])])
    provider.start()
    provider.stop()
    declare(settings, default=declaration(provider))
    amina = name(sign_in(), sub="amina", sid=SID, issuer=provider.issuer)
    assert ancestors(frame(portal, iss=provider.issuer, sid=SID)) == provider.issuer
    assert not is_live(amina)


# Cookies


@pytest.fixture(params=["wsgi", "asgi"])
def framed_with_cookie(request: pytest.FixtureRequest) -> Callable[..., HttpResponse]:
    """Return a function that requests from an iframe with cookies, as on a page of the same site."""

    def ask(key: str, **parameters: str) -> HttpResponse:
        client = Client() if request.param == "wsgi" else AsyncClient()
        client.cookies["sessionid"] = key
        if isinstance(client, Client):
            return cast(HttpResponse, client.get(FRONTCHANNEL, parameters, secure=True))
        return cast(HttpResponse, async_to_sync(client.get)(FRONTCHANNEL, parameters, secure=True))

    return ask


@pytest.mark.parametrize("every_request", [False, True], ids=["", "SESSION_SAVE_EVERY_REQUEST"])
@pytest.mark.parametrize("known_by_now", [True, False], ids=["looked at", "first request"])
@pytest.mark.parametrize("sid", [SID, "unknown"])
def test_frontchannel_logout_in_a_signed_in_browser_reads_and_sets_no_cookie(
    provider: DemoProvider,
    amina: SignedIn,
    settings: Any,
    framed_with_cookie: Callable[..., HttpResponse],
    sid: str,
    known_by_now: bool,
    every_request: bool,
) -> None:
    settings.SESSION_SAVE_EVERY_REQUEST = every_request
    if known_by_now:
        assert amina.client().get("/portal/home/").status_code == 200
    before = OIDCSession.objects.get().last_seen_at
    response = framed_with_cookie(amina.django_key, iss=provider.issuer, sid=sid)
    assert (response.status_code, response.content, response.cookies) == (200, b"", {})
    assert is_live(amina) is (sid == "unknown")
    assert OIDCSession.objects.get().last_seen_at == before
    assert [(event.reason, event.actor) for event in events(Action.SESSION_ENDED)] == (
        [("frontchannel_logout", "")] if sid == SID else []
    )
    page = amina.client().get("/portal/home/")
    assert page.status_code == (200 if sid == "unknown" else 302)

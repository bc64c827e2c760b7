import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction
from django.conf import settings as django_settings
from django.contrib.sessions.backends.db import SessionStore
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client, RequestFactory
from django.utils.decorators import sync_and_async_middleware

from django_phi_oidc import conf
from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.audit.request_context import find_oidc_session_id
from django_phi_oidc.claims.models import NO_SESSION, StoredClaim
from django_phi_oidc.middleware import RevocationMiddleware
from django_phi_oidc.sessions.activity import TIMES_KEY
from django_phi_oidc.sessions.digests import sha256_hex
from django_phi_oidc.sessions.lifecycle import end_session
from django_phi_oidc.sessions.models import EndReason, OIDCSession, PendingRevocation, RevocationStatus
from tests.support.session_fixtures import ACCESS_TOKEN, REFRESH_TOKEN, ScriptedOP, SignedIn, django_session_exists

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.unit.sessions.urls"),
]
LOST = {
    "flush": "session_lost",
    "forget": "session_lost",
    "replace": "replaced",
    "leave": "django_logout",
    "crash": "session_lost",
}


def get_async(path: str, signed_in: SignedIn | None = None) -> HttpResponse:
    client = AsyncClient()
    if signed_in:
        client.cookies[django_settings.SESSION_COOKIE_NAME] = signed_in.django_key
    response: HttpResponse = async_to_sync(client.get)(path, secure=True)
    return response


@pytest.mark.parametrize(("page", "reason"), LOST.items(), ids=LOST)
def test_middleware_ends_and_revokes_a_session_that_a_request_loses(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], page: str, reason: str
) -> None:
    signed_in = sign_in()
    client = signed_in.client()
    client.raise_request_exception = False
    client.get(f"/{page}/")
    assert OIDCSession.objects.get().end_reason == reason
    assert [asked["token"] for asked in op.asked] == [REFRESH_TOKEN, ACCESS_TOKEN]
    assert set(PendingRevocation.objects.values_list("status", flat=True)) == {RevocationStatus.DONE}


@pytest.mark.parametrize("first", ["Session", "Authentication"])
def test_misplaced_middleware_names_its_place(settings: Any, first: str) -> None:
    assert Client().get("/public/", secure=True).status_code == 200
    own = "django_phi_oidc.middleware.RevocationMiddleware"
    order = [name for name in settings.MIDDLEWARE if name != own]
    (at,) = [n for n, name in enumerate(order) if name.endswith(f"{first}Middleware")]
    settings.MIDDLEWARE = [*order[:at], own, *order[at:]]
    with pytest.raises(ImproperlyConfigured, match=r"must come after SessionMiddleware and AuthenticationMiddleware"):
        Client().get("/public/", secure=True)
    with pytest.raises(ImproperlyConfigured, match=r"must come after SessionMiddleware and AuthenticationMiddleware"):
        get_async("/public/")


@pytest.mark.parametrize("page", ["public", "cycle"])
def test_middleware_ends_no_session_that_a_request_keeps(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], page: str
) -> None:
    signed_in = sign_in()
    assert signed_in.client().get(f"/{page}/").status_code == 200
    assert OIDCSession.objects.get().ended_at is None
    assert op.asked == []


@pytest.mark.parametrize(
    ("page", "reason", "status"),
    [("aflush", "session_lost", 200), ("areplace", "replaced", 400), ("aleave", "django_logout", 200)],
)
def test_middleware_under_asgi_ends_and_revokes_a_session_that_a_request_loses(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], page: str, reason: str, status: int
) -> None:
    signed_in = sign_in()
    assert get_async(f"/{page}/", signed_in).status_code == status
    assert OIDCSession.objects.get().end_reason == reason
    assert [asked["token"] for asked in op.asked] == [REFRESH_TOKEN, ACCESS_TOKEN]


def test_middleware_under_asgi_ends_no_session_that_a_request_keeps(
    op: ScriptedOP, sign_in: Callable[..., SignedIn]
) -> None:
    signed_in = sign_in()
    assert get_async("/apublic/", signed_in).status_code == 200
    assert OIDCSession.objects.get().ended_at is None
    assert op.asked == []


def test_middleware_without_a_session_cookie_leaves_a_public_page_cacheable(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        assert "Vary" not in Client().get("/public/", secure=True)
        assert "Vary" not in get_async("/apublic/")


def test_middleware_with_a_session_cookie_varies_by_it(sign_in: Callable[..., SignedIn]) -> None:
    assert sign_in().client().get("/public/")["Vary"] == "Cookie"


def test_middleware_with_an_unknown_session_cookie_ends_nothing(sign_in: Callable[..., SignedIn]) -> None:
    signed_in = sign_in()
    client = Client()
    client.cookies[django_settings.SESSION_COOKIE_NAME] = "0" * 32
    assert client.get("/flush/", secure=True).status_code == 200
    assert OIDCSession.objects.get(pk=signed_in.session.pk).ended_at is None


def test_middleware_is_async_if_the_wrapped_one_is() -> None:
    async def respond(request: HttpRequest) -> HttpResponse:
        return HttpResponse()

    assert iscoroutinefunction(RevocationMiddleware(respond))
    assert not iscoroutinefunction(RevocationMiddleware(lambda request: HttpResponse()))


@pytest.mark.parametrize(("is_async", "age", "is_warned"), [(True, 60, True), (True, 0, False), (False, 60, False)])
def test_persistent_connections_under_asgi_are_logged_at_the_start(
    is_async: bool, age: int, is_warned: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def respond_async(request: HttpRequest) -> HttpResponse:
        return HttpResponse()

    database = {**django_settings.DATABASES["default"], "ENGINE": "django.db.backends.postgresql"}
    monkeypatch.setitem(django_settings.DATABASES, "default", {**database, "CONN_MAX_AGE": age})
    RevocationMiddleware(respond_async if is_async else lambda request: HttpResponse())
    assert ("'default' has CONN_MAX_AGE under ASGI" in caplog.text) is is_warned


@pytest.mark.parametrize(("looked_ago", "hops"), [(29, 0), (30, 1)], ids=["nothing due", "the row due"])
def test_middleware_under_asgi_uses_a_thread_only_for_database_access(
    sign_in: Callable[..., SignedIn], monkeypatch: pytest.MonkeyPatch, looked_ago: int, hops: int
) -> None:
    signed_in = sign_in()
    now = clock.now()
    request = RequestFactory().get("/")
    request.COOKIES[django_settings.SESSION_COOKIE_NAME] = signed_in.django_key
    request.session, request.user = SessionStore(signed_in.django_key), signed_in.user
    # In memory from here on: threads of Django's own session engine are not counted.
    request.session[TIMES_KEY] = [now.timestamp(), now.timestamp(), now.timestamp() - looked_ago]
    hopped: list[Any] = []

    async def respond(request: HttpRequest) -> HttpResponse:
        return HttpResponse(str(find_oidc_session_id(request.session)))

    async def serve() -> HttpResponse:
        loop = asyncio.get_running_loop()
        run_in_executor = loop.run_in_executor
        monkeypatch.setattr(loop, "run_in_executor", lambda *call: hopped.append(call) or run_in_executor(*call))
        served: HttpResponse = await RevocationMiddleware(respond)(request)  # type: ignore[misc]  # a coroutine here
        return served

    with clock.override_clock(lambda: now):
        response = async_to_sync(serve)()
    visit = request.phi_oidc_timing  # type: ignore[attr-defined]
    assert (visit.session_id, visit.timeout_reason) == (signed_in.session.pk, "")
    assert response.content.decode() == str(signed_in.session.pk)
    assert response["Refresh"] == "900; url=/oidc/logged-out/?expired=1"
    assert len(hopped) == hops


@sync_and_async_middleware
def read_user_early(get_response: Any) -> Any:
    """A middleware of a host project that reads the user before RevocationMiddleware runs."""
    if iscoroutinefunction(get_response):

        async def respond_async(request: Any) -> Any:
            await request.auser()
            return await get_response(request)

        return respond_async

    def respond(request: Any) -> Any:
        assert request.user.is_authenticated
        return get_response(request)

    return respond


@pytest.mark.parametrize("position", ["before", "after"])
@pytest.mark.parametrize("is_async", [False, True], ids=["WSGI", "ASGI"])
def test_b9_session_key_cycled_by_a_rotated_secret_key_is_stored_at_once(
    sign_in: Callable[..., SignedIn], settings: Any, position: str, is_async: bool
) -> None:
    signed_in = sign_in()
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = (
        "a new key of fifty characters or more ......",
        [settings.SECRET_KEY],
    )
    middleware = list(settings.MIDDLEWARE)
    index = middleware.index("django_phi_oidc.middleware.RevocationMiddleware") + (position == "after")
    middleware.insert(index, f"{__name__}.read_user_early")
    settings.MIDDLEWARE = middleware
    page = "/apublic/" if is_async else "/public/"
    response = get_async(page, signed_in) if is_async else signed_in.client().get(page)
    assert response.status_code == 200
    key = response.cookies[django_settings.SESSION_COOKIE_NAME].value
    assert key != signed_in.django_key
    assert OIDCSession.objects.get().session_key_digest == sha256_hex(key)
    assert end_session(signed_in.session.pk, EndReason.ADMINISTRATOR, origin=Origin(), now=clock.now())
    assert not django_session_exists(key)


@pytest.mark.parametrize("is_active", [True, False])
def test_account_found_inactive_by_a_request_loses_all_claims(
    sign_in: Callable[..., SignedIn], is_active: bool
) -> None:
    signed_in = sign_in()
    assert StoredClaim.objects.filter(session=NO_SESSION).exists()
    # Without a signal, and after the last check of the row.
    type(signed_in.user)._default_manager.filter(pk=signed_in.user.pk).update(is_active=is_active)
    later = clock.now() + conf.session_recheck()
    with clock.override_clock(lambda: later):
        signed_in.client().get("/public/")
    assert StoredClaim.objects.exists() is is_active
    assert OIDCSession.objects.get().end_reason == ("" if is_active else "user_inactive")

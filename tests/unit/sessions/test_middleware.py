import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction
from django.conf import settings as django_settings
from django.contrib.sessions.backends.db import SessionStore
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client, RequestFactory

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.request_context import find_oidc_session_id
from django_phi_oidc.middleware import RevocationMiddleware
from django_phi_oidc.sessions.activity import TIMES_KEY
from django_phi_oidc.sessions.models import OIDCSession, PendingRevocation, RevocationStatus
from tests.support.session_fixtures import ACCESS_TOKEN, REFRESH_TOKEN, ScriptedOP, SignedIn

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


@pytest.mark.parametrize(("looked_ago", "hops"), [(29, 0), (30, 2)], ids=["nothing due", "the row due"])
def test_middleware_under_asgi_uses_a_thread_only_for_database_access(
    sign_in: Callable[..., SignedIn], monkeypatch: pytest.MonkeyPatch, looked_ago: int, hops: int
) -> None:
    signed_in = sign_in()
    now = clock.now()
    request = RequestFactory().get("/")
    request.COOKIES[django_settings.SESSION_COOKIE_NAME] = signed_in.django_key
    request.session = SessionStore(signed_in.django_key)
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

"""Responses with revealed claims are not stored, and error reports contain no values."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import django
import pytest
from asgiref.sync import async_to_sync
from django.conf import settings as django_settings
from django.core import mail
from django.core.cache import cache
from django.test import AsyncClient, Client
from django.utils.log import AdminEmailHandler
from django.views.debug import SafeExceptionReporterFilter, get_default_exception_reporter_filter

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.models import AuditEvent
from tests.support.claims_fixtures import NOW
from tests.support.session_fixtures import SignedIn, sign_in  # noqa: F401 -- a fixture
from tests.unit.claims.urls import SERVED

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.unit.claims.urls"),
]
SignIn = Callable[[], SignedIn]
VALUE = "a value"


@pytest.fixture(autouse=True)
def _at_noon() -> Iterator[None]:
    cache.clear()
    SERVED.clear()
    with clock.override_clock(lambda: NOW):
        yield


def count_reveals() -> int:
    return AuditEvent.objects.filter(action="claim.revealed").count()


@async_to_sync
async def get_async(path: str, person: SignedIn) -> tuple[Any, str]:
    client = AsyncClient()
    client.cookies[django_settings.SESSION_COOKIE_NAME] = person.django_key
    response: Any = await client.get(path, secure=True)
    parts = [part async for part in response] if response.streaming else [response.content]
    return response, b"".join(parts).decode()


def get(path: str, person: SignedIn) -> tuple[Any, str]:
    response: Any = person.client().get(path)
    return response, b"".join(response).decode()


@pytest.mark.parametrize(
    ("page", "served"),
    [
        *((page, served) for page in ("plain", "aplain", "template") for served in ("sync", "async")),
        ("stream", "sync"),
        ("astream", "async"),
    ],
)
def test_response_with_a_revealed_claim_is_not_stored(
    page: str,
    served: str,
    sign_in: SignIn,
) -> None:
    response, body = (get_async if served == "async" else get)(f"/{page}/", sign_in())
    assert VALUE in body
    assert count_reveals() == 1
    assert response["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("page", "served"),
    [("masked", "sync"), ("masked", "async"), ("refused", "sync"), ("refused", "async"), ("file", "sync")],
)
def test_response_without_a_revealed_claim_keeps_its_cache_control(
    page: str,
    served: str,
    sign_in: SignIn,
) -> None:
    response, body = (get_async if served == "async" else get)(f"/{page}/", sign_in())
    assert response.status_code == 200
    assert VALUE not in body
    assert count_reveals() == 0
    assert response["Cache-Control"] == "public, max-age=600"


def test_stream_in_a_session_is_never_stored(sign_in: SignIn) -> None:
    """Its headers are sent before its code runs."""
    assert get("/public_stream/", sign_in())[0]["Cache-Control"] == "no-store"
    anonymous = Client().get("/public_stream/", secure=True)
    assert anonymous["Cache-Control"] == "public, max-age=600"
    assert "Vary" not in anonymous


@pytest.mark.parametrize("page", ["cached", "cached_template"])
def test_page_with_a_revealed_claim_is_not_cached_by_django(page: str, sign_in: SignIn) -> None:
    for _ in range(2):
        assert VALUE in get(f"/{page}/", sign_in())[1]
    assert [page, page] == SERVED
    assert count_reveals() == 2
    for _ in range(2):
        get("/cached_public/", sign_in())
    assert SERVED.count("cached_public") == 1, "a page without claims is cached"


@pytest.mark.parametrize("debug", [True, False])
@pytest.mark.parametrize("path", ["/fail/?reveal=1", "/fail_in_template/"])
def test_error_page_after_a_reveal_shows_only_variable_names(
    path: str,
    debug: bool,
    settings: Any,
    sign_in: SignIn,
) -> None:
    settings.DEBUG = debug
    client = sign_in().client()
    client.raise_request_exception = False
    page = client.get(path)
    assert (page.status_code, count_reveals()) == (500, 1)
    assert page["Cache-Control"] == "no-store"
    assert VALUE not in page.content.decode()
    assert ("<td>request</td>" in page.content.decode()) is debug
    control = client.get("/fail/").content.decode()
    assert ("only-a-control" in control) is debug, "without a reveal, Django's error page is unchanged"


@contextmanager
def mail_to_admins(settings: Any) -> Iterator[None]:
    settings.ADMINS = ["admin@clinic.example"] if django.VERSION >= (6, 0) else [("Admin", "admin@clinic.example")]
    # Required since Django 6.1.
    settings.MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}
    handler, log = AdminEmailHandler(include_html=True), logging.getLogger("django.request")
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


def test_mailed_error_report_after_a_reveal_contains_no_value(settings: Any, sign_in: SignIn) -> None:
    client = sign_in().client()
    client.raise_request_exception = False
    with mail_to_admins(settings):
        client.get("/fail/?reveal=1")
        client.get("/fail/")
    reports = [f"{message.body}{message.alternatives}" for message in mail.outbox]
    assert any("only-a-control" in report for report in reports)
    assert sum("with 7 characters" in report for report in reports) == 2, "in text and in HTML"
    assert not any(VALUE in report for report in reports)


class HostFilter(SafeExceptionReporterFilter):
    """A host project's filter."""

    cleansed_substitute = "removed"

    def get_safe_settings(self) -> dict[str, Any]:
        return {"ALL": "hidden-by-the-host"}


def test_error_report_after_a_reveal_also_uses_the_hosts_filter(
    settings: Any,
    sign_in: SignIn,
) -> None:
    settings.DEBUG = True
    settings.DEFAULT_EXCEPTION_REPORTER_FILTER = f"{__name__}.HostFilter"
    get_default_exception_reporter_filter.cache_clear()
    client = sign_in().client()
    client.raise_request_exception = False
    try:
        page = client.get("/fail/?reveal=1").content.decode()
    finally:
        get_default_exception_reporter_filter.cache_clear()
    assert "hidden-by-the-host" in page
    assert "removed" in page
    assert VALUE not in page

"""Nobody keeps a response in which something was revealed, and no error report tells of it."""

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


def looks() -> int:
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
def test_response_in_which_something_was_revealed_is_kept_by_nobody(
    page: str,
    served: str,
    sign_in: SignIn,  # noqa: F811 -- the fixture
) -> None:
    response, body = (get_async if served == "async" else get)(f"/{page}/", sign_in())
    assert VALUE in body
    assert looks() == 1
    assert response["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("page", "served"),
    [("masked", "sync"), ("masked", "async"), ("refused", "sync"), ("refused", "async"), ("file", "sync")],
)
def test_response_in_which_nothing_was_revealed_is_kept_as_its_view_says(
    page: str,
    served: str,
    sign_in: SignIn,  # noqa: F811
) -> None:
    response, body = (get_async if served == "async" else get)(f"/{page}/", sign_in())
    assert response.status_code == 200
    assert VALUE not in body
    assert looks() == 0
    assert response["Cache-Control"] == "public, max-age=600"


def test_stream_to_somebody_signed_in_is_marked_whatever_it_sends(sign_in: SignIn) -> None:  # noqa: F811
    """Its headers are gone when its code runs."""
    assert get("/public_stream/", sign_in())[0]["Cache-Control"] == "no-store"
    to_anybody = Client().get("/public_stream/", secure=True)
    assert to_anybody["Cache-Control"] == "public, max-age=600"
    assert "Vary" not in to_anybody


@pytest.mark.parametrize("page", ["cached", "cached_template"])
def test_page_that_django_would_cache_is_not_cached_after_a_look(page: str, sign_in: SignIn) -> None:  # noqa: F811
    for _ in range(2):
        assert VALUE in get(f"/{page}/", sign_in())[1]
    assert [page, page] == SERVED
    assert looks() == 2
    for _ in range(2):
        get("/cached_public/", sign_in())
    assert SERVED.count("cached_public") == 1, "what tells nothing is cached"


@pytest.mark.parametrize("debug", [True, False])
@pytest.mark.parametrize("path", ["/fail/?reveal=1", "/fail_in_template/"])
def test_error_page_after_a_look_tells_the_names_of_variables_alone(
    path: str,
    debug: bool,
    settings: Any,
    sign_in: SignIn,  # noqa: F811
) -> None:
    settings.DEBUG = debug
    client = sign_in().client()
    client.raise_request_exception = False
    page = client.get(path)
    assert (page.status_code, looks()) == (500, 1)
    assert page["Cache-Control"] == "no-store"
    assert VALUE not in page.content.decode()
    assert ("<td>request</td>" in page.content.decode()) is debug
    control = client.get("/fail/").content.decode()
    assert ("only-a-control" in control) is debug, "without a look, an error page is Django's"


@contextmanager
def mailed_to_admins(settings: Any) -> Iterator[None]:
    settings.ADMINS = ["admin@clinic.example"] if django.VERSION >= (6, 0) else [("Admin", "admin@clinic.example")]
    # Django 6.1 asks for it.
    settings.MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}
    handler, log = AdminEmailHandler(include_html=True), logging.getLogger("django.request")
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


def test_error_report_by_mail_after_a_look_tells_no_value(settings: Any, sign_in: SignIn) -> None:  # noqa: F811
    client = sign_in().client()
    client.raise_request_exception = False
    with mailed_to_admins(settings):
        client.get("/fail/?reveal=1")
        client.get("/fail/")
    reports = [f"{message.body}{message.alternatives}" for message in mail.outbox]
    assert any("only-a-control" in report for report in reports)
    assert sum("with 7 characters" in report for report in reports) == 2, "Django's own, and the one in HTML"
    assert not any(VALUE in report for report in reports)


class Stricter(SafeExceptionReporterFilter):
    """A host project's own filter."""

    cleansed_substitute = "gone"

    def get_safe_settings(self) -> dict[str, Any]:
        return {"ALL": "hidden-by-the-host"}


def test_error_report_after_a_look_is_filtered_as_the_host_filters_it_too(
    settings: Any,
    sign_in: SignIn,  # noqa: F811
) -> None:
    settings.DEBUG = True
    settings.DEFAULT_EXCEPTION_REPORTER_FILTER = f"{__name__}.Stricter"
    get_default_exception_reporter_filter.cache_clear()
    client = sign_in().client()
    client.raise_request_exception = False
    try:
        page = client.get("/fail/?reveal=1").content.decode()
    finally:
        get_default_exception_reporter_filter.cache_clear()
    assert "hidden-by-the-host" in page
    assert "gone" in page
    assert VALUE not in page

"""A blocking leak guard passes everything that the protocol itself sends through a browser."""

from typing import Any

import pytest

from django_phi_oidc._internal import request_secrets
from django_phi_oidc.leak_guard.detector import MASK
from django_phi_oidc.testing.mock_provider import DemoProvider
from tests.support.http_browser import Browser, InProcessBrowser
from tests.support.log_capture import leaks
from tests.support.portal_fixtures import EVERYTHING, declaration, events

pytestmark = pytest.mark.django_db(**EVERYTHING)
GUARD = "django_phi_oidc.middleware.LeakageGuardMiddleware"


@pytest.fixture
def guarded(op: DemoProvider, portal: str, settings: Any) -> Browser:
    """A browser for a portal whose leak guard blocks."""
    settings.MIDDLEWARE = [GUARD, *settings.MIDDLEWARE]
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = False
    settings.PHI_OIDC = {**settings.PHI_OIDC, "LEAKAGE_GUARD": "block"}
    return InProcessBrowser(portal)


def alerts() -> list[str]:
    return [event.detail for event in events(action="alert.raised") if "leak_" in event.detail]


@pytest.mark.parametrize(
    ("method", "par", "hint"),
    [("get", "off", "id_token_hint=eyJ"), ("post", "off", 'name="id_token_hint"'), ("get", "on", "id_token_hint=eyJ")],
)
def test_sign_in_reveal_and_logout_pass(
    method: str, par: str, hint: str, op: DemoProvider, guarded: Browser, settings: Any
) -> None:
    op.par = "required" if par == "on" else "off"
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": declaration(op, end_session_method=method)}}
    callback = guarded.get_callback_url(op)
    assert guarded.get(callback).status == 302
    assert guarded.get(callback).status == 403, "the replay is refused by the callback, not blocked by the guard"
    assert guarded.get("/birthdate/").body == "1984-03-09"
    logout = guarded.post("/oidc/logout/")
    assert logout.status == (302 if method == "get" else 200)
    assert hint in logout.location + logout.body, "the token is sent to its provider"
    assert alerts() == []
    assert list(request_secrets.current_secrets()) == []


def test_logout_response_with_the_hint_in_another_header_is_blocked(
    op: DemoProvider, guarded: Browser, settings: Any
) -> None:
    """The counterpart: the same token in another header."""
    guarded.sign_in(op)
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.copy_location"]
    assert guarded.post("/oidc/logout/").status == 500
    assert alerts() == ['{"rule":"leak_header"}']


def test_error_page_of_a_callback_is_blocked_and_the_masking_reporter_hides_code_and_state(
    op: DemoProvider, guarded: Browser, settings: Any
) -> None:
    """Both are in the URL, which Django's filters do not cover. The guard blocks the first page."""
    settings.DEBUG = True
    settings.AUTHENTICATION_BACKENDS = ["tests.integration.journeys.authentication_backends.Raising"]
    callback = guarded.get_callback_url(op)
    assert guarded.get(callback).body.startswith('{"title": "The response was withheld"')
    assert alerts() == ['{"rule":"leak_body"}']
    settings.DEFAULT_EXCEPTION_REPORTER = "django_phi_oidc.leak_guard.error_reporter.MaskingReporter"
    callback = guarded.get_callback_url(op)
    page = guarded.get(callback)
    assert page.status == 500
    assert "error of the host project" in page.body, "the report is about this exception"
    assert f"code={MASK}" in page.body
    assert f"state={MASK}" in page.body
    assert leaks(page.body, [op]) == []


def copy_location(get_response: Any) -> Any:
    """A middleware of the host project that copies the target of each redirect into another header."""

    def respond(request: Any) -> Any:
        response = get_response(request)
        response["X-Redirect-Target"] = response.get("Location", "")
        return response

    return respond

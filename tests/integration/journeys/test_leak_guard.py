"""With the leak guard blocking, everything that the protocol itself sends through a browser passes."""

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
    """A browser at the portal whose guard blocks."""
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
def test_sign_in_look_and_logout_pass(
    method: str, par: str, hint: str, op: DemoProvider, guarded: Browser, settings: Any
) -> None:
    op.par = "required" if par == "on" else "off"
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": declaration(op, end_session_method=method)}}
    callback = guarded.get_callback_url(op)
    assert guarded.get(callback).status == 302
    assert guarded.get(callback).status == 403, "a replay is refused, and not withheld"
    assert guarded.get("/birthdate/").body == "1984-03-09"
    parting = guarded.post("/oidc/logout/")
    assert parting.status == (302 if method == "get" else 200)
    assert hint in parting.location + parting.body, "the token leaves for its provider"
    assert alerts() == []
    assert list(request_secrets.current_secrets()) == []


def test_page_that_says_what_its_own_logout_sends_does_not_pass(
    op: DemoProvider, guarded: Browser, settings: Any
) -> None:
    """The twin: the same token, one place further."""
    guarded.sign_in(op)
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.telling"]
    assert guarded.post("/oidc/logout/").status == 500
    assert alerts() == ['{"rule":"leak_header"}']


def test_error_page_of_a_callback_shows_code_and_state_and_with_the_masking_reporter_nothing(
    op: DemoProvider, guarded: Browser, settings: Any
) -> None:
    """Both stand in its URL, which no filter of Django's sees. The guard keeps the first page in."""
    settings.DEBUG = True
    settings.AUTHENTICATION_BACKENDS = ["tests.integration.journeys.authentication_backends.Raising"]
    callback = guarded.get_callback_url(op)
    assert guarded.get(callback).body.startswith('{"title": "The response was withheld"')
    assert alerts() == ['{"rule":"leak_body"}']
    settings.DEFAULT_EXCEPTION_REPORTER = "django_phi_oidc.leak_guard.error_reporter.MaskingReporter"
    callback = guarded.get_callback_url(op)
    page = guarded.get(callback)
    assert page.status == 500
    assert "the host&#x27;s own fault" in page.body, "the report is about this fault"
    assert f"code={MASK}" in page.body
    assert f"state={MASK}" in page.body
    assert leaks(page.body, [op]) == []


def telling(get_response: Any) -> Any:
    """A middleware of the host's that copies the address of each redirect into a header."""

    def respond(request: Any) -> Any:
        response = get_response(request)
        response["X-Was-Sent-To"] = response.get("Location", "")
        return response

    return respond

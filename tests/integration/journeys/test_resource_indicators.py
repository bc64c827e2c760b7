"""The declared API: access tokens are for it, at the sign-in and after a refresh. Spec: RFC 8707."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from django_phi_oidc._internal import clock
from django_phi_oidc.sessions.access_tokens import get_access_token
from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.testing.mock_provider import DemoProvider, Resource
from tests.integration.journeys.test_step_up import query_of
from tests.support.http_browser import Browser
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.portal_fixtures import EVERYTHING, events

pytestmark = [pytest.mark.sqlite, pytest.mark.django_db(**EVERYTHING)]
API = "https://api.example/fhir"


@pytest.fixture(autouse=True)
def _api(op: DemoProvider) -> Iterator[None]:
    op.state.resources = {API: Resource(API, ["openid"])}
    # The mock provider accepts tokens for an API at this API only.
    op.state.scope_claims_in_id_token = True
    yield
    op.state.resources = {}


def declare(settings: Any, resource: str) -> None:
    provider = {**settings.PHI_OIDC["PROVIDERS"]["default"], "resource": resource}
    claims = {name: claim for name, claim in settings.PHI_OIDC["CLAIMS"].items() if name == "birthdate"}
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, PROVIDERS={"default": provider}, CLAIMS=claims)


@pytest.mark.parametrize("par", ["off", "offered"])
def test_access_tokens_are_for_the_declared_api(op: DemoProvider, browser: Browser, settings: Any, par: Any) -> None:
    declare(settings, API)
    op.par = par
    leaving = browser.start_sign_in()
    assert query_of(leaving).get("resource") == (API if par == "off" else None)
    assert browser.get(op.authorize(leaving.location, "amina")).status == 302, events(action="login.refused")
    assert op.last_grant.resource == API
    later = clock.now() + timedelta(hours=1)
    with clock.override_clock(lambda: later):
        get_access_token(OIDCSession.objects.get())
    assert [token.resource for token in op.tokens if token.kind == "access_token"] == [API, API]
    sent = [request.parameters for request in op.requests if request.path == "/token"]
    assert [(parameters["grant_type"], parameters.get("resource")) for parameters in sent] == [
        ("authorization_code", API),
        ("refresh_token", API),
    ]


def test_api_that_the_provider_does_not_know_is_refused_with_its_error(
    op: DemoProvider, browser: Browser, settings: Any
) -> None:
    declare(settings, f"{API}/other")
    leaving = browser.start_sign_in()
    page = browser.get(op.authorize(leaving.location, "amina"))
    (event,) = events(action="login.refused")
    assert (page.status, event.reason) == (403, "provider_error")
    assert '"provider_error":"invalid_target"' in event.detail

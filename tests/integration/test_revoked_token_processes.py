"""A token that one portal process has revoked is refused by another one, over sockets."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.conf import settings as django_settings

from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.sessions.digests import compute_token_digest
from django_phi_oidc.sessions.models import OIDCSession, PendingRevocation
from django_phi_oidc.testing.mock_provider import DemoProvider
from tests.support.api_fixtures import (  # noqa: F401 -- fixtures
    App,
    Declare,
    _hospital,
    _logs_hold_no_secret,
    app,
    declare,
    op,
    op_keys,
    refusals,
)
from tests.support.http_browser import Browser
from tests.support.portal_process import portal_process
from tests.support.session_fixtures import BACKEND, SignedIn, sign_in  # noqa: F401 -- a fixture

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])


@pytest.fixture
def portals(declare: Declare, settings: Any) -> Iterator[list[str]]:
    """Yield two portals that verify tokens by their signature, and so without a request to the provider."""
    options = {name: settings.PHI_OIDC[name] for name in ("PROVIDERS", "API")}
    with ExitStack() as stack:
        environment = {"TEST_URLCONF": "tests.support.api_views", "TEST_BACKEND": BACKEND}
        yield [stack.enter_context(portal_process(options, **environment)) for _ in range(2)]


def get_status(portal: str, token: str) -> int:
    connection = HTTPConnection(urlsplit(portal).netloc, timeout=60)
    try:
        connection.request("GET", "/whoami/", headers={"Authorization": f"Bearer {token}"})
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize("is_provider_up", [True, False], ids=["provider up", "provider down"])
def test_g11_token_revoked_in_one_process_is_refused_in_the_other(
    is_provider_up: bool, op: DemoProvider, portals: list[str], app: App, sign_in: Callable[[], SignedIn]
) -> None:
    token, other = app.token(), app.token()
    person = sign_in()
    columns = {"access_token": token, "access_token_digest": compute_token_digest(token)}
    OIDCSession(pk=person.session.pk, **columns).save(update_fields=columns)
    assert [get_status(portal, each) for portal in portals for each in (token, other)] == [200] * 4
    if not is_provider_up:
        op.stop()
    cookies = {django_settings.SESSION_COOKIE_NAME: person.django_key, "csrftoken": "c" * 32}
    assert Browser(portals[0], cookies=cookies).post("/oidc/logout/").status in (302, 200)
    assert OIDCSession.objects.get(pk=person.session.pk).ended_at is not None
    states = dict(PendingRevocation.objects.values_list("token_type_hint", "status"))
    assert (states["access_token"] != "pending") == is_provider_up
    assert [get_status(portal, token) for portal in portals] == [401, 401]
    assert refusals() == [("token_revoked", "default", "failure")] * 2
    assert [get_status(portal, other) for portal in portals] == [200, 200]
    assert not AuditEvent.objects.filter(action="access.granted").exists(), "the page has no guard"

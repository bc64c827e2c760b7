"""Sign-in, revocation and logout at Glewlwyd 2.7, in a browser."""

import json
import time
from urllib.parse import urlencode

import pytest

from django_phi_oidc._internal import clock
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.contrib.doctor.probe import ProbeContext, probe_provider
from django_phi_oidc.provider.registry import get_provider
from django_phi_oidc.sessions.models import OIDCSession, PendingRevocation, RevocationStatus
from django_phi_oidc.subjects.models import PairwiseSubject
from tests.integration.interop.conftest import build_glewlwyd_client
from tests.integration.interop.debian.conftest import Declare
from tests.integration.interop.debian.pages import Visitor
from tests.support.glewlwyd import Glewlwyd
from tests.support.portal_fixtures import EVERYTHING, events

pytestmark = [pytest.mark.glewlwyd, pytest.mark.browser, pytest.mark.django_db(**EVERYTHING)]
BACKCHANNEL_SECONDS = 20.0
"""Glewlwyd sends logout tokens from a thread, after its response to the browser."""


@pytest.fixture(autouse=True)
def client(glewlwyd_server: Glewlwyd, portal: str) -> dict[str, object]:
    """Register the portal, and return its client."""
    client = build_glewlwyd_client(portal)
    glewlwyd_server.register(client)
    return client


def sign_in(visitor: Visitor, server: Glewlwyd, username: str = "amina") -> OIDCSession:
    visitor.begin()
    visitor.sign_in_at_glewlwyd(username, server.password_of(username))
    assert visitor.is_signed_in()
    return OIDCSession.objects.get(ended_at=None)


def test_logout_with_the_hint_ends_the_session_at_glewlwyd(
    glewlwyd_server: Glewlwyd, client: dict[str, object], visitor: Visitor, declare: Declare
) -> None:
    declare(glewlwyd_server, id_token_hint="always")
    session = sign_in(visitor, glewlwyd_server)
    assert {claim.name for claim in StoredClaim.objects.all()} == {"birthdate"}
    (dropped,) = events(action="claim.overfetched")
    assert json.loads(dropped.detail) == {"claims": ["name"]}
    tokens = [str(session.decrypt(kind)) for kind in ("access_token", "refresh_token")]
    assert [glewlwyd_server.introspect(token, client=client)["active"] for token in tokens] == [True, True]
    visitor.sign_out()
    visitor.page.get_by_text("End session").wait_for()
    assert [glewlwyd_server.introspect(token, client=client)["active"] for token in tokens] == [False, False]
    assert set(PendingRevocation.objects.values_list("status", flat=True)) == {RevocationStatus.DONE}
    visitor.click("Logout")
    assert visitor.is_informed()
    visitor.begin()
    assert visitor.asks_for_a_password_at_glewlwyd()


def test_second_sign_in_finds_the_same_person(glewlwyd_server: Glewlwyd, visitor: Visitor, declare: Declare) -> None:
    declare(glewlwyd_server)
    sign_in(visitor, glewlwyd_server)
    visitor.page.goto(f"{visitor.portal}/oidc/authenticate/?next=/portal/")
    # The portal asks first, because a session is live.
    visitor.page.get_by_role("link", name="Sign in again").click()
    visitor.click("Continue")
    visitor.page.wait_for_url(f"{visitor.portal}/portal/**")
    assert visitor.is_signed_in()
    assert PairwiseSubject.objects.count() == 1
    assert OIDCSession.objects.count() == 2


def test_logout_without_the_hint_ends_on_a_page_of_the_portal_and_not_on_an_empty_one(
    glewlwyd_server: Glewlwyd, visitor: Visitor, declare: Declare
) -> None:
    declare(glewlwyd_server)
    sign_in(visitor, glewlwyd_server)
    visitor.sign_out()
    visitor.page.get_by_role("heading", name="You are signed out here").wait_for()
    assert OIDCSession.objects.filter(ended_at=None).count() == 0
    visitor.page.get_by_role("link", name="Sign out there too").click()
    visitor.page.wait_for_url(f"{glewlwyd_server.issuer}/end_session?**")
    assert visitor.page.inner_text("body").strip() == "", "what the redirect would have led to"
    visitor.begin()
    assert not visitor.asks_for_a_password_at_glewlwyd(), "its session stays"


def test_back_channel_logout_ends_the_session_at_the_portal(
    glewlwyd_server: Glewlwyd, visitor: Visitor, declare: Declare
) -> None:
    declare(glewlwyd_server, allow_logout_token_without_exp=True, id_token_hint="always")
    session = sign_in(visitor, glewlwyd_server)
    # As another application that the person uses in this browser.
    hint = urlencode({"id_token_hint": str(session.decrypt("id_token"))})
    visitor.page.goto(f"{glewlwyd_server.issuer}/end_session?{hint}")
    visitor.click("Logout")
    ends_at = time.monotonic() + BACKCHANNEL_SECONDS
    while not OIDCSession.objects.exclude(ended_at=None).exists() and not events(action="logout.refused"):
        assert time.monotonic() < ends_at, "no logout token arrived"
        visitor.page.wait_for_timeout(50)
    assert [event.detail for event in events(action="logout.refused")] == []
    assert OIDCSession.objects.get().end_reason == "backchannel_logout"
    visitor.begin()
    assert visitor.asks_for_a_password_at_glewlwyd()


def test_doctor_finds_no_failure_at_glewlwyd(glewlwyd_server: Glewlwyd, portal: str, declare: Declare) -> None:
    declare(glewlwyd_server, id_token_hint="always")
    provider = get_provider("default")
    context = ProbeContext(claims={}, is_only_provider=True)
    findings = list(probe_provider(provider.declaration, context, transport=provider.transport, clock=clock.now))
    assert [finding.code for finding in findings if finding.level == "failure"] == []
    warnings = {finding.code for finding in findings if finding.level == "warning"}
    assert warnings - {"certificate_expires"} == {"auth_time_missing", "backchannel_absent"}

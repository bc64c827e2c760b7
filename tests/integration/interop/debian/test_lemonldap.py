"""Sign-in and logout at LemonLDAP::NG 2.21, in a browser. It has no revocation endpoint."""

import pytest

from django_phi_oidc._internal import clock
from django_phi_oidc.contrib.doctor.probe import ProbeContext, probe_provider
from django_phi_oidc.provider.registry import get_provider
from django_phi_oidc.sessions.models import OIDCSession, PendingRevocation, RevocationStatus
from tests.integration.interop.debian.conftest import Declare
from tests.integration.interop.debian.pages import Visitor
from tests.support.lemonldap import LemonLDAP
from tests.support.portal_fixtures import EVERYTHING, events

pytestmark = [pytest.mark.lemonldap, pytest.mark.browser, pytest.mark.django_db(**EVERYTHING)]
OPTIONS = {"subject_type": "public", "revocation": "best_effort", "allow_logout_token_without_exp": True}


def sign_in(visitor: Visitor) -> OIDCSession:
    visitor.begin()
    visitor.sign_in_at_lemonldap("dwho")
    assert visitor.is_signed_in()
    return OIDCSession.objects.get(ended_at=None)


@pytest.mark.parametrize("hint", ["minimal", "never"])
def test_logout_with_and_without_the_hint_ends_the_session_at_lemonldap_after_a_confirmation(
    lemonldap_server: LemonLDAP, visitor: Visitor, declare: Declare, hint: str
) -> None:
    declare(lemonldap_server, **OPTIONS, id_token_hint=hint)
    session = sign_in(visitor)
    token = str(session.decrypt("access_token"))
    assert lemonldap_server.introspect(token)["active"]
    visitor.sign_out()
    visitor.page.wait_for_url(f"{lemonldap_server.url}/oauth2/logout?**")
    assert ("id_token_hint=" in visitor.page.url) is (hint == "minimal")
    assert set(PendingRevocation.objects.values_list("status", flat=True)) == {RevocationStatus.UNSUPPORTED}
    visitor.click("Accept")
    assert visitor.is_informed()
    visitor.begin()
    visitor.page.locator("[name=password]").wait_for()


def test_back_channel_logout_ends_the_session_at_the_portal(
    lemonldap_server: LemonLDAP, visitor: Visitor, declare: Declare
) -> None:
    declare(lemonldap_server, **OPTIONS)
    sign_in(visitor)
    # LemonLDAP::NG sends the logout token before it answers the browser.
    visitor.page.goto(f"{lemonldap_server.url}/?logout=1")
    assert [event.detail for event in events(action="logout.refused")] == []
    assert OIDCSession.objects.get().end_reason == "backchannel_logout"
    visitor.begin()
    visitor.page.locator("[name=password]").wait_for()


def test_logout_token_without_exp_is_refused_unless_it_is_allowed(
    lemonldap_server: LemonLDAP, visitor: Visitor, declare: Declare
) -> None:
    declare(lemonldap_server, **(OPTIONS | {"allow_logout_token_without_exp": False}))
    sign_in(visitor)
    visitor.page.goto(f"{lemonldap_server.url}/?logout=1")
    assert len(events(action="logout.refused")) == 1
    assert OIDCSession.objects.get().ended_at is None


def test_doctor_finds_what_lemonldap_lacks_and_nothing_else(
    lemonldap_server: LemonLDAP, portal: str, declare: Declare
) -> None:
    declare(lemonldap_server, **OPTIONS)
    provider = get_provider("default")
    context = ProbeContext(claims={}, is_only_provider=True)
    findings = list(probe_provider(provider.declaration, context, transport=provider.transport, clock=clock.now))
    assert [finding.code for finding in findings if finding.level == "failure"] == []
    warnings = {finding.code for finding in findings if finding.level == "warning"}
    assert warnings - {"certificate_expires"} == {"django_phi_oidc.W001", "django_phi_oidc.W002"}

"""Step-up in a real browser at the certified provider, for the same person only."""

import re
from typing import Any

import pytest

from django_phi_oidc.sessions.models import OIDCSession, PendingRevocation
from tests.integration.interop.browser_user import Person
from tests.integration.interop.conftest import REFRESHING, client, refused
from tests.support.certified_provider import CertifiedProvider
from tests.support.portal_fixtures import EVERYTHING, events

pytestmark = [pytest.mark.django_db(**EVERYTHING), pytest.mark.node, pytest.mark.browser]
PAGE: dict[str, Any] = {"headers": {"Accept": "text/html"}, "max_redirects": 0, "ignore_https_errors": True}


@pytest.fixture(autouse=True)
def _signed_in(op: CertifiedProvider, portal: str, person: Person, settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.integration.interop.guarded_urls"
    op.configure(client(portal, require_auth_time=True, **REFRESHING), refresh_unasked=True, par="off")
    person.begin()
    person.sign_in()
    person.allow()
    assert person.is_signed_in()


def reaches(person: Person, path: str) -> bool:
    """Return whether the browser reaches that page of the portal as a signed-in user."""
    person.page.wait_for_url(f"{person.portal}{path}")
    return person.page.get_attribute("body", "data-user") is not None


def session() -> tuple[Any, ...]:
    row = OIDCSession.objects.get()
    return row.pk, row.ended_at, row.session_key_digest, row.acr, row.auth_time, row.user_id


def active_tokens(op: CertifiedProvider) -> list[str]:
    return [value for _, value in op.tokens() if op.introspect(value)["active"]]


def test_insufficient_acr_leads_to_a_second_factor_and_back_to_the_page(op: CertifiedProvider, person: Person) -> None:
    before, old = session(), active_tokens(op)
    person.begin("/portal/strong/?tab=2")
    assert person.provider_heading() == "Sign in", "the provider's session is not enough"
    person.sign_in(code=op.code)
    assert reaches(person, "/portal/strong/?tab=2")
    after = session()
    assert (after[0], after[1], after[3], after[5]) == (before[0], None, "strong", before[5])
    assert after[2] != before[2], "the session key is cycled"
    assert len(events(action="session.renewed")) == 1
    assert (len(old), len(op.tokens()), len(active_tokens(op))) == (2, 4, 4)
    person.begin("/portal/")
    assert person.is_signed_in()
    person.page.click("text=Sign out")
    person.page.wait_for_url(f"{op.issuer}/**")
    assert active_tokens(op) == []


def test_step_up_by_another_person_leaves_the_session_unchanged(op: CertifiedProvider, person: Person) -> None:
    before = session()
    person.begin("/portal/strong/")
    person.sign_in("jonas", code=op.code)
    person.allow()
    assert {person.reference(): "subject_changed"} == refused()
    assert "A different person has signed in" in person.page.inner_text("h1")
    assert session() == before
    # When another person signs in, this provider revokes the tokens of the first. We only revoke those of the second.
    assert [row.status for row in PendingRevocation.objects.all()] == ["done", "done"]
    assert (len(op.tokens()), op.requests("/token/revocation"), active_tokens(op)) == (4, 2, [])
    person.begin("/portal/")
    assert person.page.get_attribute("body", "data-user") == str(before[5])


def test_insufficient_acr_is_retried_once_and_then_refused(op: CertifiedProvider, person: Person) -> None:
    before, old = session(), active_tokens(op)
    person.begin("/portal/strong/")
    first = person.page.url
    person.sign_in(code="wrong code")
    person.page.wait_for_url(lambda url: url.startswith(f"{op.issuer}/interaction/") and url != first)
    person.sign_in(code="wrong again")
    # When we revoke the refused refresh token, this provider revokes the whole grant, including the consent.
    person.allow()
    reference = person.reference()
    assert (set(refused().values()), len(refused()), reference in refused()) == ({"acr_insufficient"}, 2, True)
    assert session() == before
    assert [row.status for row in PendingRevocation.objects.all()] == ["done"] * 4
    assert (len(op.tokens()), op.requests("/token/revocation"), set(active_tokens(op)) <= set(old)) == (6, 4, True)
    person.page.click("a:text-is('Sign in again')")
    person.sign_in(code=op.code)
    person.allow()
    assert reaches(person, "/portal/strong/")


def test_old_auth_time_is_refused_if_the_browser_removed_max_age(op: CertifiedProvider, person: Person) -> None:
    person.page.context.clear_cookies(name="sessionid")
    op.age_sessions(900)
    person.begin()
    assert person.is_signed_in(), "with the provider's session"
    live = OIDCSession.objects.latest("started_at")
    assert live.auth_time is not None
    assert round((live.started_at - live.auth_time).total_seconds(), -2) == 900
    before, old = (live.session_key_digest, live.auth_time), active_tokens(op)
    # Simulate a user who removes parameters from the authorization request.
    web = person.page.context.request
    step_up_url = web.get(f"{person.portal}/portal/fresh/", **PAGE).headers["location"]
    leaving = web.get(f"{person.portal}{step_up_url}", **PAGE).headers["location"]
    assert {"prompt=login", "max_age=300"} <= set(leaving.split("&"))
    person.page.goto(re.sub(r"&(?:prompt|max_age)=\w+", "", leaving))
    assert list(refused().values()) == ["auth_time_stale"]
    person.page.wait_for_url(re.compile(re.escape(op.issuer)))
    live.refresh_from_db()
    assert ((live.session_key_digest, live.auth_time), live.ended_at) == (before, None)
    assert [row.status for row in PendingRevocation.objects.all()] == ["done"] * 2
    assert set(active_tokens(op)) <= set(old)
    person.sign_in()
    person.allow()
    assert reaches(person, "/portal/fresh/")

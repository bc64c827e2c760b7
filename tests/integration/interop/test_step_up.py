"""Step-up in a real browser at the certified provider: to a stronger sign-in and back, for the same person alone."""

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
    assert person.arrives()


def at(person: Person, path: str) -> bool:
    """Say whether the person comes to that page of the portal."""
    person.page.wait_for_url(f"{person.portal}{path}")
    return person.page.get_attribute("body", "data-user") is not None


def session() -> tuple[Any, ...]:
    row = OIDCSession.objects.get()
    return row.pk, row.ended_at, row.session_key_digest, row.acr, row.auth_time, row.user_id


def alive(op: CertifiedProvider) -> list[str]:
    return [value for _, value in op.tokens() if op.introspect(value)["active"]]


def test_too_weak_leads_to_a_second_factor_and_back_to_the_same_page(op: CertifiedProvider, person: Person) -> None:
    before, old = session(), alive(op)
    person.begin("/portal/strong/?tab=2")
    assert person.asked() == "Sign in", "who is signed in there is asked all the same"
    person.sign_in(code=op.code)
    assert at(person, "/portal/strong/?tab=2")
    after = session()
    assert (after[0], after[1], after[3], after[5]) == (before[0], None, "strong", before[5])
    assert after[2] != before[2], "the key of the session is another"
    assert len(events(action="session.renewed")) == 1
    assert (len(old), len(op.tokens()), len(alive(op))) == (2, 4, 4)
    person.begin("/portal/")
    assert person.arrives()
    person.page.click("text=Sign out")
    person.page.wait_for_url(f"{op.issuer}/**")
    assert alive(op) == []


def test_another_person_who_answers_leaves_the_session_as_it_was(op: CertifiedProvider, person: Person) -> None:
    before = session()
    person.begin("/portal/strong/")
    person.sign_in("jonas", code=op.code)
    person.allow()
    assert {person.reference(): "subject_changed"} == refused()
    assert "A different person has signed in" in person.page.inner_text("h1")
    assert session() == before
    # Where somebody else signs in, this provider ends what it had given her; we have asked it to revoke theirs alone.
    assert [row.status for row in PendingRevocation.objects.all()] == ["done", "done"]
    assert (len(op.tokens()), op.requests("/token/revocation"), alive(op)) == (4, 2, [])
    person.begin("/portal/")
    assert person.page.get_attribute("body", "data-user") == str(before[5])


def test_acr_that_stays_too_weak_is_asked_for_twice_and_then_refused(op: CertifiedProvider, person: Person) -> None:
    before, old = session(), alive(op)
    person.begin("/portal/strong/")
    first = person.page.url
    person.sign_in(code="not that one")
    person.page.wait_for_url(lambda url: url.startswith(f"{op.issuer}/interaction/") and url != first)
    person.sign_in(code="nor that one")
    # With the refresh token that we have refused, this provider revokes all that it had granted her, consent included.
    person.allow()
    reference = person.reference()
    assert (set(refused().values()), len(refused()), reference in refused()) == ({"acr_insufficient"}, 2, True)
    assert session() == before
    assert [row.status for row in PendingRevocation.objects.all()] == ["done"] * 4
    assert (len(op.tokens()), op.requests("/token/revocation"), set(alive(op)) <= set(old)) == (6, 4, True)
    person.page.click("a:text-is('Sign in again')")
    person.sign_in(code=op.code)
    person.allow()
    assert at(person, "/portal/strong/")


def test_auth_time_of_long_ago_is_refused_whatever_the_browser_took_out_of_the_request(
    op: CertifiedProvider, person: Person
) -> None:
    person.page.context.clear_cookies(name="sessionid")
    op.age_sessions(900)
    person.begin()
    assert person.arrives(), "by the session that she has there"
    live = OIDCSession.objects.latest("started_at")
    assert live.auth_time is not None
    assert round((live.started_at - live.auth_time).total_seconds(), -2) == 900
    before, old = (live.session_key_digest, live.auth_time), alive(op)
    # As she does who takes out of the request what the portal has put there.
    web = person.page.context.request
    door = web.get(f"{person.portal}/portal/fresh/", **PAGE).headers["location"]
    leaving = web.get(f"{person.portal}{door}", **PAGE).headers["location"]
    assert {"prompt=login", "max_age=300"} <= set(leaving.split("&"))
    person.page.goto(re.sub(r"&(?:prompt|max_age)=\w+", "", leaving))
    assert list(refused().values()) == ["auth_time_stale"]
    person.page.wait_for_url(re.compile(re.escape(op.issuer)))
    live.refresh_from_db()
    assert ((live.session_key_digest, live.auth_time), live.ended_at) == (before, None)
    assert [row.status for row in PendingRevocation.objects.all()] == ["done"] * 2
    assert set(alive(op)) <= set(old)
    person.sign_in()
    person.allow()
    assert at(person, "/portal/fresh/")

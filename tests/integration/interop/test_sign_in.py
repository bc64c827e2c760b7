"""Sign-in and sign-out with the npm oidc-provider over TLS and the portal in Chromium."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections

from django_phi_oidc._internal import clock
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.sessions.models import OIDCSession, PendingRevocation, RevocationStatus
from django_phi_oidc.subjects.models import PairwiseSubject
from tests.integration.interop.browser_user import Person
from tests.integration.interop.conftest import REFRESHING, Declare, client, refused
from tests.support.certified_provider import CertifiedProvider
from tests.support.portal_fixtures import EVERYTHING, events

pytestmark = [pytest.mark.node, pytest.mark.browser, pytest.mark.django_db(**EVERYTHING)]


def everything_stored() -> str:
    """Return the raw rows of all tables of both databases."""
    rows = []
    for connection in connections.all():
        with connection.cursor() as cursor:
            for table in connection.introspection.table_names():
                cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
                rows += [str(row) for row in cursor.fetchall()]
    return "\n".join(rows)


def test_sign_out_after_a_ps256_sign_in_leaves_no_active_token(
    op: CertifiedProvider, portal: str, person: Person
) -> None:
    op.configure(client(portal, **REFRESHING), refresh_unasked=True)
    page = person.page
    page.goto(portal)
    page.click("text=Sign in")
    assert person.provider_heading() == "Sign in"
    person.sign_in()
    assert page.inner_text("#requested").split() == ["openid", "profile", "address"]
    person.allow()
    assert person.is_signed_in()
    page.click("text=See my details")
    page.click("text=Show my details")
    assert "1984-03-09" in page.inner_text("[data-claim=birthdate]")
    assert {claim.name for claim in StoredClaim.objects.all()} == {"birthdate", "address"}
    assert op.active_kinds() == ["access_token", "refresh_token"]
    page.click("text=Sign out")
    assert person.provider_heading() == "Sign out here as well?"
    assert "id_token_hint=" in page.url
    assert op.active_kinds() == [], "before the provider's own session ends"
    assert set(PendingRevocation.objects.values_list("status", flat=True)) == {RevocationStatus.DONE}
    page.click("[name=logout]")
    page.wait_for_url(f"{portal}/oidc/logged-out/?state=*")
    assert "your sign-in service has been informed" in page.inner_text("main")
    assert [claim.name for claim in StoredClaim.objects.all()] == ["address"]
    person.begin()
    assert person.provider_heading() == "Sign in", "neither portal nor provider has a session"


def test_f4_sign_in_again_on_the_activation_page_lets_another_person_sign_in(
    person: Person, new_person: Callable[[], Person], declare: Declare
) -> None:
    declare(default={"provisioning": "invitation"})
    person.begin()
    person.sign_in("jonas")
    person.allow()
    person.page.wait_for_url(f"{person.portal}/oidc/activate/")
    person.page.click("text=Sign in again")
    assert person.provider_heading() == "Sign in", "the provider has a session of jonas, and asks all the same"
    person.begin("/oidc/authenticate/?next=/portal/")
    person.page.wait_for_url(f"{person.portal}/oidc/activate/")


def test_denied_consent_is_refused_and_can_be_given_later(op: CertifiedProvider, person: Person) -> None:
    person.begin()
    person.sign_in()
    person.page.click("[value=deny]")
    reference = person.reference()
    (event,) = events(action="login.refused")
    assert str(event.pk) == reference
    assert (event.reason, json.loads(event.detail)["provider_error"]) == ("provider_error", "access_denied")
    assert op.tokens() == []
    person.try_again()
    person.allow()
    assert person.is_signed_in()


def test_pairwise_clients_of_two_sectors_map_one_person_to_two_subjects(
    op: CertifiedProvider, portal: str, person: Person, declare: Declare, settings: Any
) -> None:
    settings.PHI_OIDC = {**settings.PHI_OIDC, "SECTOR_ORIGINS": [portal]}
    document, elsewhere = "/oidc/sector-identifier.json", portal.replace("127.0.0.1", "localhost")
    sectors = {"clinic": portal + document, "lab": portal + document, "billing": elsewhere + document}
    op.configure(*(client(portal, name, provider=name, sector_identifier_uri=uri) for name, uri in sectors.items()))
    declare(**{name: {"client_id": name, "label": f"At the {name}"} for name in sectors})
    subs, users = {}, {}
    for name in sectors:
        person.begin("/oidc/authenticate/?next=/portal/")
        person.page.click(f"text=At the {name}")
        if subs:
            person.confirm()
        else:
            person.sign_in()
        person.allow()
        assert person.is_signed_in()
        subs[name] = op.introspect(op.tokens()[-1][1])["sub"]
        users[name] = person.page.get_attribute("body", "data-user")
    assert all(op.fetched(uri) for uri in sectors.values()), "the provider checks the redirect URIs in the document"
    assert subs["clinic"] == subs["lab"] != subs["billing"]
    assert users["clinic"] == users["lab"] != users["billing"]
    subjects = PairwiseSubject.objects.select_related("user")
    assert {str(subject.user_id) for subject in subjects} == set(users.values())
    stored = everything_stored()
    for subject in subjects:
        assert subject.user.get_username() in stored
        assert str(subject.uuid) in stored, "in the audit log"
    assert [sub for sub in (*subs.values(), "amina") if sub in stored] == []


def test_insufficient_acr_is_refused_and_its_tokens_are_revoked(
    op: CertifiedProvider, portal: str, person: Person, declare: Declare
) -> None:
    op.configure(client(portal, **REFRESHING), refresh_unasked=True)
    declare(default={"acr_values": ["strong"]})
    person.begin()
    person.sign_in(code="wrong code")
    person.allow()
    assert {person.reference(): "acr_insufficient"} == refused()
    assert [kind for kind, _ in op.tokens()] == ["access_token", "refresh_token"]
    assert op.active_kinds() == []
    assert not OIDCSession.objects.exists()
    person.try_again()
    assert person.provider_heading() == "Sign in"
    person.sign_in(code=op.code)
    person.allow()
    assert person.is_signed_in()
    assert OIDCSession.objects.get().acr == "strong"
    assert op.active_kinds() == ["access_token", "refresh_token"]


def test_max_age_makes_the_provider_reauthenticate_an_older_session(
    op: CertifiedProvider, person: Person, declare: Declare
) -> None:
    declare(default={"max_age": 600})
    person.begin()
    person.sign_in()
    person.allow()
    assert person.is_signed_in()
    op.age_sessions(500)
    person.begin("/oidc/authenticate/?next=/portal/")
    assert person.is_signed_in(), "500 s is not too old, no new sign-in"
    op.age_sessions(500)
    person.begin("/oidc/authenticate/?next=/portal/")
    assert person.provider_heading() == "Sign in"
    person.sign_in()
    assert person.is_signed_in()
    ages = [clock.now() - session.auth_time for session in OIDCSession.objects.order_by("started_at")]
    assert [round(age / timedelta(seconds=500)) for age in ages] == [0, 1, 0]
    assert refused() == {}


def test_keys_rotated_during_a_sign_in_are_fetched_once(
    op: CertifiedProvider, new_person: Callable[[], Person], declare: Declare
) -> None:
    before, during = new_person(), new_person()
    before.begin()
    before.sign_in()
    before.allow()
    assert before.is_signed_in()
    assert op.requests("/jwks") == 1
    during.begin()
    during.sign_in("jonas")
    op.rotate()
    during.allow()
    assert during.is_signed_in()
    assert op.requests("/jwks") == 2
    assert (op.requests("/token"), refused()) == (2, {})
    assert op.active_kinds() == ["access_token", "access_token"], "tokens issued before the rotation stay active"

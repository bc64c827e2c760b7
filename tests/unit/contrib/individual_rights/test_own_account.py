"""The pages "Your access": a user sees and changes own rows only, over requests."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils.formats import date_format
from django.utils.timezone import localtime

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.contrib.legal_holds.accounting_suspensions import AccountingSuspension
from django_phi_oidc.contrib.legal_holds.legal_holds import place_hold, release_hold
from django_phi_oidc.contrib.notices.models import AccountNotice
from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.sessions.sign_in_places import SignInPlace
from tests.support.audit_outage import audit_database_fails
from tests.support.claims_fixtures import NOW
from tests.support.disclosure_events import DAY, RESOURCES, STAFF, look, reveal
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.session_fixtures import ACCESS_TOKEN, ScriptedOP, SecureClient, SignedIn, events

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
ACCOUNT, OTHERS, EXPORT = "/oidc/account/", "/oidc/account/sessions/end/", "/oidc/account/export/"
PAGE = {"Accept": "text/html"}
PHONE = SignInPlace(browser="Safari", platform="iPhone", network="203.0.113.0/24")
SignIn = Callable[..., SignedIn]
CLAIMS = {
    "birthdate": {"purpose": "TREAT", "basis": "identity check", "retention": "session"},
    "address": {"purpose": "HOPERAT", "basis": "letters", "retention": 86400},
}


@pytest.fixture(autouse=True)
def _portal(op: ScriptedOP, settings: Any) -> Iterator[None]:
    declared = {**settings.PHI_OIDC["PROVIDERS"]["default"], "label": "Lakeside Clinic"}
    settings.PHI_OIDC = {
        **settings.PHI_OIDC,
        "PROVIDERS": {"default": declared},
        "CLAIMS": CLAIMS,
        "PATIENT_RESOURCES": RESOURCES,
    }
    with clock.override_clock(lambda: NOW):
        yield


@pytest.fixture
def person(sign_in: SignIn) -> SignedIn:
    """Return a person who authenticated a minute ago, in this browser."""
    place = SignInPlace(browser="Firefox", platform="Windows", network="198.51.100.0/24")
    return sign_in(place=place, auth_time=NOW - timedelta(minutes=1))


@pytest.fixture
def phone(sign_in: SignIn, person: SignedIn) -> SignedIn:
    """Return a session of the same person on another device."""
    return sign_in(again=person, place=PHONE)


def end_url(session: OIDCSession) -> str:
    return f"/oidc/account/sessions/{session.pk}/end/"


def text_of(response: Any) -> str:
    assert response.status_code == 200, response
    return str(response.content.decode())


def live_ids() -> set[Any]:
    return set(OIDCSession.objects.live().values_list("pk", flat=True))


def test_page_lists_own_live_sessions_in_words(person: SignedIn, phone: SignedIn, sign_in: SignIn) -> None:
    stranger, ended = sign_in(place=SignInPlace("Opera", "Linux", "192.0.2.0/24")), sign_in(again=person)
    OIDCSession.objects.filter(pk=ended.session.pk).update(ended_at=NOW)
    text = text_of(person.client().get(ACCOUNT, headers=PAGE))
    assert text.index("Firefox on Windows") < text.index("this session") < text.index("Safari on iPhone")
    assert "From 203.0.113.0/24, signed in with Lakeside Clinic" in text
    assert end_url(phone.session) in text
    others = (end_url(person.session), end_url(ended.session), end_url(stranger.session), "Opera", "192.0.2.0")
    assert [other for other in others if other in text] == []


def test_page_takes_the_same_queries_for_any_number_of_sessions(person: SignedIn, sign_in: SignIn) -> None:
    counts = []
    for _ in range(2):
        with CaptureQueriesContext(connection) as queries:
            text_of(person.client().get(ACCOUNT, headers=PAGE))
        counts.append(len(queries))
        for _ in range(4):
            sign_in(again=person)
    assert counts[0] == counts[1]


def test_device_is_signed_out_after_the_question(op: ScriptedOP, person: SignedIn, phone: SignedIn) -> None:
    client = person.client()
    assert "Safari on iPhone is signed out at once" in text_of(client.get(end_url(phone.session), headers=PAGE))
    assert live_ids() == {person.session.pk, phone.session.pk}, "the question ends nothing"
    done = client.post(end_url(phone.session), headers=PAGE)
    assert (done.status_code, done["Location"]) == (302, ACCOUNT)
    assert live_ids() == {person.session.pk}
    assert "The device was signed out." in text_of(client.get(ACCOUNT, headers=PAGE))
    assert phone.client().get(ACCOUNT, headers=PAGE).status_code == 302, "the phone has to sign in"
    assert [request["token_type_hint"] for request in op.asked] == ["refresh_token", "access_token"]
    (event,) = events("session.ended")
    assert (event.reason, event.actor, event.session) == ("account_owner", str(person.user.pk), str(phone.session.pk))


def test_all_other_devices_are_signed_out_at_once(person: SignedIn, phone: SignedIn, sign_in: SignIn) -> None:
    sign_in(again=person)
    stranger = sign_in()
    client = person.client()
    client.post(OTHERS, headers=PAGE)
    assert live_ids() == {person.session.pk, stranger.session.pk}
    assert "2 devices were signed out." in text_of(client.get(ACCOUNT, headers=PAGE))


def test_session_of_another_person_is_unknown_and_stays(person: SignedIn, phone: SignedIn, sign_in: SignIn) -> None:
    stranger = sign_in(place=PHONE)
    client, before = person.client(), live_ids()
    for unknown in (stranger.session, OIDCSession(pk=uuid4()), person.session):
        assert client.get(end_url(unknown), headers=PAGE).status_code == 404
        assert client.post(end_url(unknown), headers=PAGE).status_code == 404
    assert live_ids() == before
    assert events("session.ended") == []
    assert client.post(end_url(phone.session), headers=PAGE).status_code == 302
    assert live_ids() == before - {phone.session.pk}


@pytest.mark.parametrize("path", ["one", OTHERS, EXPORT])
def test_asvs_7_5_2_action_needs_a_recent_authentication(path: str, phone: SignedIn, sign_in: SignIn) -> None:
    url = end_url(phone.session) if path == "one" else path
    recent, old = (sign_in(again=phone, auth_time=NOW - timedelta(minutes=minutes)) for minutes in (14, 16))
    before = live_ids()
    assert recent.client().get(url, headers=PAGE).status_code == 200
    assert old.client().get(url, headers=PAGE)["Location"].startswith("/oidc/step-up/?demand=")
    refused = old.client().post(url, headers=PAGE)
    assert (refused.status_code, "Confirm and return" in refused.content.decode()) == (403, True)
    unknown = phone.client().post(OTHERS, headers=PAGE)
    assert unknown.status_code == 403, "it is not known when the person authenticated"
    assert (live_ids(), events("subject.exported")) == (before, [])
    assert {event.reason for event in events("access.denied")} == {"auth_time_stale", "auth_time_missing"}
    assert recent.client().post(url, headers=PAGE).status_code == (200 if path == EXPORT else 302)


def test_page_needs_a_session_of_the_provider(person: SignedIn, phone: SignedIn, settings: Any) -> None:
    backend = "django.contrib.auth.backends.ModelBackend"
    settings.AUTHENTICATION_BACKENDS = [*settings.AUTHENTICATION_BACKENDS, backend]
    anonymous, password = SecureClient(), SecureClient()
    password.force_login(person.user, backend=backend)
    for url in (ACCOUNT, end_url(phone.session), OTHERS, EXPORT, f"{ACCOUNT}disclosures/"):
        for client in (anonymous, password):
            response = client.get(url, headers=PAGE)
            assert response["Location"].startswith("/oidc/authenticate/?next=")
            assert client.post(url, headers=PAGE).status_code in (302, 405)
        assert person.client().get(url, headers=PAGE).status_code == 200
    assert len(live_ids()) == 2


def test_action_needs_a_csrf_token_and_a_post(person: SignedIn, phone: SignedIn) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = person.client().cookies
    for url in (end_url(phone.session), OTHERS, EXPORT):
        assert strict.post(url, headers={**PAGE, "Referer": "https://testserver/"}, secure=True).status_code == 403
        page = text_of(strict.get(url, headers=PAGE, secure=True))
        assert 'name="csrfmiddlewaretoken"' in page
    assert len(live_ids()) == 2
    token = page.partition('name="csrfmiddlewaretoken" value="')[2].partition('"')[0]
    headers = {**PAGE, "Referer": "https://testserver/"}
    assert strict.post(OTHERS, {"csrfmiddlewaretoken": token}, headers=headers, secure=True).status_code == 302
    assert live_ids() == {person.session.pk}


def test_pages_are_stored_nowhere(person: SignedIn, phone: SignedIn) -> None:
    client = person.client()
    for url in (ACCOUNT, end_url(phone.session), OTHERS, EXPORT, f"{ACCOUNT}disclosures/"):
        assert client.get(url, headers=PAGE)["Cache-Control"] == "no-store"
        assert client.post(url, headers=PAGE)["Cache-Control"] == "no-store"


def test_user_gets_one_mail_about_devices_that_were_signed_out(person: SignedIn, phone: SignedIn) -> None:
    person.user.email = "amina@example.org"  # type: ignore[attr-defined]
    person.user.save()
    person.client().post(OTHERS, headers=PAGE)
    assert list(AccountNotice.objects.values_list("kind", "user")) == [("sessions_ended", person.user.pk)]
    person.client().post(OTHERS, headers=PAGE)
    assert AccountNotice.objects.count() == 1, "nothing was signed out"


def test_claims_are_listed_by_name_and_purpose_without_values(person: SignedIn, sign_in: SignIn) -> None:
    stranger = sign_in()
    StoredClaim.objects.filter(subject=stranger.subject, name="address").update(name="nickname")
    text = text_of(person.client().get(ACCOUNT, headers=PAGE))
    assert "Birthdate" in text
    assert "For: Treatment" in text
    assert f"Kept until {date_format(localtime(NOW + DAY), 'DATETIME_FORMAT')}" in text
    assert "Times are in America/Chicago." in text
    assert "Kept until the session ends" in text
    assert [hidden for hidden in ("a value", "Nickname") if hidden in text] == []


def test_g5_suspended_accounting_is_not_visible_in_the_list(person: SignedIn) -> None:
    StoredClaim.objects.filter(name="address").delete()
    without = text_of(person.client().get(ACCOUNT, headers=PAGE))
    fields: Any = {"subject": person.subject, "name": "address", "value": '"x"', "purpose": "HOPERAT"}
    StoredClaim.objects.create(**fields, obtained_at=NOW - 2 * DAY, expires_at=NOW - DAY)
    suspension = AccountingSuspension(until=NOW + DAY, agency="Board of Health")
    options: Any = {"reason": "Docket 26-117", "until": None, "suspension": suspension}
    hold = place_hold(person.subject.uuid, **options, origin=Origin(), now=NOW)
    assert text_of(person.client().get(ACCOUNT, headers=PAGE)) == without
    release_hold(hold.pk, origin=Origin(), now=NOW)
    place_hold(person.subject.uuid, reason="Docket 26-118", until=None, origin=Origin(), now=NOW)
    assert "Kept for legal reasons" in text_of(person.client().get(ACCOUNT, headers=PAGE))


def test_copy_of_all_data_is_downloaded_after_its_event(person: SignedIn, sign_in: SignIn) -> None:
    stranger = sign_in()
    reveal(person.subject.uuid, by=STAFF)
    client = person.client()
    assert "The download is recorded." in text_of(client.get(EXPORT, headers=PAGE))
    assert events("subject.exported") == []
    response = client.post(EXPORT, headers=PAGE)
    document = json.loads(response.content)
    assert response["Content-Disposition"] == 'attachment; filename="my-data.json"'
    assert document["account"]["id"] == str(person.user.pk)
    (subject,) = document["subjects"]
    assert {claim["name"]: claim["value"] for claim in subject["claims"]} == {
        "address": "a value",
        "birthdate": "a value",
    }
    assert {event["action"]: event["actor"] for event in subject["events"]} == {
        "claim.revealed": "staff",
        "subject.exported": str(person.user.pk),
    }
    (session,) = document["sessions"]
    assert (session["browser"], session["platform"], session["network"]) == ("Firefox", "Windows", "198.51.100.0/24")
    foreign = (STAFF, ACCESS_TOKEN, str(stranger.subject.uuid), str(stranger.session.pk))
    assert [text for text in foreign if text in response.content.decode()] == []
    (event,) = events("subject.exported")
    assert (event.purpose, event.actor, event.subject) == ("PATRQT", str(person.user.pk), str(person.subject.uuid))


def test_nothing_is_downloaded_without_the_audit_log(person: SignedIn) -> None:
    with audit_database_fails():
        refused = person.client().post(EXPORT, headers=PAGE)
    assert (refused.status_code, b"a value" in refused.content) == (503, False)
    assert b"a value" in person.client().post(EXPORT, headers=PAGE).content


def test_disclosures_are_those_of_the_own_record(person: SignedIn, sign_in: SignIn) -> None:
    stranger = sign_in()
    ada = get_user_model()._default_manager.create_user(username="u", first_name="Ada", last_name="Berg")
    look(by=ada.pk, resource=f"Patient/{person.user.pk}", at=NOW - DAY)
    look(by=ada.pk, resource=f"Patient/{stranger.user.pk}", at=NOW - DAY)
    text = text_of(person.client().get(f"{ACCOUNT}disclosures/", headers=PAGE))
    assert (text.count("Ada Berg"), f"Patient/{person.user.pk}" in text) == (1, True)
    (event,) = events("subject.accounted")
    assert (event.actor, event.subject) == (str(person.user.pk), str(person.subject.uuid))


def test_portal_without_messages_signs_devices_out_too(person: SignedIn, phone: SignedIn, settings: Any) -> None:
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if "messages" not in name]
    assert person.client().post(end_url(phone.session), headers=PAGE).status_code == 302
    assert live_ids() == {person.session.pk}


def test_session_ends_without_the_encryption_keys(person: SignedIn, phone: SignedIn, settings: Any) -> None:
    person.user.email = "amina@example.org"  # type: ignore[attr-defined]
    person.user.save()
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"encryption": []})
    assert person.client().post(end_url(phone.session), headers=PAGE).status_code == 302
    assert live_ids() == {person.session.pk}

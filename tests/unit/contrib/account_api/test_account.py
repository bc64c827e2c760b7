"""The JSON views of a user's own account: the same use cases as the pages, with problem documents."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.test import Client
from django.urls import get_resolver

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.sessions.sign_in_places import SignInPlace
from django_phi_oidc.testing.mock_provider import DemoProvider, Resource
from tests.support.api_fixtures import API, EVERYTHING, SCOPES, App, Declare, refusals
from tests.support.audit_outage import audit_database_fails
from tests.support.disclosure_events import RESOURCES, STAFF, look
from tests.support.session_fixtures import SecureClient, SignedIn, sign_in  # noqa: F401 -- a fixture

pytestmark = pytest.mark.django_db(**EVERYTHING)
BASE = "/api/account/"
PATHS = {"sessions/": ("GET", "DELETE"), "disclosures/": ("GET",), "claims/": ("GET",), "export/": ("POST",)}
SignIn = Callable[..., SignedIn]


@pytest.fixture(autouse=True)
def _urls(declare: Declare, op: DemoProvider, settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.support.account_api_urls"
    op.register_resource(Resource(API, [*SCOPES, "account"]))
    declare(scopes={**SCOPES, "account": []})
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PATIENT_RESOURCES": RESOURCES}


@pytest.fixture
def person(sign_in: SignIn) -> SignedIn:
    return sign_in(auth_time=clock.now(), place=SignInPlace("Firefox", "Windows", "198.51.100.0/24"))


@pytest.fixture
def phone(sign_in: SignIn, person: SignedIn) -> SignedIn:
    return sign_in(again=person, place=SignInPlace("Safari", "iPhone", "203.0.113.0/24"))


def is_live(signed_in: SignedIn) -> bool:
    return OIDCSession.objects.live().filter(pk=signed_in.session.pk).exists()


def problem(response: Any) -> tuple[int, str]:
    assert response["Content-Type"] == "application/problem+json"
    body = response.json()
    assert body["title"]
    assert body["status"] == response.status_code
    return response.status_code, body["code"]


def test_sessions_are_listed_and_ended(person: SignedIn, phone: SignedIn, sign_in: SignIn) -> None:
    stranger, client = sign_in(), person.client()
    first, second = client.get(f"{BASE}sessions/").json()["sessions"]
    assert {name: second[name] for name in ("id", "device", "network", "provider", "is_current")} == {
        "id": str(phone.session.pk),
        "device": "Safari on iPhone",
        "network": "203.0.113.0/24",
        "provider": "op",
        "is_current": False,
    }
    assert (first["is_current"], first["id"]) == (True, str(person.session.pk))
    assert client.delete(f"{BASE}sessions/{phone.session.pk}/").status_code == 204
    assert (is_live(person), is_live(phone), is_live(stranger)) == (True, False, True)
    again = sign_in(again=person)
    assert client.delete(f"{BASE}sessions/").json() == {"ended": 1}
    assert (is_live(person), is_live(again), is_live(stranger)) == (True, False, True)


def test_session_of_another_person_is_unknown_and_stays(person: SignedIn, phone: SignedIn, sign_in: SignIn) -> None:
    stranger, client = sign_in(), person.client()
    for unknown in (stranger.session.pk, uuid4(), person.session.pk):
        assert problem(client.delete(f"{BASE}sessions/{unknown}/")) == (404, "not_found")
    assert (is_live(stranger), is_live(person)) == (True, True)
    assert client.delete(f"{BASE}sessions/{phone.session.pk}/").status_code == 204


@pytest.mark.parametrize(("method", "path"), [("DELETE", "sessions/"), ("DELETE", "one"), ("POST", "export/")])
def test_action_needs_a_recent_authentication(method: str, path: str, phone: SignedIn, sign_in: SignIn) -> None:
    path = f"sessions/{phone.session.pk}/" if path == "one" else path
    recent, old = (sign_in(again=phone, auth_time=clock.now() - timedelta(minutes=minutes)) for minutes in (14, 16))
    before = OIDCSession.objects.live().count()
    headers = {"Referer": "https://testserver/app/"}
    refused = old.client().generic(method, BASE + path, headers=headers)
    assert problem(refused) == (401, "insufficient_user_authentication")
    assert 'max_age="900"' in refused["WWW-Authenticate"]
    assert refused.json()["step_up"].startswith("/oidc/step-up/?demand=")
    assert OIDCSession.objects.live().count() == before
    assert not AuditEvent.objects.filter(action="subject.exported").exists()
    assert recent.client().generic(method, BASE + path, headers=headers).status_code in (200, 204)


def test_token_needs_the_scope(app: App, sign_in: SignIn) -> None:
    OIDCSession.objects.filter(pk=sign_in().session.pk).update(user=app.user)
    for path, methods in PATHS.items():
        refused = app.client.generic(
            methods[0], BASE + path, headers={"Authorization": f"Bearer {app.token(scope='openid chart.read')}"}
        )
        assert problem(refused) == (403, "insufficient_scope")
    assert {reason for reason, _, _ in refusals()} == {"scope_missing"}
    token = app.token(scope="openid account")
    (session,) = app.get(f"{BASE}sessions/", token).json()["sessions"]
    assert session["is_current"] is False
    assert app.get(f"{BASE}claims/", token).status_code == 200
    deleted = app.client.delete(f"{BASE}sessions/", headers={"Authorization": f"Bearer {token}"})
    assert deleted.json() == {"ended": 1}, "the access token states when the person authenticated"
    assert not OIDCSession.objects.live().exists()


def test_only_a_session_of_the_provider_is_admitted(person: SignedIn, phone: SignedIn) -> None:
    by_password = SecureClient()
    by_password.force_login(person.user, backend="tests.support.guarded_views.Wards")
    for path, methods in PATHS.items():
        for method in methods:
            assert problem(SecureClient().generic(method, BASE + path)) == (401, "not_authenticated")
            assert problem(by_password.generic(method, BASE + path))[0] in (401, 403)
            assert person.client().generic(method, BASE + path).status_code == 200
    assert is_live(person)


def test_session_needs_a_csrf_token(person: SignedIn, phone: SignedIn) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = person.client().cookies
    headers = {"Referer": "https://testserver/"}
    assert problem(strict.delete(f"{BASE}sessions/", headers=headers, secure=True)) == (403, "permission_denied")
    assert is_live(phone)
    token = "a" * 32
    strict.cookies["csrftoken"] = token
    headers["X-CSRFToken"] = token
    assert strict.delete(f"{BASE}sessions/", headers=headers, secure=True).status_code == 200
    assert not is_live(phone)


def test_disclosures_are_paged_and_recorded(person: SignedIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_phi_oidc.contrib.account_api.account._DISCLOSURES_PER_PAGE", 2)
    look(by=STAFF, count=3, resource=f"Patient/{person.user.pk}", at=clock.now() - timedelta(days=1))
    first = person.client().get(f"{BASE}disclosures/").json()
    assert [row["resource"] for row in first["disclosures"]] == [f"Patient/{person.user.pk}"] * 2
    row = first["disclosures"][0]
    assert (row["actor"], row["purpose"], row["is_emergency"]) == ("a member of staff", "TREAT", False)
    second = person.client().get(f"{BASE}disclosures/", {"before": first["older"]}).json()
    assert (len(second["disclosures"]), second["older"]) == (1, None)
    assert problem(person.client().get(f"{BASE}disclosures/", {"before": "x"})) == (404, "not_found")
    accounted = AuditEvent.objects.filter(action="subject.accounted", subject=str(person.subject.uuid))
    assert accounted.count() == 2


def test_claims_are_listed_without_values_and_exported_with_them(person: SignedIn) -> None:
    listed = person.client().get(f"{BASE}claims/")
    assert [claim["name"] for claim in listed.json()["claims"]] == ["address", "birthdate"]
    assert b"a value" not in listed.content
    exported = person.client().post(f"{BASE}export/")
    assert b"a value" in exported.content
    event = AuditEvent.objects.get(action="subject.exported")
    assert (event.purpose, event.actor) == ("PATRQT", str(person.user.pk))


def test_nothing_is_disclosed_without_the_audit_log(person: SignedIn) -> None:
    client = person.client()
    with audit_database_fails():
        for method, path in (("GET", "disclosures/"), ("POST", "export/")):
            assert problem(client.generic(method, BASE + path)) == (503, "unavailable")


def test_responses_are_stored_nowhere(person: SignedIn) -> None:
    for path, methods in PATHS.items():
        for client in (person.client(), SecureClient()):
            assert client.generic(methods[0], BASE + path)["Cache-Control"] == "no-store"


def test_each_url_is_tested() -> None:
    names = [name for name in get_resolver().reverse_dict if str(name).startswith("oidc_account_api_")]
    assert len(names) == len(PATHS) + 1

"""The break-glass account: its page, its events, and the end of its session."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.conf import settings as django_settings
from django.contrib import auth
from django.contrib.admin import AdminSite
from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.contrib.auth.models import AnonymousUser
from django.db import connections

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Action
from django_phi_oidc.audit.models import AuditEvent, RefusalCount
from django_phi_oidc.audit.request_context import SESSION_KEY, Actor
from django_phi_oidc.audit.throttling import MAX_EVENTS_TOTAL, flush_refusal_counts
from django_phi_oidc.claims.disclosure import reveal
from django_phi_oidc.contrib.local_accounts.backends import BreakGlassCredentials
from django_phi_oidc.contrib.local_accounts.guess_limits import MAX_GUESSES_PER_ADDRESS
from django_phi_oidc.contrib.notices.models import AccountNotice
from django_phi_oidc.errors import RevealRefused
from django_phi_oidc.login.admin_site import use_oidc_login
from django_phi_oidc.sessions.models import OIDCSession
from tests.support.officers import create_account
from tests.support.session_fixtures import NOW, ScriptedOP, SecureClient, SignedIn, op, sign_in
from tests.unit.audit.test_throttling import at_once

__all__ = ["op", "sign_in"]  # fixtures
pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.urls"),
]
URL, PASSWORD = "/oidc/local-login/", "correct horse battery staple"
OIDC = "django_phi_oidc.backends.OIDCAuthenticationBackend"
BREAK_GLASS = "django_phi_oidc.contrib.local_accounts.backends.BreakGlassBackend"


class Moment:
    now = NOW


@pytest.fixture(autouse=True)
def moment() -> Iterator[type[Moment]]:
    Moment.now = NOW
    with clock.override_clock(lambda: Moment.now):
        yield Moment


@pytest.fixture(autouse=True)
def account(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(PBKDF2PasswordHasher, "iterations", 1000)  # a million would be slow
    settings.AUTHENTICATION_BACKENDS = [OIDC, BREAK_GLASS]
    settings.PHI_OIDC = {**settings.PHI_OIDC, "BREAK_GLASS_ACCOUNTS": ["night-desk", "day-desk"]}
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.PBKDF2PasswordHasher"]
    create_account("other-admin", password=PASSWORD, is_staff=True, is_superuser=True)
    return create_account("night-desk", password=PASSWORD, is_staff=True, is_superuser=True)


@pytest.fixture
def checked_passwords(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    passwords: list[str] = []
    model: Any = get_user_model()
    check = model.check_password
    monkeypatch.setattr(model, "check_password", lambda self, raw: passwords.append(raw) or check(self, raw))
    return passwords


def enter(client: SecureClient, username: str = "night-desk", password: str = PASSWORD) -> Any:
    return client.post(URL, {"username": username, "password": password})


def recorded_events() -> list[tuple[str, str, str]]:
    """Return action, reason and alert rule of each event, sorted: events of the same time have no order."""
    events = AuditEvent.objects.all()
    return sorted((event.action, event.reason, json.loads(event.detail).get("rule", "")) for event in events)


def test_account_is_signed_in_after_an_event_and_an_alert(account: Any) -> None:
    client = SecureClient()
    assert client.get(URL).status_code == 200
    assert enter(client).status_code == 302
    assert client.get("/admin/").status_code == 200
    assert recorded_events() == [("alert.raised", "", "break_glass_used"), ("login.succeeded", "break_glass", "")]
    assert {event.actor for event in AuditEvent.objects.all()} == {str(account.pk)}


WRONG = {
    "password": {"password": "wrong"},
    "account": {"username": "other-admin"},
    "unknown": {"username": "unknown"},
    "case": {"username": "Night-Desk"},
    "empty": {"password": ""},
    "NUL": {"username": "night-desk\0"},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_other_credentials_are_refused_with_an_event(wrong: dict[str, str]) -> None:
    client = SecureClient()
    page = enter(client, **wrong)
    assert page.status_code == 403
    assert client.get("/admin/").status_code == 302
    assert recorded_events() == [("login.refused", "break_glass_refused", "")]
    assert PASSWORD not in page.content.decode()


def test_password_field_is_masked_and_open_to_password_managers() -> None:
    page = SecureClient().get(URL).content.decode()
    (field,) = re.findall('<input[^>]*name="password"[^>]*>', page)
    assert 'type="password"' in field
    assert 'autocomplete="current-password"' in field
    assert "<script" not in page


@pytest.mark.parametrize(("entered", "status"), [(" Pässwörd  ", 302), ("Pässwörd", 403), (" pässwörd  ", 403)])
def test_password_is_verified_as_it_was_entered(entered: str, status: int, account: Any) -> None:
    account.set_password(" Pässwörd  ")
    account.save()
    assert enter(SecureClient(), password=entered).status_code == status


def test_page_does_not_exist_without_the_setting(settings: Any) -> None:
    settings.PHI_OIDC = {**settings.PHI_OIDC, "BREAK_GLASS_ACCOUNTS": []}
    client = SecureClient()
    assert (client.get(URL).status_code, enter(client).status_code) == (404, 404)


def test_deactivated_account_is_refused(account: Any) -> None:
    account.is_active = False
    account.save()
    assert enter(SecureClient()).status_code == 403


def test_session_ends_when_the_setting_changes(settings: Any) -> None:
    client = SecureClient()
    enter(client)
    assert client.get("/admin/").status_code == 200
    settings.PHI_OIDC = {**settings.PHI_OIDC, "BREAK_GLASS_ACCOUNTS": ["other-admin"]}
    assert client.get("/admin/").status_code == 302


def test_session_ends_when_the_setting_changes_in_an_event_loop(settings: Any, rf: Any) -> None:
    client = SecureClient()
    enter(client)
    request = rf.get("/")
    request.session = client.session
    assert async_to_sync(auth.aget_user)(request).is_authenticated
    settings.PHI_OIDC = {**settings.PHI_OIDC, "BREAK_GLASS_ACCOUNTS": ["other-admin"]}
    assert not async_to_sync(auth.aget_user)(request).is_authenticated


def test_active_session_ends_after_an_hour(moment: type[Moment]) -> None:
    client = SecureClient()
    enter(client)
    for _ in range(5):
        moment.now += timedelta(minutes=10)
        assert client.get("/admin/").status_code == 200
    moment.now = NOW + timedelta(hours=1) - timedelta(seconds=1)
    assert client.get("/admin/").status_code == 200
    moment.now = NOW + timedelta(hours=1)
    assert client.get("/admin/", headers={"Accept": "text/html"})["Location"] == "/oidc/logged-out/?expired=1"
    assert client.session.get(auth.SESSION_KEY) is None


def test_guesses_are_limited_per_address(moment: type[Moment], checked_passwords: list[str]) -> None:
    guesser, other = SecureClient(REMOTE_ADDR="198.51.100.1"), SecureClient(REMOTE_ADDR="198.51.100.2")
    for number in range(5):
        assert enter(guesser, password=f"guess {number}").status_code == 403
    assert enter(guesser).status_code == 403, "the right password, too late"
    assert checked_passwords == [f"guess {number}" for number in range(5)]
    assert enter(other).status_code == 302
    moment.now += timedelta(minutes=1)
    assert enter(guesser).status_code == 302


def test_concurrent_guesses_do_not_exceed_the_limit(moment: type[Moment], checked_passwords: list[str]) -> None:
    def guess() -> int:
        return int(enter(SecureClient(REMOTE_ADDR="198.51.100.1"), password="wrong").status_code)

    assert at_once(guess) == [403] * 8
    assert len(checked_passwords) <= MAX_GUESSES_PER_ADDRESS
    moment.now += timedelta(minutes=1)
    assert enter(SecureClient(REMOTE_ADDR="198.51.100.1")).status_code == 302


def test_first_guesses_are_limited_in_total(
    moment: type[Moment], checked_passwords: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_phi_oidc.contrib.local_accounts.guess_limits.MAX_FIRST_GUESSES", 3)
    for number in range(3):
        assert enter(SecureClient(REMOTE_ADDR=f"198.51.100.{number}"), password="wrong").status_code == 403
    other = SecureClient(REMOTE_ADDR="198.51.100.9")
    assert enter(other).status_code == 403
    assert checked_passwords == ["wrong"] * 3
    moment.now += timedelta(minutes=1)
    assert enter(other).status_code == 302


FLOODS = {"empty forms": {"username": "", "password": ""}, "wrong passwords": {"password": "wrong"}}


@pytest.mark.parametrize("form", FLOODS.values(), ids=FLOODS)
def test_d1_flood_from_one_address_does_not_shut_the_page_for_others(
    form: dict[str, str], checked_passwords: list[str]
) -> None:
    flooder = SecureClient(REMOTE_ADDR="198.51.100.1")
    for _ in range(60):
        assert enter(flooder, **form).status_code == 403
    assert len(checked_passwords) <= MAX_GUESSES_PER_ADDRESS
    assert enter(SecureClient(REMOTE_ADDR="198.51.100.2")).status_code == 302


def test_d1_addresses_that_keep_guessing_do_not_use_up_the_share_of_first_guesses(
    checked_passwords: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_phi_oidc.contrib.local_accounts.guess_limits.MAX_REPEATED_GUESSES", 6)
    guessers = [SecureClient(REMOTE_ADDR=f"198.51.100.{number}") for number in range(4)]
    for guesser in guessers * MAX_GUESSES_PER_ADDRESS:
        assert enter(guesser, password="wrong").status_code == 403
    assert len(checked_passwords) == 4 + 6, "a first guess of each address, and six further ones"
    assert enter(guessers[0]).status_code == 403, "the right password, from an address that has failed"
    assert enter(SecureClient(REMOTE_ADDR="198.51.100.9")).status_code == 302


OTHER_REFUSALS = {"no other refusals": 0, "the total limit reached": MAX_EVENTS_TOTAL}


@pytest.mark.parametrize("others", OTHER_REFUSALS.values(), ids=OTHER_REFUSALS)
def test_successful_sign_in_does_not_count_as_a_guess(others: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_phi_oidc.contrib.local_accounts.guess_limits.MAX_GUESSES_PER_ADDRESS", 1)
    RefusalCount.objects.create(minute=NOW.replace(second=0), reason="", network="", count=others)
    assert [enter(SecureClient()).status_code for _ in range(2)] == [302, 302]
    flush_refusal_counts(now=NOW + timedelta(minutes=2))
    assert {reason for _, reason, _ in recorded_events()} == {"", "break_glass"}


@pytest.mark.parametrize(
    "wrong", [{"password": "wrong"}, {"username": "other-admin"}, {"username": "unknown"}], ids=str
)
def test_duration_does_not_reveal_the_account(wrong: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    iteration_counts: list[int] = []
    encode = PBKDF2PasswordHasher.encode

    def counting_encode(self: Any, password: str, salt: str, iterations: int | None = None) -> str:
        iteration_counts.append(iterations or self.iterations)
        return encode(self, password, salt, iterations)

    monkeypatch.setattr(PBKDF2PasswordHasher, "encode", counting_encode)
    assert enter(SecureClient(), **wrong).status_code == 403
    assert iteration_counts == [PBKDF2PasswordHasher.iterations]


@pytest.mark.parametrize("is_same", [False, True], ids=["another account's", "the same account's"])
def test_previous_session_ends_and_its_tokens_are_revoked(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], account: Any, is_same: bool
) -> None:
    person, bystander = sign_in(), sign_in()
    client = person.client()
    if is_same:
        session = client.session
        session[auth.SESSION_KEY], session[auth.HASH_SESSION_KEY] = str(account.pk), account.get_session_auth_hash()
        session.save()
        OIDCSession.objects.filter(pk=person.session.pk).update(user=account)
    assert enter(client, password="wrong").status_code == 403
    assert OIDCSession.objects.filter(ended_at=None).count() == 2
    assert enter(client).status_code == 302
    assert client.get("/admin/").status_code == 200
    assert OIDCSession.objects.get(ended_at=None).pk == bystander.session.pk
    assert SESSION_KEY not in client.session
    assert [request["token_type_hint"] for request in op.asked] == ["refresh_token", "access_token"]


def test_sign_in_is_refused_during_an_audit_outage() -> None:
    client = SecureClient()
    with connections["phi_audit"].cursor() as cursor:
        cursor.execute('ALTER TABLE "phi_oidc_audit_auditevent" RENAME TO "away"')
    try:
        assert enter(client).status_code == 503
        assert enter(client, password="wrong").status_code == 503
    finally:
        with connections["phi_audit"].cursor() as cursor:
            cursor.execute('ALTER TABLE "away" RENAME TO "phi_oidc_audit_auditevent"')
    assert client.get("/admin/").status_code == 302
    assert enter(client).status_code == 302


def test_password_is_accepted_on_the_break_glass_page_only(account: Any) -> None:
    assert auth.authenticate(None, username="night-desk", password=PASSWORD) is None
    credentials = BreakGlassCredentials(username="night-desk", password=PASSWORD)
    assert auth.authenticate(None, break_glass=credentials) == account
    assert PASSWORD not in repr(credentials)


def test_next_url_on_another_host_is_ignored() -> None:
    for target, location in {"/admin/": "/admin/", "https://evil.example/": "/", "//evil.example": "/"}.items():
        client = SecureClient()
        response = client.post(f"{URL}?next={target}", {"username": "night-desk", "password": PASSWORD})
        assert response["Location"] == location


def test_form_requires_a_csrf_token(account: Any) -> None:
    client = SecureClient(enforce_csrf_checks=True)
    assert enter(client).status_code == 403
    assert recorded_events() == []


def test_local_session_discloses_no_claims(account: Any, rf: Any) -> None:
    client = SecureClient()
    enter(client)
    request = rf.get("/")
    request.user, request.session = account, client.session
    with pytest.raises(RevealRefused):
        reveal(Actor.from_request(request), account, "birthdate", purpose="TREAT")
    assert AuditEvent.objects.filter(action=Action.ACCESS_DENIED, actor=str(account.pk)).exists()


# The admin's login page

STAFF = {"staff": True, "a patient": False}


def test_admin_redirects_to_the_provider() -> None:
    response = SecureClient().get("/admin/auth/user/", follow=False)
    assert response["Location"] == "/admin/login/?next=/admin/auth/user/"
    login = SecureClient().get(response["Location"])
    assert (login.status_code, login["Location"]) == (302, "/oidc/authenticate/?next=%2Fadmin%2Fauth%2Fuser%2F")
    assert SecureClient().post("/admin/login/", {"username": "other-admin", "password": PASSWORD}).status_code == 302


@pytest.mark.parametrize("is_staff", STAFF.values(), ids=STAFF)
def test_admin_refuses_signed_in_users_who_are_not_staff(account: Any, is_staff: bool) -> None:
    get_user_model()._default_manager.filter(pk=account.pk).update(is_staff=is_staff, is_superuser=False)
    client = SecureClient()
    enter(client)
    response = client.get("/admin/login/?next=/admin/")
    assert response.status_code == (302 if is_staff else 403)
    assert response.headers.get("Location") == ("/admin/" if is_staff else None)


def test_admin_keeps_its_form_without_the_apps_urls(settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.unit.login.admin_urls"
    assert b'name="password"' in SecureClient().get("/admin/login/").content


def test_custom_admin_site_redirects_to_the_provider(rf: Any) -> None:
    site, request = AdminSite(name="desk"), rf.get("/desk/login/?next=/desk/rota/")
    request.user = AnonymousUser()
    use_oidc_login(site)
    assert site.login(request)["Location"] == "/oidc/authenticate/?next=%2Fdesk%2Frota%2F"


def test_b5_admin_keeps_its_logout_for_a_local_session(account: Any) -> None:
    client = SecureClient()
    enter(client)
    response = client.post("/admin/logout/")
    assert (response.status_code, response["Location"]) == (302, django_settings.LOGOUT_REDIRECT_URL)
    assert "_auth_user_id" not in client.session


def test_cookie_of_a_local_session_expires_with_it() -> None:
    client = SecureClient()
    enter(client)
    assert client.cookies[django_settings.SESSION_COOKIE_NAME]["max-age"] == 3600


def test_asvs_6_3_5_wrong_password_is_notified_to_the_account(account: Any) -> None:
    account.email = "desk@example.org"
    account.save(update_fields=["email"])
    AccountNotice.objects.all().delete()
    assert enter(SecureClient(), "day-desk", "wrong").status_code == 403
    assert enter(SecureClient()).status_code == 302
    assert list(AccountNotice.objects.values_list("kind", flat=True)) == []
    for _ in range(3):
        assert enter(SecureClient(), password="wrong").status_code == 403
    assert list(AccountNotice.objects.values_list("kind", "user")) == [("password_refused", account.pk)]


def test_local_account_is_not_admitted_to_the_own_account_pages(account: Any) -> None:
    client = SecureClient()
    assert enter(client).status_code == 302
    for path in ("", "sessions/end/", "export/", "disclosures/"):
        refused = client.get(f"/oidc/account/{path}", headers={"Accept": "text/html"})
        assert (refused.status_code, "local account" in refused.content.decode()) == (403, True)
    assert {event.reason for event in AuditEvent.objects.filter(action="access.denied")} == {"session_missing"}

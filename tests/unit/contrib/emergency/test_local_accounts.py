"""Emergency access of local accounts, with which persons sign in while the provider is unavailable."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core import mail
from django.http import HttpRequest, HttpResponse
from django.urls import path

from django_phi_oidc._internal import clock
from django_phi_oidc.access.decisions import authorize
from django_phi_oidc.access.policy import AccessPolicy
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.audit.outbox import flush as drain_outbox
from django_phi_oidc.audit.request_context import Actor
from django_phi_oidc.claims.disclosure import reveal
from django_phi_oidc.contrib.emergency.errors import EmergencyRefused
from django_phi_oidc.contrib.emergency.lifecycle import open_emergency, review_emergency
from django_phi_oidc.contrib.emergency.models import EmergencyAccess, ReviewVerdict
from django_phi_oidc.contrib.emergency.tasks import tend_emergencies
from django_phi_oidc.decorators import require_assurance
from django_phi_oidc.errors import RevealRefused
from tests.support import guarded_views as wards
from tests.support.audit_outage import audit_database_fails
from tests.support.emergency_access import OFFICER, REASON, actor, allow, declare, list_events, opened
from tests.support.guarded_views import HELD, PERMISSION, RAN, guard, record_run
from tests.support.session_fixtures import BACKEND, SecureClient, SignedIn, sign_in  # noqa: F401 -- a fixture

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.unit.contrib.emergency.test_local_accounts"),
]
BREAK_GLASS = "django_phi_oidc.contrib.local_accounts.backends.BreakGlassBackend"
WARDS = "tests.support.guarded_views.Wards"
PASSWORD, URL, HTML = "correct horse battery staple", "/oidc/emergency/", {"Accept": "text/html"}
MINUTE = timedelta(minutes=1)


@guard(acr=["urn:example:loa:3"], max_age=MINUTE)
def sure_chart(request: HttpRequest, pk: int) -> HttpResponse:
    return record_run("sure_chart")


@require_assurance(max_age=timedelta(days=1))
def prescribe(request: HttpRequest) -> HttpResponse:
    return record_run("prescribe")


urlpatterns = [*wards.urlpatterns, path("sure/<int:pk>/", sure_chart), path("prescribe/", prescribe)]


@pytest.fixture(autouse=True)
def _portal(settings: Any) -> Iterator[None]:
    settings.AUTHENTICATION_BACKENDS = [BACKEND, BREAK_GLASS, WARDS]
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.PHI_OIDC = {**settings.PHI_OIDC, "BREAK_GLASS_ACCOUNTS": ["amina", "basil"]}
    declare(settings)
    HELD.clear()
    RAN.clear()
    yield
    HELD.clear()


def sign_in_locally(username: str, client: SecureClient | None = None) -> SecureClient:
    client = client or SecureClient()
    assert client.post("/oidc/local-login/", {"username": username, "password": PASSWORD}).status_code == 302
    return client


@pytest.fixture
def scene() -> SimpleNamespace:
    """Return two local accounts that may open emergencies, the first one signed in, and two patients."""
    users = get_user_model()._default_manager
    amina, basil = (
        allow(users.create_user(username=name, password=PASSWORD), "open_emergencyaccess", "review_emergencyaccess")
        for name in ("amina", "basil")
    )
    patient, other = (users.create_user(username=name).pk for name in ("patient", "other"))
    return SimpleNamespace(user=amina, basil=basil, client=sign_in_locally("amina"), patient=patient, other=other)


def open_page(scene: SimpleNamespace, *, minutes: int = 30, **changed: Any) -> Any:
    form = {"resource": f"Patient/{scene.patient}", "permissions": [PERMISSION], "purpose": "ETREAT", "reason": REASON}
    return scene.client.post(URL, {**form, "minutes": str(minutes), **changed}, headers=HTML)


def get_status(scene: SimpleNamespace, pk: int | None = None, *, page: str = "chart") -> int:
    return int(scene.client.get(f"/{page}/{pk or scene.patient}/?purpose=ETREAT", headers=HTML).status_code)


def last_decision() -> tuple[str, str, str, dict[str, Any]]:
    event = AuditEvent.objects.filter(action__startswith="access.").order_by("-id")[0]
    return event.action, event.reason, event.actor, json.loads(event.detail)


def local_actor(user: Any) -> Actor:
    return actor(user, session="", is_local=True)


def open_as(person: Actor, *, duration: timedelta = MINUTE) -> EmergencyAccess:
    arguments: dict[str, Any] = {"resource": "Patient/7", "permissions": [PERMISSION], "purpose": "ETREAT"}
    return open_emergency(person, **arguments, reason=REASON, duration=duration, now=clock.now())


def test_g3_local_account_sees_the_record_of_its_open_emergency(scene: SimpleNamespace) -> None:
    refused = scene.client.get(f"/chart/{scene.patient}/?purpose=ETREAT", headers=HTML)
    link = (
        f"/oidc/emergency/?resource=Patient%2F{scene.patient}&amp;next=%2Fchart%2F{scene.patient}%2F%3Fpurpose%3DETREAT"
    )
    assert (refused.status_code, refused["Cache-Control"]) == (403, "no-store")
    assert f'href="{link}"' in refused.content.decode()
    assert last_decision() == ("access.denied", "emergency_missing", str(scene.user.pk), {"local": True})
    assert open_page(scene)["Location"] == URL
    row = EmergencyAccess.objects.get()
    assert get_status(scene) == 200
    granted = {"emergency": str(row.pk), "local": True}
    assert last_decision() == ("access.granted", "", str(scene.user.pk), granted)
    assert get_status(scene, scene.other) == 403
    assert (RAN, last_decision()[1]) == (["chart"], "emergency_missing")


def test_g3_opening_is_recorded_and_mailed_as_that_of_a_local_account(scene: SimpleNamespace) -> None:
    open_page(scene)
    drain_outbox()
    row = EmergencyAccess.objects.get()
    (opening,) = list_events("emergency.opened")
    assert (opening[2]["emergency"], opening[2]["local"]) == (str(row.pk), True)
    assert AuditEvent.objects.filter(action="alert.raised", detail__contains="emergency_opened").count() == 1
    tend_emergencies()
    (message,) = mail.outbox
    assert message.to == [OFFICER]
    assert f"Account: {scene.user.pk}, signed in as a local account, without the provider\n" in message.body


def test_g3_emergency_of_a_session_of_the_provider_is_not_marked(sign_in: Callable[[], SignedIn]) -> None:
    user = allow(sign_in().user, "open_emergencyaccess")
    opened(user, "Patient/7")
    drain_outbox()
    assert "local" not in list_events("emergency.opened")[0][2]
    tend_emergencies()
    assert f"Account: {user.pk}\n" in mail.outbox[0].body


@pytest.mark.parametrize(
    ("changed", "minutes"), [({}, 30), ({"local_longest": 600}, 10), ({"longest": 300}, 5)], ids=str
)
def test_g3_duration_is_limited_to_the_lesser_one(
    changed: Any, minutes: int, settings: Any, scene: SimpleNamespace
) -> None:
    declare(settings, **changed)
    assert open_page(scene, minutes=minutes + 1).status_code == 400
    with pytest.raises(EmergencyRefused, match="duration_invalid"):
        open_as(local_actor(scene.user), duration=(minutes + 1) * MINUTE)
    assert open_page(scene, minutes=minutes).status_code == 302
    row = EmergencyAccess.objects.get()
    assert row.expires_at - row.opened_at == minutes * MINUTE
    session_limit = timedelta(seconds=changed.get("longest", 3600))
    assert not open_as(actor(scene.user), duration=session_limit).is_local


def test_g3_emergency_expires_after_its_time(scene: SimpleNamespace) -> None:
    now = clock.now()
    open_page(scene, minutes=10)
    for passed, status in ((9 * MINUTE, 200), (10 * MINUTE + timedelta(seconds=5), 403)):
        with clock.override_clock(lambda passed=passed: now + passed):
            assert get_status(scene) == status
    assert last_decision()[:2] == ("access.denied", "emergency_missing")


def test_g3_permission_alone_admits_no_local_account(scene: SimpleNamespace) -> None:
    HELD.add((scene.user.pk, scene.patient))
    get_user_model()._default_manager.filter(pk=scene.user.pk).update(is_superuser=True)
    assert (get_status(scene), last_decision()[1]) == (403, "emergency_missing")
    open_page(scene)
    assert get_status(scene) == 200


def test_g3_permission_to_open_is_needed(scene: SimpleNamespace) -> None:
    scene.user.user_permissions.clear()
    page = scene.client.get(f"/chart/{scene.patient}/?purpose=ETREAT", headers=HTML)
    assert (page.status_code, "/oidc/emergency/" in page.content.decode()) == (403, False)
    assert open_page(scene).status_code == 403
    assert list_events("emergency.refused")[0][1] == "permission_missing"


def test_g3_another_person_reviews_it(scene: SimpleNamespace) -> None:
    row = open_as(local_actor(scene.user))
    later, verdict = row.expires_at + MINUTE, ReviewVerdict.JUSTIFIED
    for reviewer in (local_actor(scene.user), actor(scene.user)):
        with pytest.raises(EmergencyRefused, match="own_emergency"):
            review_emergency(row.pk, actor=reviewer, verdict=verdict, note="", now=later)
    reviewed = review_emergency(row.pk, actor=actor(scene.basil), verdict=verdict, note="", now=later)
    assert reviewed.reviewed_by == str(scene.basil.pk)


def test_g3_each_local_account_has_its_own_emergencies(scene: SimpleNamespace) -> None:
    open_page(scene)
    basil = SimpleNamespace(client=sign_in_locally("basil"), patient=scene.patient)
    assert (get_status(basil), last_decision()[2]) == (403, str(scene.basil.pk))
    assert (get_status(scene), last_decision()[2]) == (200, str(scene.user.pk))


def test_g3_emergency_applies_to_the_kind_of_sign_in_that_opened_it(scene: SimpleNamespace) -> None:
    policy = AccessPolicy(permission=PERMISSION, purposes=frozenset({"ETREAT"}))
    arguments: dict[str, Any] = {"resource": "Patient/7", "purpose": "ETREAT", "find_object": None, "now": clock.now()}
    persons = actor(scene.user), local_actor(scene.user)
    row = opened(scene.user, "Patient/7")
    assert [authorize(person, policy, **arguments) for person in persons] == [None, "emergency_missing"]
    EmergencyAccess.objects.filter(pk=row.pk).update(is_local=True)
    assert [authorize(person, policy, **arguments) for person in persons] == ["permission_missing", None]


@pytest.mark.parametrize(
    ("backend", "is_new"), [(WARDS, True), (BREAK_GLASS, True), (WARDS, False)], ids=["other", "same", "other, later"]
)
def test_g3_password_sign_in_elsewhere_is_not_local(backend: str, is_new: bool, scene: SimpleNamespace) -> None:
    """Neither with another backend, nor without the page, nor in the session that the page has begun."""
    open_page(scene)
    assert get_status(scene) == 200
    if is_new:
        scene.client = SecureClient()
    scene.client.force_login(scene.user, backend=backend)
    response = scene.client.get(f"/chart/{scene.patient}/?purpose=ETREAT", headers=HTML)
    assert (response.status_code, response["Location"].partition("?")[0]) == (302, "/oidc/authenticate/")
    assert last_decision()[:2] == ("access.denied", "session_missing")
    assert scene.client.get(URL, headers=HTML)["Location"].startswith("/oidc/authenticate/")
    with pytest.raises(EmergencyRefused, match="session_missing"):
        open_as(actor(scene.user, session=""))
    assert open_as(local_actor(scene.user)).is_local


@pytest.mark.parametrize("change", ["unlisted", "inactive", "password"])
def test_g3_session_of_a_withdrawn_account_is_refused(change: str, settings: Any, scene: SimpleNamespace) -> None:
    open_page(scene)
    assert get_status(scene) == 200
    if change == "unlisted":
        settings.PHI_OIDC = {**settings.PHI_OIDC, "BREAK_GLASS_ACCOUNTS": ["basil"]}
    elif change == "inactive":
        get_user_model()._default_manager.filter(pk=scene.user.pk).update(is_active=False)
    else:
        scene.user.set_password("another")
        scene.user.save()
    assert get_status(scene) == 302
    assert RAN == ["chart"]


def test_g3_emergency_replaces_the_assurance_of_the_view(scene: SimpleNamespace) -> None:
    assert (get_status(scene, page="sure"), last_decision()[1]) == (403, "emergency_missing")
    open_page(scene)
    assert get_status(scene, page="sure") == 200


def test_g3_view_that_requires_assurance_refuses_a_local_account_with_a_page(scene: SimpleNamespace) -> None:
    open_page(scene)
    page = scene.client.get("/prescribe/", headers=HTML)
    assert (page.status_code, URL in page.content.decode()) == (403, False)
    assert last_decision()[1:3] == ("session_missing", str(scene.user.pk))
    assert last_decision()[3] == {"local": True, "page": f"{__name__}.prescribe"}
    assert RAN == []


def test_g3_script_gets_the_url_of_the_form(scene: SimpleNamespace) -> None:
    response = scene.client.get(f"/chart/{scene.patient}/?purpose=ETREAT")
    problem = response.json()
    assert (response.status_code, problem["code"]) == (403, "emergency_missing")
    assert problem["emergency"].startswith(f"{URL}?resource=Patient%2F{scene.patient}&next=")


def test_g3_missing_object_is_refused_like_a_missing_emergency(scene: SimpleNamespace) -> None:
    assert (get_status(scene, 999999), last_decision()[1]) == (403, "emergency_missing")
    open_page(scene, resource="Patient/999999")
    assert (get_status(scene, 999999), last_decision()[1]) == (403, "emergency_missing")


def test_g3_page_offers_no_emergency_if_none_is_declared(settings: Any, scene: SimpleNamespace) -> None:
    settings.PHI_OIDC = {**settings.PHI_OIDC, "EMERGENCY": None}
    page = scene.client.get(f"/chart/{scene.patient}/?purpose=ETREAT", headers=HTML)
    assert (page.status_code, URL in page.content.decode()) == (403, False)


def test_g3_emergency_of_a_local_account_reveals_no_claims(scene: SimpleNamespace, rf: Any) -> None:
    open_page(scene)
    request = rf.get("/")
    request.user, request.session = scene.user, scene.client.session
    person = Actor.from_request(request)
    assert person.is_local
    with pytest.raises(RevealRefused):
        reveal(person, scene.user, "birthdate", purpose="TREAT")
    assert last_decision()[:2] == ("access.denied", "session_missing")


def test_g3_grant_is_spooled_while_the_audit_log_is_unavailable(
    scene: SimpleNamespace, settings: Any, tmp_path: Path
) -> None:
    declare(settings, spool=tmp_path / "spool")
    open_page(scene)
    with audit_database_fails():
        assert get_status(scene) == 200
        assert get_status(scene, scene.other) == 503
    assert get_status(scene) == 200
    assert AuditEvent.objects.filter(action="access.granted", detail__contains='"local":true').count() == 2


def test_g3_form_needs_no_acr_of_a_local_account(scene: SimpleNamespace, settings: Any) -> None:
    declare(settings, acr=["gold"])
    assert scene.client.get(URL, headers=HTML).status_code == 200
    assert open_page(scene).status_code == 302


def test_g3_guesses_name_the_account_in_the_event(scene: SimpleNamespace) -> None:
    for name in ("basil", "unlisted"):
        SecureClient().post("/oidc/local-login/", {"username": name, "password": "wrong"})
    refused = AuditEvent.objects.filter(action="login.refused").order_by("id").values_list("actor", "resource")
    assert list(refused) == [("", f"user/{scene.basil.pk}"), ("", "")]

"""The review queue of emergency access, and the page on which another person reviews one."""

import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from html import unescape
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connections, transaction
from django.test.utils import CaptureQueriesContext
from django.urls import include, path

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.descriptions import get_action_label
from django_phi_oidc.audit.events import Action
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.contrib.emergency import admin as emergency_admin
from django_phi_oidc.contrib.emergency.admin import EmergencyAccessAdmin
from django_phi_oidc.contrib.emergency.lifecycle import close_emergencies, review_emergency
from django_phi_oidc.contrib.emergency.models import CloseReason, EmergencyAccess, ReviewVerdict
from tests.support import guarded_views as wards
from tests.support.audit_outage import audit_database_fails
from tests.support.emergency_access import REASON, actor, allow, declare, list_events, opened
from tests.support.guarded_views import HELD
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.session_fixtures import BACKEND, SignedIn, sign_in  # noqa: F401 -- a fixture
from tests.unit.contrib.emergency.test_views import OPEN, REVIEW, assert_accessible

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.unit.contrib.emergency.test_admin"),
]
urlpatterns = [*wards.urlpatterns, path("", include("tests.urls"))]
HTML = {"Accept": "text/html"}


@pytest.fixture(autouse=True)
def _wards(settings: Any) -> None:
    settings.AUTHENTICATION_BACKENDS = [BACKEND, "tests.support.guarded_views.Wards"]
    declare(settings)
    HELD.clear()


@pytest.fixture
def scene(sign_in: Callable[[], SignedIn]) -> SimpleNamespace:
    clinician = sign_in()
    return SimpleNamespace(user=allow(clinician.user, OPEN), client=clinician.client(), signed_in=clinician)


@pytest.fixture
def reviewer(sign_in: Callable[[], SignedIn]) -> SignedIn:
    signed_in = sign_in()
    signed_in.user.is_staff = True  # type: ignore[attr-defined]
    signed_in.user.save()
    signed_in.user = allow(signed_in.user, "view_emergencyaccess", REVIEW)
    return signed_in


def admin_url(row: EmergencyAccess) -> str:
    return f"/admin/phi_oidc_emergency/emergencyaccess/{row.pk}/change/"


LIST = "/admin/phi_oidc_emergency/emergencyaccess/"
VERDICT = {"verdict": "not_justified", "note": "There was no emergency."}


def open_and_close(user: Any, resource: str = "Patient/7") -> EmergencyAccess:
    row = opened(user, resource)
    close_emergencies([row.pk], CloseReason.CLOSED, origin=actor(user).origin, now=clock.now())
    return row


def test_review_shows_the_reason_after_an_event_and_is_saved_once(scene: SimpleNamespace, reviewer: SignedIn) -> None:
    row, client = open_and_close(scene.user), reviewer.client()
    page = client.get(admin_url(row))
    assert (page.status_code, page["Cache-Control"]) == (200, "no-store")
    assert REASON in page.content.decode()
    assert get_action_label("emergency.opened") in page.content.decode()
    assert_accessible(page.content.decode())
    (event,) = AuditEvent.objects.filter(action="audit.viewed")
    assert (event.actor, event.resource) == (str(reviewer.user.pk), f"EmergencyAccess/{row.pk}")
    assert client.post(admin_url(row), {"verdict": "", "note": "x"}).status_code == 400
    assert client.post(admin_url(row), VERDICT)["Location"] == LIST
    row.refresh_from_db()
    assert (row.reviewed_by, row.verdict) == (str(reviewer.user.pk), "not_justified")
    page = client.get(admin_url(row))
    assert "There was no emergency." in page.content.decode()
    assert "Save the review" not in page.content.decode()
    assert client.post(admin_url(row), VERDICT)["Location"] == admin_url(row)
    assert list_events()[-1][1] == "already_reviewed"


def test_reason_is_not_shown_without_the_audit_log(scene: SimpleNamespace, reviewer: SignedIn) -> None:
    row = open_and_close(scene.user)
    with audit_database_fails():
        page = reviewer.client().get(admin_url(row))
    assert (page.status_code, REASON in page.content.decode()) == (503, False)


def test_own_emergency_cannot_be_reviewed_in_the_admin(reviewer: SignedIn) -> None:
    user = allow(reviewer.user, OPEN)
    row, client = open_and_close(user), reviewer.client()
    assert "Save the review" not in client.get(admin_url(row)).content.decode()
    assert client.post(admin_url(row), VERDICT)["Location"] == admin_url(row)
    row.refresh_from_db()
    assert (row.reviewed_at, list_events()[-1][1]) == (None, "own_emergency")


def test_permission_removed_during_the_request_saves_no_review(
    scene: SimpleNamespace, reviewer: SignedIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = open_and_close(scene.user)
    reviewer.user.user_permissions.remove(*reviewer.user.user_permissions.filter(codename=REVIEW))  # type: ignore[attr-defined]
    monkeypatch.setattr(EmergencyAccessAdmin, "has_review_permission", lambda *args: True)
    assert reviewer.client().post(admin_url(row), VERDICT).status_code == 403
    row.refresh_from_db()
    assert row.reviewed_at is None


def test_view_permission_neither_reviews_nor_closes(scene: SimpleNamespace, reviewer: SignedIn) -> None:
    row = open_and_close(scene.user)
    reviewer.user.user_permissions.remove(*reviewer.user.user_permissions.filter(codename=REVIEW))  # type: ignore[attr-defined]
    client = reviewer.client()
    assert client.get(admin_url(row)).status_code == 200
    denied = ("access.denied", "permission_missing")
    for data in (VERDICT, {}):
        assert client.post(admin_url(row), data).status_code == 403
        assert list_events("access.")[-1] == (*denied, {"page": "emergencyaccess/change"})
    still_open = opened(scene.user, "Patient/8")
    data = {"action": "close_now", "_selected_action": [str(still_open.pk)]}
    assert client.post(LIST, data).status_code == 403
    assert list_events("access.")[-1] == (*denied, {"page": "emergencyaccess/close_now"})
    still_open.refresh_from_db()
    assert still_open.closed_at is None
    reviewer.user.user_permissions.clear()  # type: ignore[attr-defined]
    assert reviewer.client().get(admin_url(row)).status_code == 403


def test_list_filters_and_closes_without_showing_reasons(scene: SimpleNamespace, reviewer: SignedIn) -> None:
    still_open, waiting, client = (
        opened(scene.user, "Patient/8"),
        open_and_close(scene.user, "Patient/9"),
        reviewer.client(),
    )
    rows = {"open": {"Patient/8"}, "waiting": {"Patient/9"}, "reviewed": set(), "": {"Patient/8", "Patient/9"}}
    for state, expected in rows.items():
        page = client.get(LIST, {"state": state} if state else {}).content.decode()
        assert {name for name in ("Patient/8", "Patient/9") if name in page} == expected
        assert REASON not in page
    client.post(LIST, {"action": "close_now", "_selected_action": [str(still_open.pk), str(waiting.pk)]})
    still_open.refresh_from_db()
    assert (still_open.close_reason, waiting.close_reason) == ("administrator", "")
    assert list_events()[-1][:2] == ("emergency.closed", "administrator")
    for wrong in (uuid.uuid4(), "no-uuid"):
        assert client.get(f"{LIST}{wrong}/change/").status_code == 404
    for forbidden in ("add/", f"{still_open.pk}/delete/"):
        assert client.get(LIST + forbidden).status_code == 403


def test_undecryptable_reason_is_reported(scene: SimpleNamespace, reviewer: SignedIn, settings: Any) -> None:
    row = open_and_close(scene.user)
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"encryption": settings.PHI_OIDC["KEYS"]["subject"]})
    page = reviewer.client().get(admin_url(row))
    assert (page.status_code, "cannot be decrypted" in page.content.decode()) == (200, True)


# The queue


DAY = timedelta(days=1)


def opened_ago(user: Any, resource: str, age: timedelta) -> EmergencyAccess:
    """Open an emergency at that time, for an hour."""
    return opened(user, resource, now=clock.now() - age)


def get_records(page: str) -> list[str]:
    """Return the records in the order of the list."""
    return [text.partition("<")[0] for text in page.split('<td class="field-record">')[1:]]


def name_user(user: Any, name: str) -> None:
    get_user_model()._default_manager.filter(pk=user.pk).update(first_name=name, last_name="Keller")


def test_queue_lists_the_oldest_that_waits_first_with_age_and_deadline(
    scene: SimpleNamespace, reviewer: SignedIn
) -> None:
    name_user(scene.user, "Amina")
    for resource, age in {"Patient/1": DAY, "Patient/2": 6 * DAY, "Patient/3": timedelta(minutes=5)}.items():
        opened_ago(scene.user, resource, age)
    reviewed = opened_ago(scene.user, "Patient/4", 8 * DAY)
    review_emergency(reviewed.pk, actor=actor(reviewer.user), verdict=ReviewVerdict.JUSTIFIED, note="", now=clock.now())
    page = reviewer.client().get(LIST).content.decode()
    text = unescape(page).replace("\xa0", " ")
    assert get_records(page) == ["Patient/2", "Patient/1", "Patient/3", "Patient/4"]
    assert text.count("Amina Keller") == 4
    assert "Emergency treatment" in text
    assert ("waiting for 5 days" in text, "overdue since" in text) == (True, True)
    assert ("waiting for 23 hours, due" in text, "open until" in text) == (True, True)
    overdue = reviewer.client().get(LIST, {"state": "overdue"}).content.decode()
    assert get_records(overdue) == ["Patient/2"]


def test_deadline_follows_the_setting(scene: SimpleNamespace, reviewer: SignedIn, settings: Any) -> None:
    opened_ago(scene.user, "Patient/1", 3 * DAY)
    assert "overdue since" not in reviewer.client().get(LIST).content.decode()
    declare(settings, review_within=2 * DAY)
    assert "overdue since" in reviewer.client().get(LIST).content.decode()


def test_person_is_a_link_only_for_those_who_may_open_the_page(
    scene: SimpleNamespace, reviewer: SignedIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = open_and_close(scene.user)
    link = f'href="/admin/django_phi_oidc/person/{scene.user.pk}/"'
    for url in (LIST, admin_url(row)):
        assert link in reviewer.client().get(url).content.decode()
        monkeypatch.setattr(emergency_admin, "can_view_person_pages", lambda user: False)
        assert link not in reviewer.client().get(url).content.decode()
        monkeypatch.undo()


def test_deleted_account_and_local_account_are_named(scene: SimpleNamespace, reviewer: SignedIn) -> None:
    row = open_and_close(scene.user)
    EmergencyAccess.objects.filter(pk=row.pk).update(user=None, actor="999999", is_local=True)
    for url in (LIST, admin_url(row)):
        assert "deleted account 999999, local account" in reviewer.client().get(url).content.decode()


def count_queries(client: Any, url: str) -> tuple[int, int]:
    with (
        CaptureQueriesContext(connections["default"]) as default_queries,
        CaptureQueriesContext(connections["phi_audit"]) as audit_queries,
    ):
        assert client.get(url).status_code == 200
    return len(default_queries), len(audit_queries)


def test_queries_do_not_grow_with_the_rows(
    scene: SimpleNamespace, reviewer: SignedIn, sign_in: Callable[[], SignedIn]
) -> None:
    row, client = open_and_close(scene.user), reviewer.client()
    before = [count_queries(client, url) for url in (LIST, admin_url(row))]
    other = allow(sign_in().user, OPEN)
    for number in range(5):
        open_and_close(scene.user, f"Patient/1{number}")
        open_and_close(other, f"Patient/2{number}")
    assert [count_queries(client, url) for url in (LIST, admin_url(row))] == before


# What was looked at


def test_page_shows_what_the_person_opened_and_other_emergencies(scene: SimpleNamespace, reviewer: SignedIn) -> None:
    patient = get_user_model()._default_manager.create_user("patient")
    earlier = opened_ago(scene.user, "Patient/8", 20 * DAY)
    opened_ago(scene.user, "Patient/9", 40 * DAY)
    row = opened(scene.user, f"Patient/{patient.pk}")
    assert scene.client.get(f"/chart/{patient.pk}/?purpose=TREAT").status_code == 200
    assert scene.client.get(f"/chart/{patient.pk}/?purpose=HMARKT").status_code == 403
    close_emergencies([row.pk], CloseReason.CLOSED, origin=actor(scene.user).origin, now=clock.now())
    page = reviewer.client().get(admin_url(row)).content.decode()
    seen = page.partition('id="accesses"')[2].partition("</section>")[0]
    assert seen.count(f"<td>Patient/{patient.pk}</td>") == 1
    assert "Emergency treatment" in seen
    others = page.partition('id="others"')[2].partition("</section>")[0]
    assert ("Patient/8" in others, "Patient/9" in others) == (True, False)
    assert admin_url(earlier) in others
    assert "See a chart" in page
    link = "/admin/phi_oidc_audit/auditevent/"
    assert link not in page
    allow(reviewer.user, "view_auditevent")
    event = AuditEvent.objects.get(action=Action.ACCESS_GRANTED, resource=f"Patient/{patient.pk}")
    assert f"{link}{event.pk}/change/" in reviewer.client().get(admin_url(row)).content.decode()


def test_accesses_beyond_the_limit_are_counted(
    scene: SimpleNamespace, reviewer: SignedIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emergency_admin, "MAX_LISTED_ACCESSES", 2)
    patient = get_user_model()._default_manager.create_user("patient")
    row = opened(scene.user, f"Patient/{patient.pk}")
    for _ in range(3):
        assert scene.client.get(f"/chart/{patient.pk}/?purpose=TREAT").status_code == 200
    page = reviewer.client().get(admin_url(row)).content.decode()
    assert page.partition('id="accesses"')[2].count(f"<td>Patient/{patient.pk}</td><td>Emergency treatment</td>") == 2
    assert "1 more access is not listed here." in page


def test_events_are_found_by_the_index_of_the_actor(scene: SimpleNamespace, reviewer: SignedIn) -> None:
    row, connection = open_and_close(scene.user), connections["phi_audit"]
    with CaptureQueriesContext(connection) as queries:
        assert reviewer.client().get(admin_url(row)).status_code == 200
    sql, *_ = [query["sql"] for query in queries if "SELECT" in query["sql"] and "actor" in query["sql"]]
    with transaction.atomic(using="phi_audit"), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(f"EXPLAIN {'QUERY PLAN ' if connection.vendor == 'sqlite' else ''}{sql}")
        plan = str(cursor.fetchall())
    assert "phi_oidc_audit_actor" in plan


# One after the other


def test_review_leads_to_the_next_one_that_waits(scene: SimpleNamespace, reviewer: SignedIn) -> None:
    user = allow(reviewer.user, OPEN)
    rows = [opened_ago(scene.user, f"Patient/{days}", days * DAY) for days in (4, 3, 2)]
    own = opened_ago(user, "Patient/5", 5 * DAY)
    client = reviewer.client()
    page = client.get(admin_url(rows[0])).content.decode()
    assert "Next: 2 more wait for review" in page
    response = client.post(admin_url(rows[0]), VERDICT, follow=True)
    assert response.redirect_chain == [(admin_url(rows[1]), 302)]
    assert "The review was saved. Next: 2 more wait for review." in response.content.decode()
    assert client.post(admin_url(rows[1]), VERDICT)["Location"] == admin_url(rows[2])
    response = client.post(admin_url(rows[2]), VERDICT, follow=True)
    assert response.redirect_chain == [(LIST, 302)]
    assert "No other emergency access waits for your review." in response.content.decode()
    assert EmergencyAccess.objects.get(reviewed_at=None).pk == own.pk


def test_reviewer_is_named(scene: SimpleNamespace, reviewer: SignedIn) -> None:
    name_user(reviewer.user, "Priya")
    row, client = open_and_close(scene.user), reviewer.client()
    client.post(admin_url(row), VERDICT)
    assert "<dd>Priya Keller</dd>" in client.get(admin_url(row)).content.decode()


def test_state_in_words(scene: SimpleNamespace) -> None:
    now = clock.now()
    row = opened(scene.user, "Patient/7", now=now)

    def describe(time: datetime) -> str:
        return emergency_admin.describe_review(row, now=time).replace("\xa0", " ")

    assert describe(now).startswith("open until ")
    assert describe(row.expires_at + DAY).startswith("waiting for 1 day, due ")
    assert describe(row.expires_at + 4 * DAY).startswith("overdue since ")

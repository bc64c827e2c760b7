"""The pages of refused requests: who the user is, what is missing, the event as reference, and how to leave."""

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.admin import AdminSite
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db import OperationalError, connection
from django.http import Http404, HttpRequest, HttpResponse
from django.test import AsyncClient, RequestFactory
from django.urls import include, path, resolve

from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.sessions.refusal_pages import find_admin_site, find_outage_response, find_permission_name
from tests.support import guarded_views as wards
from tests.support.audit_outage import audit_database_fails
from tests.support.emergency_access import allow, declare
from tests.support.guarded_views import HELD, PERMISSION
from tests.support.person_page_fixtures import make_groups
from tests.support.session_fixtures import BACKEND, SignedIn

HTML = {"Accept": "text/html"}
LIST = "/admin/phi_oidc_legal_holds/legalhold/"


def unknown_page(request: HttpRequest) -> HttpResponse:
    raise Http404


urlpatterns = [*wards.urlpatterns, path("unknown/", unknown_page), path("", include("tests.urls"))]
pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.unit.sessions.test_refusal_pages"),
]


@pytest.fixture
def person(sign_in: Callable[[], SignedIn], settings: Any) -> Any:
    """Return the browser of a signed-in user with a name."""
    settings.AUTHENTICATION_BACKENDS = [BACKEND, "tests.support.guarded_views.Wards"]
    HELD.clear()
    signed_in = sign_in()
    user: Any = signed_in.user
    get_user_model()._default_manager.filter(pk=user.pk).update(first_name="Amina", last_name="Keller")
    client: Any = signed_in.client()
    client.user = get_user_model()._default_manager.get(pk=user.pk)
    return client


def make_staff(client: Any, group: str = "") -> None:
    make_groups()
    client.user.is_staff = True
    client.user.save()
    if group:
        client.user.groups.add(Group.objects.get(name=group))


def get_page(response: Any) -> str:
    """Return the page without values that differ in each response."""
    return re.sub(r'value="\w{64}"', "", response.content.decode())


def get_denied_event() -> AuditEvent:
    return AuditEvent.objects.get(action="access.denied")


def test_admin_refusal_names_the_user_the_permission_its_groups_and_the_event(person: Any) -> None:
    make_staff(person, "Help desk")
    response = person.get(LIST)
    page = get_page(response)
    assert (response.status_code, response["Cache-Control"]) == (403, "no-store")
    for text in ("Amina Keller", person.user.get_username(), "View legal holds", "Privacy officer", "Sign out"):
        assert text in page
    assert f"<code>{get_denied_event().pk}</code>" in page
    assert 'action="/oidc/logout/"' in page
    assert "/oidc/authenticate/?prompt=login" in page
    person.user.groups.add(Group.objects.get(name="Privacy officer"))
    assert person.get(LIST).status_code == 200
    assert AuditEvent.objects.filter(action="access.denied").count() == 1


@pytest.mark.parametrize(
    ("path", "data", "permission"),
    [
        ("phi_oidc_legal_holds/legalhold/add/", None, "Add legal holds"),
        ("phi_oidc_monitoring/securityalert/", None, "View security alerts"),
        ("phi_oidc_audit/auditevent/", None, "View audit events"),
        ("phi_oidc_audit_exports/trailjob/export/", {}, "View audit events"),
        ("django_phi_oidc/oidcsession/", {"action": "end_now", "_selected_action": ["1"]}, "Can end sessions"),
        ("phi_oidc_invitations/activationcode/add/", None, "Can make and revoke activation codes"),
        ("phi_oidc_invitations/activationcode/import/", None, "Can make and revoke activation codes"),
        ("phi_oidc_invitations/activationcode/import/codes/", {}, "Can make and revoke activation codes"),
        ("django_phi_oidc/pairwisesubject/import/", {}, "Add pairwise subjects"),
        ("django_phi_oidc/pairwisesubject/import/template/", None, "Add pairwise subjects"),
        ("phi_oidc_officer_admin/sessionendjob/", None, "Can end the sessions of many people"),
        ("phi_oidc_officer_admin/sessionendjob/add/", {}, "Can end the sessions of many people"),
    ],
)
def test_admin_refusal_names_the_permission_of_the_operation(
    path: str, data: Any, permission: str, person: Any
) -> None:
    make_staff(person)
    if path.startswith(("django_phi_oidc/oidcsession", "phi_oidc_officer_admin/sessionendjob")):
        allow(person.user, "view_oidcsession")
    url = f"/admin/{path}"
    response = person.get(url) if data is None else person.post(url, data)
    assert (response.status_code, f"<dd>{permission}</dd>" in get_page(response)) == (403, True)


def test_operation_that_no_permission_allows_names_none(person: Any) -> None:
    make_staff(person, "Privacy officer")
    response = person.get("/admin/django_phi_oidc/storedclaim/add/")
    assert (response.status_code, "Missing permission" in get_page(response)) == (403, False)
    assert "even with your permissions" in get_page(response)


def test_user_who_is_not_staff_is_refused_at_the_door_without_names_of_groups(person: Any) -> None:
    make_groups()
    response = person.get(LIST, follow=True)
    page = get_page(response)
    assert response.status_code == 403
    assert "Your account is not a staff account." in page
    assert "Amina Keller" in page
    assert str(get_denied_event().pk) in page
    assert "Privacy officer" not in page
    make_staff(person)
    assert person.get("/admin/").status_code == 200


def test_person_page_refusal_has_its_event_as_reference(person: Any) -> None:
    make_staff(person)
    response = person.get(f"/admin/django_phi_oidc/person/{person.user.pk}/")
    assert (response.status_code, str(get_denied_event().pk) in get_page(response)) == (403, True)


def test_unknown_row_has_a_page_in_the_admin_only(person: Any) -> None:
    make_staff(person, "Privacy officer")
    unknown = "01a20f04-df0d-7d9d-af57-46f39850d3be"
    for url in (
        f"phi_oidc_emergency/emergencyaccess/{unknown}/change/",
        f"phi_oidc_audit/auditevent/{unknown}/change/",
    ):
        response = person.get(f"/admin/{url}")
        assert (response.status_code, "This record does not exist" in get_page(response)) == (404, True)
    assert "This record does not exist" not in get_page(person.get("/unknown/"))


def test_unavailable_audit_log_has_retry_advice_and_a_reference_in_the_log(
    person: Any, caplog: pytest.LogCaptureFixture
) -> None:
    make_staff(person)
    for url in (LIST, "/chart/7/?purpose=TREAT"):
        with audit_database_fails():
            response = person.get(url, headers=HTML)
        assert (response.status_code, response["Retry-After"]) == (503, "60")
        reference = re.search("<code>(.*)</code>", get_page(response))
        assert reference
        assert f"reference={reference[1]}" in caplog.text
        assert "Try again" in get_page(response)


# Guarded views


def test_guarded_view_without_a_page_of_the_project_has_one_that_does_not_depend_on_the_rule(person: Any) -> None:
    patient = get_user_model()._default_manager.create_user("patient")
    HELD.add((person.user.pk, patient.pk))
    pages = []
    for url in ("/chart/999999/?purpose=TREAT", f"/chart/{patient.pk}/?purpose=HMARKT"):
        response = person.get(url, headers=HTML)
        assert (response.status_code, response["Cache-Control"]) == (403, "no-store")
        event = AuditEvent.objects.filter(action="access.denied").latest("id")
        page = get_page(response)
        assert str(event.pk) in page
        pages.append(re.sub(r"next=[^\"]*", "", page.replace(str(event.pk), "")))
    first, second = pages
    assert first == second
    assert "Amina Keller" in first
    assert 'action="/oidc/logout/"' in first
    reasons = AuditEvent.objects.filter(action="access.denied").order_by("id").values_list("reason", flat=True)
    assert list(reasons) == ["permission_missing", "purpose_not_declared"]
    assert person.get(f"/chart/{patient.pk}/?purpose=TREAT", headers=HTML).status_code == 200


def test_guarded_view_offers_emergency_access_to_those_who_may_open_it(person: Any, settings: Any) -> None:
    link = "/oidc/emergency/?resource=Patient%2F7"
    declare(settings)
    assert link not in get_page(person.get("/chart/7/?purpose=TREAT", headers=HTML))
    allow(person.user, "open_emergencyaccess")
    assert link in get_page(person.get("/chart/7/?purpose=TREAT", headers=HTML))
    declare(settings, permissions={"portal.other": "Another permission"})
    assert link not in get_page(person.get("/chart/7/?purpose=TREAT", headers=HTML))


def test_async_view_has_the_page(person: Any) -> None:
    client = AsyncClient()
    client.cookies = person.cookies
    response = async_to_sync(client.get)("/achart/7/?purpose=TREAT", secure=True, headers=HTML)
    assert (response.status_code, str(get_denied_event().pk) in get_page(response)) == (403, True)


def test_script_gets_a_problem_document(person: Any) -> None:
    response = person.get("/chart/7/?purpose=TREAT", headers={"Accept": "application/json"})
    assert response["Content-Type"] == "application/problem+json"
    assert response.json() == {"title": "Access is denied.", "status": 403, "code": "access_denied"}


def test_project_keeps_its_template_for_guarded_views_and_can_show_the_reference(
    person: Any, settings: Any, tmp_path: Path
) -> None:
    (tmp_path / "403.html").write_text("The project's page: {{ request.phi_oidc_refusal.reference }}")
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": [str(tmp_path)]}]
    response = person.get("/chart/7/?purpose=TREAT", headers=HTML)
    assert response.status_code == 403
    assert response.content.decode() == f"The project&#x27;s page: {get_denied_event().pk}".replace("&#x27;", "'")
    make_staff(person)
    assert "You do not have access" in get_page(person.get(LIST))


def test_project_keeps_its_handler_for_guarded_views(person: Any, settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.unit.sessions.refusal_handler_urls"
    response = person.get("/chart/7/?purpose=TREAT", headers=HTML)
    assert (response.status_code, response.content.decode()) == (403, f"refused: {get_denied_event().pk}")


def test_names_of_permissions(settings: Any) -> None:
    assert find_permission_name("phi_oidc_audit.view_auditevent") == "View audit events"
    assert find_permission_name("phi_oidc_audit.export_auditevent") == "Can export audit events"
    assert [find_permission_name(name) for name in (PERMISSION, "", "wrong")] == ["", "", ""]


def test_default_admin_site_is_found_before_others_of_its_name(rf: Any) -> None:
    others = [AdminSite() for _ in range(30)]
    request = rf.get("/admin/")
    request.resolver_match = resolve("/admin/")
    found = find_admin_site(request)
    assert found is not None
    assert all(found is not other for other in others)


@pytest.mark.sqlite
def test_missing_table_is_no_outage_and_a_file_that_cannot_be_opened_is_one(tmp_path: Path) -> None:
    def respond(folder: Path) -> HttpResponse | None:
        with (
            pytest.raises(OperationalError) as failed,
            connection.wrap_database_errors,
            closing(sqlite3.connect(folder / "portal.sqlite3")) as database,
        ):
            database.execute("SELECT 1 FROM missing")
        return find_outage_response(RequestFactory().get("/oidc/logged-out/"), failed.value)

    assert respond(tmp_path) is None
    response = respond(tmp_path / "missing")
    assert response is not None
    assert (response.status_code, response["Retry-After"]) == (503, "10")

"""Refusal pages and the review queue in Chromium: axe-core, the width of the window, and a review by keyboard."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connections
from django.urls import include, path

from django_phi_oidc._internal import clock
from django_phi_oidc._internal.randomness import uuid7
from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.audit.router import AUDIT_ALIAS
from django_phi_oidc.contrib.emergency.models import EmergencyAccess
from django_phi_oidc.sessions.models import OIDCSession
from tests.browser.pages import Browse, list_scrolls, read_message
from tests.support import guarded_views as wards
from tests.support.accessibility import faults
from tests.support.audit_log import events
from tests.support.emergency_access import allow, declare
from tests.support.person_page_fixtures import NOW, _at_noon  # noqa: F401 -- a fixture
from tests.unit.contrib.officer_admin.test_person_views import HELP, PRIVACY

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.browser.test_refusal_pages"),
    pytest.mark.browser,
    pytest.mark.node,
]
urlpatterns = [*wards.urlpatterns, path("", include("tests.urls"))]
LIST = "/admin/phi_oidc_emergency/emergencyaccess/"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def allowed_console_text() -> str:
    """Return the text of the console messages about refused requests, which these tests send."""
    return "responded with a status of"


@pytest.fixture
def remove_audit_database(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function after which the server cannot reach the audit database: each request has a new connection."""
    return lambda: monkeypatch.setitem(connections[AUDIT_ALIAS].settings_dict, "PORT", "1")


def name_user(client: Any, first_name: str) -> Any:
    users = get_user_model()._default_manager.filter(pk=client.user.pk)
    users.update(username=f"{first_name.lower()}.keller", first_name=first_name, last_name="Keller")
    return client


def expect_page(page: Any, url: str, status: int, text: str, name: str, *, within: str = "#content") -> None:
    assert page.goto(url).status == status
    assert text in page.inner_text("body")
    assert faults(page, within=within, picture=name) == []


def test_refusal_pages_of_the_admin_are_accessible_and_lead_out(
    officer: Callable[[str], Any], browse: Browse, remove_audit_database: Callable[[], None]
) -> None:
    client = name_user(officer(HELP), "Priya")
    page = browse(client)
    expect_page(page, "/admin/phi_oidc_legal_holds/legalhold/", 403, "Priya Keller", "refused-admin")
    event = AuditEvent.objects.get(action="access.denied")
    assert page.inner_text("dd code") == str(event.pk)
    expect_page(page, "/admin/django_phi_oidc/person/999999/", 404, "This record does not exist", "missing-admin")
    page.goto("/admin/phi_oidc_legal_holds/legalhold/")
    page.click("text=Overview")
    page.wait_for_url("**/admin/")
    page.goto("/admin/phi_oidc_legal_holds/legalhold/")
    page.click("text=Sign in with another account")
    page.wait_for_selector("text=You are already signed in")
    remove_audit_database()
    expect_page(page, "/admin/phi_oidc_legal_holds/legalhold/", 503, "Try again in a minute.", "unavailable-admin")


@pytest.mark.parametrize("allowed_console_text", ["http://127.0.0.1"])  # Chromium reports the cleared data
def test_page_at_the_door_of_the_admin_signs_out(officer: Callable[[str], Any], browse: Browse) -> None:
    client = name_user(officer(""), "Amina")
    get_user_model()._default_manager.filter(pk=client.user.pk).update(is_staff=False)
    page = browse(client)
    expect_page(page, "/admin/", 403, "Your account is not a staff account.", "refused-door")
    with page.expect_response("**/oidc/logout/") as response:
        page.click("#content input[type=submit]")
    assert response.value.status < 400
    assert OIDCSession.objects.get(user=client.user).ended_at is not None


def test_refusal_page_of_a_guarded_view_is_accessible(
    officer: Callable[[str], Any],
    browse: Browse,
    settings: Any,
    remove_audit_database: Callable[[], None],
) -> None:
    declare(settings, acr=[])
    client = name_user(officer(""), "Priya")
    allow(client.user, "open_emergencyaccess")
    page = browse(client)
    expect_page(page, "/chart/7/?purpose=TREAT", 403, "Priya Keller", "refused-portal", within="html")
    page.click("a.button:has-text('Open emergency access')")
    assert page.input_value("#id_resource") == "Patient/7"
    remove_audit_database()
    expect_page(page, "/chart/7/?purpose=TREAT", 503, "in a minute", "unavailable-portal", within="html")


def wait_for_review(user: Any, resource: str, age: timedelta, accesses: int) -> EmergencyAccess:
    """Return an emergency that lasted an hour, with events of accesses."""
    opened_at = clock.now() - age
    row = EmergencyAccess.objects.create(
        id=uuid7(opened_at),
        user=user,
        actor=str(user.pk),
        resource=resource,
        permissions=["portal.view_chart"],
        purpose="ETREAT",
        reason="The patient arrived unconscious, and the medication had to be known at once.",
        opened_at=opened_at,
        expires_at=opened_at + HOUR,
        alerted_at=opened_at,
    )
    fields: dict[str, Any] = {"origin": Origin(actor=str(user.pk)), "purpose": "ETREAT", "resource": resource}
    detail = {"emergency": str(row.pk)}
    events(1, action=Action.EMERGENCY_OPENED, detail=detail, at=opened_at, **fields)
    events(accesses, action=Action.ACCESS_GRANTED, detail=detail, at=opened_at + HOUR / 4, **fields)
    return row


def test_review_queue_fits_and_leads_from_one_to_the_next(
    officer: Callable[[str], Any], browse: Browse, settings: Any
) -> None:
    declare(settings)
    clinician, reviewer = name_user(officer(""), "Priya"), name_user(officer(PRIVACY), "Amina")
    rows = [
        wait_for_review(clinician.user, f"Patient/{number}", age, accesses=3)
        for number, age in enumerate((6 * DAY, 2 * DAY, 3 * HOUR), 1)
    ]
    wait_for_review(clinician.user, "*", HOUR / 2, accesses=0)
    page = browse(reviewer)
    expect_page(page, LIST, 200, "overdue since", "emergency-queue")
    page.set_viewport_size({"width": 1280, "height": 900})
    assert not list_scrolls(page)
    page.click("#result_list tbody a >> nth=0")
    page.wait_for_url(f"**{rows[0].pk}/change/")
    assert page.locator("section:has(#accesses) tbody tr").count() == 3
    expect_page(page, page.url, 200, "Next: 2 more wait for review", "emergency-review")
    page.get_by_label("justified", exact=True).focus()
    page.keyboard.press("Space")
    page.focus("#content input[type=submit]")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{rows[1].pk}/change/")
    read_message(page, "The review was saved. Next: 2 more wait for review.")
    assert EmergencyAccess.objects.get(pk=rows[0].pk).verdict == "justified"

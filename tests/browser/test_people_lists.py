"""The lists with long names and texts in Chromium: they fit, are accessible, and an action asks before it runs."""

from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from django_phi_oidc._internal.randomness import uuid7
from django_phi_oidc.sessions.models import EndReason, OIDCSession, PendingRevocation
from tests.browser.pages import Browse, fits_window, list_scrolls, read_message
from tests.integration.test_admin_effects import ALL_ROWS, MODELS
from tests.support import admin_rows
from tests.support.accessibility import faults
from tests.support.person_page_fixtures import NOW, _at_noon  # noqa: F401 -- a fixture

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.browser,
    pytest.mark.node,
]


@pytest.fixture
def page(patient: Any, browse: Browse) -> Any:
    """Return a page of a superuser; people have long names, sessions all reasons, revocations long errors."""
    accounts = get_user_model()._default_manager
    client = Client()
    client.force_login(accounts.create_superuser("officer"))
    admin_rows.furnish(patient, accounts.get(username="officer"))
    accounts.update(first_name="María del Carmen", last_name="Müller-Lüdenscheidt")
    times = {"started_at": NOW, "last_seen_at": NOW}
    for reason in ("", *EndReason.values):
        ended = {"ended_at": NOW, "end_reason": reason} if reason else {}
        session = OIDCSession.objects.create(id=uuid7(NOW), user=patient.user, provider="default", **times, **ended)
        PendingRevocation.objects.create(
            id=uuid7(NOW),
            provider="default",
            session=session.pk,
            token_type_hint="refresh_token",
            attempts=3,
            last_fault="http_400 invalid_scope",
            due_at=NOW,
            created_at=NOW,
        )
    return browse(client)


def test_lists_fit_without_scrolling_and_are_accessible(page: Any) -> None:
    found, too_wide = [], []
    for model in MODELS:
        url = admin_rows.get_list_url(model) + ALL_ROWS.get(model, "")
        assert page.goto(url).status == 200
        found += faults(page, within="#content", picture=f"people-{model}")
        page.set_viewport_size({"width": 1280, "height": 800})
        if list_scrolls(page):
            too_wide.append(model)
    assert (found, too_wide) == ([], [])


def test_action_asks_and_reports_what_it_did(page: Any) -> None:
    live = OIDCSession.objects.filter(ended_at=None).exclude(user__username="officer").count()
    page.goto(admin_rows.get_list_url("oidcsession"))
    # Rows that have ended have no check box.
    assert page.locator("tbody .action-select").count() == live
    page.locator("#action-toggle").check()
    page.select_option("select[name=action]", "end_now")
    page.click("button[name=index]")
    page.get_by_role("heading", name=f"End {live} sessions now?").wait_for()
    assert faults(page, within="#content", picture="people-confirmation") == []
    page.get_by_text("No, take me back").click()
    page.wait_for_selector("#result_list")
    assert OIDCSession.objects.filter(ended_at=None).count() == live
    page.locator("#action-toggle").check()
    page.select_option("select[name=action]", "end_now")
    page.click("button[name=index]")
    page.click("#content input[type=submit]")
    read_message(page, f"{live} sessions were ended.")
    assert page.locator("select[name=action]").count() == 0
    assert fits_window(page)
    assert not OIDCSession.objects.filter(ended_at=None).exists()

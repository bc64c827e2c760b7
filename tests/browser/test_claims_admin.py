"""Legal holds, the retention report and erasure in Chromium, under the example's content security policy."""

import os
from datetime import timedelta
from typing import Any

import pytest

from django_phi_oidc._internal import clock
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.contrib.legal_holds.models import LegalHold
from tests.browser.pages import fits_window, read_message, run_action
from tests.support.claims_fixtures import (
    DAY,
    Person,
    _declared,  # noqa: F401 -- fixtures
)

THEME = os.environ.get("PHI_TEST_THEME", "")
pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])


def choose_subject(page: Any, username: str) -> None:
    """Look the subject up in the list that the page opens: a window, or a frame of django-unfold."""
    if THEME == "unfold":
        page.click("#lookup_id_subject")
        found = page.frame_locator("#modal-content iframe")
        found.locator("#searchbar").fill(username)
        found.locator("#searchbar").press("Enter")
        found.locator("#result_list tbody tr:only-child a").first.click()
        return
    with page.expect_popup() as popup:
        page.click("#lookup_id_subject")
    popup.value.locator("#searchbar").fill(username)
    popup.value.keyboard.press("Enter")
    popup.value.wait_for_url("**q=**")
    with popup.value.expect_event("close"):
        # Click in a later task, because the click closes the page before playwright could get its result.
        popup.value.locator("#result_list th a").evaluate("link => void setTimeout(() => link.click())")


@pytest.mark.browser
def test_claims_under_a_legal_hold_are_kept_and_others_are_erased(superuser_page: Any) -> None:
    from playwright.sync_api import expect  # noqa: PLC0415 -- only installed where the marker permits the test

    now = clock.now()
    held, other = Person(), Person()
    for number, person in enumerate((held, other)):
        person.store({"birthdate": "1990-05-17", "address": "Bern"}, now=now - number * (DAY + timedelta(hours=2)))

    superuser_page.goto("/admin/phi_oidc_legal_holds/legalhold/add/")
    superuser_page.get_by_label("Reason").fill("Docket 26-117")
    choose_subject(superuser_page, held.user.get_username())
    expect(superuser_page.locator("#id_subject")).to_have_value(str(held.subject.pk))
    assert fits_window(superuser_page)
    superuser_page.click("text=Save >> nth=0")
    superuser_page.wait_for_url("**/legalhold/")
    placed = LegalHold.objects.get()
    read_message(superuser_page, str(placed.pk))

    superuser_page.goto(f"/admin/auth/user/{held.user.pk}/delete/")
    assert str(placed.pk) in superuser_page.inner_text("#content")
    assert superuser_page.locator("#content input[type=submit]").count() == 0

    superuser_page.goto("/admin/django_phi_oidc/storedclaim/")
    superuser_page.click("text=Retention report")
    assert "overdue for more than an hour" in superuser_page.inner_text("[role=alert]")
    assert superuser_page.locator(".trail-scroll tbody td").nth(1).inner_text() == "2"
    assert fits_window(superuser_page)
    superuser_page.locator(".trail-bad a").click()
    superuser_page.wait_for_url("**end=overdue**")
    assert superuser_page.locator("#result_list tbody tr").count() == 1

    run_action(superuser_page, "django_phi_oidc.storedclaim", "erase_now", "Erased claims: 2, of persons: 1.")
    assert superuser_page.locator("select[name=action]").count() == 0, "the other claims are on legal hold"
    assert set(StoredClaim.objects.values_list("subject", flat=True)) == {held.subject.pk}

    run_action(superuser_page, "phi_oidc_legal_holds.legalhold", "release", "1 hold was released.")
    assert LegalHold.objects.get().released_at is not None

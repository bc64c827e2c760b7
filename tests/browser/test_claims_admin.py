"""Holding, looking and erasing as somebody at a browser does it, under the example's content security policy."""

from datetime import timedelta
from typing import Any

import pytest

from django_phi_oidc._internal import clock
from django_phi_oidc.claims.models import LegalHold, StoredClaim
from tests.browser.test_audit_admin import browse, expected, is_as_wide_as_the_screen, officer, site  # noqa: F401 -- fixtures
from tests.support.claims_fixtures import (
    DAY,
    Person,
    _declared,  # noqa: F401 -- fixtures
)

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])


@pytest.mark.browser
def test_officer_holds_one_person_and_erases_another(officer: Any) -> None:  # noqa: F811
    now = clock.now()
    held, other = Person(), Person()
    for number, each in enumerate((held, other)):
        each.store({"birthdate": "1990-05-17", "address": "Bern"}, now=now - number * (DAY + timedelta(hours=2)))

    officer.goto("/admin/django_phi_oidc/legalhold/add/")
    officer.get_by_label("Reason").fill("Docket 26-117")
    with officer.expect_popup() as popup:
        officer.click("#lookup_id_subject")
    popup.value.locator("#searchbar").fill(held.user.get_username())
    popup.value.keyboard.press("Enter")
    popup.value.wait_for_url("**q=**")
    with popup.value.expect_event("close"):
        # Later: the click closes the page that would answer it.
        popup.value.locator(f"text={held.subject.uuid}").evaluate("link => void setTimeout(() => link.click())")
    assert officer.get_by_label("Subject").input_value() == str(held.subject.pk)
    assert is_as_wide_as_the_screen(officer)
    officer.click("text=Save >> nth=0")
    officer.wait_for_url("**/legalhold/")
    placed = LegalHold.objects.get()
    assert str(placed.pk) in officer.inner_text(".messagelist")

    officer.goto(f"/admin/auth/user/{held.user.pk}/delete/")
    assert str(placed.pk) in officer.inner_text("#content")
    assert officer.locator("#content input[type=submit]").count() == 0

    officer.goto("/admin/django_phi_oidc/storedclaim/")
    officer.click("text=Retention report")
    assert "overdue for more than an hour" in officer.inner_text("[role=alert]")
    assert officer.locator(".trail-scroll tbody td").nth(1).inner_text() == "2"
    assert is_as_wide_as_the_screen(officer)
    officer.locator(".trail-bad a").click()
    officer.wait_for_url("**end=overdue**")
    assert officer.locator("#result_list tbody tr").count() == 1

    officer.goto("/admin/django_phi_oidc/storedclaim/")
    officer.locator("#action-toggle").check()
    officer.get_by_label("Action", exact=False).first.select_option("erase_now")
    officer.locator("button[name=index]").click()
    officer.locator(".messagelist li").nth(1).wait_for()
    assert officer.locator(".messagelist li").all_inner_texts() == [
        "Claims that were erased: 2, of persons: 1.",
        "1 person is kept by a legal hold: nothing of theirs was erased.",
    ]
    assert set(StoredClaim.objects.values_list("subject", flat=True)) == {held.subject.pk}

    officer.goto("/admin/django_phi_oidc/legalhold/")
    officer.locator("#action-toggle").check()
    officer.get_by_label("Action", exact=False).first.select_option("release")
    officer.locator("button[name=index]").click()
    assert "1 hold was released." in officer.inner_text(".messagelist")
    assert LegalHold.objects.get().released_at is not None

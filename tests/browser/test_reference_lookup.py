"""The help desk looks up a reference, in Chromium under the content security policy of the example project."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Origin
from tests.browser.pages import Browse, fits_window
from tests.support.audit_log import NOW, events

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
MINUTE_LATER = NOW.replace(minute=6)


@pytest.mark.browser
def test_help_desk_finds_out_why_a_caller_was_refused(officer: Callable[[str], Client], browse: Browse) -> None:
    refusal: Any = {"action": "login.refused", "outcome": "failure", "reason": "state_unknown", "purpose": ""}
    (event_id,) = events(1, **refusal, origin=Origin(client_ip="192.0.2.77"), subject="", detail=None)
    page = browse(officer("Help desk"))
    with clock.override_clock(lambda: MINUTE_LATER):
        page.goto("/admin/")
        page.click("#content a:text-is('Look up a reference')")
        page.get_by_label("Reference").fill(f"It says: {str(event_id)[:18].upper().replace('-', ' ')} …")
        page.keyboard.press("Enter")
        page.wait_for_selector("text=What to do")
        result = page.inner_text("section[aria-labelledby=result]")
        assert "Sign-in refused: this browser has no pending sign-in" in result
        assert "192.0.2.77" not in result
        assert fits_window(page)
        page.get_by_label("Reference").fill("Amina Keller")
        page.click("text=Look up >> nth=-1")
        page.wait_for_selector(".errorlist")
        assert "This is not a reference" in page.inner_text("[role=alert]")
        assert fits_window(page)

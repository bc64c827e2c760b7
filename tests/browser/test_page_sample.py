"""A sample of test_every_page.py, which takes minutes: the pages with most columns, codes and times, in both widths."""

from typing import Any

import pytest

from tests.browser.pages import Browse
from tests.browser.test_every_page import NARROW, WIDE, allowed_console_text, find_faults  # noqa: F401 -- a fixture
from tests.support.hospital import Hospital, hospital, op, sign_in  # noqa: F401 -- fixtures
from tests.support.page_faults import list_accessibility_faults, list_codes, list_layout_faults

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.browser,
    pytest.mark.node,
]
ADMIN = "admin:django_phi_oidc_"
NAMES = (
    "admin:index",
    "admin:phi_oidc_person",
    "admin:phi_oidc_person_act-reveal",
    "admin:phi_oidc_audit_auditevent_changelist",
    "admin:phi_oidc_emergency_emergencyaccess_change",
    f"{ADMIN}oidcsession_changelist",
    f"{ADMIN}storedclaim_changelist",
    f"{ADMIN}storedclaim_report",
    "oidc_account",
    "oidc_emergency",
)


def test_sample_of_the_pages_fits_has_words_and_is_accessible(hospital: Hospital, browse: Browse) -> None:
    assert find_faults(hospital, browse, names=NAMES, views=((WIDE, "light"), (NARROW, "light"))) == []


FAULTY = """<!DOCTYPE html><html lang="en"><title>A page</title><main>
<p style="width: 40px; overflow: hidden; white-space: nowrap">A text that does not fit.</p>
<p>phone_number, login.refused</p><input></main></html>"""
GOOD = """<!DOCTYPE html><html lang="en"><title>A page</title><main>
<p>A text that fits.</p><p>Phone number, <code>login.refused</code></p><label>Name <input></label></main></html>"""


@pytest.mark.parametrize(("html", "count"), [(FAULTY, 4), (GOOD, 0)])
def test_cut_text_codes_and_fields_without_a_label_are_faults(superuser_page: Any, html: str, count: int) -> None:
    superuser_page.set_viewport_size({"width": 1280, "height": 900})
    superuser_page.set_content(html)
    found = list_layout_faults(superuser_page, width=1280, within="main")
    found += list_codes(superuser_page, within="main")
    found += list_accessibility_faults(superuser_page, within="main")
    assert len(found) == count, found

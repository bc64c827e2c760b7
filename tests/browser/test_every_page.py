"""Every page of the app in Chromium, as its readers see it.

By default: wide and light, and narrow and dark, which covers each width and scheme once. With
`python -m tests.docs.screenshots --all DIR`, which sets PHI_TEST_PICTURES, all combinations are taken and saved.
PHI_TEST_PAGES is a regular expression: only the pages whose URL names match. This takes minutes; test_page_sample.py
looks at a sample.
"""

import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from django.contrib.admin.utils import quote
from django.urls import reverse

from django_phi_oidc.contrib.officer_admin.person_actions import get_person_actions
from tests.browser.pages import Browse
from tests.support import page_list
from tests.support.hospital import Hospital, hospital, op, sign_in  # noqa: F401 -- fixtures
from tests.support.page_faults import list_accessibility_faults, list_codes, list_layout_faults

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.browser,
    pytest.mark.node,
]
Views = Sequence[tuple[tuple[int, int], str]]
"""Windows with a scheme."""
FOLDER = os.environ.get("PHI_TEST_PICTURES", "")
IS_UNFOLD = os.environ.get("PHI_TEST_THEME") == "unfold"
WIDE, NARROW = (1280, 900), (390, 844)
SAMPLE = ((WIDE, "light"), (NARROW, "dark"))
ALL = (*SAMPLE, (WIDE, "dark"), (NARROW, "light"))
QUERIES = {
    "admin:phi_oidc_audit_auditevent_changelist": ("outcome=failure", "actor=nobody", "until=2026-11-24T09:30:00"),
    "admin:django_phi_oidc_storedclaim_changelist": ("end=overdue",),
    "admin:phi_oidc_emergency_emergencyaccess_changelist": ("state=waiting",),
    "admin:django_phi_oidc_oidcsession_changelist": ("ended_at__isempty=0",),
    "admin:phi_oidc_officer_admin_sessionendjob_add": ("provider=default",),
}
"""Query strings of pages that look different with them."""
STATUSES = {"oidc_authentication_callback": 403}
"""Pages of a refusal: URL name → status."""
CLINICAL = {"oidc_emergency"}
"""Pages of the portal for clinicians; the others are for patients."""
FORBIDDEN = re.compile(r"admin:(django_)?phi_oidc_\w+_(add|delete|change)")
"""Pages that Django's admin makes and that refuse everyone, because rows of that model are never added or deleted."""


def list_arguments(hospital: Hospital) -> dict[str, Mapping[str, Any]]:
    """Return the URL arguments of the pages that are not Django's pages of a model."""
    return {
        "admin:phi_oidc_person": {"quoted": quote(hospital.keys["user"])},
        "admin:phi_oidc_siem_sinkcursor_deliver": {"name": "splunk"},
        "oidc_account_end_session": {"session": hospital.keys["lost_phone"]},
        "oidc_authentication_callback": {},
    }


def list_paths(hospital: Hospital) -> dict[str, str]:
    """Return the path of each page of the admin and of the portal, by its name."""
    paths, arguments = {}, list_arguments(hospital)
    for place in page_list.list_places():
        if place.name in page_list.NOT_PAGES:
            continue
        if place.name == "admin:phi_oidc_person_act":
            person = arguments["admin:phi_oidc_person"]
            paths |= {
                f"{place.name}-{act}": reverse(place.name, kwargs={**person, "act": act})
                for act in get_person_actions()
            }
            continue
        path = page_list.build_path(place, keys=hospital.keys, arguments=arguments)
        paths[place.name] = path
        paths |= {
            f"{place.name}-{number}": f"{path}?{query}" for number, query in enumerate(QUERIES.get(place.name, ()))
        }
    return paths


@pytest.fixture
def allowed_console_text() -> str:
    """Return the text that Chromium writes for each status of an error: refused pages are among the pages."""
    return "status of 4"


def look(page: Any, name: str, *, views: Views) -> list[str]:
    """Return the faults of the page that is open, in these windows and schemes."""
    within = "#content" if page.locator("#content").count() else "body"
    faults: list[str] = []
    for (width, height), scheme in views:
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=scheme)
        if IS_UNFOLD:
            page.evaluate("dark => document.documentElement.classList.toggle('dark', dark)", scheme == "dark")
        page.evaluate("Promise.allSettled(document.getAnimations().map(animation => animation.finished))")
        found = [*list_layout_faults(page, width=width, within=within)]
        found += list_accessibility_faults(page, within=within if IS_UNFOLD else "html")
        if (width, scheme) == (1280, "light"):
            found += list_codes(page, within=within)
        faults += [f"{name} {width} {scheme}: {fault}" for fault in found]
        if FOLDER:
            file = f"{page_list.build_file_name(name)}-{width}-{scheme}.png"
            page.screenshot(path=Path(FOLDER) / file, full_page=True, animations="disabled")
    return faults


def find_faults(hospital: Hospital, browse: Browse, *, names: Collection[str] = (), views: Views = ()) -> list[str]:
    """Return the faults of these pages, or of all, in these windows and schemes. Each page must have its status."""
    hospital.make_superuser("otto")
    officer, clinician, patient = (browse(hospital.client(name)) for name in ("otto", "lena", "amina"))
    faults, refused = [], False
    for name, path in list_paths(hospital).items():
        if names and name not in names:
            continue
        page = officer if name.startswith("admin:") else clinician if name in CLINICAL else patient
        status = page.goto(path).status
        shown = name
        if status == 403 and FORBIDDEN.fullmatch(name):
            if refused:
                continue
            refused, shown = True, "refused"
        else:
            assert status == STATUSES.get(name, 200), (name, status)
        assert path.split("?")[0] in page.url, (name, page.url)
        faults += look(page, shown, views=views or (ALL if FOLDER else SAMPLE))
    return faults


def test_every_page_fits_has_words_and_is_accessible(hospital: Hospital, browse: Browse) -> None:
    names = [name for name in list_paths(hospital) if re.search(os.environ.get("PHI_TEST_PAGES", ""), name)]
    faults = find_faults(hospital, browse, names=names)
    if FOLDER:
        (Path(FOLDER) / "faults.txt").write_text("".join(f"{fault}\n" for fault in faults))
    assert faults == []

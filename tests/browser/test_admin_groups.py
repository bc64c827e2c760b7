"""Each admin page of the app for each group, in Chromium under the content security policy of the example project."""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.browser.pages import Browse, run_action
from tests.integration.test_admin_groups import may_view
from tests.support import admin_rows
from tests.support.accessibility import faults
from tests.support.person_page_fixtures import _at_noon  # noqa: F401 -- a fixture
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.unit.contrib.officer_admin.test_person_views import EVERY, HELP, PRIVACY, SECURITY, url

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.browser,
    pytest.mark.node,
]
THEME = os.environ.get("PHI_TEST_THEME", "")
FILES = {
    "accountingcopy_change",
    "activationcode_template",
    "pairwisesubject_template",
    "auditevent_proof",
    "auditcheckpoint_note",
}
"""Pages that send a file."""
FILTERED = {
    "pairwisesubject": ["?q=nobody"],
    "activationcode": ["?state=waiting", "?q=nobody"],
    "sessionendjob": ["?state__exact=done"],
    "oidcsession": ["?ended_at__isempty=1&provider=default", "?q=nobody"],
    "pendingrevocation": ["?status__exact=pending"],
    "storedclaim": ["?purpose=HOPERAT&name=address", "?end=overdue"],
    "legalhold": ["?state=active"],
    "accountingcopy": ["?q=0"],
    "emergencyaccess": ["?state=waiting"],
    "securityalert": ["?state=open&severity=warning"],
    "alertmute": [],
    "auditevent": ["?outcome=failure", "?actor=nobody", "?since=1969-12-31T23:59"],
    "auditcheckpoint": ["?before=1"],
    "trailjob": [],
    "scimclient": [],
    "sinkcursor": [],
}
"""Query strings of each change list."""


def links(page: Any) -> set[str]:
    """Return the paths of the links of the page, without query strings."""
    found = page.eval_on_selector_all(
        "#content a[href], .breadcrumbs a, #nav-sidebar a[href]",
        "elements => elements.map(a => new URL(a.href).pathname)",
    )
    return set(found)


def breadcrumb_colors(page: Any) -> set[str]:
    """Return the background color of the breadcrumbs."""
    found = page.eval_on_selector_all(
        ".breadcrumbs", "elements => elements.map(a => getComputedStyle(a).backgroundColor)"
    )
    return set(found)


def release(page: Any, rows: dict[str, Any]) -> str:
    message = "1 hold was released."
    run_action(page, "phi_oidc_legal_holds.legalhold", "release", message, rows["legalhold"])
    return message


def end_mute(page: Any, rows: dict[str, Any]) -> str:
    message = "1 mute was ended."
    run_action(page, "phi_oidc_monitoring.alertmute", "end", message, rows["alertmute"])
    return message


def create_code(page: Any, rows: dict[str, Any]) -> str:
    page.goto("/admin/phi_oidc_invitations/activationcode/add/")
    page.fill("#id_user", str(rows["newcomer"]))
    page.click("[name=_save]")
    page.wait_for_selector(".trail-place")
    return "Shown only once"


DOES = {PRIVACY: release, SECURITY: end_mute, HELP: create_code}


@pytest.mark.parametrize("group", sorted(EVERY))
def test_permitted_pages_are_accessible_and_no_link_is_refused(
    group: str,
    patient: Any,
    officer: Any,
    browse: Browse,
    settings: Any,
    tmp_path: Path,
) -> None:
    sink = {"type": "file", "path": tmp_path / "log"}
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, SIEM={"siem": sink})
    client, kind = officer(group), group.split(maxsplit=1)[0]
    rows = admin_rows.furnish(patient, client.user)
    urls = {"index": "/admin/", "models": "/admin/django_phi_oidc/", "person": url(patient)}
    for name, page_type in admin_rows.pages().items():
        if may_view(name, group) and name not in FILES and not page_type.is_posted:
            urls[name] = page_type.url(rows)
            if page_type.name == "changelist":
                queries = FILTERED[page_type.model_admin.opts.model_name]
                urls |= {f"{name}-{number}": page_type.url(rows) + query for number, query in enumerate(queries)}
    page = browse(client)
    found: dict[str, Any] = {}
    linked, colors = set(), set()
    for name, path in urls.items():
        assert page.goto(path).status == 200, name
        linked |= links(page)
        colors |= breadcrumb_colors(page)
        found[name] = faults(page, within="#content", picture=f"{kind}-{name}")
        if name.endswith("_add") and name != "sessionendjob_add":
            page.click("[name=_save]")
            page.wait_for_selector(".errornote")
            found[f"{name} refused"] = faults(page, within="#content", picture=f"{kind}-{name}-refused")
    message = DOES[group](page, rows)
    assert message in page.inner_text("body")
    found["done"] = faults(page, within="#content", picture=f"{kind}-done")
    assert {name: of_page for name, of_page in found.items() if of_page} == {}
    # The path of django-unfold is no element of Django's.
    assert len(colors) == (0 if THEME == "unfold" else 1), "the breadcrumbs differ from those of Django"
    assert [path for path in sorted(linked) if client.get(path).status_code == 403] == []

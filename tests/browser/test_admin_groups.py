"""Every page of ours in the admin as each group has it in Chromium, under the example's content security policy."""

from typing import Any

import pytest

from tests.browser.test_audit_admin import Browse, browse, expected, site  # noqa: F401 -- fixtures
from tests.integration.test_admin_groups import may_look
from tests.support import admin_rows as house
from tests.support.accessibility import faults
from tests.support.person_page_fixtures import _at_noon, officer, patient  # noqa: F401 -- fixtures
from tests.support.session_fixtures import op, sign_in  # noqa: F401 -- fixtures
from tests.unit.officer_admin.test_person_views import EVERY, HELP, PRIVACY, SECURITY, url

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.browser,
    pytest.mark.node,
]
FILES = {"auditevent_proof", "auditcheckpoint_note"}
"""Pages that give a file."""
FILTERED = {
    "pairwisesubject": ["?q=nobody"],
    "activationcode": ["?state=waiting", "?q=nobody"],
    "oidcsession": ["?ended_at__isempty=1&provider=default", "?q=nobody"],
    "pendingrevocation": ["?status__exact=pending"],
    "storedclaim": ["?purpose=HOPERAT&name=address", "?end=overdue"],
    "legalhold": ["?state=active"],
    "emergencyaccess": ["?state=waiting"],
    "securityalert": ["?state=open&severity=warning"],
    "alertmute": [],
    "auditevent": ["?outcome=failure", "?actor=nobody", "?since=1969-12-31T23:59"],
    "auditcheckpoint": ["?before=1"],
    "trailjob": [],
}
"""Of each list."""


def links(page: Any) -> set[str]:
    """Return what the page leads to, without what is asked of it."""
    found = page.eval_on_selector_all(
        "#content a, .breadcrumbs a, #nav-sidebar a", "all => all.map(a => new URL(a.href).pathname)"
    )
    return set(found)


def frames(page: Any) -> set[str]:
    """Return the colour behind the way that leads here."""
    found = page.eval_on_selector_all(".breadcrumbs", "all => all.map(a => getComputedStyle(a).backgroundColor)")
    return set(found)


def act(page: Any, model: str, name: str, row: Any) -> None:
    """Choose a row of the list, and what to do with it."""
    page.goto(f"/admin/django_phi_oidc/{model}/")
    page.locator(f"tbody input[value='{row}']").check()
    page.select_option("select[name=action]", name)
    page.click("button[name=index]")
    page.wait_for_selector(".messagelist")


def release(page: Any, rows: dict[str, Any]) -> str:
    act(page, "legalhold", "release", rows["legalhold"])
    return "1 hold was released."


def end_mute(page: Any, rows: dict[str, Any]) -> str:
    act(page, "alertmute", "end", rows["alertmute"])
    return "1 mute was ended."


def make_code(page: Any, rows: dict[str, Any]) -> str:
    page.goto("/admin/django_phi_oidc/activationcode/add/")
    page.fill("#id_user", str(rows["newcomer"]))
    page.click("input[name=_save]")
    page.wait_for_selector(".trail-place")
    return "Shown only once"


DOES = {PRIVACY: release, SECURITY: end_mute, HELP: make_code}


@pytest.mark.parametrize("group", sorted(EVERY))
def test_group_walks_through_every_page_that_it_may_see(
    group: str,
    patient: Any,  # noqa: F811
    officer: Any,  # noqa: F811
    browse: Browse,  # noqa: F811
) -> None:
    client, kind = officer(group), group.split(maxsplit=1)[0]
    rows = house.furnish(patient, client.user)
    urls = {"index": "/admin/", "models": "/admin/django_phi_oidc/", "person": url(patient)}
    for name, each in house.pages().items():
        if may_look(name, group) and name not in FILES and not each.is_posted:
            urls[name] = each.url(rows)
            if each.name == "changelist":
                more = FILTERED[each.model_admin.opts.model_name]
                urls |= {f"{name}-{number}": each.url(rows) + asked for number, asked in enumerate(more)}
    page = browse(client)
    found, leads, colours = [], set(), set()
    for name, where in urls.items():
        assert page.goto(where).status == 200, name
        leads |= links(page)
        colours |= frames(page)
        found += faults(page, within="#content", picture=f"{kind}-{name}")
        if name.endswith("_add"):
            page.click("input[name=_save]")
            page.wait_for_selector(".errornote")
            found += faults(page, within="#content", picture=f"{kind}-{name}-refused")
    said = DOES[group](page, rows)
    assert said in page.inner_text("body")
    found += faults(page, within="#content", picture=f"{kind}-did")
    assert found == []
    assert len(colours) == 1, "our pages are framed as Django's own"
    assert [each for each in sorted(leads) if client.get(each).status_code == 403] == []

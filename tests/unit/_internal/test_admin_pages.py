"""Each page of the admin has its title and complete markup, in Django's theme and in django-unfold."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.admin.utils import quote
from django.urls import reverse

from django_phi_oidc.contrib.officer_admin.person_actions import get_person_actions
from tests.integration.test_admin_groups import ROOT, member  # noqa: F401 -- a fixture
from tests.support import admin_rows
from tests.support.markup_faults import parse_markup
from tests.support.person_page_fixtures import _at_noon, officer, patient  # noqa: F401 -- fixtures
from tests.support.session_fixtures import op, sign_in  # noqa: F401 -- fixtures
from tests.support.unfold import run_with_unfold

THEME = os.environ.get("PHI_TEST_THEME", "")
STYLE_SHEET = "/static/django_phi_oidc/unfold.css"
REFUSED = {
    f"{model}_{page}"
    for model, pages in {
        "accountingcopy": "add delete",
        "activationcode": "delete",
        "alertmute": "delete",
        "emergencyaccess": "add delete",
        "legalhold": "delete",
        "oidcsession": "add delete",
        "pendingrevocation": "add delete",
        "scimclient": "delete",
        "securityalert": "add delete",
        "sessionendjob": "delete",
        "setasideevent": "add delete",
        "storedclaim": "add delete",
    }.items()
    for page in pages.split()
}
"""Pages that Django's admin makes and that refuse everyone."""
with_rows = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])


def list_paths(rows: dict[str, Any], user: Any) -> Iterator[tuple[str, str]]:
    """Return the name and the path of each page that a browser can open."""
    for name, page in admin_rows.pages().items():
        if not page.is_posted:
            yield name, page.url(rows)
    yield "index", reverse("admin:index")
    yield "user_change", reverse("admin:auth_user_change", args=[quote(user.pk)])
    yield "reference", reverse("admin:phi_oidc_reference")
    yield "person_search", reverse("admin:phi_oidc_person_search") + "?q=user-of-no-name"
    yield "person", reverse("admin:phi_oidc_person", args=[quote(user.pk)])
    for act in get_person_actions():
        yield f"person_{act}", reverse("admin:phi_oidc_person_act", args=[quote(user.pk), act])


def list_page_faults(response: Any) -> list[str]:
    """Return the faults of a page of the admin; none of a file."""
    if not response["Content-Type"].startswith("text/html"):
        return []
    markup = parse_markup(response.content.decode())
    faults = [*markup.faults]
    if (STYLE_SHEET in markup.links) != (THEME == "unfold"):
        faults.append("style sheet of the theme")
    # Other pages have the headings and labels of the theme.
    if "trail" in markup.classes:
        faults += [f"label of no field: {name}" for name in sorted(markup.labels - markup.ids)]
        title = str(response.context["title"])
        # Unfold begins the heading with a capital letter, also if it is a user name.
        if not any(title.casefold() in text.casefold() for text in markup.headings):
            faults.append(f"no heading {title!r}")
    return faults


@with_rows
def test_each_page_has_its_title_and_complete_markup(patient: Any, member: Any) -> None:
    client = member(ROOT)
    rows = admin_rows.furnish(patient, client.user)
    faults, refused = [], set()
    for name, path in list_paths(rows, patient.user):
        response = client.get(path)
        if response.status_code == 403:
            refused.add(name)
        else:
            assert response.status_code == 200, (name, response.status_code)
        faults += [f"{name}: {fault}" for fault in list_page_faults(response)]
    assert refused == REFUSED
    assert faults == []


@with_rows
def test_german_titles_of_lists_and_forms_are_correct(patient: Any, member: Any, settings: Any) -> None:
    """Names of models can begin with an adjective there: a small letter, and an ending that Django does not inflect."""
    client = member(ROOT)
    paths = dict(list_paths(admin_rows.furnish(patient, client.user), patient.user))
    settings.LANGUAGE_CODE = "de"
    for name, title in {
        "pendingrevocation_changelist": "Ausstehende Widerrufe",
        "pendingrevocation_change": "Ausstehender Widerruf",
        "legalhold_add": "Gesetzliche Aufbewahrung hinzufügen",
    }.items():
        assert client.get(paths[name]).context["title"] == title


@with_rows
@pytest.mark.parametrize("name", sorted(name for name in admin_rows.acts() if not name.endswith(":delete_selected")))
def test_each_page_after_an_action_has_its_title_and_complete_markup(name: str, patient: Any, member: Any) -> None:
    client = member(ROOT)
    rows = admin_rows.furnish(patient, client.user)
    model, _, act = name.partition(":")
    row = rows["open emergency" if name == "emergencyaccess:close_now" else model]
    url = admin_rows.get_list_url(model)
    data = {"action": act, "index": 0, "_selected_action": [str(row)]}
    response = client.post(url, data, follow=True)
    assert response.status_code == 200
    assert list_page_faults(response) == []


@pytest.mark.skipif(bool(THEME), reason="runs the tests above in the other theme")
def test_each_page_has_its_title_and_complete_markup_with_unfold() -> None:
    summary = run_with_unfold("tests/unit/_internal/test_admin_theme.py", __file__)
    assert "passed" in summary

"""Each button and action that a page of the admin offers has an effect, for rows in each state."""

import html
import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model

from django_phi_oidc._internal.randomness import uuid7
from django_phi_oidc.contrib.invitations.models import ActivationCode
from django_phi_oidc.contrib.monitoring.models import AlertMute
from django_phi_oidc.sessions.models import OIDCSession
from tests.integration.test_admin_groups import ROOT, member, state  # noqa: F401 -- a fixture
from tests.support import admin_rows
from tests.support.person_page_fixtures import NOW, _at_noon, officer, patient  # noqa: F401 -- fixtures
from tests.support.session_fixtures import op, sign_in  # noqa: F401 -- fixtures

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
MODELS = (
    *("oidcsession", "pendingrevocation", "pairwisesubject", "activationcode"),
    *("storedclaim", "legalhold", "securityalert", "alertmute", "accountingcopy"),
)
ALL_ROWS = {"pendingrevocation": "?status__exact=all"}
"""The query string of a list whose default is a part of the rows."""


def create_over_rows() -> dict[str, list[str]]:
    """Create rows that no action can change, and return their keys."""
    ended = OIDCSession.objects.create(
        id=uuid7(NOW), provider="default", started_at=NOW, last_seen_at=NOW, ended_at=NOW, end_reason="logout"
    )
    expired = AlertMute.objects.create(kind="replay", until=NOW - timedelta(days=1), note="A drill", muted_at=NOW)
    redeemed = ActivationCode.objects.create(
        user=get_user_model()._default_manager.create_user(username="activated"),
        provider="default",
        digest="a digest",
        created_at=NOW,
        created_by="1",
        expires_at=NOW + timedelta(days=1),
        redeemed_at=NOW,
    )
    return {
        "oidcsession": [str(ended.pk)],
        "alertmute": [str(expired.pk)],
        "activationcode": [str(redeemed.pk)],
    }


def read_list(client: Any, model: str, query: str = "") -> str:
    """Return the page of the list, which has a row."""
    response = client.get(admin_rows.get_list_url(model) + query)
    assert response.status_code == 200
    assert response.context["cl"].result_count > 0
    page: str = response.content.decode()
    return page


def find_actions(page: str) -> set[str]:
    """Return the actions that a list offers."""
    select = re.search(r'<select name="action".*?</select>', page, re.DOTALL)
    return set(filter(None, re.findall(r'<option value="(\w*)"', select[0]))) if select else set()


def find_boxes(page: str) -> set[str]:
    """Return the keys of the rows that have a check box."""
    return {
        key
        for tag in re.findall(r"<input[^>]*_selected_action[^>]*>", page)
        for key in re.findall(r'value="([^"]+)"', tag)
    }


def find_buttons(page: str) -> set[str]:
    """Return the names of the buttons below a form."""
    row = page.partition('submit-row"')[2]
    tags = re.findall(r'<(?:input|button)[^>]*type="submit"[^>]*>', row)
    return {name for tag in tags for name in re.findall(r'name="(\w+)"', tag)}


def get_main_part(page: str) -> str:
    """Return the page without its navigation."""
    return re.split('<main|id="main"', page)[-1]


@pytest.mark.parametrize("model", MODELS)
def test_each_action_of_a_list_changes_a_row_and_each_box_selects_a_row_that_can_be_changed(
    model: str, patient: Any, member: Any
) -> None:
    client = member(ROOT)
    admin_rows.furnish(patient, client.user)
    over = create_over_rows().get(model, [])
    query = ALL_ROWS.get(model, "")
    url = admin_rows.get_list_url(model) + query
    page = read_list(client, model, query)
    actions, boxes = find_actions(page), find_boxes(page)
    assert not boxes & set(over)
    assert bool(actions) == bool(boxes)

    def can_change(action: str, key: str) -> bool:
        answer = client.post(url, {"action": action, "_selected_action": [key]})
        return answer.status_code == 200 and "Yes, I’m sure" in html.unescape(answer.content.decode())

    useful = {action: {key for key in boxes if can_change(action, key)} for action in actions}
    assert set().union(*useful.values()) == boxes, "a box without an action"
    for action, keys in sorted(useful.items()):
        assert keys, action
        # An earlier action may have changed the row.
        for key in [key for key in sorted(keys) if can_change(action, key)][:1]:
            before = state()
            client.post(url, {"action": action, "_selected_action": [key], "post": "yes"})
            assert state() != before, action


@pytest.mark.parametrize("model", MODELS)
def test_list_of_rows_that_cannot_be_changed_offers_no_action(model: str, patient: Any, member: Any) -> None:
    client = member(ROOT)
    admin_rows.furnish(patient, client.user)
    create_over_rows()
    filters = {
        "oidcsession": "?ended_at__isempty=0",
        "pendingrevocation": "?status__exact=finished",
        "activationcode": "?state=redeemed",
        "storedclaim": "?end=held",
        "legalhold": "?state=over",
        "alertmute": "?state=over",
    }
    if model in filters:
        page = read_list(client, model, filters[model])
        assert (find_actions(page), find_boxes(page)) == (set(), set())
        assert "action-toggle" not in page


@pytest.mark.parametrize("model", MODELS)
def test_each_button_of_a_row_has_an_effect(model: str, patient: Any, member: Any) -> None:
    client = member(ROOT)
    admin_rows.furnish(patient, client.user)
    create_over_rows()
    list_url = admin_rows.get_list_url(model)
    listed = client.get(list_url + ALL_ROWS.get(model, ""))
    assert listed.context["cl"].result_count > 0
    for row in listed.context["cl"].result_list:
        if model == "accountingcopy":
            # The link of the row is the download.
            assert client.get(f"{list_url}{row.pk}/change/")["Content-Disposition"].startswith("attachment")
            continue
        url = f"{list_url}{row.pk}/change/"
        page = client.get(url).content.decode()
        assert f"{row.pk}/history/" not in page, "the log of Django has nothing about the row"
        for button in find_buttons(page):
            before = state()
            assert client.post(url, {"note": "A drill.", button: ""}).status_code == 302
            assert state() != before, button
        if f"{row.pk}/delete/" in page:
            confirmation = client.get(f"{list_url}{row.pk}/delete/").content.decode()
            assert 'name="post"' in confirmation, "the deletion is refused"


def test_save_button_of_an_open_alert_is_named_after_its_effect(patient: Any, member: Any) -> None:
    client = member(ROOT)
    rows = admin_rows.furnish(patient, client.user)
    url = f"{admin_rows.get_list_url('securityalert')}{rows['securityalert']}/change/"
    assert 'value="Acknowledge"' in client.get(url).content.decode()
    client.post(url, {"note": "A drill.", "_save": ""})
    assert find_buttons(client.get(url).content.decode()) == set()


def test_add_button_of_activation_codes_needs_a_provider_that_accepts_them(
    patient: Any, member: Any, settings: Any
) -> None:
    client = member(ROOT)
    admin_rows.furnish(patient, client.user)
    assert "addlink" in get_main_part(read_list(client, "activationcode"))
    default = {**settings.PHI_OIDC["PROVIDERS"]["default"], "provisioning": "create"}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": default}}
    assert "addlink" not in get_main_part(read_list(client, "activationcode"))


def test_deletion_of_a_subject_is_offered_unless_a_legal_hold_prevents_it(patient: Any, member: Any) -> None:
    client = member(ROOT)
    rows = admin_rows.furnish(patient, client.user)
    keys = (rows["pairwisesubject"], patient.subject.pk)
    pages = [client.get(f"{admin_rows.get_list_url('pairwisesubject')}{pk}/change/").content.decode() for pk in keys]
    assert [f"{pk}/delete/" in page for pk, page in zip(keys, pages, strict=True)] == [True, False]
    assert "Until it is released" in pages[1]

"""Actions of change lists: the confirmation, rows that are skipped, and rows without an action."""

import html
import re
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.admin_actions import MAX_NAMED_ROWS, MAX_SELECTED_ROWS
from django_phi_oidc.contrib.monitoring.models import AlertMute
from tests.support.audit_log import NOW
from tests.support.officers import sign_in_officer

pytestmark = pytest.mark.django_db(databases=["default", "phi_audit"])
MUTES = "/admin/phi_oidc_monitoring/alertmute/"


@pytest.fixture(autouse=True)
def _at_noon(settings: Any) -> Any:
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = False
    with clock.override_clock(lambda: NOW):
        yield


@pytest.fixture
def client() -> Client:
    return sign_in_officer("view_alertmute", "change_alertmute")


def create_mute(note: str = "A drill.", **fields: Any) -> AlertMute:
    values = {"until": NOW + timedelta(days=1), "muted_at": NOW, "note": note, **fields}
    return AlertMute.objects.create(kind="replay", **values)


def end(client: Client, *mutes: AlertMute, url: str = MUTES, **fields: str) -> Any:
    form = {"action": "end", "_selected_action": [str(mute.pk) for mute in mutes], **fields}
    return client.post(url, form, follow=True)


def list_messages(response: Any) -> list[str]:
    return [str(message) for message in response.context["messages"]]


def test_action_asks_first_and_runs_after_the_confirmation(client: Client) -> None:
    mute, other = create_mute("The scanner of ward <7>."), create_mute("Another.")
    answer = end(client, mute)
    page = answer.content.decode()
    assert "End 1 mute now?" in page
    assert "Such alerts are sent again." in page
    assert "The scanner of ward &lt;7&gt;." in page
    assert "Another." not in page
    assert not AlertMute.objects.exclude(lifted_at=None).exists()
    fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page.partition('id="content"')[2]))
    del fields["csrfmiddlewaretoken"]
    assert fields == {"action": "end", "_selected_action": str(mute.pk), "post": "yes"}
    assert list_messages(client.post(MUTES, fields, follow=True)) == ["1 mute was ended."]
    assert [row.pk for row in AlertMute.objects.filter(lifted_at=None)] == [other.pk]


@pytest.mark.parametrize("value", ["", "no", "Yes"])
def test_any_other_value_is_no_confirmation(value: str, client: Client) -> None:
    assert "End 1 mute now?" in end(client, create_mute(), post=value).content.decode()
    assert AlertMute.objects.get().lifted_at is None


def test_rows_that_cannot_be_changed_are_skipped_and_counted(client: Client) -> None:
    mute, ended, expired = create_mute(), create_mute(lifted_at=NOW), create_mute(until=NOW)
    page = html.unescape(end(client, mute, ended, expired).content.decode())
    skipped = "2 mutes had already ended and were skipped."
    assert "End 1 mute now?" in page
    assert skipped in page
    assert list_messages(end(client, mute, ended, expired, post="yes")) == ["1 mute was ended.", skipped]
    assert list_messages(end(client, ended)) == ["1 mute had already ended and was skipped."]


def test_row_that_left_the_filter_of_the_list_is_counted_as_skipped(client: Client) -> None:
    mute, ended = create_mute(), create_mute()
    assert "End 2 mutes now?" in end(client, mute, ended, url=f"{MUTES}?state=active").content.decode()
    AlertMute.objects.filter(pk=ended.pk).update(lifted_at=NOW)
    answer = end(client, mute, ended, url=f"{MUTES}?state=active", post="yes")
    assert list_messages(answer) == ["1 mute was ended.", "1 mute had already ended and was skipped."]
    assert answer.redirect_chain == [(f"{MUTES}?state=active", 302)]


def test_number_of_rows_is_limited_and_the_page_names_some(client: Client) -> None:
    AlertMute.objects.bulk_create(
        AlertMute(kind="replay", until=NOW + timedelta(days=1), muted_at=NOW, note=f"Drill {number}.")
        for number in range(MAX_SELECTED_ROWS)
    )
    first = AlertMute.objects.all()[0]
    page = end(client, first, select_across="1").content.decode()
    assert f"End {MAX_SELECTED_ROWS} mutes now?" in page
    assert page.count("<li>Repeated use") == MAX_NAMED_ROWS
    assert f"and {MAX_SELECTED_ROWS - MAX_NAMED_ROWS} more" in page
    create_mute()
    answer = end(client, first, select_across="1", post="yes")
    assert list_messages(answer) == [f"Nothing was done: select at most {MAX_SELECTED_ROWS} rows."]
    assert not AlertMute.objects.exclude(lifted_at=None).exists()


def test_actions_and_boxes_are_shown_for_rows_that_can_be_changed(client: Client) -> None:
    ended = create_mute(lifted_at=NOW)
    page = client.get(MUTES).content.decode()
    assert 'name="action"' not in page
    assert "_selected_action" not in page
    mute = create_mute()
    page = client.get(MUTES).content.decode()
    assert '<option value="end">' in page
    assert re.findall(r'name="_selected_action" value="(\d+)"', page) == [str(mute.pk)]
    # The page was shown before the row ended.
    assert "already ended" in list_messages(end(client, ended))[0]
    assert sign_in_officer("view_alertmute").get(MUTES).content.decode().count("_selected_action") == 0


def test_action_without_the_permission_is_refused(client: Client) -> None:
    mute = create_mute()
    viewer = sign_in_officer("view_alertmute")
    assert end(viewer, mute, post="yes").status_code == 403
    assert AlertMute.objects.get().lifted_at is None
    end(client, mute, post="yes")
    assert AlertMute.objects.get().lifted_at == NOW

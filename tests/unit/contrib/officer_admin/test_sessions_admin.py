"""Sessions in the admin: permissions to view and end them, and secrets that no page displays."""

import html
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.contrib.officer_admin.revocation_descriptions import describe_revocation
from django_phi_oidc.oidc.remedies import REMEDIES, SEE_MANUAL
from django_phi_oidc.sessions import token_revocation
from django_phi_oidc.sessions.lifecycle import end_session
from django_phi_oidc.sessions.models import EndReason, OIDCSession, PendingRevocation
from tests.support.session_fixtures import (
    ACCESS_TOKEN,
    REFRESH_TOKEN,
    ScriptedOP,
    SignedIn,
    answering,
    django_session_exists,
    events,
)

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.urls"),
]
SESSIONS, REVOCATIONS = "/admin/django_phi_oidc/oidcsession/", "/admin/django_phi_oidc/pendingrevocation/"
AdminOf = Callable[..., tuple[SignedIn, Client]]


@pytest.fixture
def admin_with(sign_in: Callable[..., SignedIn]) -> AdminOf:
    """Sign in a member of staff with these permissions."""

    def admin_with(*permissions: str) -> tuple[SignedIn, Client]:
        signed_in = sign_in()
        user: Any = signed_in.user
        user.is_staff = True
        user.save(update_fields=["is_staff"])
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        return signed_in, signed_in.client()

    return admin_with


def test_sessions_are_displayed_without_a_secret(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], admin_with: AdminOf
) -> None:
    person = sign_in()
    _, client = admin_with("view_oidcsession")
    pages = [client.get(SESSIONS), client.get(f"{SESSIONS}{person.session.pk}/change/")]
    assert [page.status_code for page in pages] == [200, 200]
    for page in pages:
        body = page.content.decode()
        assert str(person.session.pk) in body
        for secret in (ACCESS_TOKEN, REFRESH_TOKEN, "sid-1", person.django_key, person.session.session_key_digest):
            assert secret not in body
        assert "•••" not in body
    assert client.post(f"{SESSIONS}{person.session.pk}/change/").status_code == 403
    assert client.get(f"{SESSIONS}add/").status_code == 403
    assert client.post(f"{SESSIONS}{person.session.pk}/delete/").status_code == 403


def test_sessions_need_the_view_permission(admin_with: AdminOf) -> None:
    _, client = admin_with("view_pendingrevocation")
    assert (client.get(SESSIONS).status_code, client.get(REVOCATIONS).status_code) == (403, 200)


def test_search_finds_a_user_by_the_beginning_of_the_user_name(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], admin_with: AdminOf
) -> None:
    person = sign_in()
    _, client = admin_with("view_oidcsession")
    name = person.user.get_username()
    assert str(person.session.pk) in client.get(SESSIONS, {"q": name}).content.decode()
    assert str(person.session.pk) in client.get(SESSIONS, {"q": name[:-1]}).content.decode()
    assert str(person.session.pk) not in client.get(SESSIONS, {"q": name[1:]}).content.decode()


def test_end_now_ends_the_selected_sessions_and_records_the_actor(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], admin_with: AdminOf
) -> None:
    chosen, other = sign_in(), sign_in()
    admin, client = admin_with("view_oidcsession", "end_oidcsession")
    form = {"action": "end_now", "_selected_action": [str(chosen.session.pk)], "post": "yes"}
    assert "1 session was ended." in client.post(SESSIONS, form, follow=True).content.decode()
    assert OIDCSession.objects.get(pk=chosen.session.pk).end_reason == "administrator"
    assert {pk for (pk,) in OIDCSession.objects.filter(ended_at=None).values_list("pk")} == {
        other.session.pk,
        admin.session.pk,
    }
    assert not django_session_exists(chosen.django_key)
    assert [asked["token"] for asked in op.asked] == [REFRESH_TOKEN, ACCESS_TOKEN]
    (event,) = events(Action.SESSION_ENDED)
    assert (event.actor, event.session) == (str(admin.user.pk), str(chosen.session.pk))


def test_end_now_of_many_leaves_their_tokens_to_the_sweep(
    op: ScriptedOP,
    sign_in: Callable[..., SignedIn],
    admin_with: AdminOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("django_phi_oidc.contrib.officer_admin.sessions_admin.SESSION_BATCH_SIZE", 2)
    monkeypatch.setattr("django_phi_oidc.contrib.officer_admin.sessions_admin.MAX_INLINE_REVOCATIONS", 6)
    person, other = sign_in(), sign_in()
    _, client = admin_with("view_oidcsession", "end_oidcsession")
    form = {"_selected_action": [str(person.session.pk)], "select_across": "1", "action": "end_now", "post": "yes"}
    client.post(f"{SESSIONS}?q={person.user.get_username()}", form)
    assert len(op.asked) == 2
    assert OIDCSession.objects.filter(ended_at=None).count() == 2
    for _ in range(4):
        sign_in(again=other)
    client.post(f"{SESSIONS}?q={other.user.get_username()}", form)
    assert (OIDCSession.objects.filter(ended_at=None).count(), len(op.asked)) == (1, 2)


def test_t1_list_ends_the_sessions_of_one_person_only(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], admin_with: AdminOf
) -> None:
    chosen, other = sign_in(), sign_in()
    second = sign_in(again=chosen)
    _, client = admin_with("view_oidcsession", "end_oidcsession", "end_many_oidcsessions")
    form = {"action": "end_now", "_selected_action": [str(chosen.session.pk), str(other.session.pk)]}
    refusal = "Nothing was done: these are sessions of several people. Select those of one person."
    for data in (form, {**form, "post": "yes"}, {**form, "select_across": "1", "post": "yes"}):
        assert refusal in client.post(SESSIONS, data, follow=True).content.decode()
    assert OIDCSession.objects.live().count() == 4
    form["_selected_action"] = [str(chosen.session.pk), str(second.session.pk)]
    assert "2 sessions were ended." in client.post(SESSIONS, {**form, "post": "yes"}, follow=True).content.decode()


def test_list_links_to_the_end_of_many_sessions_only_with_the_permission(admin_with: AdminOf) -> None:
    link = "/admin/phi_oidc_officer_admin/sessionendjob/add/"
    for permission, is_shown in (("end_oidcsession", False), ("end_many_oidcsessions", True)):
        _, client = admin_with("view_oidcsession", permission)
        assert (f'href="{link}"' in client.get(SESSIONS).content.decode()) == is_shown


def test_filters_query_no_table_for_providers_or_row_counts(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], admin_with: AdminOf
) -> None:
    displayed, other = sign_in(), sign_in()
    OIDCSession.objects.filter(pk=other.session.pk).update(provider="another")
    _, client = admin_with("view_oidcsession", "view_pendingrevocation")
    for page in (SESSIONS, REVOCATIONS):
        with CaptureQueriesContext(connection) as asked:
            assert "provider=default" in client.get(page, {"_facets": "True"}).content.decode()
        assert not any("DISTINCT" in query["sql"] for query in asked)
        assert all("LIMIT" in query["sql"] for query in asked if "COUNT(" in query["sql"])
    body = client.get(SESSIONS, {"provider": "default"}).content.decode()
    assert (str(displayed.session.pk) in body, str(other.session.pk) in body) == (True, False)


def test_end_now_without_the_permission_is_refused(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], admin_with: AdminOf
) -> None:
    chosen = sign_in()
    _, client = admin_with("view_oidcsession")
    assert "end_now" not in client.get(SESSIONS).content.decode()
    client.post(SESSIONS, {"action": "end_now", "_selected_action": [str(chosen.session.pk)]})
    assert OIDCSession.objects.get(pk=chosen.session.pk).ended_at is None


def test_retry_ignores_the_back_off_of_pending_revocations(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], admin_with: AdminOf
) -> None:
    ended = sign_in()
    _, looking = admin_with("view_pendingrevocation")
    _, client = admin_with("view_pendingrevocation", "retry_pendingrevocation")
    end_session(ended.session.pk, EndReason.LOGOUT, origin=Origin(), now=clock.now())
    pks = [str(pk) for (pk,) in PendingRevocation.objects.values_list("pk")]
    form = {"action": "retry", "_selected_action": pks, "post": "yes"}
    op.answer = answering(500)
    assert "0 of 2 revocations are finished" in client.post(REVOCATIONS, form, follow=True).content.decode()
    op.answer = answering(200)
    looking.post(REVOCATIONS, form)
    assert len(op.asked) == 2, "who may only look has none tried"
    page = client.post(REVOCATIONS, form, follow=True).content.decode()
    assert "2 of 2 revocations are finished" in page
    assert ACCESS_TOKEN not in page
    assert set(PendingRevocation.objects.values_list("status", flat=True)) == {"done"}


@pytest.mark.parametrize(
    ("answer", "fault", "cure"),
    [
        (answering(400, {"error": "invalid_request"}), "http_400 invalid_request", SEE_MANUAL),
        (answering(401), "invalid_client", REMEDIES["invalid_client"]),
        (answering(200), "", ""),
    ],
)
def test_page_of_a_revocation_shows_the_error_of_the_provider_and_what_to_do(
    answer: Any, fault: str, cure: str, op: ScriptedOP, sign_in: Callable[..., SignedIn], admin_with: AdminOf
) -> None:
    ended = sign_in()
    _, client = admin_with("view_pendingrevocation")
    op.answer = answer
    end_session(ended.session.pk, EndReason.LOGOUT, origin=Origin(), now=clock.now())
    token_revocation.retry_due(clock=clock.now, budget_seconds=5, timeout_seconds=5, give_up_after=timedelta(days=3))
    row = PendingRevocation.objects.first()
    assert row is not None
    body = client.get(f"{REVOCATIONS}{row.pk}/change/").content.decode()
    assert row.last_fault == fault
    assert describe_revocation(row) in html.unescape(client.get(f"{REVOCATIONS}?status__exact=all").content.decode())
    shown = re.search(r'<div class="readonly">([^<]*)</div>', body.partition("What to do")[2])
    assert shown is not None
    assert html.unescape(shown[1]) == (cure or "-")


def list_session_rows(client: Client, **query: str) -> list[Any]:
    """Return the keys of the sessions on the page of the list."""
    changelist = client.get(SESSIONS, query).context["cl"]
    return [row.pk for row in changelist.result_list]


def test_newest_session_is_first_and_a_url_cannot_change_the_order(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], admin_with: AdminOf
) -> None:
    older, newer = sign_in().session, sign_in().session
    admin, client = admin_with("view_oidcsession")
    now = clock.now()
    for row, age in ((admin.session, 1), (newer, 2), (older, 3)):
        OIDCSession.objects.filter(pk=row.pk).update(
            started_at=now - timedelta(minutes=age), last_seen_at=now + timedelta(minutes=age)
        )
    expected = [admin.session.pk, newer.pk, older.pk]
    assert list_session_rows(client) == expected
    for order in ("2", "-2", "5", "-5"):
        assert list_session_rows(client, o=order) == expected


@pytest.mark.parametrize(
    "query", [{"ended_at__isempty": "0"}, {"end_reason__exact": "logout"}], ids=["ended", "by end reason"]
)
def test_session_that_ended_last_is_first_in_a_list_of_ended_sessions(
    query: dict[str, str], op: ScriptedOP, sign_in: Callable[..., SignedIn], admin_with: AdminOf
) -> None:
    older, newer = sign_in().session, sign_in().session
    _, client = admin_with("view_oidcsession")
    for session in (newer, older):
        end_session(session.pk, EndReason.LOGOUT, origin=Origin(), now=clock.now())
    assert list_session_rows(client, **query) == [older.pk, newer.pk]
    assert "Ended (UTC)" in client.get(SESSIONS, query).content.decode()
    assert "Ended (UTC)" not in client.get(SESSIONS).content.decode()


def test_end_reason_filter_with_the_live_state_lists_no_session(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], admin_with: AdminOf
) -> None:
    ended = sign_in().session
    _, client = admin_with("view_oidcsession")
    end_session(ended.pk, EndReason.LOGOUT, origin=Origin(), now=clock.now())
    assert list_session_rows(client, end_reason__exact="logout") == [ended.pk]
    assert list_session_rows(client, end_reason__exact="logout", ended_at__isempty="1") == []


def test_list_reads_no_encrypted_column(op: ScriptedOP, sign_in: Callable[..., SignedIn], admin_with: AdminOf) -> None:
    sign_in()
    _, client = admin_with("view_oidcsession", "view_pendingrevocation")
    for page in (SESSIONS, REVOCATIONS):
        with CaptureQueriesContext(connection) as asked:
            client.get(page)
        rows = [query["sql"] for query in asked if 'FROM "django_phi_oidc_' in query["sql"] and "device" not in query]
        listed = [sql for sql in rows if "ORDER BY" in sql]
        assert listed
        assert not any(f'"{column}"' in sql for sql in listed for column in ("token", "access_token", "session_key"))


def test_pending_revocations_are_listed_by_their_next_attempt_and_others_by_age(
    op: ScriptedOP, sign_in: Callable[..., SignedIn], admin_with: AdminOf
) -> None:
    ended = sign_in()
    _, client = admin_with("view_pendingrevocation")
    end_session(ended.session.pk, EndReason.LOGOUT, origin=Origin(), now=clock.now())
    older, newer = PendingRevocation.objects.order_by("pk")
    PendingRevocation.objects.filter(pk=older.pk).update(due_at=clock.now() + timedelta(minutes=1))
    for query, expected in (({}, [newer.pk, older.pk]), ({"status__exact": "all"}, [newer.pk, older.pk])):
        assert [row.pk for row in client.get(REVOCATIONS, query).context["cl"].result_list] == expected
    PendingRevocation.objects.filter(pk=newer.pk).update(due_at=clock.now() + timedelta(minutes=2))
    assert [row.pk for row in client.get(REVOCATIONS).context["cl"].result_list] == [older.pk, newer.pk]

"""Change lists of large tables read a limited number of rows."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.messages import get_messages
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.bounded_lists import CappedPaginator
from django_phi_oidc.sessions.models import OIDCSession
from tests.support.session_fixtures import ScriptedOP, SignedIn, op, sign_in  # noqa: F401 -- fixtures

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.urls"),
]
SESSIONS = "/admin/django_phi_oidc/oidcsession/"
NOTICE = "Only the first 2 rows were searched. Search for a person to find the others."
END = "The list ends after the first 2 rows. Filter it, or search for a person, to find the others."


@pytest.fixture(autouse=True)
def _limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_phi_oidc.audit.bounded_lists.MAX_ROWS", 2)


@pytest.fixture
def old_session(op: ScriptedOP, sign_in: Callable[..., SignedIn]) -> SignedIn:
    """Sign in three times, at another provider the first time."""
    old = sign_in()
    OIDCSession.objects.filter(pk=old.session.pk).update(provider="another")
    sign_in()
    sign_in()
    return old


@pytest.fixture
def client() -> Client:
    """Sign in a superuser."""
    client = Client()
    client.force_login(get_user_model()._default_manager.create_superuser("officer"))
    return client


def list_rows(client: Client, **query: str) -> tuple[list[Any], list[str]]:
    """Return the keys on the page of the session list, and its messages."""
    response = client.get(SESSIONS, query)
    changelist = response.context["cl"]
    return [row.pk for row in changelist.result_list], [str(message) for message in get_messages(response.wsgi_request)]


def test_paginator_counts_up_to_its_limit(old_session: SignedIn, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1) as asked:
        assert CappedPaginator(OIDCSession.objects.order_by("pk"), 50).count == 2
    assert "LIMIT 2" in asked.captured_queries[0]["sql"]


def test_filter_without_an_index_searches_the_first_rows_and_the_page_says_so(
    old_session: SignedIn,
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    query = {"provider": "another"}
    rows, messages = list_rows(client, **query)
    assert old_session.session.pk not in rows
    assert messages == [NOTICE]
    monkeypatch.setattr("django_phi_oidc.audit.bounded_lists.MAX_ROWS", 5)
    assert list_rows(client, **query) == ([old_session.session.pk], [])


def test_filter_with_an_index_and_a_search_for_a_person_have_no_limit(
    old_session: SignedIn,
    client: Client,
) -> None:
    name = old_session.user.get_username()
    assert list_rows(client, provider="another", q=name) == ([old_session.session.pk], [])
    assert list_rows(client, ended_at__isempty="1")[1] == [END]


def test_second_filter_searches_the_first_rows_of_the_filter_with_an_index(
    old_session: SignedIn,
    client: Client,
) -> None:
    assert list_rows(client, ended_at__isempty="1", provider="another") == ([], [NOTICE])
    OIDCSession.objects.filter(provider="default").update(ended_at=clock.now(), end_reason="logout")
    assert list_rows(client, ended_at__isempty="1", provider="another") == ([old_session.session.pk], [])


def test_filter_without_rows_reads_the_rows_once(old_session: SignedIn, client: Client) -> None:
    with CaptureQueriesContext(connection) as asked:
        assert list_rows(client, provider="unused") == ([], [NOTICE])
    from_sessions = [query["sql"] for query in asked if "django_phi_oidc_oidcsession" in query["sql"]]
    assert len([sql for sql in from_sessions if "unused" in sql]) == 1
    assert all("LIMIT" in sql for sql in from_sessions if "ORDER BY" in sql)


def test_list_that_ends_at_the_limit_says_so(
    old_session: SignedIn,
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert list_rows(client)[1] == [END]
    monkeypatch.setattr("django_phi_oidc.audit.bounded_lists.MAX_ROWS", 4)
    assert list_rows(client)[1] == []


@pytest.mark.parametrize("has_ended", [False, True])
def test_action_finds_a_selected_row_that_newer_ones_have_displaced(
    has_ended: bool,
    old_session: SignedIn,
    sign_in: Callable[..., SignedIn],
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("django_phi_oidc.audit.bounded_lists.MAX_ROWS", 3)
    assert list_rows(client, provider="another")[0] == [old_session.session.pk]
    sign_in()
    form = {"action": "end_now", "_selected_action": [str(old_session.session.pk)], "post": "yes"}
    row = OIDCSession.objects.filter(pk=old_session.session.pk)
    if has_ended:
        row.update(ended_at=clock.now(), end_reason="logout")
    response = client.post(f"{SESSIONS}?provider=another", form, follow=True)
    (message,) = [str(message) for message in response.context["messages"] if "the first" not in str(message)]
    assert ("had already ended" in message) is has_ended
    assert row.get().end_reason == ("logout" if has_ended else "administrator")


def test_page_takes_the_same_queries_with_more_rows(
    old_session: SignedIn,
    sign_in: Callable[..., SignedIn],
    client: Client,
) -> None:
    counts = set()
    for _ in range(2):
        with CaptureQueriesContext(connection) as asked:
            list_rows(client)
        counts.add(len(asked))
        sign_in()
    assert len(counts) == 1

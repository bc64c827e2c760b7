"""Pages of events: each event once, for all filters, by one query with an index."""

import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext

from django_phi_oidc._internal import randomness
from django_phi_oidc.audit import search
from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.audit.models import AuditCheckpoint, AuditEvent, AuditUnsealed
from django_phi_oidc.audit.router import AUDIT_ALIAS
from django_phi_oidc.audit.search import (
    EventFilters,
    EventQuery,
    RowUnreadable,
    list_checkpoints,
    list_events,
    list_events_of_query,
    scan_events,
)
from django_phi_oidc.errors import AuditUnavailable
from tests.support.audit_log import NOW, events, sealed
from tests.support.audit_tampering import EVENT, is_postgresql, sql, without_triggers

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
SESSION, SUBJECT, PERSON = (str(uuid.UUID(int=number)) for number in (1, 2, 3))
AT = uuid.UUID(int=4)
OTHER = Origin(actor="8", session=SESSION)


def ids(page: search.KeysetPage[AuditEvent, uuid.UUID]) -> list[uuid.UUID]:
    return [row.id for row in page.rows]


def forth(filters: EventFilters, size: int) -> Iterator[search.KeysetPage[AuditEvent, uuid.UUID]]:
    page = list_events(filters, page_size=size)
    yield page
    while page.older_key is not None:
        page = list_events(filters, before=page.older_key, page_size=size)
        yield page


def test_page_has_the_newest_events_first() -> None:
    written = events(5)
    assert list_events(EventFilters()) == search.KeysetPage(rows=tuple(AuditEvent.objects.order_by("-id")))
    page = list_events(EventFilters(), page_size=3)
    assert (ids(page), page.newer_key, page.older_key) == (written[:1:-1], None, written[2])


@pytest.mark.parametrize(
    "filters", [EventFilters(), EventFilters(actor="7"), EventFilters(search="7"), EventFilters(search=SESSION)]
)
def test_paging_forth_and_back_shows_each_event_once_despite_new_ones(filters: EventFilters) -> None:
    origin = Origin(actor="7", session=SESSION)
    written = events(250, origin=origin)[::-1]
    seen: list[uuid.UUID] = []
    last: search.KeysetPage[AuditEvent, uuid.UUID] = search.KeysetPage()
    for number, last in enumerate(forth(filters, 100)):
        seen.extend(ids(last))
        events(30, at=NOW + timedelta(minutes=1 + number), origin=origin)
    assert seen == written
    back, newer = ids(last), last.newer_key
    while newer is not None:
        page = list_events(filters, after=newer, page_size=100)
        back, newer = ids(page) + back, page.newer_key
    assert back[-250:] == written
    assert len(set(back)) == len(back) == 250 + 3 * 30


@pytest.mark.parametrize("size", [1, 2, 3])
def test_page_has_cursors_only_if_there_are_more_events(size: int) -> None:
    written = events(2)[::-1]
    assert [ids(page) for page in forth(EventFilters(), size)] == [
        written[start : start + size] for start in range(0, 2, size)
    ]
    assert list_events(EventFilters(), after=written[1], page_size=1).newer_key is None
    assert (
        list_events(EventFilters(), before=written[1])
        == list_events(EventFilters(), after=written[0])
        == search.KeysetPage()
    )


def test_page_before_and_after_at_once_is_refused() -> None:
    with pytest.raises(ValueError, match="before a row or after one"):
        list_events(EventFilters(), before=uuid.UUID(int=1), after=uuid.UUID(int=2))


FILTERED: dict[str, tuple[EventFilters, dict[str, Any]]] = {
    "action": (EventFilters(action="claim.stored"), {"action": Action.CLAIM_STORED, "detail": None}),
    "outcome": (EventFilters(outcome="failure"), {"outcome": "failure"}),
    "actor": (EventFilters(actor="8"), {"origin": OTHER}),
    "subject": (EventFilters(subject=SUBJECT), {"subject": SUBJECT}),
    "since": (EventFilters(since=NOW + timedelta(hours=1)), {"at": NOW + timedelta(hours=1)}),
    "until": (EventFilters(until=NOW), {"at": NOW - timedelta(microseconds=1)}),
    "actor searched": (EventFilters(search="8"), {"origin": OTHER}),
    "session searched": (EventFilters(search=SESSION), {"origin": OTHER}),
    "subject searched": (EventFilters(search=SUBJECT.upper()), {"subject": SUBJECT}),
    "person searched": (EventFilters(search=PERSON.replace("-", "")), {"origin": Origin(actor=PERSON)}),
    "one of two actions": (
        EventFilters(action="login.refused,claim.stored"),
        {"action": Action.CLAIM_STORED, "detail": None},
    ),
    "purpose": (EventFilters(purpose="HMARKT"), {"purpose": "HMARKT"}),
    "person as actor": (EventFilters(person=f"8,{SUBJECT}"), {"origin": OTHER}),
    "person as subject": (EventFilters(person=f"8,{SUBJECT}"), {"subject": SUBJECT}),
    "person and purpose": (
        EventFilters(person=f"8,{SUBJECT}", purpose="HMARKT"),
        {"subject": SUBJECT, "purpose": "HMARKT"},
    ),
    "two together": (EventFilters(outcome="error", search=SUBJECT), {"outcome": "error", "subject": SUBJECT}),
}


@pytest.mark.parametrize("name", FILTERED)
def test_filter_selects_matching_events_only(name: str) -> None:
    filters, fields = FILTERED[name]
    others = events(3)
    (one,) = events(1, **fields)
    assert ids(list_events(filters)) == ids(scan_events(filters).page) == [one]
    assert set(ids(list_events(EventFilters()))) == {one, *others}
    assert filters.list_used_names() != ()


def test_person_who_is_actor_and_subject_is_found_once() -> None:
    (both,) = events(1, origin=OTHER, subject=SUBJECT)
    person = EventFilters(person=f"8,{SUBJECT}")
    assert ids(list_events(person)) == ids(scan_events(person, viewer="9").page) == [both]
    assert (person.list_subjects(), EventFilters(person="8").list_subjects()) == ((SUBJECT,), ())
    with pytest.raises(ValueError, match="not both"):
        list_events(EventFilters(person="8", search="8"))


def test_scan_leaves_out_routine_events_and_counts_them() -> None:
    viewed: dict[str, Any] = {"action": Action.AUDIT_VIEWED, "detail": None}
    revoked: dict[str, Any] = {"action": Action.TOKEN_REVOKED, "detail": None}
    first = events(2)
    events(3, at=NOW + timedelta(minutes=1), origin=OTHER, **viewed)
    (by_another,) = events(1, at=NOW + timedelta(minutes=2), **viewed)
    events(4, at=NOW + timedelta(minutes=3), **revoked)
    (failed,) = events(1, at=NOW + timedelta(minutes=4), outcome="failure", **revoked)

    whole = scan_events(EventFilters(), viewer="8")
    assert (ids(whole.page), whole.hidden_count, whole.end) == ([failed, by_another, *first[::-1]], 7, None)
    assert len(scan_events(EventFilters()).page.rows) == 11
    # The hidden events between two pages are counted on the older one, and none is left out or shown twice.
    newer = scan_events(EventFilters(), viewer="8", page_size=1)
    assert (ids(newer.page), newer.hidden_count) == ([failed], 0)
    older = scan_events(EventFilters(), viewer="8", page_size=1, before=newer.page.older_key)
    assert (ids(older.page), older.hidden_count) == ([by_another], 4)
    back = scan_events(EventFilters(), viewer="8", page_size=1, after=by_another)
    assert (ids(back.page), back.hidden_count, back.page.newer_key) == ([failed], 4, None)


def test_scan_of_limited_length_continues_where_it_ended() -> None:
    (oldest,) = events(1, purpose="HMARKT")
    written = events(25, at=NOW + timedelta(minutes=1))
    (newest,) = events(1, at=NOW + timedelta(minutes=2), purpose="HMARKT")
    options: dict[str, Any] = {"page_size": 3, "max_scanned": 10}
    found, ends, page = [], [], scan_events(EventFilters(purpose="HMARKT"), **options)
    while True:
        found += ids(page.page)
        ends.append(page.end)
        if page.page.older_key is None:
            break
        page = scan_events(EventFilters(purpose="HMARKT"), before=page.page.older_key, **options)
    assert found == [newest, oldest]
    assert ends == [written[16], written[6], None]
    up = scan_events(EventFilters(purpose="HMARKT"), after=oldest, **options)
    assert (up.page.rows, up.end, up.page.newer_key) == ((), written[9], written[9])


def test_two_filters_must_both_match() -> None:
    events(1, outcome="error")
    events(1, subject=SUBJECT)
    assert list_events(EventFilters(outcome="error", subject=SUBJECT)).rows == ()
    assert list_events(EventFilters(outcome="error", search=SUBJECT)).rows == ()


def test_search_of_an_id_finds_the_event_and_references_once() -> None:
    (one,) = events(1)
    (referring,) = events(
        1, at=NOW + timedelta(hours=1), origin=Origin(actor=str(one), session=str(one)), subject=str(one)
    )
    assert ids(list_events(EventFilters(search=str(one)))) == [referring, one]
    assert ids(list_events(EventFilters(search=str(one)), before=referring)) == [one]
    assert ids(list_events(EventFilters(search=str(one)), after=one)) == [referring]
    assert ids(list_events(EventFilters(search=str(one), until=NOW))) == []


@pytest.mark.parametrize("term", [SUBJECT[:-1], "birthdate", "%", "_", "' OR 1=1 --", "x" * 10_000, "é"])
def test_search_matches_whole_values_only(term: str) -> None:
    events(2, subject=SUBJECT)
    assert list_events(EventFilters(search=term)).rows == ()


def test_pages_of_checkpoints_show_each_once() -> None:
    for _ in range(5):
        sealed(2)
    page = list_checkpoints(page_size=2)
    assert ([row.tree_size for row in page.rows], page.newer_key, page.older_key) == ([10, 8], None, 8)
    page = list_checkpoints(before=8, page_size=2)
    assert ([row.tree_size for row in page.rows], page.newer_key, page.older_key) == ([6, 4], 6, 4)
    page = list_checkpoints(after=4, page_size=2)
    assert ([row.tree_size for row in page.rows], page.newer_key, page.older_key) == ([8, 6], 8, 6)
    assert list_checkpoints(before=0) == list_checkpoints(after=10) == search.KeysetPage()


def test_events_of_a_query_are_listed_once() -> None:
    one, other = Action.CLAIM_REVEALED, Action.ACCESS_GRANTED
    (both,) = events(1, subject=SUBJECT, resource="Patient/1")
    (by_resource,) = events(1, action=other, detail=None, resource="Patient/2", at=NOW + timedelta(hours=1))
    (own,) = events(1, subject=SUBJECT, origin=OTHER, at=NOW + timedelta(hours=2))
    events(1, subject=SUBJECT, outcome="failure")
    events(1, subject=SUBJECT, action=Action.CLAIM_STORED, detail=None)
    events(1, subject="Patient/1", resource=SUBJECT)
    query = {"actions": [one, other], "subjects": [SUBJECT], "resources": ["Patient/1", "Patient/2"]}
    assert ids(list_events_of_query(EventQuery(**query))) == [own, by_resource, both]
    assert ids(list_events_of_query(EventQuery(**query, excluded_actor=OTHER.actor))) == [by_resource, both]
    assert ids(list_events_of_query(EventQuery(**query, since=NOW + timedelta(hours=1)))) == [own, by_resource]
    assert ids(list_events_of_query(EventQuery(**query), before=own, page_size=1)) == [by_resource]
    assert ids(list_events_of_query(EventQuery(**query), after=both, page_size=1)) == [by_resource]
    assert ids(list_events_of_query(EventQuery(**{**query, "actions": [one]}))) == [own, both]
    assert (
        list_events_of_query(EventQuery(actions=[one]))
        == list_events_of_query(EventQuery(**query), after=own)
        == search.KeysetPage()
    )
    with pytest.raises(ValueError, match="before a row or after one"):
        list_events_of_query(EventQuery(**query), before=own, after=both)


def test_oldest_unarchived_time_is_known_after_events_were_removed() -> None:
    assert search.find_oldest_unarchived_time() is None
    first, *_ = sealed(3)
    events(1, at=NOW + timedelta(hours=1))
    assert search.find_oldest_unarchived_time() is None
    with without_triggers():
        sql(f"DELETE FROM {EVENT} WHERE id = %s", first)
    assert search.find_oldest_unarchived_time() == NOW + timedelta(milliseconds=1)
    with without_triggers():
        sql(f"DELETE FROM {EVENT}")
    assert search.find_oldest_unarchived_time() is None


def test_log_position_is_the_leaf_and_the_first_checkpoint_that_covers_it() -> None:
    first, second = sealed(3), sealed(2)
    (waiting,) = events(1)
    assert search.get_log_position(first[2]) == search.LogPosition(leaf_index=2, tree_size=3)
    assert search.get_log_position(second[0]) == search.LogPosition(leaf_index=3, tree_size=5)
    assert search.get_log_position(waiting) == search.LogPosition(leaf_index=None, tree_size=None)
    AuditUnsealed.objects.filter(event_id=waiting).update(refused=True)
    assert search.get_log_position(waiting).refused


def test_missing_event_and_checkpoint_are_none() -> None:
    (one,) = sealed(1)
    assert (search.find_event(one), search.find_checkpoint(1)) == (
        AuditEvent.objects.get(),
        AuditCheckpoint.objects.get(),
    )
    assert search.find_event(uuid.UUID(int=1)) is search.find_checkpoint(2) is search.find_last_verification() is None


def test_last_verification_is_the_newest() -> None:
    for hours in (2, 1):
        events(1, action=Action.AUDIT_VERIFIED, detail={"tree_size": hours}, at=NOW + timedelta(hours=hours))
    page = search.find_last_verification()
    assert page is not None
    assert page.detail == '{"tree_size":2}'


def test_unreadable_row_raises_row_unreadable() -> None:
    (one,) = events(1, action=Action.AUDIT_VERIFIED, detail=None)
    with without_triggers():
        # Values that the database accepts, but Python does not.
        sql(f"UPDATE {EVENT} SET occurred_at = %s", "infinity" if is_postgresql() else "2026-13-01 00:00:00")
    for query in (
        lambda: list_events(EventFilters()),
        lambda: scan_events(EventFilters()),
        search.find_last_verification,
        lambda: search.find_event(one),
    ):
        with pytest.raises(RowUnreadable):
            query()


def test_missing_audit_database_raises_audit_unavailable(audit_database_away: Callable[[], Any]) -> None:
    queries: tuple[Callable[[], Any], ...] = (
        lambda: list_events(EventFilters()),
        lambda: scan_events(EventFilters(), viewer="7"),
        list_checkpoints,
        search.find_last_verification,
        lambda: search.find_event(AT),
        lambda: search.get_log_position(AT),
        lambda: search.find_checkpoint(1),
        lambda: list_events_of_query(EventQuery(actions=["claim.revealed"], subjects=[SUBJECT])),
        search.find_oldest_unarchived_time,
        search.find_oldest_event_id,
        lambda: search.count_unsealed(max_count=1),
    )
    for query in queries:
        with audit_database_away(), pytest.raises(AuditUnavailable):
            query()


@contextmanager
def statements() -> Iterator[list[tuple[str, Any]]]:
    """Collect the statements on the audit database, with their parameters."""
    collected: list[tuple[str, Any]] = []

    def collect(execute: Any, statement: str, params: Any, many: bool, context: Any) -> Any:
        collected.append((statement, params))
        return execute(statement, params, many, context)

    with connections[AUDIT_ALIAS].execute_wrapper(collect):
        yield collected


def plan(statement: str, params: Any) -> str:
    with connections[AUDIT_ALIAS].cursor() as cursor:
        cursor.execute(f"EXPLAIN {'' if is_postgresql() else 'QUERY PLAN'} {statement}", params)
        return "\n".join(str(row[-1]) for row in cursor.fetchall())


def whole_tables(plan_text: str) -> list[str]:
    """Return the lines of a plan that read a whole table."""
    if is_postgresql():
        return re.findall(r".*Seq Scan.*", plan_text)
    # A SCAN with an INDEX reads as many rows as the page has.
    return [line for line in re.findall(r"SCAN .*", plan_text) if "USING INDEX" not in line and " part" not in line]


@pytest.fixture
def _many() -> None:
    """Create thousands of events of many users over a day, and update the statistics.

    So many that an index is always cheaper than the table, also where rows of earlier tests have left gaps in it.
    """
    for number in range(40):
        origin = Origin(actor=str(number), session=str(uuid.UUID(int=number)))
        at = NOW + timedelta(minutes=number)
        events(
            300,
            at=at,
            origin=origin,
            subject=str(uuid.UUID(int=1000 + number)),
            resource=f"Patient/{number}",
            action=list(Action)[number % 19],
            detail=None,
        )
    sql(f"ANALYZE {EVENT}")


INDEXED: dict[str, tuple[EventFilters, str]] = {
    "nothing": (EventFilters(), ""),
    "action": (EventFilters(action="claim.revealed"), "phi_oidc_audit_action"),
    "actor": (EventFilters(actor="3"), "phi_oidc_audit_actor"),
    "subject": (EventFilters(subject=str(uuid.UUID(int=1003))), "phi_oidc_audit_subject"),
    "an actor searched": (EventFilters(search="3"), "phi_oidc_audit_actor"),
    "a session searched": (EventFilters(search=str(uuid.UUID(int=3))), "phi_oidc_audit_session"),
    "a subject searched": (EventFilters(search=str(uuid.UUID(int=1003))), "phi_oidc_audit_subject"),
    "time": (EventFilters(since=NOW + timedelta(minutes=19), until=NOW + timedelta(minutes=22)), ""),
    "the most frequent outcome": (EventFilters(outcome="success"), ""),
    "outcome": (EventFilters(outcome="error"), "phi_oidc_audit_outcome"),
    "actor and action": (
        EventFilters(actor="3", action="session.ended", until=NOW + timedelta(hours=1)),
        "phi_oidc_audit_a",
    ),
}


@pytest.mark.usefixtures("_many")
def test_every_page_is_one_query_with_an_index() -> None:
    middle = AuditEvent.objects.order_by("id")[6000:6001].get().id
    for name, (filters, index) in INDEXED.items():
        for cursor in ({}, {"before": middle}, {"after": middle}):
            with statements() as collected:
                list_events(filters, **cursor)
            ((statement, params),) = collected
            assert not re.search(r"COUNT\(|OFFSET|LIKE", statement), name
            plan_text = plan(statement, params)
            assert whole_tables(plan_text) == [], f"{name} {cursor}\n{plan_text}"
            assert index in plan_text, f"{name} {cursor}\n{plan_text}"


SCANNED: dict[str, tuple[EventFilters, str]] = {
    **INDEXED,
    "purpose": (EventFilters(purpose="TREAT"), ""),
    "two actions": (EventFilters(action="claim.revealed,claim.stored"), "phi_oidc_audit_action"),
    "person": (EventFilters(person=f"3,{uuid.UUID(int=1003)}"), "phi_oidc_audit_subject"),
    "person and purpose": (
        EventFilters(person=f"3,{uuid.UUID(int=1003)}", purpose="TREAT"),
        "phi_oidc_audit_actor",
    ),
}


@pytest.mark.usefixtures("_many")
def test_every_scan_is_two_queries_with_an_index() -> None:
    middle = AuditEvent.objects.order_by("id")[6000:6001].get().id
    for name, (filters, index) in SCANNED.items():
        for cursor in ({}, {"before": middle}, {"after": middle}):
            with statements() as collected:
                scan_events(filters, viewer="3", max_scanned=150, **cursor)
            assert len(collected) == 2, name
            for statement, params in collected:
                assert not re.search(r"OFFSET|LIKE", statement), name
                assert re.search(r"LIMIT \d", statement), name
                plan_text = plan(statement, params)
                tables = [
                    line
                    for line in whole_tables(plan_text)
                    if not re.search(r" counted| scanned| SUBQUERY \d|\(subquery", line)
                ]
                assert tables == [], f"{name} {cursor}\n{plan_text}"
                assert index in plan_text, f"{name} {cursor}\n{plan_text}"


@pytest.mark.usefixtures("_many")
def test_events_of_a_query_use_the_indexes_of_subject_and_resource() -> None:
    middle = AuditEvent.objects.order_by("id")[6000:6001].get().id
    subjects, resources = [str(uuid.UUID(int=1003)), str(uuid.UUID(int=1007))], ["Patient/3", "Patient/8", "Patient/x"]
    about = EventQuery(actions=sorted(Action), subjects=subjects, resources=resources, excluded_actor="4", since=NOW)
    assert len(list_events_of_query(about, page_size=1000).rows) == 900
    for cursor in ({}, {"before": middle}, {"after": middle}):
        with statements() as collected:
            list_events_of_query(about, **cursor)
        ((statement, params),) = collected
        assert not re.search(r"COUNT\(|OFFSET|LIKE", statement)
        plan_text = plan(statement, params)
        assert whole_tables(plan_text) == [], plan_text
        assert (plan_text.count("phi_oidc_audit_subject"), plan_text.count("phi_oidc_audit_resource")) == (2, 3), (
            plan_text
        )


@pytest.mark.usefixtures("_many")
def test_other_queries_use_an_index() -> None:
    with statements() as collected:
        search.find_last_verification()
        search.find_event(AT)
        search.get_log_position(AT)
        search.find_checkpoint(3)
        list_checkpoints(before=3)
    assert len(collected) == 6
    assert "phi_oidc_audit_action" in plan(*collected[0])
    if not is_postgresql():
        # PostgreSQL scans the tables that are empty here.
        assert [whole_tables(plan(*item)) for item in collected] == [[]] * 6


@pytest.mark.usefixtures("_many")
def test_late_page_takes_as_few_queries_as_the_first() -> None:
    connection = connections[AUDIT_ALIAS]
    for page in forth(EventFilters(), 1000):
        last = page
    with CaptureQueriesContext(connection) as first:
        list_events(EventFilters())
    with CaptureQueriesContext(connection) as deep:
        list_events(EventFilters(), after=last.rows[-1].id)
    assert (len(first), len(deep)) == (1, 1)


def test_time_filters_have_microsecond_precision() -> None:
    moment = datetime(2026, 11, 24, 16, 5, 9, 123457, tzinfo=UTC)
    with randomness.override_randomness(bytes):
        # The lowest id of that microsecond.
        (at,) = events(1, at=moment)
    (before,) = events(1, at=moment - timedelta(microseconds=1))
    assert ids(list_events(EventFilters(since=moment))) == [at]
    assert ids(list_events(EventFilters(until=moment))) == [before]


@pytest.mark.postgresql
def test_page_reads_no_events_of_others_whose_text_ends_alike() -> None:
    for number in range(40):
        origin = Origin(actor=f"user{number}@example.com")
        events(50, at=NOW + timedelta(minutes=number), origin=origin, resource=f"Patient/{number}/Summary")
    sql(f"ANALYZE {EVENT}")
    with statements() as collected:
        assert len(list_events(EventFilters(actor="user3@example.com")).rows) == 50
        query = EventQuery(actions=[Action.CLAIM_REVEALED], resources=["Patient/3/Summary"])
        assert len(list_events_of_query(query).rows) == 50
    for statement, params in collected:
        with connections[AUDIT_ALIAS].cursor() as cursor:
            cursor.execute(f"EXPLAIN (ANALYZE) {statement}", params)
            plan_text = "\n".join(line for (line,) in cursor.fetchall())
        assert "phi_oidc_audit_" in plan_text, plan_text
        assert "Rows Removed by Filter" not in plan_text, plan_text

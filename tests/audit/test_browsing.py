"""The trail by pages: each event once, whatever is asked for, and at the price of a look into one index."""

import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext

from django_phi_oidc import entropy
from django_phi_oidc.audit import browsing
from django_phi_oidc.audit.browsing import About, Filters, RowUnreadable, page, page_about, page_of_checkpoints
from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.audit.models import AuditCheckpoint, AuditEvent, AuditUnsealed
from django_phi_oidc.audit.routing import AUDIT_ALIAS
from django_phi_oidc.errors import AuditUnavailable
from tests.audit.log import NOW, events, sealed
from tests.audit.tampering import EVENT, is_postgresql, sql, without_triggers

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
SESSION, SUBJECT, PERSON = (str(uuid.UUID(int=number)) for number in (1, 2, 3))
AT = uuid.UUID(int=4)
OTHER = Origin(actor="8", session=SESSION)


def ids(found: browsing.Page[AuditEvent, uuid.UUID]) -> list[uuid.UUID]:
    return [row.id for row in found.rows]


def forth(filters: Filters, size: int) -> Iterator[browsing.Page[AuditEvent, uuid.UUID]]:
    found = page(filters, size=size)
    yield found
    while found.older is not None:
        found = page(filters, before=found.older, size=size)
        yield found


def test_page_gives_the_newest_first() -> None:
    written = events(5)
    assert page(Filters()) == browsing.Page(rows=tuple(AuditEvent.objects.order_by("-id")))
    found = page(Filters(), size=3)
    assert (ids(found), found.newer, found.older) == (written[:1:-1], None, written[2])


@pytest.mark.parametrize("filters", [Filters(), Filters(actor="7"), Filters(search="7"), Filters(search=SESSION)])
def test_pages_forth_and_back_give_each_event_once_while_others_come_in(filters: Filters) -> None:
    origin = Origin(actor="7", session=SESSION)
    written = events(250, origin=origin)[::-1]
    seen: list[uuid.UUID] = []
    last: browsing.Page[AuditEvent, uuid.UUID] = browsing.Page()
    for number, last in enumerate(forth(filters, 100)):
        seen.extend(ids(last))
        events(30, at=NOW + timedelta(minutes=1 + number), origin=origin)
    assert seen == written
    back, newer = ids(last), last.newer
    while newer is not None:
        found = page(filters, after=newer, size=100)
        back, newer = ids(found) + back, found.newer
    assert back[-250:] == written
    assert len(set(back)) == len(back) == 250 + 3 * 30


@pytest.mark.parametrize("size", [1, 2, 3])
def test_page_tells_of_further_ones_only_where_there_are(size: int) -> None:
    written = events(2)[::-1]
    assert [ids(each) for each in forth(Filters(), size)] == [
        written[start : start + size] for start in range(0, 2, size)
    ]
    assert page(Filters(), after=written[1], size=1).newer is None
    assert page(Filters(), before=written[1]) == page(Filters(), after=written[0]) == browsing.Page()


def test_page_before_and_after_at_once_is_refused() -> None:
    with pytest.raises(ValueError, match="before a row or after one"):
        page(Filters(), before=uuid.UUID(int=1), after=uuid.UUID(int=2))


FILTERED: dict[str, tuple[Filters, dict[str, Any]]] = {
    "action": (Filters(action="claim.stored"), {"action": Action.CLAIM_STORED, "detail": None}),
    "outcome": (Filters(outcome="failure"), {"outcome": "failure"}),
    "actor": (Filters(actor="8"), {"origin": OTHER}),
    "subject": (Filters(subject=SUBJECT), {"subject": SUBJECT}),
    "since": (Filters(since=NOW + timedelta(hours=1)), {"at": NOW + timedelta(hours=1)}),
    "until": (Filters(until=NOW), {"at": NOW - timedelta(microseconds=1)}),
    "actor searched": (Filters(search="8"), {"origin": OTHER}),
    "session searched": (Filters(search=SESSION), {"origin": OTHER}),
    "subject searched": (Filters(search=SUBJECT.upper()), {"subject": SUBJECT}),
    "person searched": (Filters(search=PERSON.replace("-", "")), {"origin": Origin(actor=PERSON)}),
    "two together": (Filters(outcome="error", search=SUBJECT), {"outcome": "error", "subject": SUBJECT}),
}


@pytest.mark.parametrize("name", FILTERED)
def test_filter_lets_through_what_has_it_and_nothing_else(name: str) -> None:
    filters, given = FILTERED[name]
    others = events(3)
    (one,) = events(1, **given)
    assert ids(page(filters)) == [one]
    assert set(ids(page(Filters()))) == {one, *others}
    assert filters.used() != ()


def test_two_filters_both_have_to_fit() -> None:
    events(1, outcome="error")
    events(1, subject=SUBJECT)
    assert page(Filters(outcome="error", subject=SUBJECT)).rows == ()
    assert page(Filters(outcome="error", search=SUBJECT)).rows == ()


def test_search_of_an_id_finds_the_event_and_what_bears_it_once() -> None:
    (one,) = events(1)
    (told,) = events(1, at=NOW + timedelta(hours=1), origin=Origin(actor=str(one), session=str(one)), subject=str(one))
    assert ids(page(Filters(search=str(one)))) == [told, one]
    assert ids(page(Filters(search=str(one)), before=told)) == [one]
    assert ids(page(Filters(search=str(one)), after=one)) == [told]
    assert ids(page(Filters(search=str(one), until=NOW))) == []


@pytest.mark.parametrize("term", [SUBJECT[:-1], "birthdate", "%", "_", "' OR 1=1 --", "x" * 10_000, "é"])
def test_search_takes_nothing_in_part(term: str) -> None:
    events(2, subject=SUBJECT)
    assert page(Filters(search=term)).rows == ()


def test_pages_of_checkpoints_give_each_once() -> None:
    for _ in range(5):
        sealed(2)
    found = page_of_checkpoints(size=2)
    assert ([row.tree_size for row in found.rows], found.newer, found.older) == ([10, 8], None, 8)
    found = page_of_checkpoints(before=8, size=2)
    assert ([row.tree_size for row in found.rows], found.newer, found.older) == ([6, 4], 6, 4)
    found = page_of_checkpoints(after=4, size=2)
    assert ([row.tree_size for row in found.rows], found.newer, found.older) == ([8, 6], 8, 6)
    assert page_of_checkpoints(before=0) == page_of_checkpoints(after=10) == browsing.Page()


def test_page_about_gives_what_is_about_one_of_these_once() -> None:
    one, other = Action.CLAIM_REVEALED, Action.ACCESS_GRANTED
    (both,) = events(1, subject=SUBJECT, resource="Patient/1")
    (by_resource,) = events(1, action=other, detail=None, resource="Patient/2", at=NOW + timedelta(hours=1))
    (own,) = events(1, subject=SUBJECT, origin=OTHER, at=NOW + timedelta(hours=2))
    events(1, subject=SUBJECT, outcome="failure")
    events(1, subject=SUBJECT, action=Action.CLAIM_STORED, detail=None)
    events(1, subject="Patient/1", resource=SUBJECT)
    about = {"actions": [one, other], "subjects": [SUBJECT], "resources": ["Patient/1", "Patient/2"]}
    assert ids(page_about(About(**about))) == [own, by_resource, both]
    assert ids(page_about(About(**about, unless_actor=OTHER.actor))) == [by_resource, both]
    assert ids(page_about(About(**about, since=NOW + timedelta(hours=1)))) == [own, by_resource]
    assert ids(page_about(About(**about), before=own, size=1)) == [by_resource]
    assert ids(page_about(About(**about), after=both, size=1)) == [by_resource]
    assert ids(page_about(About(**{**about, "actions": [one]}))) == [own, both]
    assert page_about(About(actions=[one])) == page_about(About(**about), after=own) == browsing.Page()
    with pytest.raises(ValueError, match="before a row or after one"):
        page_about(About(**about), before=own, after=both)


def test_events_that_were_taken_out_of_the_table_are_told_of() -> None:
    assert browsing.begins_at() is None
    first, *_ = sealed(3)
    events(1, at=NOW + timedelta(hours=1))
    assert browsing.begins_at() is None
    with without_triggers():
        sql(f"DELETE FROM {EVENT} WHERE id = %s", first)
    assert browsing.begins_at() == NOW + timedelta(milliseconds=1)
    with without_triggers():
        sql(f"DELETE FROM {EVENT}")
    assert browsing.begins_at() is None


def test_place_is_the_leaf_and_the_first_checkpoint_over_it() -> None:
    first, second = sealed(3), sealed(2)
    (waiting,) = events(1)
    assert browsing.place(first[2]) == browsing.Place(leaf_index=2, tree_size=3)
    assert browsing.place(second[0]) == browsing.Place(leaf_index=3, tree_size=5)
    assert browsing.place(waiting) == browsing.Place(leaf_index=None, tree_size=None)
    AuditUnsealed.objects.filter(event_id=waiting).update(refused=True)
    assert browsing.place(waiting).refused


def test_event_and_checkpoint_are_none_where_there_is_none() -> None:
    (one,) = sealed(1)
    assert (browsing.event(one), browsing.checkpoint(1)) == (AuditEvent.objects.get(), AuditCheckpoint.objects.get())
    assert browsing.event(uuid.UUID(int=1)) is browsing.checkpoint(2) is browsing.last_verification() is None


def test_last_verification_is_the_newest() -> None:
    for hours in (2, 1):
        events(1, action=Action.AUDIT_VERIFIED, detail={"tree_size": hours}, at=NOW + timedelta(hours=hours))
    found = browsing.last_verification()
    assert found is not None
    assert found.detail == '{"tree_size":2}'


def test_row_that_can_be_no_event_is_told_from_an_audit_database_that_is_away() -> None:
    (one,) = events(1, action=Action.AUDIT_VERIFIED, detail=None)
    with without_triggers():
        # What each of them lets in, and Python does not.
        sql(f"UPDATE {EVENT} SET occurred_at = %s", "infinity" if is_postgresql() else "2026-13-01 00:00:00")
    for look in (lambda: page(Filters()), browsing.last_verification, lambda: browsing.event(one)):
        with pytest.raises(RowUnreadable):
            look()


def test_audit_database_that_is_away_is_audit_unavailable(audit_database_away: Callable[[], Any]) -> None:
    looks: tuple[Callable[[], Any], ...] = (
        lambda: page(Filters()),
        page_of_checkpoints,
        browsing.last_verification,
        lambda: browsing.event(AT),
        lambda: browsing.place(AT),
        lambda: browsing.checkpoint(1),
        lambda: page_about(About(actions=["claim.revealed"], subjects=[SUBJECT])),
        browsing.begins_at,
        lambda: browsing.counts("action", "claim.revealed", [NOW, NOW + timedelta(hours=1)], most=1),
        lambda: browsing.unsealed(most=1),
    )
    for look in looks:
        with audit_database_away(), pytest.raises(AuditUnavailable):
            look()


@contextmanager
def statements() -> Iterator[list[tuple[str, Any]]]:
    """Collect what is asked of the trail's database, with its parameters."""
    asked: list[tuple[str, Any]] = []

    def collect(execute: Any, statement: str, params: Any, many: bool, context: Any) -> Any:
        asked.append((statement, params))
        return execute(statement, params, many, context)

    with connections[AUDIT_ALIAS].execute_wrapper(collect):
        yield asked


def plan(statement: str, params: Any) -> str:
    with connections[AUDIT_ALIAS].cursor() as cursor:
        cursor.execute(f"EXPLAIN {'' if is_postgresql() else 'QUERY PLAN'} {statement}", params)
        return "\n".join(str(row[-1]) for row in cursor.fetchall())


def whole_tables(told: str) -> list[str]:
    """Return the lines of a plan that read a table from one end to the other."""
    if is_postgresql():
        return re.findall(r".*Seq Scan.*", told)
    # A SCAN that USES the INDEX of the key goes along it, for as many rows as the page has.
    return [line for line in re.findall(r"SCAN .*", told) if "USING INDEX" not in line and " part" not in line]


@pytest.fixture
def _many() -> None:
    """Thousands of events of many people over a day, and what the database knows of them."""
    for number in range(40):
        origin = Origin(actor=str(number), session=str(uuid.UUID(int=number)))
        at = NOW + timedelta(minutes=number)
        events(
            100,
            at=at,
            origin=origin,
            subject=str(uuid.UUID(int=1000 + number)),
            resource=f"Patient/{number}",
            action=list(Action)[number % 19],
            detail=None,
        )
    sql(f"ANALYZE {EVENT}")


INDEXED: dict[str, tuple[Filters, str]] = {
    "nothing": (Filters(), ""),
    "action": (Filters(action="claim.revealed"), "phi_oidc_audit_action"),
    "actor": (Filters(actor="3"), "phi_oidc_audit_actor"),
    "subject": (Filters(subject=str(uuid.UUID(int=1003))), "phi_oidc_audit_subject"),
    "an actor searched": (Filters(search="3"), "phi_oidc_audit_actor"),
    "a session searched": (Filters(search=str(uuid.UUID(int=3))), "phi_oidc_audit_session"),
    "a subject searched": (Filters(search=str(uuid.UUID(int=1003))), "phi_oidc_audit_subject"),
    "time": (Filters(since=NOW + timedelta(minutes=19), until=NOW + timedelta(minutes=22)), ""),
    "what most events are": (Filters(outcome="success"), ""),
    "outcome": (Filters(outcome="error"), "phi_oidc_audit_outcome"),
    "actor and action": (
        Filters(actor="3", action="session.ended", until=NOW + timedelta(hours=1)),
        "phi_oidc_audit_a",
    ),
}


@pytest.mark.usefixtures("_many")
def test_every_page_is_one_query_by_an_index() -> None:
    middle = AuditEvent.objects.order_by("id")[2000:2001].get().id
    for name, (filters, index) in INDEXED.items():
        for cursor in ({}, {"before": middle}, {"after": middle}):
            with statements() as asked:
                page(filters, **cursor)
            ((statement, params),) = asked
            assert not re.search(r"COUNT\(|OFFSET|LIKE", statement), name
            told = plan(statement, params)
            assert whole_tables(told) == [], f"{name} {cursor}\n{told}"
            assert index in told, f"{name} {cursor}\n{told}"


@pytest.mark.usefixtures("_many")
def test_page_about_somebody_is_one_query_by_the_indexes_of_subject_and_resource() -> None:
    middle = AuditEvent.objects.order_by("id")[2000:2001].get().id
    subjects, resources = [str(uuid.UUID(int=1003)), str(uuid.UUID(int=1007))], ["Patient/3", "Patient/8", "Patient/x"]
    about = About(actions=sorted(Action), subjects=subjects, resources=resources, unless_actor="4", since=NOW)
    assert len(page_about(about, size=1000).rows) == 300
    for cursor in ({}, {"before": middle}, {"after": middle}):
        with statements() as asked:
            page_about(about, **cursor)
        ((statement, params),) = asked
        assert not re.search(r"COUNT\(|OFFSET|LIKE", statement)
        told = plan(statement, params)
        assert whole_tables(told) == [], told
        assert (told.count("phi_oidc_audit_subject"), told.count("phi_oidc_audit_resource")) == (2, 3), told


@pytest.mark.usefixtures("_many")
@pytest.mark.parametrize(
    ("column", "value", "found"),
    [("action", "login.succeeded", [100, 100, 100, 0]), ("outcome", "failure", [0, 3, 0, 0])],
)
def test_counts_are_one_query_that_reads_nothing_but_an_index(column: str, value: str, found: list[int]) -> None:
    events(3, at=NOW + timedelta(minutes=25), outcome="failure", reason="permission_missing")
    sql(f"ANALYZE {EVENT}" if not is_postgresql() else f"VACUUM ANALYZE {EVENT}")
    times = [NOW + timedelta(minutes=each) for each in (0, 19, 38, 57, 76)]
    with statements() as asked:
        assert browsing.counts(column, value, times, most=1000) == found
    ((statement, params),) = asked
    told = plan(statement, params)
    only = "Index Only Scan using" if is_postgresql() else "USING COVERING INDEX"
    assert f"{only} phi_oidc_audit_{column}" in told, told
    assert browsing.counts(column, value, times, most=2) == [min(each, 2) for each in found]


@pytest.mark.usefixtures("_many")
def test_other_looks_are_by_an_index() -> None:
    with statements() as asked:
        browsing.last_verification()
        browsing.event(AT)
        browsing.place(AT)
        browsing.checkpoint(3)
        page_of_checkpoints(before=3)
    assert len(asked) == 6
    assert "phi_oidc_audit_action" in plan(*asked[0])
    if not is_postgresql():
        # PostgreSQL reads the tables that are empty here as they stand.
        assert [whole_tables(plan(*each)) for each in asked] == [[]] * 6


@pytest.mark.usefixtures("_many")
def test_page_deep_in_the_trail_takes_as_few_queries_as_the_first() -> None:
    connection = connections[AUDIT_ALIAS]
    for found in forth(Filters(), 1000):
        last = found
    with CaptureQueriesContext(connection) as first:
        page(Filters())
    with CaptureQueriesContext(connection) as deep:
        page(Filters(), after=last.rows[-1].id)
    assert (len(first), len(deep)) == (1, 1)


def test_time_filters_take_the_microsecond() -> None:
    moment = datetime(2026, 11, 24, 16, 5, 9, 123457, tzinfo=UTC)
    with entropy.drawing(bytes):
        # The lowest id of its microsecond.
        (at,) = events(1, at=moment)
    (before,) = events(1, at=moment - timedelta(microseconds=1))
    assert ids(page(Filters(since=moment))) == [at]
    assert ids(page(Filters(until=moment))) == [before]

"""Single statements: their effect, their number, and when they are committed."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.db import DataError, IntegrityError, connections, transaction
from django.db.models import QuerySet
from django.test import TestCase
from django.test.utils import CaptureQueriesContext

from django_phi_oidc._internal.inserts import CopiedRows, RowNotStored, combine_inserts, insert, insert_copies
from django_phi_oidc._internal.sql import any_of, delete, durable, fetch, update
from django_phi_oidc.audit.models import AuditOutbox
from django_phi_oidc.replay.models import UsedIdentifier
from django_phi_oidc.sessions.models import PendingRevocation
from django_phi_oidc.subjects.models import PairwiseSubject

NOW = datetime(2026, 11, 24, 16, 5, 9, 123456, tzinfo=UTC)


def spent(digest: str, **given: Any) -> UsedIdentifier:
    return UsedIdentifier(**{"digest": digest, "kind": "state", "until": NOW, **given})


def waiting(number: int) -> AuditOutbox:
    return AuditOutbox(id=uuid.UUID(int=number), event=f"event {number}")


def statements(queries: CaptureQueriesContext) -> list[str]:
    return [query["sql"].split()[0] for query in queries]


@contextmanager
def row_dropped(digest: str) -> Iterator[None]:
    """Let a trigger drop new rows with that digest."""
    with connections["default"].cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION drop_row() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
            " CREATE TRIGGER drop_row BEFORE INSERT ON django_phi_oidc_usedidentifier"
            f" FOR EACH ROW WHEN (NEW.digest = '{digest}') EXECUTE FUNCTION drop_row()"
        )
    try:
        yield
    finally:
        with connections["default"].cursor() as cursor:
            cursor.execute("DROP FUNCTION drop_row CASCADE")


class SevenParameters:
    """The features of a database that accepts seven parameters in a statement."""

    max_query_params = 7

    def __init__(self, features: Any) -> None:
        self._features = features

    def __getattr__(self, name: str) -> Any:
        return getattr(self._features, name)


@pytest.fixture
def subject(db: None) -> PairwiseSubject:
    user = get_user_model().objects.create_user("a-person")
    return PairwiseSubject.objects.create(
        uuid=uuid.uuid4(), user=user, issuer="https://op.example.test", first_seen_at=NOW, last_seen_at=NOW
    )


@pytest.mark.django_db(transaction=True)
def test_insert_is_one_statement_and_the_rows_read_back_equal() -> None:
    rows = [spent("a"), spent("b", kind="nonce", until=NOW + timedelta(microseconds=1))]
    with CaptureQueriesContext(connections["default"]) as queries:
        insert(rows, using="default")
    assert statements(queries) == ["INSERT"]
    kept = UsedIdentifier.objects.order_by("digest").values_list("digest", "kind", "until")
    assert list(kept) == [(row.digest, row.kind, row.until) for row in rows]
    assert [row._state.adding for row in rows] == [False, False]


@pytest.mark.django_db
def test_insert_of_a_row_that_exists_raises_and_keeps_it() -> None:
    insert([spent("a")], using="default")
    with pytest.raises(IntegrityError), transaction.atomic():
        insert([spent("b"), spent("a", kind="nonce")], using="default")
    assert list(UsedIdentifier.objects.values_list("digest", "kind")) == [("a", "state")]


@pytest.mark.django_db
def test_insert_with_unique_columns_replaces_only_the_named_values_of_a_row_that_exists() -> None:
    later = NOW + timedelta(seconds=1)
    insert([spent("a")], using="default")
    rows = [spent("b"), spent("a", kind="nonce", until=later)]
    insert(rows, using="default", unique=["digest"], replaced=["until"])
    kept = UsedIdentifier.objects.order_by("digest").values_list("digest", "kind", "until")
    assert list(kept) == [("a", "state", later), ("b", "state", NOW)]


@pytest.mark.django_db(transaction=True)
def test_insert_of_too_many_parameters_inserts_all_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections["default"], "features", SevenParameters(connections["default"].features))
    with CaptureQueriesContext(connections["default"]) as queries:
        insert([spent(str(number)) for number in range(5)], using="default")
    assert statements(queries) == ["BEGIN", "INSERT", "INSERT", "INSERT", "COMMIT"]
    with pytest.raises(IntegrityError):
        insert([spent(str(number)) for number in (5, 6, 7, 0)], using="default")
    assert sorted(UsedIdentifier.objects.values_list("digest", flat=True)) == ["0", "1", "2", "3", "4"]


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_insert_of_many_rows_is_one_copy_and_the_rows_read_back_equal() -> None:
    texts = ["a\tb\\n\nc", "\\N", "", 'é"{,}']
    rows = [
        PendingRevocation(
            id=uuid.UUID(int=number),
            # Runs of equal values, of which the driver gets each.
            provider=texts[number // 3 % len(texts)],
            session=uuid.UUID(int=number) if number % 2 else None,
            token_type_hint="access_token",
            attempts=number,
            due_at=NOW,
            created_at=NOW + timedelta(microseconds=number),
        )
        for number in range(50)
    ]
    names = ("id", "provider", "session", "status", "attempts", "lease_until", "created_at")
    for count, statement in ((49, "INSERT"), (50, "COPY")):
        PendingRevocation.objects.all().delete()
        with CaptureQueriesContext(connections["default"]) as queries:
            insert(rows[:count], using="default")
        assert statements(queries) == [statement]
        stored = list(PendingRevocation.objects.order_by("id").values_list(*names))
        assert stored == [tuple(getattr(row, name) for name in names) for row in rows[:count]]


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_copy_of_rows_that_are_refused_stores_none() -> None:
    many = [spent(str(number)) for number in range(60)]
    for row, error in ((spent("7"), IntegrityError), (spent("a\0b"), DataError), (spent("x" * 65), DataError)):
        with pytest.raises(error):
            insert([*many, row], using="default")
        assert not UsedIdentifier.objects.exists()
    insert(many, using="default", unique=["digest"], replaced=["until"])
    insert([spent("7"), *many[8:]], using="default", unique=["digest"], replaced=["until"])
    assert UsedIdentifier.objects.count() == 60
    with row_dropped("dropped"), pytest.raises(RowNotStored), transaction.atomic():
        insert([spent(f"new {number}") for number in range(60)] + [spent("dropped")], using="default")
    assert UsedIdentifier.objects.count() == 60


def insert_together(*rows: Any, error: Exception | None = None) -> None:
    """Insert each row by a statement of its own in a block of combine_inserts, and raise the error in it."""
    with transaction.atomic(), combine_inserts(using="default"):
        for row in rows:
            insert([row], using="default")
        if error:
            raise error


@pytest.mark.django_db(transaction=True)
def test_combined_inserts_are_one_statement_before_the_next_other_one() -> None:
    with CaptureQueriesContext(connections["default"]) as queries, transaction.atomic():
        with combine_inserts(using="default"):
            insert([spent("a")], using="default")
            insert([waiting(1), waiting(2)], using="default")
            assert UsedIdentifier.objects.count() == 1
            insert([spent("b")], using="default")
            insert([spent("a", until=NOW + timedelta(1))], using="default", unique=["digest"], replaced=["until"])
        insert([waiting(3)], using="default")
    expected = (
        ["INSERT", "SELECT", "INSERT"]
        if connections["default"].vendor == "postgresql"
        else ["INSERT", "INSERT", "SELECT", "INSERT", "INSERT"]
    )
    assert [name for name in statements(queries) if name in ("INSERT", "SELECT")] == [*expected, "INSERT"]
    assert dict(UsedIdentifier.objects.values_list("digest", "until")) == {"a": NOW + timedelta(1), "b": NOW}
    assert AuditOutbox.objects.count() == 3


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_combined_inserts_are_sent_before_a_copy() -> None:
    rows = [spent(str(number)) for number in range(60)]
    with transaction.atomic(), combine_inserts(using="default"):
        # After the COPY, it would replace a row.
        insert([spent("7")], using="default", unique=["digest"], replaced=["until"])
        with pytest.raises(IntegrityError):
            insert(rows, using="default")
        transaction.set_rollback(True)
    assert not UsedIdentifier.objects.exists()


@pytest.mark.parametrize("refused", ["a", "b"])
@pytest.mark.django_db(transaction=True)
def test_combined_inserts_of_a_row_that_exists_raise_and_store_none(refused: str) -> None:
    insert([spent(refused)], using="default")
    with pytest.raises(IntegrityError):
        insert_together(spent("a"), waiting(1), spent("b"))
    assert (UsedIdentifier.objects.count(), AuditOutbox.objects.count()) == (1, 0)


@pytest.mark.parametrize("dropped", ["a", "b"])
@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_combined_inserts_of_a_row_that_is_not_stored_raise_and_store_none(dropped: str) -> None:
    with row_dropped(dropped), pytest.raises(RowNotStored):
        insert_together(spent("a"), spent("b"))
    assert not UsedIdentifier.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_combined_inserts_of_a_block_that_fails_are_not_sent() -> None:
    with pytest.raises(ZeroDivisionError):
        insert_together(spent("a"), error=ZeroDivisionError())
    insert([spent("b")], using="default")
    assert [row.digest for row in UsedIdentifier.objects.all()] == ["b"]


@pytest.fixture
def server_side_binding(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The server binds the parameters, which it does for one statement at a time."""
    connection: Any = connections["default"]
    connection.close()
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "server_side_binding", True)
    yield
    connection.close()


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_inserts_whose_parameters_the_server_binds_are_sent_one_by_one(server_side_binding: None) -> None:
    with CaptureQueriesContext(connections["default"]) as queries:
        insert_together(spent("a"), waiting(7))
    assert [name for name in statements(queries) if name == "INSERT"] == ["INSERT"] * 2
    parts = copies("a", event="e")
    assert len(insert_copies(AuditOutbox, parts, source=UsedIdentifier, using="default", returning=True)) == 2
    assert sorted(AuditOutbox.objects.values_list("event", flat=True)) == ["e", "event 7", "state"]


def copies(*digests: str, **values: str) -> list[CopiedRows]:
    """Rows of the outbox with the kind of such identifiers, and one with values."""
    keys = [(uuid.UUID(int=number), digest) for number, digest in enumerate(digests)]
    parts = [CopiedRows(keys=keys, columns={"event": "kind"}, values={})]
    return [*parts, CopiedRows(keys=[(uuid.UUID(int=99), digests[0])], columns={}, values=values)]


@pytest.mark.parametrize("returning", [False, True])
@pytest.mark.django_db(transaction=True)
def test_insert_copies_is_one_statement_and_returns_the_rows_on_request(*, returning: bool) -> None:
    insert([spent("a"), spent("b", kind="code"), spent("c")], using="default")
    with CaptureQueriesContext(connections["default"]) as queries:
        rows = insert_copies(
            AuditOutbox, copies("a", "b", event="%s"), source=UsedIdentifier, using="default", returning=returning
        )
    assert statements(queries) == ["INSERT"]
    stored = {uuid.UUID(int=0): "state", uuid.UUID(int=1): "code", uuid.UUID(int=99): "%s"}
    assert dict(AuditOutbox.objects.values_list("id", "event")) == stored
    assert {row.id: row.event for row in rows} == (stored if returning else {})


@pytest.mark.parametrize("returning", [False, True])
@pytest.mark.django_db(transaction=True)
def test_insert_copies_of_a_row_that_does_not_exist_stores_none(*, returning: bool) -> None:
    insert([spent("a")], using="default")
    with pytest.raises(RowNotStored), transaction.atomic():
        insert_copies(
            AuditOutbox, copies("a", "b", event="e"), source=UsedIdentifier, using="default", returning=returning
        )
    assert not AuditOutbox.objects.exists()


def _build_query(kind: str, *digests: str) -> QuerySet[UsedIdentifier]:
    return UsedIdentifier.objects.filter(digest__in=digests, kind=kind).order_by("digest")


def _build_query_in_order(*digests_and_kind: str) -> QuerySet[UsedIdentifier]:
    *digests, kind = digests_and_kind
    return _build_query(kind, *digests)


@pytest.mark.django_db(transaction=True)
def test_fetch_returns_the_rows_of_the_query_set_for_each_parameters_and_in_each_thread() -> None:
    insert([UsedIdentifier(digest=f"{n:064}", kind="test", until=NOW) for n in range(3)], using="default")

    def fetch_digests(*numbers: int) -> list[str]:
        parameters = [*(f"{n:064}" for n in numbers), "test"]
        with CaptureQueriesContext(connections["default"]) as queries:
            rows = fetch(_build_query_in_order, parameters, using="default")
        assert len(queries) == 1
        assert [row.until for row in rows] == [NOW] * len(rows)
        return [row.digest for row in rows]

    def fetch_in_thread() -> list[str]:
        try:
            return fetch_digests(1)
        finally:
            connections.close_all()

    assert fetch_digests(0) == [f"{0:064}"]
    assert fetch_digests(1) == [f"{1:064}"]
    assert fetch_digests(7) == []
    assert fetch_digests(2, 1) == [f"{1:064}", f"{2:064}"]
    if connections["default"].vendor == "postgresql":  # Other connections do not see an SQLite database in memory.
        with ThreadPoolExecutor() as threads:
            assert threads.submit(fetch_in_thread).result() == [f"{1:064}"]


@pytest.mark.django_db
def test_fetch_of_a_query_set_with_parameters_in_another_order_raises() -> None:
    with pytest.raises(ValueError, match="parameters"):
        fetch(_build_query, ["test", f"{1:064}"], using="default")


@pytest.mark.django_db
@pytest.mark.parametrize("count", [0, 1, 9])
def test_fetch_returns_tuples_for_any_number_of_keys(count: int) -> None:
    sessions = [uuid.UUID(int=number) for number in range(count)]
    rows = [PendingRevocation(id=pk, session=pk, due_at=NOW, created_at=NOW) for pk in sessions]
    PendingRevocation.objects.bulk_create(rows)
    assert fetch(_build_tuple_query, sessions, using="default") == [(pk, "pending") for pk in sessions]
    assert fetch(_build_tuple_query, [uuid.UUID(int=9)], using="default") == []


def _build_tuple_query(*sessions: uuid.UUID) -> QuerySet[Any]:
    return PendingRevocation.objects.filter(session__in=sessions).order_by("pk").values_list("session", "status")


@pytest.mark.django_db
def test_update_of_several_rows_is_one_statement() -> None:
    insert([spent("a"), spent("b"), spent("c")], using="default")
    with CaptureQueriesContext(connections["default"]) as queries:
        assert update(UsedIdentifier, "a", "c", using="default", kind="nonce") is True
    assert statements(queries) == ["UPDATE"]
    assert [row.kind for row in UsedIdentifier.objects.order_by("digest")] == ["nonce", "state", "nonce"]


@pytest.mark.parametrize("count", [8, 9])
@pytest.mark.django_db
def test_many_keys_are_one_array_on_postgresql_and_match_the_same_rows(count: int) -> None:
    insert([waiting(number) for number in range(20)], using="default")
    keys = [uuid.UUID(int=2 * number) for number in range(count)]
    with CaptureQueriesContext(connections["default"]) as queries:
        assert update(AuditOutbox, *keys, using="default", event="even") is True
        assert {row.pk for row in AuditOutbox.objects.filter(any_of("id", keys))} == set(keys)
        delete(AuditOutbox, keys, using="default")
    assert statements(queries) == ["UPDATE", "SELECT", "DELETE"]
    is_array = count > 8 and connections["default"].vendor == "postgresql"
    assert ["= ANY(" in query["sql"] for query in queries] == [is_array] * 3
    assert not AuditOutbox.objects.filter(event="even").exists()
    assert AuditOutbox.objects.count() == 20 - count


@pytest.mark.filterwarnings("ignore:DateTimeField Session.expire_date received a naive datetime")
@pytest.mark.django_db
def test_insert_prepares_the_values_of_other_apps_as_django_does(settings: Any) -> None:
    settings.TIME_ZONE = "Asia/Tokyo"
    naive = datetime(2026, 11, 24, 9, 0)  # noqa: DTZ001 -- as set_expiry accepts it
    insert([Session(session_key="k", session_data="d", expire_date=naive)], using="default")
    assert Session.objects.get().expire_date == datetime(2026, 11, 24, 0, 0, tzinfo=UTC)


@pytest.mark.django_db
def test_update_is_one_statement_and_returns_whether_the_row_exists() -> None:
    insert([spent("a"), spent("b")], using="default")
    later = NOW + timedelta(microseconds=1)
    with CaptureQueriesContext(connections["default"]) as queries:
        assert update(UsedIdentifier, "a", using="default", until=later, kind="nonce") is True
        assert update(UsedIdentifier, "c", using="default", until=later) is False
    assert statements(queries) == ["UPDATE", "UPDATE"]
    kept = UsedIdentifier.objects.order_by("digest").values_list("digest", "kind", "until")
    assert list(kept) == [("a", "nonce", later), ("b", "state", NOW)]


@pytest.mark.django_db(transaction=True)
def test_delete_is_one_statement_and_deletes_only_the_named_rows() -> None:
    insert([waiting(number) for number in range(3)], using="default")
    with CaptureQueriesContext(connections["default"]) as queries:
        delete(AuditOutbox, [uuid.UUID(int=0), uuid.UUID(int=2), uuid.UUID(int=9)], using="default")
    assert statements(queries) == ["DELETE"]
    assert list(AuditOutbox.objects.values_list("id", flat=True)) == [uuid.UUID(int=1)]


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_only_delete_commits_before_it_is_on_disk() -> None:
    insert([waiting(0), waiting(1)], using="default")

    def setting() -> str:
        cursor.execute("SHOW synchronous_commit")
        return str(cursor.fetchone()[0])

    with connections["default"].cursor() as cursor:
        cursor.execute("SET synchronous_commit = on")
        try:
            with CaptureQueriesContext(connections["default"]) as alone:
                delete(AuditOutbox, [uuid.UUID(int=0)], using="default")
            assert setting() == "on"
            with transaction.atomic():
                with CaptureQueriesContext(connections["default"]) as framed:
                    delete(AuditOutbox, [uuid.UUID(int=1)], using="default")
                assert setting() == "on"
        finally:
            cursor.execute("RESET synchronous_commit")
    assert ["synchronous_commit" in query["sql"] for query in (*alone, *framed)] == [True, False]
    assert not AuditOutbox.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_durable_outside_a_transaction_commits_each_statement() -> None:
    with durable("default"):
        insert([spent("a")], using="default")
        connections["default"].rollback()
    assert UsedIdentifier.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_durable_inside_a_transaction_raises() -> None:
    with transaction.atomic(), pytest.raises(RuntimeError, match="durable"), durable("default"):
        pass
    with durable("default"):
        pass


@pytest.mark.django_db(transaction=True)
def test_durable_without_autocommit_raises() -> None:
    connection = connections["default"]
    connection.set_autocommit(False)
    try:
        with pytest.raises(RuntimeError, match="autocommit"):
            durable("default")
    finally:
        connection.set_autocommit(True)
    with durable("default"):
        pass


class DurableInATestCase(TestCase):
    """Django's own tests run in a transaction that is rolled back."""

    def test_durably_in_a_test_case_is_let_through(self) -> None:
        with durable("default"):
            insert([spent("a")], using="default")
        assert UsedIdentifier.objects.count() == 1

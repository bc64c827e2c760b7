"""The documented roles write, seal and verify the audit log but cannot change it; a check reports other privileges."""

import secrets
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from io import StringIO

import pytest
from django.conf import settings
from django.core import checks
from django.core.management import call_command
from django.db import DatabaseError, connections, transaction
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from django_phi_oidc.audit.db_privileges import grant_statements, is_single_database, list_excess_privileges
from django_phi_oidc.audit.events import Action, NewEvent, Origin
from django_phi_oidc.audit.log.findings import VerificationSummary
from django_phi_oidc.audit.log.verifier import verify_log
from django_phi_oidc.audit.models import AuditEvent, AuditLeaf, AuditUnsealed
from django_phi_oidc.audit.recorder import record_many
from django_phi_oidc.audit.search import EventFilters, list_events
from tests.support.audit_log import KEY, NOW, events, seal_now, sealed
from tests.support.audit_tampering import QUEUE, TABLES, copy_event, sql
from tests.support.backups import run_client
from tests.support.manual_blocks import block
from tests.support.phi_oidc_settings import override_phi_oidc

pytestmark = [
    pytest.mark.postgresql,
    pytest.mark.without_pooler("it sets the role of a connection"),
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
]
AsRole = Callable[..., AbstractContextManager[None]]


@pytest.fixture
def as_role() -> Iterator[AsRole]:
    """Return a context manager that sets the documented role on the audit connection."""
    role = f"phi_test_{secrets.token_hex(4)}"
    sql(f"CREATE ROLE {role} NOLOGIN")
    sql(f"GRANT ALL ON {', '.join((*TABLES, QUEUE))} TO {role}")

    @contextmanager
    def acting(*, sealing: bool = False) -> Iterator[None]:
        for statement in grant_statements(role, is_sealer=sealing):
            sql(statement)
        sql(f"SET ROLE {role}")
        try:
            yield
        finally:
            sql("RESET ROLE")

    yield acting
    sql(f"DROP OWNED BY {role}")
    sql(f"DROP ROLE {role}")


def test_documented_roles_can_log_in_and_have_only_their_privileges() -> None:
    writer, sealer = (f"phi_test_{secrets.token_hex(4)}" for _ in range(2))
    with connections["phi_audit"].cursor() as cursor:
        cursor.execute("SELECT current_user, current_database()")
        owner, database = cursor.fetchone()
    names = {"portal_audit": writer, "portal_sealer": sealer, "owner": owner, "portal": database}
    try:
        for line in block("postgresql-role", "roles").splitlines():
            command, _, client = line.removeprefix("$ ").rpartition(" | ")
            stdin, printed = "not-for-production\n" * 2, StringIO()
            if command:
                call_command(*(names.get(word, word) for word in command.split()[2:]), stdout=printed)
                stdin = printed.getvalue()
            run_client(*(names.get(word, word) for word in client.split()), using="phi_audit", given=stdin)
        with connections["phi_audit"].cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_roles WHERE rolcanlogin AND rolname IN (%s, %s)", [writer, sealer])
            assert cursor.fetchone() == (2,)
        for role, sealing in ((writer, False), (sealer, True)):
            sql(f"SET ROLE {role}")
            events(1)
            assert list_excess_privileges(is_sealer=sealing) == []
            assert bool(list_excess_privileges(is_sealer=False)) is sealing
            sql("RESET ROLE")
    finally:
        sql("RESET ROLE")
        for role in (writer, sealer):
            sql(f"DROP OWNED BY {role}")
            sql(f"DROP ROLE {role}")


def test_writer_role_writes_many_events_at_once(as_role: AsRole) -> None:
    new = [NewEvent(Action.LOGIN_SUCCEEDED, Origin(), NOW) for _ in range(200)]
    with as_role(), CaptureQueriesContext(connections["phi_audit"]) as queries:
        ids = record_many(new)
    assert [query["sql"].split()[0] for query in queries] == ["COPY"]
    assert set(AuditEvent.objects.values_list("id", flat=True)) == set(ids)
    assert AuditUnsealed.objects.count() == 200


def test_writer_role_writes_sealer_role_seals_and_both_verify(as_role: AsRole) -> None:
    with as_role():
        ids = events(300)
        assert list_excess_privileges(is_sealer=False) == []
        with pytest.raises(DatabaseError, match="permission denied"):
            seal_now()
    with as_role(sealing=True):
        assert seal_now().event_count == 300
        assert list_excess_privileges(is_sealer=True) == []
        assert "has INSERT on phi_oidc_audit_auditleaf" in list_excess_privileges(is_sealer=False)
    with as_role():
        assert list(verify_log(keys=[KEY.public_key()], now=NOW, summary=VerificationSummary())) == []
    assert [leaf.event_id for leaf in AuditLeaf.objects.all()] == ids


@pytest.mark.parametrize("sealing", [False, True])
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE {table} SET {column} = {column}",
        "DELETE FROM {table}",
        "TRUNCATE {table}",
        "ALTER TABLE {table} DISABLE TRIGGER ALL",
        "DROP TABLE {table}",
        "CREATE TRIGGER mine BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION phi_oidc_audit_refuse()",
    ],
)
def test_role_cannot_change_the_audit_log(statement: str, table: str, sealing: bool, as_role: AsRole) -> None:
    sealed(256)
    column = connections["phi_audit"].introspection.get_primary_key_columns(connections["phi_audit"].cursor(), table)[0]
    with (
        as_role(sealing=sealing),
        pytest.raises(DatabaseError, match=r"permission denied|must be owner"),
        transaction.atomic(using="phi_audit"),
    ):
        sql(statement.format(table=table, column=column))
    assert AuditEvent.objects.count() == 256
    with as_role(sealing=True):
        assert events(1, at=NOW)
        assert seal_now().event_count == 1


@pytest.mark.parametrize(
    ("time", "is_refused"),
    [
        ("2026-11-24 16:05:09+00", False),
        ("1970-01-01 00:00:00+00", False),
        ("9998-12-31 23:59:59+00", False),
        ("infinity", True),
        ("-infinity", True),
        ("0044-03-15 12:00:00+00 BC", True),
        ("294276-01-01 00:00:00+00", True),
        ("9999-12-31 23:59:59-12", True),
        ("0001-01-01 00:00:00+12", True),
    ],
)
def test_p1_role_cannot_insert_an_event_whose_time_no_reader_can_load(
    time: str, is_refused: bool, as_role: AsRole
) -> None:
    """One such row would make pages, accountings and exports of the log unreadable."""
    (known,) = sealed(1)
    with as_role(), ExitStack() as stack:
        if is_refused:
            stack.enter_context(pytest.raises(DatabaseError, match="no time of an event"))
        copy_event(known, id=uuid.uuid4(), occurred_at=time)
    assert len(list_events(EventFilters()).rows) == (1 if is_refused else 2)


@pytest.mark.parametrize("table", [*TABLES[1:], QUEUE])
@pytest.mark.parametrize("statement", ["INSERT INTO {table} SELECT * FROM {table}", "DELETE FROM {table}"])
def test_writer_role_cannot_write_the_log_or_the_queue(statement: str, table: str, as_role: AsRole) -> None:
    sealed(256)
    events(1)
    with (
        as_role(),
        pytest.raises(DatabaseError, match="permission denied"),
        transaction.atomic(using="phi_audit"),
    ):
        sql(statement.format(table=table))
    assert seal_now().event_count == 1


def excess_warnings() -> list[str]:
    messages = checks.run_checks(tags=["database"], include_deployment_checks=True, databases=["phi_audit"])
    return [message.msg for message in messages if message.id == "django_phi_oidc.W020"]


def test_excess_privileges_are_reported_by_a_deployment_check(as_role: AsRole) -> None:
    assert "superuser" in excess_warnings()[0]
    with as_role():
        assert excess_warnings() == []
    assert [message for message in checks.run_checks(databases=["phi_audit"]) if "W020" in str(message.id)] == []


def test_excess_privileges_name_each_privilege_and_ownership(as_role: AsRole) -> None:
    with as_role():
        (name,) = one("SELECT current_user")
    sql(f"GRANT UPDATE, TRUNCATE ON phi_oidc_audit_auditleaf TO {name}")
    sql(f"GRANT UPDATE (actor) ON phi_oidc_audit_auditevent TO {name}")
    sql(f"SET ROLE {name}")
    assert list_excess_privileges(is_sealer=False) == [
        "has UPDATE on phi_oidc_audit_auditevent",
        "has UPDATE on phi_oidc_audit_auditleaf",
        "has TRUNCATE on phi_oidc_audit_auditleaf",
    ]
    sql("RESET ROLE")
    (owner,) = one("SELECT relowner::regrole::text FROM pg_class WHERE oid = 'phi_oidc_audit_auditleaf'::regclass")
    sql(f"ALTER TABLE phi_oidc_audit_auditleaf OWNER TO {name}")
    try:
        with as_role():
            assert "owns phi_oidc_audit_auditleaf" in list_excess_privileges(is_sealer=False)
    finally:
        sql(f"ALTER TABLE phi_oidc_audit_auditleaf OWNER TO {owner}")


def test_single_database_without_a_witness_file_is_reported() -> None:
    """W021."""

    def ids() -> set[str]:
        aliases = ["default", "phi_audit"]
        messages = checks.run_checks(tags=["database"], include_deployment_checks=True, databases=aliases)
        return {str(message.id) for message in messages}

    assert is_single_database()
    assert "django_phi_oidc.W021" in ids()
    with override_settings(
        PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, AUDIT={"witness_file": "/var/lib/portal/witness"})
    ):
        assert "django_phi_oidc.W021" not in ids()


def one(statement: str) -> tuple[str, ...]:
    with connections["phi_audit"].cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()

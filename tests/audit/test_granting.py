"""The documented role writes, seals and verifies the trail, and can change nothing in it; a check tells who could."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from django.core import checks
from django.db import DatabaseError, connections, transaction

from django_phi_oidc.audit.findings import Tally
from django_phi_oidc.audit.granting import excess, grants, is_shared
from django_phi_oidc.audit.models import AuditEvent, AuditLeaf
from django_phi_oidc.audit.verifying import verify
from tests.audit.log import KEY, NOW, events, seal_now, sealed
from tests.audit.tampering import TABLES, sql

pytestmark = [
    pytest.mark.postgresql,
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
]
AsRole = Callable[[], AbstractContextManager[None]]


@pytest.fixture
def as_role() -> Iterator[AsRole]:
    """Return what acts on the trail as the documented role."""
    role = f"phi_test_{secrets.token_hex(4)}"
    sql(f"CREATE ROLE {role} NOLOGIN")
    sql(f"GRANT ALL ON {', '.join(TABLES)} TO {role}")
    for statement in grants(role):
        sql(statement)

    @contextmanager
    def acting() -> Iterator[None]:
        sql(f"SET ROLE {role}")
        try:
            yield
        finally:
            sql("RESET ROLE")

    yield acting
    sql(f"DROP OWNED BY {role}")
    sql(f"DROP ROLE {role}")


def test_role_writes_seals_and_verifies(as_role: AsRole) -> None:
    with as_role():
        ids = sealed(300)
        assert excess() == []
        assert list(verify(keys=[KEY.public_key()], now=NOW, tally=Tally())) == []
    assert [leaf.event_id for leaf in AuditLeaf.objects.all()] == ids


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
def test_role_can_t_change_the_trail(statement: str, table: str, as_role: AsRole) -> None:
    sealed(256)
    column = connections["phi_audit"].introspection.get_primary_key_columns(connections["phi_audit"].cursor(), table)[0]
    with (
        as_role(),
        pytest.raises(DatabaseError, match=r"permission denied|must be owner"),
        transaction.atomic(using="phi_audit"),
    ):
        sql(statement.format(table=table, column=column))
    assert AuditEvent.objects.count() == 256
    with as_role():
        assert events(1, at=NOW)
        assert seal_now().events == 1


def told() -> list[str]:
    found = checks.run_checks(tags=["database"], include_deployment_checks=True, databases=["phi_audit"])
    return [message.msg for message in found if message.id == "django_phi_oidc.W020"]


def test_excess_is_told_of_by_a_check_for_deployment_alone(as_role: AsRole) -> None:
    assert "superuser" in told()[0]
    with as_role():
        assert told() == []
        assert excess() == []
    assert [message for message in checks.run_checks(databases=["phi_audit"]) if "W020" in str(message.id)] == []


def test_excess_names_each_right_and_an_owner(as_role: AsRole) -> None:
    with as_role():
        (name,) = one("SELECT current_user")
    sql(f"GRANT UPDATE, TRUNCATE ON django_phi_oidc_auditleaf TO {name}")
    with as_role():
        assert excess() == [f"has {right} on django_phi_oidc_auditleaf" for right in ("UPDATE", "TRUNCATE")]
    sql(f"REVOKE ALL ON django_phi_oidc_auditleaf FROM {name}")
    (owner,) = one("SELECT relowner::regrole::text FROM pg_class WHERE oid = 'django_phi_oidc_auditleaf'::regclass")
    sql(f"ALTER TABLE django_phi_oidc_auditleaf OWNER TO {name}")
    try:
        with as_role():
            assert excess() == ["owns django_phi_oidc_auditleaf"]
    finally:
        sql(f"ALTER TABLE django_phi_oidc_auditleaf OWNER TO {owner}")


def test_aliases_of_one_database_are_shared() -> None:
    assert is_shared()


def one(statement: str) -> tuple[str, ...]:
    with connections["phi_audit"].cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()

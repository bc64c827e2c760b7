"""The database itself refuses to change the trail.

SQLite: BEFORE INSERT refuses an id or a rowid that exists, because INSERT OR REPLACE deletes the old row without asking
the other triggers. A later migration that alters the table on SQLite makes it anew, and must make the triggers anew.
PostgreSQL: ENABLE ALWAYS, so that session_replication_role does not switch them off.
"""

from collections.abc import Mapping, Sequence

from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.exceptions import IrreversibleError
from django.db.migrations.state import StateApps

CREATE = {
    "postgresql": (
        """
        CREATE FUNCTION phi_oidc_audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'audit events are never changed or deleted: % refused', TG_OP
                USING ERRCODE = 'restrict_violation';
        END
        $$
        """,
        """
        CREATE TRIGGER phi_oidc_audit_refuse_update BEFORE UPDATE ON django_phi_oidc_auditevent
        FOR EACH ROW EXECUTE FUNCTION phi_oidc_audit_refuse()
        """,
        """
        CREATE TRIGGER phi_oidc_audit_refuse_delete BEFORE DELETE ON django_phi_oidc_auditevent
        FOR EACH ROW EXECUTE FUNCTION phi_oidc_audit_refuse()
        """,
        """
        CREATE TRIGGER phi_oidc_audit_refuse_truncate BEFORE TRUNCATE ON django_phi_oidc_auditevent
        FOR EACH STATEMENT EXECUTE FUNCTION phi_oidc_audit_refuse()
        """,
        "ALTER TABLE django_phi_oidc_auditevent ENABLE ALWAYS TRIGGER phi_oidc_audit_refuse_update",
        "ALTER TABLE django_phi_oidc_auditevent ENABLE ALWAYS TRIGGER phi_oidc_audit_refuse_delete",
        "ALTER TABLE django_phi_oidc_auditevent ENABLE ALWAYS TRIGGER phi_oidc_audit_refuse_truncate",
    ),
    "sqlite": (
        """
        CREATE TRIGGER phi_oidc_audit_refuse_update BEFORE UPDATE ON django_phi_oidc_auditevent
        BEGIN
            SELECT RAISE(ABORT, 'audit events are never changed or deleted: UPDATE refused');
        END
        """,
        """
        CREATE TRIGGER phi_oidc_audit_refuse_delete BEFORE DELETE ON django_phi_oidc_auditevent
        BEGIN
            SELECT RAISE(ABORT, 'audit events are never changed or deleted: DELETE refused');
        END
        """,
        """
        CREATE TRIGGER phi_oidc_audit_refuse_replace BEFORE INSERT ON django_phi_oidc_auditevent
        WHEN EXISTS (SELECT 1 FROM django_phi_oidc_auditevent WHERE id = NEW.id OR rowid = NEW.rowid)
        BEGIN
            SELECT RAISE(ABORT, 'audit events are never changed or deleted: REPLACE refused');
        END
        """,
    ),
}
DROP = {
    "postgresql": (
        "DROP TRIGGER IF EXISTS phi_oidc_audit_refuse_update ON django_phi_oidc_auditevent",
        "DROP TRIGGER IF EXISTS phi_oidc_audit_refuse_delete ON django_phi_oidc_auditevent",
        "DROP TRIGGER IF EXISTS phi_oidc_audit_refuse_truncate ON django_phi_oidc_auditevent",
        "DROP FUNCTION IF EXISTS phi_oidc_audit_refuse()",
    ),
    "sqlite": (
        "DROP TRIGGER IF EXISTS phi_oidc_audit_refuse_update",
        "DROP TRIGGER IF EXISTS phi_oidc_audit_refuse_delete",
        "DROP TRIGGER IF EXISTS phi_oidc_audit_refuse_replace",
    ),
}


def create(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    for statement in _of(CREATE, schema_editor):
        schema_editor.execute(statement, params=None)


def drop(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    statements = _of(DROP, schema_editor)
    with schema_editor.connection.cursor() as cursor:
        if schema_editor.connection.vendor == "postgresql":
            # Nobody writes an event between the look and the drop.
            cursor.execute("LOCK TABLE django_phi_oidc_auditevent IN ACCESS EXCLUSIVE MODE")
        cursor.execute("SELECT 1 FROM django_phi_oidc_auditevent LIMIT 1")
        if cursor.fetchone() is not None:
            raise IrreversibleError(
                "The audit trail holds events: its triggers stay, and this migration is not reversed. "
                "To give up the trail, archive it and drop the table by hand."
            )
    for statement in statements:
        schema_editor.execute(statement, params=None)


def _of(statements: Mapping[str, Sequence[str]], schema_editor: BaseDatabaseSchemaEditor) -> Sequence[str]:
    vendor = schema_editor.connection.vendor
    if vendor not in statements:
        raise NotImplementedError(
            f"The audit trail needs PostgreSQL or SQLite; {vendor} has no refusing triggers here."
        )
    return statements[vendor]


class Migration(migrations.Migration):
    dependencies = [("django_phi_oidc", "0001_initial")]

    operations = [migrations.RunPython(create, drop, hints={"model_name": "auditevent"})]

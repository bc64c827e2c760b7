"""Triggers that keep the audit log append-only and queue each new event for the sequencer.

Events, leaves, tree nodes and checkpoints refuse UPDATE, DELETE and TRUNCATE. On SQLite, INSERT OR REPLACE deletes the
old row without running the other triggers, so a BEFORE INSERT trigger refuses a key or a rowid that exists. A later
migration that alters one of these tables on SQLite recreates the table, and must recreate its triggers.
On PostgreSQL the triggers are ENABLE ALWAYS, so that session_replication_role does not switch them off.

Claims on a legal hold without an end, and such holds, refuse DELETE. A hold with an end is guarded by the ORM only.

The queue is filled in the transaction that inserts the event, so no event is missed, in any order of commits.
"""

from collections.abc import Iterator

from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.exceptions import IrreversibleError
from django.db.migrations.state import StateApps

UNIQUE_COLUMNS = {
    "auditevent": ("id = NEW.id",),
    "auditleaf": ("leaf_index = NEW.leaf_index", "event_id = NEW.event_id"),
    "auditnode": ("(level = NEW.level AND node_index = NEW.node_index)",),
    "auditcheckpoint": ("tree_size = NEW.tree_size",),
}
"""The append-only tables, and the conditions under which a new row would replace another one."""
NAMES = {table: f"phi_oidc_{table}_refuse" for table in UNIQUE_COLUMNS} | {"auditevent": "phi_oidc_audit_refuse"}
CREATE_QUEUE = {
    "postgresql": (
        # SECURITY DEFINER: a writer of events needs no right on the queue. The schema is spelled out, so that a
        # temporary table of the writer cannot take the row.
        """
        DO $do$ BEGIN EXECUTE format($body$
            CREATE FUNCTION phi_oidc_audit_queue() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
            BEGIN
                INSERT INTO %I.django_phi_oidc_auditunsealed (event_id) VALUES (NEW.id);
                RETURN NULL;
            END
            $$
        $body$, (SELECT nspname FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid
            WHERE c.oid = 'django_phi_oidc_auditunsealed'::regclass));
        END $do$
        """,
        """
        CREATE TRIGGER phi_oidc_audit_queue AFTER INSERT ON django_phi_oidc_auditevent
        FOR EACH ROW EXECUTE FUNCTION phi_oidc_audit_queue()
        """,
        "ALTER TABLE django_phi_oidc_auditevent ENABLE ALWAYS TRIGGER phi_oidc_audit_queue",
    ),
    "sqlite": (
        """
        CREATE TRIGGER phi_oidc_audit_queue AFTER INSERT ON django_phi_oidc_auditevent
        BEGIN
            INSERT INTO django_phi_oidc_auditunsealed (event_id) VALUES (NEW.id);
        END
        """,
    ),
}
DROP_QUEUE = {
    "postgresql": (
        "DROP TRIGGER IF EXISTS phi_oidc_audit_queue ON django_phi_oidc_auditevent",
        "DROP FUNCTION IF EXISTS phi_oidc_audit_queue()",
    ),
    "sqlite": ("DROP TRIGGER IF EXISTS phi_oidc_audit_queue",),
}
CREATE_FUNCTION = """
CREATE FUNCTION phi_oidc_audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit events are never changed or deleted: % refused', TG_OP
        USING ERRCODE = 'restrict_violation';
END
$$
"""


def create_refusals_postgresql(table: str) -> Iterator[str]:
    """Yield the statements that make PostgreSQL refuse to change that table."""
    name, full = NAMES[table], f"django_phi_oidc_{table}"
    for operation, scope in (("update", "ROW"), ("delete", "ROW"), ("truncate", "STATEMENT")):
        yield (
            f"CREATE TRIGGER {name}_{operation} BEFORE {operation.upper()} ON {full} "
            f"FOR EACH {scope} EXECUTE FUNCTION phi_oidc_audit_refuse()"
        )
        yield f"ALTER TABLE {full} ENABLE ALWAYS TRIGGER {name}_{operation}"


def create_refusals_sqlite(table: str) -> Iterator[str]:
    """Yield the statements that make SQLite refuse to change that table."""
    name, full = NAMES[table], f"django_phi_oidc_{table}"
    exists = " OR ".join((*UNIQUE_COLUMNS[table], "rowid = NEW.rowid"))
    for operation, timing in (
        ("update", f"UPDATE ON {full}"),
        ("delete", f"DELETE ON {full}"),
        ("replace", f"INSERT ON {full} WHEN EXISTS (SELECT 1 FROM {full} WHERE {exists})"),  # noqa: S608 -- constants
    ):
        refusal = f"RAISE(ABORT, 'audit events are never changed or deleted: {operation.upper()} refused')"
        yield f"CREATE TRIGGER {name}_{operation} BEFORE {timing} BEGIN SELECT {refusal}; END"


def create(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    vendor = schema_editor.connection.vendor
    if vendor == "postgresql":
        schema_editor.execute(CREATE_FUNCTION, params=None)
        create_refusals = create_refusals_postgresql
    elif vendor == "sqlite":
        create_refusals = create_refusals_sqlite
    else:
        raise NotImplementedError(
            f"The audit log needs PostgreSQL or SQLite; there are no triggers for {vendor} here that refuse changes."
        )
    statements = [statement for table in UNIQUE_COLUMNS for statement in create_refusals(table)]
    for statement in (*statements, *CREATE_QUEUE[vendor]):
        schema_editor.execute(statement, params=None)


def drop(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    vendor = schema_editor.connection.vendor
    is_postgresql = vendor == "postgresql"
    with schema_editor.connection.cursor() as cursor:
        if is_postgresql:
            # No event can be written between this check and the drop.
            cursor.execute("LOCK TABLE django_phi_oidc_auditevent IN ACCESS EXCLUSIVE MODE")
        for table in ("auditevent", "auditleaf"):
            cursor.execute(f"SELECT 1 FROM django_phi_oidc_{table} LIMIT 1")  # noqa: S608 -- constants
            if cursor.fetchone() is not None:
                raise IrreversibleError(
                    "The audit log holds events: its triggers stay, and this migration is not reversed. "
                    "To give up the log, archive it and drop its tables by hand."
                )
    for statement in DROP_QUEUE[vendor]:
        schema_editor.execute(statement, params=None)
    for table, name in NAMES.items():
        for operation in ("update", "delete", "truncate" if is_postgresql else "replace"):
            on_table = f" ON django_phi_oidc_{table}" if is_postgresql else ""
            schema_editor.execute(f"DROP TRIGGER IF EXISTS {name}_{operation}{on_table}", params=None)
    if is_postgresql:
        schema_editor.execute("DROP FUNCTION IF EXISTS phi_oidc_audit_refuse()", params=None)


HOLD_GUARDS = {
    # Only holds without an end: the clock of the database is not that of the application.
    "phi_oidc_claim_held": ("storedclaim", "OLD.held_until > '9999-12-30'"),
    "phi_oidc_hold_active": (
        "legalhold",
        "OLD.released_at IS NULL AND OLD.until IS NULL AND OLD.subject_id IS NOT NULL",
    ),
}
"""Triggers that refuse DELETE: the table, and the condition. The application releases the hold first."""
HOLD_REFUSAL = "a legal hold keeps this row: release it first"
CREATE_HOLD_FUNCTION = f"""
CREATE FUNCTION phi_oidc_hold_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '{HOLD_REFUSAL}' USING ERRCODE = 'restrict_violation';
END
$$
"""


def create_hold_guards(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    is_postgresql = schema_editor.connection.vendor == "postgresql"
    if is_postgresql:
        schema_editor.execute(CREATE_HOLD_FUNCTION, params=None)
    for name, (table, condition) in HOLD_GUARDS.items():
        full = f"django_phi_oidc_{table}"
        if is_postgresql:
            schema_editor.execute(
                f"CREATE TRIGGER {name} BEFORE DELETE ON {full} FOR EACH ROW WHEN ({condition}) "
                "EXECUTE FUNCTION phi_oidc_hold_refuse()",
                params=None,
            )
        else:
            schema_editor.execute(
                f"CREATE TRIGGER {name} BEFORE DELETE ON {full} WHEN {condition} "
                f"BEGIN SELECT RAISE(ABORT, '{HOLD_REFUSAL}'); END",
                params=None,
            )


def drop_hold_guards(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    is_postgresql = schema_editor.connection.vendor == "postgresql"
    for name, (table, _) in HOLD_GUARDS.items():
        on_table = f" ON django_phi_oidc_{table}" if is_postgresql else ""
        schema_editor.execute(f"DROP TRIGGER IF EXISTS {name}{on_table}", params=None)
    if is_postgresql:
        schema_editor.execute("DROP FUNCTION IF EXISTS phi_oidc_hold_refuse()", params=None)


class Migration(migrations.Migration):
    dependencies = [("django_phi_oidc", "0001_initial")]

    operations = [
        migrations.RunPython(create, drop, hints={"model_name": "auditevent"}),
        migrations.RunPython(create_hold_guards, drop_hold_guards, hints={"model_name": "storedclaim"}),
    ]

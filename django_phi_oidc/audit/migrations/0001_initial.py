"""The tables of the audit log, and triggers that keep it append-only and queue each new event for the sequencer.

Events, leaves, tree nodes and checkpoints refuse UPDATE, DELETE and TRUNCATE. On SQLite, INSERT OR REPLACE deletes the
old row without running the other triggers, so a BEFORE INSERT trigger refuses a key or a rowid that exists. A later
migration that alters one of these tables on SQLite recreates the table, and must recreate its triggers.
On PostgreSQL the triggers are ENABLE ALWAYS, so that session_replication_role does not switch them off.

The queue is filled in the transaction that inserts the event, so no event is missed, in any order of commits.
"""

from collections.abc import Iterator

from django.db import migrations, models
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
NAMES = {table: f"phi_oidc_{table}_refuse" for table in UNIQUE_COLUMNS} | {
    "auditevent": "phi_oidc_audit_refuse"
}
CREATE_QUEUE = {
    "postgresql": (
        # SECURITY DEFINER: a writer of events needs no right on the queue. The schemas are spelled out, so that neither a
        # temporary table nor an operator of the writer is used. A time that Python cannot represent would make pages
        # and exports of the log unreadable.
        """
        DO $do$ BEGIN EXECUTE format($body$
            CREATE FUNCTION phi_oidc_audit_queue() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
            BEGIN
                IF NEW.occurred_at OPERATOR(pg_catalog.<) '0001-01-02 00:00:00+00'::pg_catalog.timestamptz
                    OR NEW.occurred_at OPERATOR(pg_catalog.>) '9999-12-30 00:00:00+00'::pg_catalog.timestamptz
                THEN
                    RAISE EXCEPTION 'this is no time of an event' USING ERRCODE = 'check_violation';
                END IF;
                INSERT INTO %I.phi_oidc_audit_auditunsealed (event_id) VALUES (NEW.id);
                RETURN NULL;
            END
            $$
        $body$, (SELECT nspname FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid
            WHERE c.oid = 'phi_oidc_audit_auditunsealed'::regclass));
        END $do$
        """,
        """
        CREATE TRIGGER phi_oidc_audit_queue AFTER INSERT ON phi_oidc_audit_auditevent
        FOR EACH ROW EXECUTE FUNCTION phi_oidc_audit_queue()
        """,
        "ALTER TABLE phi_oidc_audit_auditevent ENABLE ALWAYS TRIGGER phi_oidc_audit_queue",
        # Otherwise any role fills the queue by a trigger of its own temporary table.
        "REVOKE ALL ON FUNCTION phi_oidc_audit_queue(), phi_oidc_audit_refuse() FROM PUBLIC",
    ),
    "sqlite": (
        """
        CREATE TRIGGER phi_oidc_audit_queue AFTER INSERT ON phi_oidc_audit_auditevent
        BEGIN
            INSERT INTO phi_oidc_audit_auditunsealed (event_id) VALUES (NEW.id);
        END
        """,
    ),
}
DROP_QUEUE = {
    "postgresql": (
        "DROP TRIGGER IF EXISTS phi_oidc_audit_queue ON phi_oidc_audit_auditevent",
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
    name, full = NAMES[table], f"phi_oidc_audit_{table}"
    for operation, scope in (("update", "ROW"), ("delete", "ROW"), ("truncate", "STATEMENT")):
        yield (
            f"CREATE TRIGGER {name}_{operation} BEFORE {operation.upper()} ON {full} "
            f"FOR EACH {scope} EXECUTE FUNCTION phi_oidc_audit_refuse()"
        )
        yield f"ALTER TABLE {full} ENABLE ALWAYS TRIGGER {name}_{operation}"


def create_refusals_sqlite(table: str) -> Iterator[str]:
    """Yield the statements that make SQLite refuse to change that table."""
    name, full = NAMES[table], f"phi_oidc_audit_{table}"
    exists = " OR ".join((*UNIQUE_COLUMNS[table], "rowid = NEW.rowid"))
    for operation, timing in (
        ("update", f"UPDATE ON {full}"),
        ("delete", f"DELETE ON {full}"),
        ("replace", f"INSERT ON {full} WHEN EXISTS (SELECT 1 FROM {full} WHERE {exists})"),  # noqa: S608 -- constants
    ):
        refusal = f"RAISE(ABORT, 'audit events are never changed or deleted: {operation.upper()} refused')"
        yield f"CREATE TRIGGER {name}_{operation} BEFORE {timing} BEGIN SELECT {refusal}; END"


def create_triggers(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
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


def drop_triggers(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    vendor = schema_editor.connection.vendor
    is_postgresql = vendor == "postgresql"
    with schema_editor.connection.cursor() as cursor:
        if is_postgresql:
            # No event can be written between this check and the drop.
            cursor.execute("LOCK TABLE phi_oidc_audit_auditevent IN ACCESS EXCLUSIVE MODE")
        for table in ("auditevent", "auditleaf"):
            cursor.execute(f"SELECT 1 FROM phi_oidc_audit_{table} LIMIT 1")  # noqa: S608 -- constants
            if cursor.fetchone() is not None:
                raise IrreversibleError(
                    "The audit log holds events: its triggers stay, and this migration is not reversed. "
                    "To give up the log, archive it and drop its tables by hand."
                )
    for statement in DROP_QUEUE[vendor]:
        schema_editor.execute(statement, params=None)
    for table, name in NAMES.items():
        for operation in ("update", "delete", "truncate" if is_postgresql else "replace"):
            on_table = f" ON phi_oidc_audit_{table}" if is_postgresql else ""
            schema_editor.execute(
                f"DROP TRIGGER IF EXISTS {name}_{operation}{on_table}", params=None
            )
    if is_postgresql:
        schema_editor.execute("DROP FUNCTION IF EXISTS phi_oidc_audit_refuse()", params=None)


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="ArchiveFile",
            fields=[
                (
                    "sha256",
                    models.CharField(
                        editable=False, max_length=64, primary_key=True, serialize=False
                    ),
                ),
                ("name", models.CharField(max_length=255)),
                ("first_leaf", models.BigIntegerField()),
                ("tree_size", models.BigIntegerField()),
                ("first_id", models.UUIDField()),
                ("last_id", models.UUIDField()),
                ("restore_events", models.JSONField(default=list)),
            ],
            options={
                "verbose_name": "archive of the audit log",
                "verbose_name_plural": "archives of the audit log",
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="AuditNode",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "level",
                        "node_index",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("level", models.PositiveSmallIntegerField()),
                ("node_index", models.BigIntegerField()),
                ("node_hash", models.BinaryField(max_length=32)),
            ],
            options={
                "verbose_name": "node of the log",
                "verbose_name_plural": "nodes of the log",
                "abstract": False,
                "default_permissions": (),
                "base_manager_name": "objects",
            },
        ),
        migrations.CreateModel(
            name="AuditOutbox",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("event", models.TextField()),
            ],
            options={
                "verbose_name": "event in the outbox",
                "verbose_name_plural": "events in the outbox",
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="AuditUnsealed",
            fields=[
                ("event_id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("refused", models.BooleanField(db_default=False)),
            ],
            options={
                "verbose_name": "unsealed event",
                "verbose_name_plural": "unsealed events",
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="SetAsideEvent",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("event_id", models.UUIDField(editable=False, verbose_name="event")),
                (
                    "reader",
                    models.CharField(editable=False, max_length=128, verbose_name="reader"),
                ),
                ("error", models.CharField(editable=False, max_length=64, verbose_name="error")),
                (
                    "set_aside_at",
                    models.DateTimeField(editable=False, verbose_name="set aside at"),
                ),
                ("tried_at", models.DateTimeField(editable=False, verbose_name="last tried at")),
            ],
            options={
                "verbose_name": "event set aside",
                "verbose_name_plural": "events set aside",
                "default_permissions": ("view",),
                "constraints": [
                    models.UniqueConstraint(
                        fields=("reader", "event_id"), name="phi_oidc_setasideevent_unique"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="AuditWitness",
            fields=[
                (
                    "origin",
                    models.CharField(
                        editable=False, max_length=255, primary_key=True, serialize=False
                    ),
                ),
                ("note", models.TextField()),
            ],
            options={
                "verbose_name": "witnessed checkpoint",
                "verbose_name_plural": "witnessed checkpoints",
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="LogWitness",
            fields=[
                (
                    "name",
                    models.CharField(
                        editable=False, max_length=64, primary_key=True, serialize=False
                    ),
                ),
                ("origin", models.CharField(blank=True, max_length=255)),
                ("tree_size", models.BigIntegerField(default=0)),
                ("note", models.TextField(blank=True)),
                ("cosigned_at", models.DateTimeField(null=True)),
                ("attempts", models.PositiveIntegerField(default=0)),
                ("due_at", models.DateTimeField()),
                ("last_fault", models.CharField(blank=True, max_length=64)),
                ("failing_since", models.DateTimeField(null=True)),
                ("alert_rule", models.CharField(blank=True, max_length=64)),
                ("alerted_at", models.DateTimeField(null=True)),
            ],
            options={
                "verbose_name": "witness of the audit log",
                "verbose_name_plural": "witnesses of the audit log",
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="VerificationRecord",
            fields=[
                (
                    "name",
                    models.CharField(
                        editable=False, max_length=16, primary_key=True, serialize=False
                    ),
                ),
                ("note", models.TextField()),
            ],
            options={
                "verbose_name": "verification record",
                "verbose_name_plural": "verification records",
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="AuditCheckpoint",
            fields=[
                (
                    "tree_size",
                    models.BigIntegerField(editable=False, primary_key=True, serialize=False),
                ),
                ("root_hash", models.BinaryField(max_length=32)),
                ("epoch", models.PositiveIntegerField()),
                ("sealed_at", models.DateTimeField()),
                ("note", models.TextField()),
            ],
            options={
                "verbose_name": "audit checkpoint",
                "verbose_name_plural": "audit checkpoints",
                "ordering": ("tree_size",),
                "abstract": False,
                "default_permissions": ("view",),
                "base_manager_name": "objects",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("tree_size__gt", 0)),
                        name="phi_oidc_auditcheckpoint_size",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="AuditEvent",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("v", models.PositiveSmallIntegerField()),
                ("mac_key", models.CharField(max_length=8)),
                ("occurred_at", models.DateTimeField()),
                ("action", models.CharField(max_length=256)),
                ("outcome", models.CharField(max_length=8)),
                ("actor", models.CharField(blank=True, max_length=256)),
                ("on_behalf_of", models.CharField(blank=True, max_length=256)),
                ("subject", models.CharField(blank=True, max_length=256)),
                ("provider", models.CharField(blank=True, max_length=256)),
                ("session", models.CharField(blank=True, max_length=256)),
                ("client_ip", models.CharField(blank=True, max_length=256)),
                ("purpose", models.CharField(blank=True, max_length=256)),
                ("resource", models.CharField(blank=True, max_length=256)),
                ("reason", models.CharField(blank=True, max_length=256)),
                ("request_id", models.CharField(blank=True, max_length=256)),
                ("detail", models.TextField(blank=True)),
                ("mac", models.BinaryField(max_length=32)),
            ],
            options={
                "verbose_name": "audit event",
                "verbose_name_plural": "audit events",
                "ordering": ("id",),
                "permissions": (
                    ("export_auditevent", "Can export audit events"),
                    ("lookup_auditevent", "Can look up the reference of a refusal"),
                ),
                "abstract": False,
                "default_permissions": ("view",),
                "base_manager_name": "objects",
                "indexes": [
                    models.Index(fields=["action", "id"], name="phi_oidc_audit_action"),
                    models.Index(
                        condition=models.Q(("actor__gt", "")),
                        fields=["actor", "id"],
                        name="phi_oidc_audit_actor",
                    ),
                    models.Index(
                        condition=models.Q(("on_behalf_of__gt", "")),
                        fields=["on_behalf_of", "id"],
                        name="phi_oidc_audit_on_behalf_of",
                    ),
                    models.Index(
                        models.Func(
                            "subject",
                            output_field=models.CharField(),
                            template="SUBSTR(%(expressions)s, LENGTH(%(expressions)s) - 6)",
                        ),
                        models.F("id"),
                        condition=models.Q(("subject__gt", "")),
                        name="phi_oidc_audit_subject_end",
                    ),
                    models.Index(
                        condition=models.Q(("resource__gt", "")),
                        fields=["resource", "id"],
                        name="phi_oidc_audit_resource",
                    ),
                    models.Index(
                        models.Func(
                            "session",
                            output_field=models.CharField(),
                            template="SUBSTR(%(expressions)s, LENGTH(%(expressions)s) - 6)",
                        ),
                        models.F("id"),
                        condition=models.Q(("session__gt", "")),
                        name="phi_oidc_audit_session_end",
                    ),
                    models.Index(
                        condition=models.Q(("outcome__lt", "success")),
                        fields=["outcome", "id"],
                        name="phi_oidc_audit_outcome",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="AuditLeaf",
            fields=[
                (
                    "leaf_index",
                    models.BigIntegerField(editable=False, primary_key=True, serialize=False),
                ),
                ("event_id", models.UUIDField(unique=True)),
                ("leaf_hash", models.BinaryField(max_length=32)),
            ],
            options={
                "verbose_name": "leaf of the log",
                "verbose_name_plural": "leaves of the log",
                "ordering": ("leaf_index",),
                "abstract": False,
                "default_permissions": (),
                "base_manager_name": "objects",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("leaf_index__gte", 0)), name="phi_oidc_auditleaf_index"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Cosignature",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("witness", models.CharField(max_length=64)),
                ("origin", models.CharField(max_length=255)),
                ("tree_size", models.BigIntegerField()),
                ("note", models.TextField()),
                ("line", models.TextField()),
            ],
            options={
                "verbose_name": "cosignature",
                "verbose_name_plural": "cosignatures",
                "default_permissions": (),
                "constraints": [
                    models.UniqueConstraint(
                        fields=("tree_size", "origin", "witness"),
                        name="phi_oidc_cosignature_unique",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="RecordedConfiguration",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("component", models.CharField(max_length=64)),
                ("digest", models.CharField(max_length=64)),
                ("content", models.TextField()),
                ("number", models.PositiveIntegerField(default=0)),
                ("seen_at", models.DateTimeField()),
            ],
            options={
                "verbose_name": "recorded configuration",
                "verbose_name_plural": "recorded configurations",
                "default_permissions": (),
                "constraints": [
                    models.UniqueConstraint(
                        fields=("component", "digest"), name="phi_oidc_configuration_unique"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="RefusalCount",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("minute", models.DateTimeField()),
                ("reason", models.CharField(max_length=64)),
                ("network", models.CharField(max_length=64)),
                ("count", models.PositiveBigIntegerField()),
            ],
            options={
                "verbose_name": "refusal count",
                "verbose_name_plural": "refusal counts",
                "default_permissions": (),
                "constraints": [
                    models.UniqueConstraint(
                        fields=("minute", "reason", "network"), name="phi_oidc_refusalcount_unique"
                    )
                ],
            },
        ),
        migrations.RunPython(create_triggers, drop_triggers, hints={"model_name": "auditevent"}),
    ]

"""The log that the trail is sealed in, the indexes of its pages, and the counts of refusals.

A trigger queues each new event for the sealer, in the event's own transaction and whoever writes it, so that none is
missed, in whatever order transactions commit, and a restored database goes on. The new tables of the log refuse UPDATE,
DELETE and TRUNCATE as the events do, on SQLite REPLACE too.
"""

from collections.abc import Iterator

from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.exceptions import IrreversibleError
from django.db.migrations.state import StateApps

KEYS = {"auditleaf": ("leaf_index", "event_id"), "auditnode": (), "auditcheckpoint": ("tree_size",)}
"""The tables that nothing is changed in, and the columns by which one row could take the place of another."""
QUEUE = {
    "postgresql": (
        # With the owner's rights, so that a writer needs none on the queue; by the table's full name, so that no
        # temporary table of a writer's takes the row.
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
UNQUEUE = {
    "postgresql": (
        "DROP TRIGGER IF EXISTS phi_oidc_audit_queue ON django_phi_oidc_auditevent",
        "DROP FUNCTION IF EXISTS phi_oidc_audit_queue()",
    ),
    "sqlite": ("DROP TRIGGER IF EXISTS phi_oidc_audit_queue",),
}
CATCH_UP = "INSERT INTO django_phi_oidc_auditunsealed (event_id) SELECT id FROM django_phi_oidc_auditevent"


def refusals(vendor: str, table: str) -> Iterator[str]:
    """Yield what makes the database refuse to change that table. PostgreSQL: by the function of 0002."""
    name, full = f"phi_oidc_{table}_refuse", f"django_phi_oidc_{table}"
    for operation in ("update", "delete"):
        head = f"CREATE TRIGGER {name}_{operation} BEFORE {operation.upper()} ON {full}"
        if vendor == "postgresql":
            yield f"{head} FOR EACH ROW EXECUTE FUNCTION phi_oidc_audit_refuse()"
            yield f"ALTER TABLE {full} ENABLE ALWAYS TRIGGER {name}_{operation}"
        else:
            yield f"{head} BEGIN SELECT RAISE(ABORT, 'the log is never changed: {operation.upper()} refused'); END"
    if vendor == "postgresql":
        yield (
            f"CREATE TRIGGER {name}_truncate BEFORE TRUNCATE ON {full} "
            "FOR EACH STATEMENT EXECUTE FUNCTION phi_oidc_audit_refuse()"
        )
        yield f"ALTER TABLE {full} ENABLE ALWAYS TRIGGER {name}_truncate"
    else:
        taken = " OR ".join(f"{column} = NEW.{column}" for column in (*KEYS[table], "rowid"))
        taken += " OR (level = NEW.level AND node_index = NEW.node_index)" if table == "auditnode" else ""
        head = f"CREATE TRIGGER {name}_replace BEFORE INSERT ON {full}"
        when = f"WHEN EXISTS (SELECT 1 FROM {full} WHERE {taken})"  # noqa: S608 -- the names above
        yield f"{head} {when} BEGIN SELECT RAISE(ABORT, 'the log is never changed: REPLACE refused'); END"


def lifted(vendor: str, table: str) -> Iterator[str]:
    """Yield what drops them."""
    for operation in ("update", "delete", "truncate" if vendor == "postgresql" else "replace"):
        of_table = f" ON django_phi_oidc_{table}" if vendor == "postgresql" else ""
        yield f"DROP TRIGGER IF EXISTS phi_oidc_{table}_refuse_{operation}{of_table}"


def create(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    vendor = schema_editor.connection.vendor
    for statement in (
        *(statement for table in KEYS for statement in refusals(vendor, table)),
        *QUEUE[vendor],
        CATCH_UP,
    ):
        schema_editor.execute(statement, params=None)


def drop(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    vendor = schema_editor.connection.vendor
    with schema_editor.connection.cursor() as cursor:
        if vendor == "postgresql":
            # Nobody writes an event between the look and the drop.
            cursor.execute("LOCK TABLE django_phi_oidc_auditevent IN ACCESS EXCLUSIVE MODE")
        for table in ("auditevent", "auditleaf"):
            cursor.execute(f"SELECT 1 FROM django_phi_oidc_{table} LIMIT 1")  # noqa: S608 -- the names above
            if cursor.fetchone() is not None:
                raise IrreversibleError(
                    "The audit trail holds events: its log and its triggers stay, and this migration is not reversed."
                )
    for statement in (*UNQUEUE[vendor], *(statement for table in KEYS for statement in lifted(vendor, table))):
        schema_editor.execute(statement, params=None)


class Migration(migrations.Migration):
    dependencies = [
        ("django_phi_oidc", "0003_pairwise_identifiers"),
    ]

    operations = [
        migrations.CreateModel(
            name="AuditCheckpoint",
            fields=[
                ("tree_size", models.BigIntegerField(editable=False, primary_key=True, serialize=False)),
                ("root_hash", models.BinaryField(max_length=32)),
                ("epoch", models.PositiveIntegerField()),
                ("sealed_at", models.DateTimeField()),
                ("note", models.TextField()),
            ],
            options={
                "ordering": ("tree_size",),
                "abstract": False,
                "default_permissions": ("view",),
                "base_manager_name": "objects",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("tree_size__gt", 0)), name="phi_oidc_auditcheckpoint_size"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="AuditLeaf",
            fields=[
                ("leaf_index", models.BigIntegerField(editable=False, primary_key=True, serialize=False)),
                ("event_id", models.UUIDField(unique=True)),
                ("leaf_hash", models.BinaryField(max_length=32)),
            ],
            options={
                "ordering": ("leaf_index",),
                "abstract": False,
                "default_permissions": (),
                "base_manager_name": "objects",
                "constraints": [
                    models.CheckConstraint(condition=models.Q(("leaf_index__gte", 0)), name="phi_oidc_auditleaf_index")
                ],
            },
        ),
        migrations.CreateModel(
            name="AuditNode",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "level", "node_index", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("level", models.PositiveSmallIntegerField()),
                ("node_index", models.BigIntegerField()),
                ("node_hash", models.BinaryField(max_length=32)),
            ],
            options={
                "abstract": False,
                "default_permissions": (),
                "base_manager_name": "objects",
            },
        ),
        migrations.CreateModel(
            name="AuditUnsealed",
            fields=[
                ("event_id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("refused", models.BooleanField(db_default=False)),
            ],
            options={
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="AuditWitness",
            fields=[
                ("origin", models.CharField(editable=False, max_length=255, primary_key=True, serialize=False)),
                ("note", models.TextField()),
            ],
            options={
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="RefusalCount",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("minute", models.DateTimeField()),
                ("reason", models.CharField(max_length=64)),
                ("network", models.CharField(max_length=64)),
                ("count", models.PositiveBigIntegerField()),
            ],
            options={
                "default_permissions": (),
            },
        ),
        migrations.AddIndex(
            model_name="auditevent",
            index=models.Index(fields=["action", "id"], name="phi_oidc_audit_action"),
        ),
        migrations.AddIndex(
            model_name="auditevent",
            index=models.Index(
                condition=models.Q(("actor__gt", "")), fields=["actor", "id"], name="phi_oidc_audit_actor"
            ),
        ),
        migrations.AddIndex(
            model_name="auditevent",
            index=models.Index(
                condition=models.Q(("subject__gt", "")), fields=["subject", "id"], name="phi_oidc_audit_subject"
            ),
        ),
        migrations.AddIndex(
            model_name="auditevent",
            index=models.Index(
                condition=models.Q(("session__gt", "")), fields=["session", "id"], name="phi_oidc_audit_session"
            ),
        ),
        migrations.AddIndex(
            model_name="auditevent",
            index=models.Index(
                condition=models.Q(("outcome__lt", "success")), fields=["outcome", "id"], name="phi_oidc_audit_outcome"
            ),
        ),
        migrations.AddConstraint(
            model_name="refusalcount",
            constraint=models.UniqueConstraint(
                fields=("minute", "reason", "network"), name="phi_oidc_refusalcount_unique"
            ),
        ),
        migrations.RunPython(create, drop, hints={"model_name": "auditevent"}),
    ]

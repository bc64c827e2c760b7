"""Index the ends of subjects and sessions in events instead of the texts: these indexes are half as large.

On PostgreSQL they are created while others write, also with partitions. A statement that must lock others out waits
only LOCK_SECONDS for each lock, and MAX_SECONDS for all, because others wait behind it; then it gives up, and is tried
again. An interrupted migration can be repeated, and keeps what is complete.
"""

from time import sleep

from django.db import OperationalError, migrations, models, transaction
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

TABLE = "django_phi_oidc_auditevent"
COLUMNS = ("subject", "session")
END_SQL = "SUBSTR({0}, LENGTH({0}) - 6)"
LOCK_SECONDS, MAX_SECONDS, ATTEMPTS = 0.2, 1.0, 100
TIMEOUT_STATES = ("55P03", "57014")
"""The SQLSTATEs of lock_timeout and statement_timeout."""
TIMEOUTS_SQL = "SELECT set_config('lock_timeout', %s, true), set_config('statement_timeout', %s, true)"
IS_PARTITIONED_SQL = "SELECT relkind::text FROM pg_catalog.pg_class WHERE oid = %s::regclass AND relkind = 'p'"
IS_VALID_SQL = "SELECT 1 FROM pg_catalog.pg_index WHERE indexrelid = pg_catalog.to_regclass(%s) AND indisvalid"
UNINDEXED_PARTITIONS_SQL = """
    SELECT c.relname FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = %s::regclass AND c.relispartition AND NOT EXISTS (
        SELECT 1 FROM pg_catalog.pg_inherits part JOIN pg_catalog.pg_index x ON x.indexrelid = part.inhrelid
        WHERE part.inhparent = %s::regclass AND x.indrelid = c.oid)
    ORDER BY c.relname"""


def index_ends(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    for column in COLUMNS:
        create_index(schema_editor, f"phi_oidc_audit_{column}_end", END_SQL.format(column), column)
        drop_index(schema_editor, f"phi_oidc_audit_{column}")


def index_texts(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    for column in COLUMNS:
        create_index(schema_editor, f"phi_oidc_audit_{column}", column, column)
        drop_index(schema_editor, f"phi_oidc_audit_{column}_end")


def create_index(schema_editor: BaseDatabaseSchemaEditor, name: str, expression: str, column: str) -> None:
    parts = f"({expression}, id) WHERE {column} > ''"
    if schema_editor.connection.vendor != "postgresql":
        schema_editor.execute(f"CREATE INDEX IF NOT EXISTS {name} ON {TABLE} {parts}", params=None)
        return
    if not is_partitioned(schema_editor):
        create_concurrently(schema_editor, name, f"{TABLE} {parts}")
        return
    execute_with_short_locks(schema_editor, f"CREATE INDEX IF NOT EXISTS {name} ON ONLY {TABLE} {parts}")
    # A partition that is created from now on has this index.
    for (partition,) in fetch(schema_editor, UNINDEXED_PARTITIONS_SQL, TABLE, name):
        part = f"{partition}_{name.removeprefix('phi_oidc_audit_')}"
        create_concurrently(schema_editor, part, f"{partition} {parts}")
        execute_with_short_locks(schema_editor, f"ALTER INDEX {name} ATTACH PARTITION {part}")


def create_concurrently(schema_editor: BaseDatabaseSchemaEditor, name: str, definition: str) -> None:
    if not fetch(schema_editor, IS_VALID_SQL, name):
        schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}", params=None)
        schema_editor.execute(f"CREATE INDEX CONCURRENTLY {name} ON {definition}", params=None)


def drop_index(schema_editor: BaseDatabaseSchemaEditor, name: str) -> None:
    if schema_editor.connection.vendor != "postgresql":
        schema_editor.execute(f"DROP INDEX IF EXISTS {name}", params=None)
    elif is_partitioned(schema_editor):
        execute_with_short_locks(schema_editor, f"DROP INDEX IF EXISTS {name}")
    else:
        schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}", params=None)


def is_partitioned(schema_editor: BaseDatabaseSchemaEditor) -> bool:
    return bool(fetch(schema_editor, IS_PARTITIONED_SQL, TABLE))


def fetch(schema_editor: BaseDatabaseSchemaEditor, statement: str, *values: str) -> list[tuple[str]]:
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall())


def execute_with_short_locks(schema_editor: BaseDatabaseSchemaEditor, statement: str) -> None:
    timeouts = [str(round(seconds * 1000)) for seconds in (LOCK_SECONDS, MAX_SECONDS)]
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with transaction.atomic(using=schema_editor.connection.alias, durable=True):
                with schema_editor.connection.cursor() as cursor:
                    cursor.execute(TIMEOUTS_SQL, timeouts)
                schema_editor.execute(statement, params=None)
        except OperationalError as error:
            if getattr(error.__cause__, "sqlstate", "") not in TIMEOUT_STATES or attempt == ATTEMPTS:
                raise
            sleep(LOCK_SECONDS)
        else:
            return


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("django_phi_oidc", "0014_scim")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunPython(index_ends, index_texts, hints={"model_name": "auditevent"})],
            state_operations=[
                *(migrations.RemoveIndex("auditevent", f"phi_oidc_audit_{column}") for column in COLUMNS),
                *(
                    migrations.AddIndex(
                        "auditevent",
                        models.Index(
                            models.Func(
                                column, template=END_SQL.format("%(expressions)s"), output_field=models.CharField()
                            ),
                            "id",
                            name=f"phi_oidc_audit_{column}_end",
                            condition=models.Q((f"{column}__gt", "")),
                        ),
                    )
                    for column in COLUMNS
                ),
            ],
        )
    ]

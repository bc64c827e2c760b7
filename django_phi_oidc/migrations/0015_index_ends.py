"""Index the ends of ids in events instead of the ids: the indexes are half as large.

On PostgreSQL they are created while others write, also with partitions. An interrupted migration can be repeated.
"""

from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

import django_phi_oidc.audit.models

TABLE = "django_phi_oidc_auditevent"
COLUMNS = ("actor", "subject", "resource", "session")
PARTITIONS_SQL = """
    SELECT c.relname FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = %s::regclass AND c.relispartition ORDER BY c.relname"""


def index_ends(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    function = "RIGHT({}, 7)" if schema_editor.connection.vendor == "postgresql" else "SUBSTR({}, -7)"
    for column in COLUMNS:
        create_index(schema_editor, f"phi_oidc_audit_{column}_end", function.format(column), column)
        drop_index(schema_editor, f"phi_oidc_audit_{column}")


def index_texts(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    for column in COLUMNS:
        create_index(schema_editor, f"phi_oidc_audit_{column}", column, column)
        drop_index(schema_editor, f"phi_oidc_audit_{column}_end")


def create_index(schema_editor: BaseDatabaseSchemaEditor, name: str, expression: str, column: str) -> None:
    parts = f"({expression}, id) WHERE {column} > ''"
    partitions = list_partitions(schema_editor)
    drop_index(schema_editor, name)
    if partitions is None:
        concurrently = "CONCURRENTLY " if schema_editor.connection.vendor == "postgresql" else ""
        schema_editor.execute(f"CREATE INDEX {concurrently}{name} ON {TABLE} {parts}", params=None)
        return
    schema_editor.execute(f"CREATE INDEX {name} ON ONLY {TABLE} {parts}", params=None)
    for partition in partitions:
        part = f"{partition}_{name.removeprefix('phi_oidc_audit_')}"
        # An interrupted run leaves one that is not attached.
        schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {part}", params=None)
        schema_editor.execute(f"CREATE INDEX CONCURRENTLY {part} ON {partition} {parts}", params=None)
        schema_editor.execute(f"ALTER INDEX {name} ATTACH PARTITION {part}", params=None)


def drop_index(schema_editor: BaseDatabaseSchemaEditor, name: str) -> None:
    is_plain = schema_editor.connection.vendor == "postgresql" and list_partitions(schema_editor) is None
    schema_editor.execute(f"DROP INDEX {'CONCURRENTLY ' if is_plain else ''}IF EXISTS {name}", params=None)


def list_partitions(schema_editor: BaseDatabaseSchemaEditor) -> list[str] | None:
    """Return the partitions of the events; None if the table has none."""
    if schema_editor.connection.vendor != "postgresql":
        return None
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(PARTITIONS_SQL, [TABLE])
        return [name for (name,) in cursor.fetchall()] or None


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
                            django_phi_oidc.audit.models.TextEnd(column),
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

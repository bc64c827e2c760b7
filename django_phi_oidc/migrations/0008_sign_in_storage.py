"""Drop the indexes that each sign-in writes and no query uses, and make two others partial.

The indexes of columns are dropped by their names, because `AlterField` would make SQLite create the tables again,
without their triggers.
"""

import uuid
from collections.abc import Iterator
from typing import Any

import django.db.models.deletion
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

DROPPED = (
    ("oidcsession", "session_key_digest"),
    ("storedclaim", "session"),
    ("storedclaim", "subject"),
    ("subjectdigest", "key_id"),
    # On PostgreSQL only, the second index of the primary key, for LIKE.
    ("usedidentifier", "digest"),
)


def iter_fields(apps: StateApps) -> Iterator[tuple[Any, Any]]:
    for model_name, field_name in DROPPED:
        model = apps.get_model("django_phi_oidc", model_name)
        yield model, model._meta.get_field(field_name)


def drop_indexes(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    connection = schema_editor.connection
    for model, field in iter_fields(apps):
        with connection.cursor() as cursor:
            constraints = connection.introspection.get_constraints(cursor, model._meta.db_table)
        for name, constraint in constraints.items():
            if constraint["columns"] == [field.column] and constraint["index"] and not constraint["unique"]:
                schema_editor.execute(f"DROP INDEX {connection.ops.quote_name(name)}", params=None)


def create_indexes(apps: StateApps, schema_editor: Any) -> None:
    for model, field in iter_fields(apps):
        for statement in schema_editor._field_indexes_sql(model, field):
            schema_editor.execute(statement)


class Migration(migrations.Migration):
    dependencies = [("django_phi_oidc", "0007_reference_lookup")]

    operations = [
        migrations.RunPython(drop_indexes, create_indexes, hints={"model_name": "oidcsession"}),
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.AlterField("oidcsession", "session_key_digest", models.CharField(max_length=64)),
                migrations.AlterField(
                    "storedclaim", "session", models.UUIDField(default=uuid.UUID(int=0), verbose_name="session")
                ),
                migrations.AlterField(
                    "storedclaim",
                    "subject",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="claims",
                        to="django_phi_oidc.pairwisesubject",
                        verbose_name="subject",
                    ),
                ),
                migrations.AlterField("subjectdigest", "key_id", models.CharField(max_length=8)),
            ]
        ),
        migrations.RemoveIndex("oidcsession", "phi_oidc_session_sid"),
        migrations.AddIndex(
            "oidcsession",
            models.Index(
                condition=models.Q(("ended_at", None), ("sid_digest__gt", "")),
                fields=["sid_digest"],
                name="phi_oidc_session_sid",
            ),
        ),
        migrations.AddIndex(
            "storedclaim",
            models.Index(
                condition=models.Q(("session", uuid.UUID(int=0)), _negated=True),
                fields=["session"],
                name="phi_oidc_claim_session",
            ),
        ),
        migrations.AddIndex("subjectdigest", models.Index(fields=["key_id"], name="phi_oidc_subject_digest_key")),
    ]

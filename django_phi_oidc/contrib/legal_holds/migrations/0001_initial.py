"""Legal holds. Triggers refuse DELETE of claims on a hold without an end, and of such holds.

A hold with an end is guarded by the ORM only.
"""

import django.db.models.deletion
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

HOLD_GUARDS = {
    # Only holds without an end: the clock of the database is not that of the application.
    "phi_oidc_claim_held": ("django_phi_oidc_storedclaim", "OLD.held_until > '9999-12-30'"),
    "phi_oidc_hold_active": (
        "phi_oidc_legal_holds_legalhold",
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
        if is_postgresql:
            schema_editor.execute(
                f"CREATE TRIGGER {name} BEFORE DELETE ON {table} FOR EACH ROW WHEN ({condition}) "
                "EXECUTE FUNCTION phi_oidc_hold_refuse()",
                params=None,
            )
        else:
            schema_editor.execute(
                f"CREATE TRIGGER {name} BEFORE DELETE ON {table} WHEN {condition} "
                f"BEGIN SELECT RAISE(ABORT, '{HOLD_REFUSAL}'); END",
                params=None,
            )


def drop_hold_guards(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    is_postgresql = schema_editor.connection.vendor == "postgresql"
    for name, (table, _) in HOLD_GUARDS.items():
        on_table = f" ON {table}" if is_postgresql else ""
        schema_editor.execute(f"DROP TRIGGER IF EXISTS {name}{on_table}", params=None)
    if is_postgresql:
        schema_editor.execute("DROP FUNCTION IF EXISTS phi_oidc_hold_refuse()", params=None)


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("django_phi_oidc", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="LegalHold",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        editable=False, primary_key=True, serialize=False, verbose_name="id"
                    ),
                ),
                ("reason", models.CharField(max_length=255, verbose_name="reason")),
                ("placed_at", models.DateTimeField(editable=False, verbose_name="placed at")),
                (
                    "placed_by",
                    models.CharField(editable=False, max_length=255, verbose_name="placed by"),
                ),
                ("until", models.DateTimeField(blank=True, null=True, verbose_name="until")),
                (
                    "released_at",
                    models.DateTimeField(editable=False, null=True, verbose_name="released at"),
                ),
                (
                    "released_by",
                    models.CharField(
                        default="", editable=False, max_length=255, verbose_name="released by"
                    ),
                ),
                (
                    "suspended_until",
                    models.DateTimeField(
                        blank=True, null=True, verbose_name="accounting suspended until"
                    ),
                ),
                (
                    "suspended_purposes",
                    models.JSONField(
                        blank=True, default=list, verbose_name="purposes of these disclosures"
                    ),
                ),
                (
                    "agency",
                    models.CharField(blank=True, max_length=255, verbose_name="agency or official"),
                ),
                (
                    "oral_statement_at",
                    models.DateTimeField(blank=True, null=True, verbose_name="oral statement of"),
                ),
                (
                    "subject",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="holds",
                        to="django_phi_oidc.pairwisesubject",
                        verbose_name="subject",
                    ),
                ),
            ],
            options={
                "verbose_name": "legal hold",
                "verbose_name_plural": "legal holds",
                "permissions": (("disclose_legalhold", "Can see what a legal hold keeps"),),
                "default_permissions": ("view", "add", "change"),
            },
        ),
        migrations.RunPython(
            create_hold_guards, drop_hold_guards, hints={"model_name": "legalhold"}
        ),
    ]

from django.db import migrations, models

import django_phi_oidc.fields


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="AccountingCopy",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                (
                    "account",
                    models.CharField(editable=False, max_length=255, verbose_name="account"),
                ),
                ("sha256", models.CharField(editable=False, max_length=64, verbose_name="SHA-256")),
                ("count", models.PositiveIntegerField(editable=False, verbose_name="lines")),
                ("lines", django_phi_oidc.fields.SealedTextField(bind=("id", "account", "sha256"))),
                (
                    "first_given_at",
                    models.DateTimeField(editable=False, verbose_name="first given at"),
                ),
                (
                    "last_given_at",
                    models.DateTimeField(
                        db_index=True, editable=False, verbose_name="last given at"
                    ),
                ),
            ],
            options={
                "verbose_name": "accounting of disclosures",
                "verbose_name_plural": "accountings of disclosures",
                "default_permissions": ("view",),
                "indexes": [
                    models.Index(fields=["account", "sha256"], name="phi_oidc_accounting_copy")
                ],
            },
        ),
        migrations.CreateModel(
            name="DisclosureRecipient",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("account", models.CharField(max_length=255)),
                ("recorded_at", models.DateTimeField()),
                (
                    "identity",
                    django_phi_oidc.fields.SealedTextField(bind=("id", "account", "recorded_at")),
                ),
            ],
            options={
                "verbose_name": "recipient of disclosures",
                "verbose_name_plural": "recipients of disclosures",
                "abstract": False,
                "default_permissions": (),
                "base_manager_name": "objects",
                "indexes": [
                    models.Index(
                        fields=["account", "recorded_at"], name="phi_oidc_recipient_account"
                    )
                ],
            },
        ),
    ]

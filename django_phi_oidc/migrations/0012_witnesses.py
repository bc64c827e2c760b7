"""Add the tables of witnesses and of their cosignatures."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("django_phi_oidc", "0011_verification_record"),
    ]

    operations = [
        migrations.CreateModel(
            name="LogWitness",
            fields=[
                ("name", models.CharField(editable=False, max_length=64, primary_key=True, serialize=False)),
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
            name="Cosignature",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
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
                        fields=("tree_size", "origin", "witness"), name="phi_oidc_cosignature_unique"
                    )
                ],
            },
        ),
    ]

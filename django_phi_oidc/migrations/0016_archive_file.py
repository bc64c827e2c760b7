"""Add the table of the archives that were written."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("django_phi_oidc", "0015_index_ends")]

    operations = [
        migrations.CreateModel(
            name="ArchiveFile",
            fields=[
                ("sha256", models.CharField(editable=False, max_length=64, primary_key=True, serialize=False)),
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
    ]
